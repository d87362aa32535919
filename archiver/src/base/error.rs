//! Why a base backup failed.

use walseal_common::lsn::Lsn;
use walseal_common::postgres::PostgresError;
use walseal_common::repository::{RelativePath, RepositoryError};
use walseal_common::seal::SealError;
use walseal_common::timeline::{HistoryError, SystemIdentifier, TimelineId};

use super::incremental::IncrementalError;
use super::pages::PageError;
use super::server_manifest::ManifestError;
use super::tar::TarError;

/// A base backup was not made. What was stored of it stays invisible, because it has no label (I7).
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The server refused, or the connection broke.
    #[error(transparent)]
    Server(#[from] PostgresError),
    /// The server belongs to another cluster than the repository (I4).
    #[error(
        "this server is cluster {server}, but the repository is that of cluster {repository}; check cluster.conninfo \
         and repository.url, or make a repository for this cluster with: walseal-archiver init"
    )]
    WrongCluster {
        /// The server's system identifier.
        server: SystemIdentifier,
        /// The repository's.
        repository: SystemIdentifier,
    },
    /// The server does not have the history of its own timeline.
    #[error("the server has no history of its timeline {}; without it nobody can tell this branch from another", .0.number())]
    NoHistory(TimelineId),
    /// The history of the server's timeline is not readable.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The server changed its timeline in between.
    #[error("the backup would begin on timeline {} and end on timeline {}: the server was promoted; try again", .from.number(), .to.number())]
    TimelineChanged {
        /// The timeline before.
        from: TimelineId,
        /// The timeline after.
        to: TimelineId,
    },
    /// An archive of the server is not as it must be.
    #[error("the server's archive {archive} is not readable: {source}; try again")]
    Tar {
        /// Name of the archive.
        archive: String,
        /// What is wrong.
        source: TarError,
    },
    /// A file of changed blocks is not as it must be.
    #[error("{path}: {source}; try again")]
    ChangedBlocks {
        /// The file, as it was sent.
        path: RelativePath,
        /// What is wrong.
        source: IncrementalError,
    },
    /// Changed blocks of a file that the parent does not have.
    #[error(
        "the server sent only the changed blocks of {0}, and the list of frames of the backup before has no line of it"
    )]
    NothingBefore(RelativePath),
    /// The server's manifest is not as it must be, or disagrees with what was received.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest is of another backup.
    #[error("the server's backup manifest is not that of this backup: it {0}")]
    OtherManifest(String),
    /// A link that the list of files can't describe.
    #[error("{path} is a symbolic link to \"{target}\", which {why}")]
    Link {
        /// The link.
        path: RelativePath,
        /// Where it points.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A tablespace lies too deep for the format that the server sends.
    #[error(
        "the tablespace at {location} has a path of more than 99 bytes, which PostgreSQL can't send with its files; make \
         a short symbolic link to that folder and, while the server is stopped, point the link in pg_tblspc to it"
    )]
    LongLocation {
        /// Its place on the server.
        location: String,
    },
    /// A file without which the backup can't be used was not sent.
    #[error("the server did not send {0}; without it the backup could not be restored (case 27)")]
    Missing(&'static str),
    /// The server sent something out of its order.
    #[error("the server sent {0}")]
    Order(&'static str),
    /// A file does not fit into the list of files.
    #[error("{path}: {source}")]
    Listing {
        /// The file.
        path: RelativePath,
        /// Why it does not fit.
        source: PageError,
    },
    /// An object could not be sealed.
    #[error("sealing {name}: {source}")]
    Seal {
        /// The object's name.
        name: String,
        /// Why.
        source: SealError,
    },
    /// The repository did not take an object.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An object's name is taken by other bytes.
    #[error("{0} is already there with other bytes, although its name is random; nothing was changed, try again")]
    Taken(String),
    /// Objects that the backup refers to went away while it was made.
    #[error(
        "{count} data objects of earlier backups were removed from the repository while this one was made, the first of them \
         {first}; take another one, which stores what they held"
    )]
    Vanished {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// WAL through the stop position did not become durable.
    #[error("the base backup is stored, but WAL through {stop} is not: {source}; without it the backup has no use")]
    Wal {
        /// The stop position.
        stop: Lsn,
        /// Why the WAL is not there.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What it relies on may have been removed.
    #[error(
        "its lease could not be renewed for too long, so that what it relies on may have been removed; take another one"
    )]
    Lapsed,
    /// A task of this program ended in a way it must not.
    #[error("a task of the backup ended unexpectedly ({0}); this is a bug")]
    Task(String),
}

impl BaseError {
    /// Why the server has to send everything, a clause, where changed blocks came and were of no use.
    pub fn calls_for_everything(&self) -> Option<String> {
        match self {
            BaseError::NothingBefore(path) => Some(format!(
                "the list of frames of the backup before has no line of {path}, of which changed blocks came"
            )),
            BaseError::ChangedBlocks { path, source } => Some(format!("what came of {path} was of no use: {source}")),
            _ => None,
        }
    }

    /// Whether another attempt must fail in the same way unless somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            BaseError::Server(error) => error.is_permanent(),
            BaseError::Manifest(error) => error.is_permanent(),
            BaseError::Repository(error) => error.is_permanent(),
            BaseError::Seal { source, .. } => source.is_permanent(),
            BaseError::WrongCluster { .. }
            | BaseError::NoHistory(_)
            | BaseError::History(_)
            | BaseError::Link { .. }
            | BaseError::LongLocation { .. }
            | BaseError::Listing { .. } => true,
            BaseError::TimelineChanged { .. }
            | BaseError::Tar { .. }
            | BaseError::ChangedBlocks { .. }
            | BaseError::NothingBefore(_)
            | BaseError::OtherManifest(_)
            | BaseError::Missing(_)
            | BaseError::Order(_)
            | BaseError::Taken(_)
            | BaseError::Vanished { .. }
            | BaseError::Lapsed
            | BaseError::Wal { .. }
            | BaseError::Task(_) => false,
        }
    }
}
