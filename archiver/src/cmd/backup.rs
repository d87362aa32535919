//! `backup`: a base backup now, through the daemon when it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use walseal_common::config::Config;
use walseal_common::repository::{BaseId, BaseType, Derivation, Label};
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, units};

use crate::alone::{Alone, while_streaming};
use crate::archive::Archive;
use crate::base::BackupMode;
use crate::base_backup::{self, Manner, Means};
use crate::derived_backup;
use crate::socket::{self, Client, Request};
use crate::turns::{Occasion, Report};

/// What `backup` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Store all frames, whatever earlier backups hold
    #[arg(long)]
    full: bool,
    /// Refer to what has not changed since the last backup, even where a full one is due (base.full_every)
    #[arg(long, conflicts_with = "full")]
    incremental: bool,
    /// Of a server that is paused in recovery, from what FILE says of it; published when "publish" comes on standard input.
    /// walseal-restorer drill starts this (drill.make_base)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "incremental"])]
    derived: Option<PathBuf>,
}

impl Arguments {
    fn mode(&self) -> BackupMode {
        match (self.full, self.incremental) {
            (true, _) => BackupMode::Full,
            (_, true) => BackupMode::Incremental,
            _ => BackupMode::Auto,
        }
    }
}

/// Takes the backup and says what it took.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    if let Some(file) = &arguments.derived {
        return derive(file, &archive).await;
    }
    let progress = Progress::new("base backup", None);
    let mut before = 0;
    let shown = progress.clone();
    let report = move |text: &str, done: Option<u64>, total: Option<u64>| {
        if let Some(total) = total {
            shown.set_total(total);
        }
        match done {
            Some(done) => {
                shown.advance(done.saturating_sub(before));
                before = done;
            }
            None => shown.message(text),
        }
    };
    let started = std::time::Instant::now();
    let config = archive.config.clone();
    match take(archive, arguments.mode(), report).await {
        Ok(label) => {
            progress.finish(&format!("{} is complete", label.id));
            show(&config, &label, started.elapsed()).await;
            Ok(())
        }
        Err(failure) => {
            progress.abandon();
            Err(failure)
        }
    }
}

async fn take(
    archive: Archive,
    mode: BackupMode,
    mut report: impl FnMut(&str, Option<u64>, Option<u64>) + Send,
) -> Result<Label, Failure> {
    let state_dir = archive.config.need_state_dir()?;
    if let Some(daemon) = Client::connect(&socket::path(&state_dir)).await {
        let result = daemon
            .ask_until(&Request::Backup { mode }, report, stop_asked("the base backup"))
            .await
            .map_err(|error| Failure::new("take a base backup", error))?;
        return serde_json::from_value(result).map_err(|error| Failure::new("read the daemon's answer", error));
    }
    let manner = Manner::of(&archive.config)?;
    // Without a daemon the backup brings its own WAL, on the same slot.
    while_streaming(&archive, |alone| async {
        let Alone { conninfo, repository, identity, progress, ledger } = alone;
        let keys = archive.keys.clone();
        let means = Means { conninfo, repository, identity, keys, progress, ledger, manner };
        let say = move |told: Report| report(&told.text, told.done, told.total);
        Ok(base_backup::take(&means, Occasion::ByHand, mode, say, stop_asked("the base backup")).await?)
    })
    .await
    .map_err(|error| Failure::new("take a base backup", error))
}

/// Takes a backup of a drill's instance: says its name when all but the label is stored, and waits for the word.
async fn derive(file: &Path, archive: &Archive) -> Result<(), Failure> {
    let read =
        || -> Result<Derivation, Box<dyn std::error::Error>> { Ok(serde_json::from_slice(&std::fs::read(file)?)?) };
    let derivation = read().map_err(|error| Failure::new(format!("read {}", file.display()), error))?;
    let (say, said) = oneshot::channel();
    // Not one of the runtime's threads: those are waited for at the end.
    std::thread::spawn(move || {
        let mut line = String::new();
        let wanted = std::io::stdin().read_line(&mut line).is_ok() && line.trim() == PUBLISH;
        // Nobody hears it where the backup failed by then.
        let _ = say.send(wanted);
    });
    let wanted = async { said.await.unwrap_or(false) };
    let stored = |id: &BaseId| show!("{id}");
    let taken = derived_backup::take(archive, &derivation, stored, wanted).await;
    let label = taken.map_err(|error| Failure::from_error("derive a base backup", &error))?;
    show!("{}", label.id);
    Ok(())
}

/// The word on standard input that makes a derived backup visible.
const PUBLISH: &str = "publish";

/// Returns when a person, or a service manager, asks to stop `what`.
pub(super) async fn stop_asked(what: &str) {
    let handlers = signal(SignalKind::interrupt()).and_then(|one| Ok((one, signal(SignalKind::terminate())?)));
    let Ok((mut interrupt, mut terminate)) = handlers else {
        // Then a signal ends this process, as it does by default.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping {what}");
}

/// Full, or incremental and to what.
fn kind(label: &Label) -> String {
    match (label.kind, &label.parent) {
        (BaseType::Incremental, Some(parent)) if label.native => {
            format!("incremental to {parent}, changed blocks only")
        }
        (BaseType::Incremental, Some(parent)) => format!("incremental to {parent}"),
        (kind, _) => kind.word().to_owned(),
    }
}

fn referenced(label: &Label) -> String {
    match label.referenced_size() {
        0 => String::new(),
        bytes => format!(", {} referenced", units::size(bytes)),
    }
}

async fn show(config: &Config, label: &Label, took: Duration) {
    show!(
        "Base backup {} ({}): {} of cluster in {} ({} stored{}), start {}, consistent from {} on.",
        label.id,
        kind(label),
        units::size(label.cluster_size),
        units::duration(took),
        units::size(label.stored_size),
        referenced(label),
        label.start,
        label.stop,
    );
    if label.suspect > 0 {
        // The daemon needs no password of whoever asks it: without one files stay without names.
        show!("{}.", base_backup::suspicion(config.open_conninfo().ok().as_ref(), label).await);
    }
    show!("A backup is proven only by restoring it: walseal-restorer drill");
}
