//! Why a snapshot could not be restored.

use std::io;

use walseal_common::postgres::PostgresError;
use walseal_common::postgres::programs::ProgramError;
use walseal_common::repository::{FailureClass, RepositoryError};

/// A snapshot could not be restored, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The repository, or what lies in it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server that it goes to.
    #[error(transparent)]
    Server(#[from] PostgresError),
    /// No `pg_restore` that is new enough.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The facts of a snapshot are none.
    #[error("the facts of snapshot {id} are not usable: {why}")]
    Facts {
        /// The snapshot.
        id: String,
        /// Why.
        why: String,
    },
    /// Something on this machine.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `pg_restore` failed before it restored anything.
    #[error("pg_restore failed: {0}")]
    Tool(String),
    /// It would do harm, or cannot work.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
        /// What to do, the best first.
        next: Vec<String>,
    },
    /// A thread of this program ended.
    #[error("a task ended: {0}")]
    Task(String),
}

impl SnapshotError {
    /// As a closure for `map_err`: `doing` fits after "failed to".
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> SnapshotError {
        let doing = doing.into();
        move |source| SnapshotError::Io { doing, source }
    }

    /// In words, with what to do.
    pub fn with_next(&self) -> String {
        match self {
            SnapshotError::Refused { why, next } => [vec![why.clone()], next.clone()].concat().join("; "),
            other => other.to_string(),
        }
    }

    /// What failed, for the ledger.
    pub fn class(&self) -> FailureClass {
        match self {
            SnapshotError::Repository(_) | SnapshotError::Facts { .. } => FailureClass::Repository,
            SnapshotError::Server(_) | SnapshotError::Tool(_) => FailureClass::Server,
            SnapshotError::Program(_) | SnapshotError::Io { .. } | SnapshotError::Refused { .. } => {
                FailureClass::Machine
            }
            SnapshotError::Task(_) => FailureClass::Other,
        }
    }
}
