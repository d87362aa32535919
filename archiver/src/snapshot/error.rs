//! Why no snapshot was taken.

use std::io;

use walseal_common::postgres::PostgresError;
use walseal_common::postgres::programs::ProgramError;
use walseal_common::repository::{FailureClass, RepositoryError};
use walseal_common::seal::SealError;

use crate::archive::ArchiveError;

/// No snapshot was taken. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The server, or the way to it.
    #[error(transparent)]
    Server(#[from] PostgresError),
    /// No `pg_dump` that is new enough.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A program did not start, or its output could not be read.
    #[error("{program} could not be run: {source}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A dump would go through a pooler of transactions.
    #[error(
        "{host} is a pooler that gives each transaction another session; a dump needs one of its own, and what pg_dump sets in it would stay for \
         whoever comes next: {next}"
    )]
    Pooler {
        /// The host.
        host: String,
        /// What to do.
        next: String,
    },
    /// A program failed.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which.
        program: &'static str,
        /// Its own words.
        said: String,
    },
    /// An object could not be sealed.
    #[error("{name} could not be sealed: {source}")]
    Seal {
        /// The object.
        name: String,
        /// Why.
        source: SealError,
    },
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// No repository could be chosen or made.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A name of an object is taken by other bytes.
    #[error("{0} is there already, with other bytes")]
    Taken(String),
    /// A task of this process ended.
    #[error("a task ended: {0}")]
    Task(String),
}

/// What programs of libpq say when a connection breaks, in the language of [`super::dump`].
const BROKEN: [&str; 8] = [
    "server closed the connection unexpectedly",
    "terminating connection",
    "connection to server was lost",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed unexpectedly",
    "SSL SYSCALL error",
    "no connection to the server",
];

impl SnapshotError {
    /// Whether it failed because of a connection that broke, and not because of what was asked.
    pub fn is_disconnect(&self) -> bool {
        match self {
            SnapshotError::Server(error) => error.is_disconnect(),
            SnapshotError::Failed { said, .. } => BROKEN.iter().any(|words| said.contains(words)),
            _ => false,
        }
    }

    /// What failed, for the ledger.
    pub fn class(&self) -> FailureClass {
        match self {
            SnapshotError::Server(_) | SnapshotError::Failed { .. } | SnapshotError::Pooler { .. } => {
                FailureClass::Server
            }
            SnapshotError::Program(_) | SnapshotError::Run { .. } => FailureClass::Machine,
            SnapshotError::Repository(_) | SnapshotError::Archive(_) | SnapshotError::Taken(_) => {
                FailureClass::Repository
            }
            SnapshotError::Seal { .. } | SnapshotError::Task(_) => FailureClass::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_told_from_what_will_never_work() {
        let failed = |said: &str| SnapshotError::Failed { program: "pg_dump", said: said.to_owned() };
        assert!(failed("pg_dump: error: query failed: server closed the connection unexpectedly").is_disconnect());
        assert!(!failed("pg_dump: error: query failed: ERROR:  permission denied for table secrets").is_disconnect());
    }
}
