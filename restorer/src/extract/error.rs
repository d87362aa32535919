//! Why a part of a cluster could not be taken out of a backup.

use std::io;
use std::path::{Path, PathBuf};

use walseal_common::postgres::PostgresError;
use walseal_common::repository::{FailureClass, RepositoryError};

use super::backups::{Lacking, Sighting};
use crate::instance::InstanceError;
use crate::rebuild::RebuildError;
use crate::record;

/// A part of a cluster could not be taken out of a backup. Nothing of it is left on this machine.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// It was not begun.
    #[error("{why}")]
    Refused {
        /// Why, a statement.
        why: String,
        /// What to do, the best first.
        next: Vec<String>,
    },
    /// The cluster could not be restored.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The instance did not do what it should.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Recovery ended elsewhere than planned.
    #[error("{0}")]
    Missed(String),
    /// The instance did not answer a question.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// It is not in the cluster as it was.
    #[error("{}", absent(.lacking, .target))]
    Absent {
        /// What is not there.
        lacking: Vec<Lacking>,
        /// The target, as after `--to`.
        target: String,
        /// A base backup before that has all of it.
        before: Option<Sighting>,
        /// One after the target.
        after: Option<Sighting>,
    },
    /// `pg_dump` failed.
    #[error("pg_dump failed: {0}")]
    Dump(String),
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
}

fn absent(lacking: &[Lacking], target: &str) -> String {
    let words = |one: &Lacking| match one.similar.as_slice() {
        [] => format!("there is no {} at {target}", one.what),
        similar => format!("there is no {} at {target}, but there is {}", one.what, similar.join(", ")),
    };
    lacking.iter().map(words).collect::<Vec<_>>().join("; ")
}

impl ExtractError {
    /// Whether the same call could not succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            ExtractError::Rebuild(error) => error.is_permanent(),
            ExtractError::Repository(error) => error.is_permanent(),
            ExtractError::Instance(error) => error.is_permanent(),
            _ => true,
        }
    }

    /// What to do about it, the best first.
    pub fn next(&self) -> Vec<String> {
        match self {
            ExtractError::Refused { next, .. } => next.clone(),
            // What else it says is about a cluster that stays, such as other places for its tablespaces.
            ExtractError::Rebuild(RebuildError::Refused { next, .. }) => {
                let elsewhere = "or name another folder to restore to, for as long as it takes: --scratch-dir D";
                next.first().cloned().into_iter().chain([elsewhere.to_owned()]).collect()
            }
            // The directory with the whole log is gone.
            ExtractError::Instance(InstanceError::Ended { .. } | InstanceError::Stalled { .. }) => {
                vec!["look at the reason; to keep the directory: restore --target-dir D --start".to_owned()]
            }
            ExtractError::Instance(InstanceError::Scratch { .. }) => {
                vec!["name a folder of your own: --scratch-dir D, or drill.scratch_dir".to_owned()]
            }
            ExtractError::Instance(error) => error.next(),
            ExtractError::Absent { lacking, before, after, .. } => {
                let mut next: Vec<String> = Vec::new();
                if lacking.iter().any(|one| !one.similar.is_empty()) {
                    next.push("name one of those".to_owned());
                }
                let had = |sighting: &Sighting| format!("base backup {} of {} has it", sighting.id, sighting.complete);
                next.extend(before.iter().map(|sighting| format!("choose an earlier target: {}", had(sighting))));
                next.extend(after.iter().map(|sighting| format!("choose a later target: {}", had(sighting))));
                next
            }
            _ => Vec::new(),
        }
    }

    /// What failed, for the ledger.
    pub fn class(&self) -> FailureClass {
        match self {
            ExtractError::Rebuild(error) => record::class(error),
            ExtractError::Repository(_) => FailureClass::Repository,
            ExtractError::Instance(_) | ExtractError::Missed(_) => FailureClass::Recovery,
            ExtractError::Refused { .. } | ExtractError::Io { .. } => FailureClass::Machine,
            ExtractError::Postgres(_) | ExtractError::Absent { .. } | ExtractError::Dump(_) => FailureClass::Other,
        }
    }

    /// For `map_err`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExtractError {
        let path = path.to_owned();
        move |source| ExtractError::Io { operation, path, source }
    }
}
