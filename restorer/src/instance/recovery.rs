//! Watching recovery to its end.

use std::path::Path;
use std::time::{Duration, Instant};

use walseal_common::lsn::Lsn;
use walseal_common::terminal::Progress;
use walseal_common::time::PgTimestamp;

use super::additions::SIGNAL;
use super::interrupts::Interrupts;
use super::leftover::end_leftover;
use super::replay::{Replay, redo_end, redo_start};
use super::server::{GLANCE, Server, socket_folder};
use super::settings::{Purpose, log_of};
use super::{ControlData, InstanceError, Landing, Programs, Reached};
use crate::plan::{Action, Plan, Target};
use crate::rebuild::{Restored, end_recovery, live_server};

/// Longer than anything that recovery does in silence: `fetch` speaks while it tries again, and each segment is logged.
const LONGEST_SILENCE: Duration = Duration::from_secs(1800);

/// How long a shutdown with its checkpoint may take.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(600);

/// Whether recovery ends with a server that [`recover`] shuts down again and that needs no WAL any more.
pub fn ends_promoted(plan: &Plan) -> bool {
    action(plan) == Action::Promote
}

/// Runs recovery on a restored directory to its end: a promoted server is shut down again, a paused one goes on
/// running. `restore_command` stands in for the directory's own. It goes on where an earlier run was interrupted, whose
/// server is ended first.
///
/// Errors: the server ends early, with the last lines of its log; it says nothing for half an hour; an interrupt;
/// another server runs there; recovery has ended already.
pub async fn recover(
    programs: &Programs,
    restored: &Restored,
    plan: &Plan,
    restore_command: Option<&str>,
) -> Result<Landing, InstanceError> {
    let progress = Replay::progress(plan);
    let outcome = watch(programs, restored, plan, restore_command, &progress).await;
    match &outcome {
        Ok(landing) => progress.finish(landing.word()),
        Err(_) => progress.abandon(),
    }
    outcome
}

/// What PostgreSQL does at the target: without one it promotes whatever it was told.
fn action(plan: &Plan) -> Action {
    match plan.request.target {
        Target::Latest => Action::Promote,
        _ => plan.request.action,
    }
}

async fn watch(
    programs: &Programs,
    restored: &Restored,
    plan: &Plan,
    restore_command: Option<&str>,
    progress: &Progress,
) -> Result<Landing, InstanceError> {
    let action = action(plan);
    let data = &restored.layout.data;
    let mut interrupts =
        Interrupts::listen().map_err(InstanceError::io("listen for signals to end recovery in", data))?;
    let control = || ControlData::read(programs, &restored.layout.owner, data);
    if !data.join(SIGNAL).exists() {
        return Err(ended_before(plan, data, &control()?));
    }
    tokio::select! {
        ended = end_leftover(data, SHUTDOWN) => ended?,
        () = interrupts.any() => return Err(InstanceError::Interrupted { stopped: false }),
    }
    let purpose = Purpose::Recovery { readable: action == Action::Pause };
    let mut server = Server::start(programs, restored, &purpose, restore_command)?;
    let followed = tokio::select! {
        followed = follow(&mut server, plan, action, Story::default(), progress) => followed,
        () = interrupts.any() => return interrupt(server).await,
    };
    match followed {
        Ok((End::Promoted, story)) => {
            server.stop(SHUTDOWN).await?;
            Server::forget(restored)?;
            if let Err(error) = end_recovery(&restored.layout) {
                tracing::warn!(
                    "the settings of the recovery stay in postgresql.auto.conf, where a standby that is copied from it will find them: {error}"
                );
            }
            Ok(story.landing(Reached::Promoted, control()?.timeline()))
        }
        Ok((End::ShutDown, story)) => {
            Server::forget(restored)?;
            Ok(story.landing(Reached::ShutDown, control()?.timeline()))
        }
        Ok((End::Paused, story)) => {
            let (socket, pid) = (socket_folder(&server.files).display().to_string(), server.pid().unwrap_or(0));
            server.leave();
            Ok(story.landing(Reached::Paused { socket, pid }, control()?.timeline()))
        }
        Err(error) => {
            if matches!(error, InstanceError::Ended { .. }) {
                Server::forget(restored)?;
            }
            Err(error)
        }
    }
}

/// Why there is no recovery to be run where `recovery.signal` is gone.
///
/// A promotion takes that away before its last checkpoint, the first one on the new timeline (`StartupXLOG` in `xlog.c`). Cut off in
/// between, the server would begin at a checkpoint of the old timeline, and replay it beyond the target.
fn ended_before(plan: &Plan, data: &Path, control: &ControlData) -> InstanceError {
    if let Some(pid) = live_server(data) {
        return InstanceError::Occupied { data: data.to_owned(), pid };
    }
    let (data, state) = (data.to_owned(), control.state().to_owned());
    match control.timeline() {
        Some(timeline) if timeline > plan.timeline().number() => {
            InstanceError::Over { file: log_of(&data), data, state }
        }
        _ => InstanceError::CutOff { data, state },
    }
}

/// How recovery came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The server takes writes.
    Promoted,
    /// It waits at the target.
    Paused,
    /// It has ended, at the target.
    ShutDown,
}

/// Looks at the server until recovery has come to its end. `story` is what was heard of it before.
///
/// Errors: the server ends early, with the last lines of its log; it says nothing for half an hour.
pub(super) async fn follow(
    server: &mut Server,
    plan: &Plan,
    action: Action,
    mut story: Story,
    progress: &Progress,
) -> Result<(End, Story), InstanceError> {
    let (mut heard, mut replay) = (Instant::now(), Replay::new(plan, &server.data, progress));
    loop {
        // Asked before the log is read: what it said last is then in the log.
        let ended = server.has_ended()?;
        for line in server.new_lines()? {
            heard = Instant::now();
            if let Some((_, message)) = line.split_once("LOG:  ") {
                story.hear(message);
                replay.hear(message);
            }
        }
        if ended && story.shut_down_at_target && action == Action::Shutdown {
            return Ok((End::ShutDown, story));
        }
        if ended {
            return Err(InstanceError::Ended { log: server.last_lines(), file: server.files.log() });
        }
        if story.promoted {
            return Ok((End::Promoted, story));
        }
        if story.paused {
            return Ok((End::Paused, story));
        }
        if heard.elapsed() > LONGEST_SILENCE {
            let (waited, log, file) = (heard.elapsed(), server.last_lines(), server.files.log());
            return Err(InstanceError::Stalled { waited, log, file });
        }
        tokio::time::sleep(GLANCE).await;
    }
}

async fn interrupt(server: Server) -> Result<Landing, InstanceError> {
    // At once would cut a promotion off, which cannot be gone on with.
    server.stop(SHUTDOWN).await?;
    Err(InstanceError::Interrupted { stopped: true })
}

/// What the server's log has told so far. Messages are those of PostgreSQL's `xlogrecovery.c` and `postmaster.c`.
#[derive(Debug, Default)]
pub(super) struct Story {
    promoted: bool,
    paused: bool,
    shut_down_at_target: bool,
    stopped: Option<String>,
    last_time: Option<PgTimestamp>,
    begun: Option<Lsn>,
    last_record: Option<Lsn>,
}

impl Story {
    fn hear(&mut self, message: &str) {
        if message.starts_with("recovery stopping ") {
            self.stopped = Some(message.to_owned());
        } else if let Some(time) = message.strip_prefix("last completed transaction was at log time ") {
            self.last_time = time.trim().parse().ok();
        } else if let Some(lsn) = redo_start(message) {
            self.begun = Some(lsn);
        } else if let Some(lsn) = redo_end(message) {
            self.last_record = Some(lsn);
        } else if message.starts_with("pausing at the end of recovery") {
            self.paused = true;
        } else if message.starts_with("shutdown at recovery target") {
            self.shut_down_at_target = true;
        } else if message.starts_with("database system is ready to accept connections") {
            // "… read-only connections" is said of a standby, and differs between versions.
            self.promoted = true;
        }
    }

    /// The same, of a server that goes on after its pause.
    pub(super) fn resumed(self) -> Story {
        Story { paused: false, ..self }
    }

    /// Start of the last record that was read, once the server has said so.
    pub(super) fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    pub(super) fn landing(self, reached: Reached, timeline: Option<u32>) -> Landing {
        Landing { reached, timeline, server_said: self.stopped, last_time: self.last_time, begun: self.begun }
    }
}
