//! Why a request has no answer: to PostgreSQL all of it means "stop".

use std::io;
use std::path::PathBuf;

use walseal_common::config::OpenError;
use walseal_common::lsn::Lsn;
use walseal_common::repository::RepositoryError;
use walseal_common::segment::{SegmentName, SegmentSize, WalFileNameError};
use walseal_common::store::StoreErrorKind;
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineId};
use walseal_common::wal::WalError;

use crate::damage::{Damage, sentence};
use crate::rebuild::PlanFileError;
use crate::segment_source::SegmentError;

/// A file of WAL could be neither delivered nor proven to be missing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// PostgreSQL asks for no such file.
    #[error(transparent)]
    Name(#[from] WalFileNameError),
    /// The name does not go with the segment size.
    #[error("there is no segment {name} in a cluster with segments of {} MiB", .size.bytes() >> 20)]
    ImpossibleName {
        /// The name.
        name: SegmentName,
        /// The segment size.
        size: SegmentSize,
    },
    /// The plan.
    #[error("{0}; restore_command names it with --plan, and it lies beside the data directory")]
    Plan(#[from] PlanFileError),
    /// What the configuration names.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// An object.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// WAL is missing below WAL that is known.
    #[error(
        "WAL of branch {branch} is missing from {from} on, although {known}: a hole, not the end. Bring back \
         what is missing, or restore to a target before it (walseal-restorer list shows what can be reached)"
    )]
    Hole {
        /// The branch.
        branch: Branch,
        /// The first byte that is not there.
        from: Lsn,
        /// What is known beyond, as a clause.
        known: String,
    },
    /// Objects that cannot be used, and no others that hold the same WAL.
    #[error("WAL of branch {branch} is damaged from {from} on, and no other object holds it: {}", sentence(.objects))]
    Damaged {
        /// The branch.
        branch: Branch,
        /// The first byte that cannot be had.
        from: Lsn,
        /// What is wrong with which object.
        objects: Vec<Damage>,
    },
    /// Two branches of that number, and no plan that chose.
    #[error(
        "timeline {} exists more than once in the repository ({}), and without a plan nothing says which one is meant; \
         make the restore with walseal-restorer restore --timeline BRANCH, whose restore_command names its plan",
        .timeline.number(), .branches.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    AmbiguousTimeline {
        /// The timeline's number.
        timeline: TimelineId,
        /// Its branches.
        branches: Vec<Branch>,
    },
    /// A branch is there, its history is not.
    #[error("the history of branch {branch} is missing ({source}), although the branch is there")]
    HistoryMissing {
        /// The branch.
        branch: Branch,
        /// What the repository said.
        source: RepositoryError,
    },
    /// The bytes are not those of the file.
    #[error("what is stored as segment {name} of branch {branch} is not that segment: {source}")]
    Content {
        /// The branch.
        branch: Branch,
        /// The segment.
        name: SegmentName,
        /// What is wrong with it.
        source: WalError,
    },
    /// The data directory is another cluster's.
    #[error(
        "this data directory belongs to cluster {found}, and {wanted_by} to cluster {wanted}: WAL of one cluster never goes \
         into another's recovery"
    )]
    OtherCluster {
        /// What `pg_control` says.
        found: SystemIdentifier,
        /// What the plan or the flag says.
        wanted: SystemIdentifier,
        /// Which of them.
        wanted_by: &'static str,
    },
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

impl FetchError {
    /// Whether trying again soon is useless. What a store says may pass, and so may a hole: segments are shipped several at a
    /// time, so that a later one may be there first.
    pub fn is_permanent(&self) -> bool {
        match self {
            FetchError::Repository(error) | FetchError::HistoryMissing { source: error, .. } => is_permanent(error),
            FetchError::Segment(SegmentError::Repository(error)) => is_permanent(error),
            FetchError::Segment(error) => error.is_permanent() && !error.is_missing(),
            FetchError::Hole { .. } | FetchError::Io { .. } | FetchError::Open(OpenError::Store(_)) => false,
            _ => true,
        }
    }

    /// Whether the store just does not answer. Only that may look like "not there" to a standby.
    pub fn is_silence(&self) -> bool {
        let store = match self {
            FetchError::Open(OpenError::Store(store))
            | FetchError::Repository(RepositoryError::Store(store))
            | FetchError::HistoryMissing { source: RepositoryError::Store(store), .. }
            | FetchError::Segment(SegmentError::Repository(RepositoryError::Store(store))) => store,
            _ => return false,
        };
        matches!(store.kind, StoreErrorKind::Unreachable | StoreErrorKind::Throttled)
    }
}

/// A store may change its mind (a file system that is mounted late, credentials that are renewed); objects do not.
fn is_permanent(error: &RepositoryError) -> bool {
    !matches!(error, RepositoryError::Store(_) | RepositoryError::Empty { .. }) && error.is_permanent()
}
