//! Why a file could not be archived.

use std::io;
use std::path::PathBuf;

use walseal_common::config::OpenError;
use walseal_common::repository::RepositoryError;
use walseal_common::segment::{SegmentName, WalFileName, WalFileNameError};
use walseal_common::timeline::{Branch, HistoryError, SystemIdentifier};
use walseal_common::wal::WalError;

use crate::archive::ArchiveError;
use crate::shipment::ShipError;
use crate::stream::StreamError;

/// A file could not be archived. PostgreSQL keeps it and asks again, for ever (case 22).
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Not a name of WAL (case 24).
    #[error(transparent)]
    Name(#[from] WalFileNameError),
    /// The path has no file name.
    #[error("{} is not the path of a file; archive_command wants: walseal-archiver push %p", .0.display())]
    NoFile(PathBuf),
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not as long as a segment.
    #[error(
        "{name} has {found} bytes, but segments of this cluster have {expected}: the file is cut off, or not a segment"
    )]
    Size {
        /// The file.
        name: WalFileName,
        /// Its size in bytes.
        found: u64,
        /// The cluster's `wal_segment_size`.
        expected: u64,
    },
    /// The first page is not what the name says (I4, case 25).
    #[error("{name} is refused: {source}")]
    Wal {
        /// The file.
        name: WalFileName,
        /// What is wrong.
        source: WalError,
    },
    /// Another cluster's file, and the store has no repository for that cluster (I4, case 25).
    #[error(
        "{name} is WAL of the cluster with system identifier {system}, but {store} holds only {found}: is archive_command of \
         a copied server still set? A cluster that went through pg_upgrade or initdb needs: walseal-archiver init"
    )]
    OtherCluster {
        /// The file.
        name: WalFileName,
        /// The cluster in its first page.
        system: SystemIdentifier,
        /// The store's URL.
        store: String,
        /// Clusters in it.
        found: String,
    },
    /// Several clusters, and no segment beside the file that tells which one it belongs to.
    #[error(
        "{store} holds several clusters ({found}), and no segment beside {name} tells which one it belongs to; it is \
         pushed again once there is one"
    )]
    WhichCluster {
        /// The file.
        name: WalFileName,
        /// The store's URL.
        store: String,
        /// Clusters in it.
        found: String,
    },
    /// Nobody knows where this timeline comes from.
    #[error(
        "the history of timeline {timeline} is neither beside {segment} nor in the repository, so nobody can tell to which \
         branch the segment belongs; push {history} first"
    )]
    NoHistory {
        /// The segment.
        segment: SegmentName,
        /// Its timeline.
        timeline: u32,
        /// The missing file.
        history: WalFileName,
    },
    /// Several clusters made this timeline.
    #[error(
        "{history} is not beside {segment}, and the repository has several branches of that timeline ({branches}); put \
         the history file of this server's timeline back into pg_wal"
    )]
    WhichBranch {
        /// The segment.
        segment: SegmentName,
        /// The missing file.
        history: WalFileName,
        /// The branches.
        branches: String,
    },
    /// A history file that is not one.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A history could not be stored.
    #[error(transparent)]
    StoreHistory(#[from] Box<StreamError>),
    /// A segment that the server has not finished: its name belongs to the whole one.
    #[error(
        "{name} is refused: PostgreSQL has not finished it ({why}). PostgreSQL calls archive_command for it once it has; what \
         a lost server left of its last segment is pushed as a file with the name {name}.partial"
    )]
    Unfinished {
        /// The file.
        name: WalFileName,
        /// Where its WAL ends, and why.
        why: String,
    },
    /// A segment that counts as finished and whose WAL breaks off.
    #[error(
        "{name} is refused: PostgreSQL counts it as finished, but {why}. On a standby the rest may still come, and then it is \
         taken; else the file is damaged, and no recovery gets past that place: check the disk, take a base backup \
         (walseal-archiver backup), and rename archive_status/{name}.ready to .done, so that archiving goes on"
    )]
    Damaged {
        /// The file.
        name: WalFileName,
        /// Where its WAL ends, and why.
        why: String,
    },
    /// Nobody can tell whether it is the living server's (case 17).
    #[error(
        "{name} is refused: two servers wrote this timeline, and the WAL of the living one lies on branch {branch}; neither this segment \
         nor the one before it is both there and here, so that nobody can tell whether this server is that one. Where the daemon \
         streams, it brings the segment; else push the segments that come before it first"
    )]
    NotKin {
        /// The file.
        name: WalFileName,
        /// The branch.
        branch: Branch,
    },
    /// A `.partial` without any complete record.
    #[error("{name} is refused: it holds no valid WAL ({why}); the file is damaged or has another's name")]
    NoValidWal {
        /// The file.
        name: WalFileName,
        /// What ends the WAL at once.
        why: String,
    },
    /// The configuration.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The repository could not be chosen.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The repository did not answer as it must.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The bytes could not be made durable.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// A task ended early; this is a bug.
    #[error("a part of the push ended early: {0}")]
    Task(String),
}

impl PushError {
    /// Whether pushing the same file again is useless until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            PushError::Repository(error) => error.is_permanent(),
            PushError::StoreHistory(error) => error.is_permanent(),
            PushError::Ship(error) => error.is_permanent(),
            PushError::Archive(ArchiveError::Repository(error)) => error.is_permanent(),
            PushError::Read { .. } | PushError::WhichCluster { .. } | PushError::NoHistory { .. } => false,
            PushError::Unfinished { .. } | PushError::NotKin { .. } | PushError::Task(_) => false,
            _ => true,
        }
    }
}
