//! Why a stream ended.

use std::time::Duration;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::postgres::PostgresError;
use walseal_common::repository::RepositoryError;
use walseal_common::seal::WriterPublic;
use walseal_common::store::StoreError;
use walseal_common::timeline::{Branch, HistoryError, SystemIdentifier};

use super::cut::OverlapDiffers;
use crate::shipment::ShipError;

/// A stream ended, or could not begin. The daemon tries again unless it is permanent; the slot keeps the WAL.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server, or the way to it.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A piece could not be made durable.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The server's WAL contradicts the repository's.
    #[error(transparent)]
    Overlap(#[from] OverlapDiffers),
    /// A history that the server sent.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Another cluster answered.
    #[error(
        "the server's system identifier is {server}, but the repository {repository} belongs to cluster {expected}: \
         if this is the right server (pg_upgrade and initdb make a new cluster), run walseal-archiver init, which gives it a \
         folder of its own beside the other; if not, correct cluster.conninfo"
    )]
    OtherCluster {
        /// The server's.
        server: SystemIdentifier,
        /// The repository's.
        expected: SystemIdentifier,
        /// Where.
        repository: String,
    },
    /// The segment size changed under the same system identifier.
    #[error("the server's WAL segments have {server} bytes, but the repository was made for {expected}")]
    OtherSegmentSize {
        /// The server's.
        server: u64,
        /// The repository's.
        expected: u64,
    },
    /// A standby answered, and nobody chose one.
    #[error(
        "{host} is a standby; walseal streams from the primary unless cluster.conninfo says \
         target_session_attrs=standby (or prefer-standby)"
    )]
    Standby {
        /// The host.
        host: String,
    },
    /// The current timeline's history is mandatory (case 2).
    #[error(
        "the server is on timeline {0} but has no history file for it; without it no restore could follow the timeline"
    )]
    NoHistory(u32),
    /// The buffer was full for too long (case 12).
    #[error(
        "the repository did not take WAL for {} s, so the connection was closed to let the server shut down when it \
         wants to; the slot keeps the WAL",
        .0.as_secs_f32()
    )]
    Stalled(Duration),
    /// The server asked, perhaps to shut down, and what it had sent could not be made durable in time (case 12).
    #[error(
        "the server waits for {waiting} bytes of WAL that the repository did not take within {} s; the connection was \
         closed so that the server is not held up; the slot keeps the WAL",
        .limit.as_secs_f32()
    )]
    ShutdownWait {
        /// Bytes received and not durable.
        waiting: u64,
        /// `wal.shutdown_wait`.
        limit: Duration,
    },
    /// The server, or the way to it, is dead without the connection having ended.
    #[error(
        "nothing came from the server for {} s, although it was asked; the connection was closed, to look for a server \
         that answers",
        .0.as_secs_f32()
    )]
    Silent(Duration),
    /// The store neither took an object nor refused it.
    #[error(
        "WAL {range} did not become durable within {} s, and the repository did not say why; it is sent again",
        .limit.as_secs_f32()
    )]
    Stuck {
        /// The WAL.
        range: LsnRange,
        /// How long it had.
        limit: Duration,
    },
    /// A connection ended, and what it had brought could not be made durable afterwards either.
    #[error("{ended}; what was received before could not be stored, and has to come again, because: {why}")]
    Unstored {
        /// How the connection ended.
        ended: Box<StreamError>,
        /// Why the store has not got it.
        why: Box<StreamError>,
    },
    /// Somebody else writes the same branch (case 17).
    #[error(
        "{name} is already there with other bytes, written by {there}; ours, written by {ours}, are kept below \
         conflict/: two servers or two archivers write the same branch. Nothing more is confirmed, and the slot keeps this \
         server's WAL; find out which server is alive, and stop the archiver of the other. If this one is: walseal-archiver adopt \
         --writer {ours}"
    )]
    Conflict {
        /// The object's name.
        name: String,
        /// Who wrote what is there.
        there: String,
        /// Who wrote what was refused.
        ours: String,
    },
    /// Nobody can tell whether this server is the one whose WAL a branch holds (case 17).
    #[error(
        "{name} says that the WAL of this timeline goes on on branch {branch}, that of the server that {writer} archives; this server has \
         no WAL from {from} on any more, so that nobody can tell whether it is the same server. Nothing of it is stored. If it is the \
         living one, run on this host: walseal-archiver adopt --writer KEY, with the key of this archiver; if not, rewind it \
         (pg_rewind) or retire it"
    )]
    NotTheLiving {
        /// The adoption.
        name: String,
        /// The branch to which it leads.
        branch: Branch,
        /// What would have to be compared.
        from: Lsn,
        /// The living one's writer.
        writer: String,
    },
    /// WAL of the branch was adopted to another while it was streamed (case 17).
    #[error(
        "{name} says since a moment ago that the living server of the timeline of branch {branch} is the one that {writer} archives; \
         what this server sends is compared with that one's from now on"
    )]
    Left {
        /// The adoption.
        name: String,
        /// The branch that was streamed.
        branch: Branch,
        /// The living one's writer.
        writer: String,
    },
    /// The WAL that should come next is gone from the server.
    #[error("the server no longer has the WAL from {0} on: it is lost for point-in-time recovery")]
    WalGone(Lsn),
    /// The slot was given up (case 26).
    #[error("{0}")]
    GivenUp(String),
    /// Somebody else streams from our slot.
    #[error(
        "the slot {slot} is in use on {host} by server process {pid}: {who}. If that is another archiver, stop one of the two, or \
         give them different names (cluster.name, cluster.slot). One that was killed is noticed by the server after \
         wal_sender_timeout. Nothing is taken over; tried again until the slot is free"
    )]
    SlotHeld {
        /// The slot.
        slot: String,
        /// The server.
        host: String,
        /// The process there.
        pid: u32,
        /// Who that process serves, in words.
        who: String,
    },
    /// A task of the stream ended early; this is a bug.
    #[error("a part of the stream ended early: {0}")]
    Task(String),
}

/// What makes two errors the same trouble.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Gist {
    /// The store does not do this, for such a reason.
    Store(String),
    /// Anything else.
    Other(String),
}

impl StreamError {
    /// A failure to ship what this writer made.
    pub(super) fn of_shipping(error: ShipError, ours: &WriterPublic) -> StreamError {
        match error {
            ShipError::Repository(RepositoryError::Conflict { name, writer }) => {
                StreamError::Conflict { name, there: writer, ours: ours.to_string() }
            }
            other => other.into(),
        }
    }

    /// The store's part in it.
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            StreamError::Repository(RepositoryError::Store(error))
            | StreamError::Ship(ShipError::Repository(RepositoryError::Store(error))) => Some(error),
            StreamError::Unstored { why, .. } => why.of_store(),
            _ => None,
        }
    }

    /// Whether the repository holds other bytes for the same WAL (case 17).
    pub(super) fn is_conflict(&self) -> bool {
        self.conflicting().is_some()
    }

    /// The object that holds other bytes, and who wrote it.
    pub(super) fn conflicting(&self) -> Option<(Option<String>, String)> {
        match self {
            StreamError::Conflict { name, there, .. } => Some((Some(name.clone()), there.clone())),
            StreamError::Overlap(differs) => Some((Some(differs.name.clone()), differs.writer.clone())),
            StreamError::NotTheLiving { name, writer, .. } => Some((Some(name.clone()), writer.clone())),
            StreamError::Unstored { ended, why } => ended.conflicting().or_else(|| why.conflicting()),
            _ => None,
        }
    }

    /// Whether the store kept the stream waiting without having said, in this error, why.
    pub(super) fn asks_why(&self) -> bool {
        matches!(self, StreamError::Stalled(_) | StreamError::ShutdownWait { .. } | StreamError::Stuck { .. })
    }

    /// The place in the server's WAL from which on it is gone, where that is what happened.
    pub(super) fn wal_gone(&self) -> Option<Lsn> {
        match self {
            StreamError::WalGone(from) => Some(*from),
            StreamError::Unstored { ended, .. } => ended.wal_gone(),
            _ => None,
        }
    }

    /// What tells this trouble from other trouble: without what differs at each attempt, such as names of objects.
    pub(super) fn gist(&self) -> Gist {
        match (self.of_store(), self) {
            (Some(error), _) => Gist::Store(format!("{} {:?}", error.operation, error.kind)),
            (None, waited) if waited.asks_why() => Gist::Store("waited".to_owned()),
            (None, other) => Gist::Other(other.to_string()),
        }
    }

    /// Whether trying again is useless until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            // Servers come back, passwords get fixed, hosts fail over: a daemon keeps trying, and says so.
            StreamError::Postgres(_) | StreamError::Standby { .. } | StreamError::NoHistory(_) => false,
            StreamError::Repository(error) => matches!(error, RepositoryError::OtherCompareKey { .. }),
            StreamError::Ship(_) | StreamError::Stalled(_) | StreamError::ShutdownWait { .. } => false,
            StreamError::WalGone(_) | StreamError::Task(_) | StreamError::History(_) => false,
            StreamError::Overlap(_) | StreamError::Conflict { .. } | StreamError::NotTheLiving { .. } => false,
            StreamError::Left { .. } => false,
            StreamError::Silent(_) | StreamError::Stuck { .. } => false,
            StreamError::GivenUp(_) | StreamError::SlotHeld { .. } => false,
            StreamError::Unstored { ended, why } => ended.is_permanent() || why.is_permanent(),
            StreamError::OtherCluster { .. } | StreamError::OtherSegmentSize { .. } => true,
        }
    }
}
