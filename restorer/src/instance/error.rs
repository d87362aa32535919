//! Why a private server did not do what it was started for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use walseal_common::postgres::programs::ProgramError;
use walseal_common::terminal::units;

use crate::fetch::prefetcher::PremisesError;
use crate::rebuild::RebuildError;
use crate::shell::quoted_path;

/// A private server failed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// PostgreSQL of that major is not here.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed: {said}")]
    Call {
        /// Which.
        program: String,
        /// What it said.
        said: String,
    },
    /// The disk, or starting a process.
    #[error("{operation} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// Giving a file to the owner.
    #[error(transparent)]
    Owner(#[from] RebuildError),
    /// This process cannot serve the server.
    #[error("hand WAL to the server: {0}")]
    Serving(#[from] PremisesError),
    /// The place for what is thrown away cannot be used.
    #[error("{why}")]
    Scratch {
        /// Why, a statement.
        why: String,
        /// What to do.
        next: String,
    },
    /// Recovery ended otherwise than planned.
    #[error("the server ended before recovery did; its log ends with:\n{log}")]
    Ended {
        /// The last lines of its log.
        log: String,
        /// The whole log.
        file: PathBuf,
    },
    /// No sign of life.
    #[error("recovery has not moved for {}, and was stopped; the server's log ends with:\n{log}", units::duration(*.waited))]
    Stalled {
        /// For how long.
        waited: Duration,
        /// The last lines of its log.
        log: String,
        /// The whole log.
        file: PathBuf,
    },
    /// A person or the system asked this program to end.
    #[error("it was interrupted, and the server was {}", if *.stopped { "stopped" } else { "told to end" })]
    Interrupted {
        /// Whether the server has ended.
        stopped: bool,
    },
    /// A server runs on the data directory that no restore started.
    #[error("process {pid}, which {}/postmaster.pid names, is no server that this restore started", .data.display())]
    Occupied {
        /// The data directory.
        data: PathBuf,
        /// The process.
        pid: u32,
    },
    /// A promotion was cut off before its last checkpoint.
    #[error(
        "recovery in {} was cut off in the last step of its promotion (pg_control: {state}): a server that is started there would replay \
         the old timeline beyond the target",
        .data.display()
    )]
    CutOff {
        /// The data directory.
        data: PathBuf,
        /// As `pg_control` says.
        state: String,
    },
    /// There is no recovery to be run.
    #[error("recovery in {} has ended already: it has no recovery.signal, and is {state}", .data.display())]
    Over {
        /// The data directory.
        data: PathBuf,
        /// As `pg_control` says: `in production`, `shut down`, …
        state: String,
        /// The log of the server that ran recovery.
        file: PathBuf,
    },
}

/// Whether a process works in `data`, as a server of it does; `None` where the system does not tell.
fn works_in(pid: u32, data: &std::path::Path) -> Option<bool> {
    let place = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some(place == data)
}

impl InstanceError {
    /// Whether the same call could not succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, InstanceError::Interrupted { .. } | InstanceError::Stalled { .. })
    }

    /// What to do about it.
    pub fn next(&self) -> Vec<String> {
        match self {
            InstanceError::Ended { file, .. } | InstanceError::Stalled { file, .. } => vec![
                format!("read the whole log, {}; the directory is kept as it is", file.display()),
                "where it ends the same way each time, restore to another folder".to_owned(),
            ],
            InstanceError::CutOff { .. } => vec![
                "do not start it".to_owned(),
                "restore anew: over what is there with --delta, or to another folder".to_owned(),
            ],
            InstanceError::Scratch { next, .. } => vec![next.clone()],
            InstanceError::Owner(error) => error.next().to_vec(),
            InstanceError::Occupied { data, pid } => match works_in(*pid, data) {
                // pg_ctl would tell that process to end, whatever it is.
                Some(false) => vec![format!(
                    "that process works elsewhere, and has the number by chance: rm {}",
                    quoted_path(&data.join("postmaster.pid"))
                )],
                _ => vec![
                    format!("look first whether anybody uses it; then stop it: pg_ctl stop -D {}", quoted_path(data)),
                    format!(
                        "when process {pid} is no PostgreSQL server: rm {}",
                        quoted_path(&data.join("postmaster.pid"))
                    ),
                ],
            },
            InstanceError::Over { data, file, .. } => vec![
                format!(
                    "when its log, {}, says that it landed where it should, go live: pg_ctl start -D {}",
                    file.display(),
                    quoted_path(data)
                ),
                "restore anew, over what is there: --delta".to_owned(),
            ],
            _ => Vec::new(),
        }
    }

    /// Whether recovery goes on where it was when the same restore is started again.
    pub fn is_gone_on_with(&self) -> bool {
        !matches!(
            self,
            InstanceError::Over { .. }
                | InstanceError::CutOff { .. }
                | InstanceError::Occupied { .. }
                | InstanceError::Program(_)
                | InstanceError::Owner(RebuildError::Refused { .. })
        )
    }

    /// For `map_err`.
    pub(crate) fn io(operation: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> InstanceError {
        let path = path.to_owned();
        move |source| InstanceError::Io { operation, path, source }
    }
}
