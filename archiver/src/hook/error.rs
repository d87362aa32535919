//! Why a file was not taken.

use std::path::PathBuf;

use walseal_common::repository::RepositoryError;
use walseal_common::segment::WalFileNameError;
use walseal_common::timeline::HistoryError;
use walseal_common::wal::WalError;

use crate::shipment::ShipError;
use crate::stream::StreamError;

/// A file was not taken. PostgreSQL keeps it and asks again.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The name is not one of PostgreSQL's (case 24).
    #[error(transparent)]
    Name(#[from] WalFileNameError),
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has not the size that its name demands.
    #[error("{} has {found} bytes, not {expected}: it is not a whole WAL file of this cluster", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// The name is impossible with the repository's segment size.
    #[error("{name} cannot be the name of a segment of {size} bytes, which the repository was made for")]
    Impossible {
        /// The file's name.
        name: String,
        /// The repository's segment size.
        size: u64,
    },
    /// The content is another segment's, or another cluster's (case 25).
    #[error("{} is not what its name says: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        source: WalError,
    },
    /// The branch cannot be told.
    #[error(
        "timeline {timeline} needs its history to be told from others of that number, but {} is not there and the \
         repository knows {known} branches of it",
        beside.display()
    )]
    NoHistory {
        /// The timeline.
        timeline: u32,
        /// Branches of that number in the repository.
        known: usize,
        /// Where the history was looked for.
        beside: PathBuf,
    },
    /// A history file that is none.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A history could not be stored.
    #[error(transparent)]
    StoreHistory(#[from] Box<StreamError>),
    /// The repository did not take it.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The repository could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}
