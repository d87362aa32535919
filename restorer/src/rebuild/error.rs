//! Why a data directory could not be rebuilt.

use std::io;
use std::path::{Path, PathBuf};

use walseal_common::repository::{Label, RepositoryError};

/// A data directory could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// It was not begun: nothing was written.
    #[error("{why}")]
    Refused {
        /// Why, a statement.
        why: String,
        /// What to do, the best first.
        next: Vec<String>,
    },
    /// The backup is not one that PostgreSQL could start from.
    #[error("base backup {id} cannot be used: {why}; choose another one with --base ID")]
    Backup {
        /// The backup.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The repository did not give an object, or not the right one.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The disk.
    #[error("{operation} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// A thread that wrote ended early.
    #[error("a thread that wrote files ended early: {0}")]
    Thread(String),
}

impl RebuildError {
    /// Whether the same call could not succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            RebuildError::Repository(error) => error.is_permanent(),
            _ => true,
        }
    }

    /// What to do about it, the best first.
    pub fn next(&self) -> &[String] {
        match self {
            RebuildError::Refused { next, .. } => next,
            _ => &[],
        }
    }

    pub(super) fn refused(why: impl Into<String>, next: impl IntoIterator<Item = String>) -> RebuildError {
        RebuildError::Refused { why: why.into(), next: next.into_iter().collect() }
    }

    pub(super) fn backup(label: &Label, why: impl Into<String>) -> RebuildError {
        RebuildError::Backup { id: label.id.to_string(), why: why.into() }
    }

    /// For `map_err`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RebuildError {
        let path = path.to_owned();
        move |source| RebuildError::Io { operation, path, source }
    }
}
