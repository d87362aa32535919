//! `backup`: a base backup now, through the daemon when it runs.

use std::sync::Arc;
use std::time::Duration;
use walseal_common::show;

use tokio::sync::watch;
use walseal_common::repository::Label;
use walseal_common::terminal::{Failure, Progress, units};

use crate::archive::Archive;
use crate::base_backup::{self, TakeError};
use crate::daemon;
use crate::index::MemoryIndex;
use crate::socket::{self, Client, Request};
use crate::stream::Streamer;

/// What `backup` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Read the whole cluster (this is what happens without it, too)
    #[arg(long)]
    full: bool,
}

/// Takes the backup and says what it took.
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    tracing::debug!(full = arguments.full, "every backup is full");
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
    match take(archive, report).await {
        Ok(label) => {
            progress.finish(&format!("{} is complete", label.id));
            show(&label, started.elapsed());
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
    mut report: impl FnMut(&str, Option<u64>, Option<u64>) + Send,
) -> Result<Label, Failure> {
    let state_dir = archive.config.need_state_dir()?;
    if let Some(daemon) = Client::connect(&socket::path(&state_dir)).await {
        let result =
            daemon.ask(&Request::Backup, report).await.map_err(|error| Failure::new("take a base backup", error))?;
        return serde_json::from_value(result).map_err(|error| Failure::new("read the daemon's answer", error));
    }
    alone(archive, move |text, done, total| report(&text, done, total))
        .await
        .map_err(|error| Failure::new("take a base backup", error))
}

/// Without a daemon the backup brings its own WAL, on the same slot.
async fn alone(
    archive: Archive,
    report: impl FnMut(String, Option<u64>, Option<u64>) + Send,
) -> Result<Label, Box<dyn std::error::Error + Send + Sync>> {
    let conninfo = archive.config.open_conninfo()?;
    let (repository, identity) = archive.repository(&conninfo).await?;
    let streamer = Streamer::new(
        conninfo.clone(),
        archive.config.need_slot()?,
        repository.clone(),
        identity.clone(),
        archive.keys.clone(),
        Arc::new(MemoryIndex::default()),
        daemon::timing(&archive),
    );
    let mut progress = streamer.progress();
    let (stop, stopped) = watch::channel(false);
    let mut streaming = tokio::spawn(async move { streamer.run(stopped).await });
    let taken = async {
        // The slot must hold WAL before the backup begins (case 15): once the stream is connected, it does.
        while !progress.now().connected {
            if let Some(trouble) = progress.now().trouble {
                return Err(TakeError::Internal(trouble));
            }
            progress.changed().await.map_err(|error| TakeError::Internal(error.to_string()))?;
        }
        base_backup::take(&conninfo, &repository, &identity, &archive.keys, progress.clone(), report).await
    };
    let label = tokio::select! {
        taken = taken => taken?,
        ended = &mut streaming => {
            ended??;
            return Err("the WAL stream ended while the backup was under way".into());
        }
    };
    stop.send_replace(true);
    // The backup is complete; what the stream has not shipped the slot keeps.
    if tokio::time::timeout(Duration::from_secs(15), streaming).await.is_err() {
        tracing::warn!("the WAL stream did not end in time; the slot keeps what it had not shipped");
    }
    Ok(label)
}

fn show(label: &Label, took: Duration) {
    show!(
        "Base backup {}: {} of cluster in {} ({} stored), start {}, consistent from {} on.",
        label.id,
        units::size(label.cluster_size),
        units::duration(took),
        units::size(label.stored_size),
        label.start,
        label.stop,
    );
    if label.suspect > 0 {
        show!(
            "It is SUSPECT: the server reported {} page checksum failures. Check the server's log and its disks.",
            label.suspect
        );
    }
    show!("A backup is proven only by restoring it: walseal-restorer restore --to latest --target-dir DIR --start");
}
