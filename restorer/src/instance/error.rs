//! Why a private server did not do what it was started for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use walseal_common::postgres::programs::ProgramError;
use walseal_common::terminal::units;

use crate::fetch::prefetcher::PremisesError;
use crate::rebuild::RebuildError;

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
    #[error(
        "it was interrupted, and the server was stopped; recovery goes on where it was when the server is started again"
    )]
    Interrupted,
}

impl InstanceError {
    /// Whether the same call could not succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, InstanceError::Interrupted | InstanceError::Stalled { .. })
    }

    /// What to do about it.
    pub fn next(&self) -> Vec<String> {
        match self {
            InstanceError::Ended { file, .. } | InstanceError::Stalled { file, .. } => {
                vec![format!("read the whole log, {}; the directory is kept as it is", file.display())]
            }
            InstanceError::Scratch { next, .. } => vec![next.clone()],
            _ => Vec::new(),
        }
    }

    /// For `map_err`.
    pub(crate) fn io(operation: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> InstanceError {
        let path = path.to_owned();
        move |source| InstanceError::Io { operation, path, source }
    }
}
