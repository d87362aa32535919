//! Why a gap could not be healed.

use std::io;
use std::path::PathBuf;

use walseal_common::lsn::Lsn;
use walseal_common::postgres::PostgresError;
use walseal_common::repository::RepositoryError;
use walseal_common::timeline::HistoryError;

use crate::shipment::ShipError;
use crate::stream::StreamError;

/// A source does not give its WAL.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The server.
    #[error("{source_name}: {error}")]
    Postgres {
        /// The source.
        source_name: String,
        /// What it says.
        error: PostgresError,
    },
    /// The server is another one, or in a state that does not fit (I4).
    #[error("{source_name}: {error}")]
    Server {
        /// The source.
        source_name: String,
        /// Why it is refused.
        error: Box<StreamError>,
    },
    /// It said nothing.
    #[error("{source_name} said nothing for {seconds} s")]
    Silent {
        /// The source.
        source_name: String,
        /// How long.
        seconds: u64,
    },
    /// A file or a folder.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A history file in a folder.
    #[error("{}: {error}", path.display())]
    History {
        /// The file.
        path: PathBuf,
        /// Why.
        error: HistoryError,
    },
    /// A task ended early; this is a bug.
    #[error("a part of reading {0} ended early")]
    Task(String),
}

/// A gap could not be healed.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A history could not be stored.
    #[error(transparent)]
    StoreHistory(#[from] Box<StreamError>),
    /// WAL could not be stored.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The source gives something else than it did a moment ago.
    #[error(
        "{source_name} does not give the same WAL again, from {at} on: {why}. What was stored before is right; try again"
    )]
    Changed {
        /// The source.
        source_name: String,
        /// Where.
        at: Lsn,
        /// What is different.
        why: String,
    },
    /// No gap is there.
    #[error("no WAL is missing at {at}{open}")]
    NoGap {
        /// What was asked for.
        at: Lsn,
        /// The gaps that there are, in words.
        open: String,
    },
}
