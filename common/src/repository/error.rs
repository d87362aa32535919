//! Why something could not be read from or written to a repository.

use crate::seal::SealError;
use crate::store::{StoreError, StoreErrorKind};

/// A repository could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepositoryError {
    /// The store did not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object was refused.
    #[error("object {name}: {source}")]
    Object {
        /// The object's name.
        name: String,
        /// What is wrong with it.
        source: SealError,
    },
    /// What says on which branch WAL lies cannot be read (case 17).
    #[error(
        "{name} cannot be used: {why}. It says on which branch the WAL of a timeline goes on, and without it WAL would be stored \
         or looked for on the wrong one. If one of your archivers wrote it, add its writer to keys.trusted_writers, or put the \
         object back as it was written; if nobody of yours did, remove it"
    )]
    Adoption {
        /// The object's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// No `identity` below the prefix.
    #[error("{store} holds no repository yet; make one with: walseal-archiver init")]
    Empty {
        /// The store's URL.
        store: String,
    },
    /// Several clusters, and none was named.
    #[error("{store} holds several clusters: {found}; say which one with --cluster-id ID")]
    SeveralClusters {
        /// The store's URL.
        store: String,
        /// Their system identifiers.
        found: String,
    },
    /// The cluster that was named is not here.
    #[error("{store} holds no cluster {wanted}; it holds: {found}")]
    NoSuchCluster {
        /// The store's URL.
        store: String,
        /// The system identifier that was asked for.
        wanted: String,
        /// Those that are there.
        found: String,
    },
    /// A name is taken by bytes of other content.
    #[error(
        "{name} is already there with other bytes, written by {writer}: two servers or two archivers write the same \
         branch; find out which one is alive and stop the other"
    )]
    Conflict {
        /// The object's name.
        name: String,
        /// Who wrote what is there.
        writer: String,
    },
    /// A name is taken, and the digests cannot be compared.
    #[error(
        "{name} is already there, written by {writer} with another compare key, so nobody can tell whether the bytes \
         are equal; archivers of one cluster must share it: make the second key with keygen --sibling-of \
         FILE, or where the first one is lost with walseal-restorer keygen --writer"
    )]
    OtherCompareKey {
        /// The object's name.
        name: String,
        /// Who wrote what is there.
        writer: String,
    },
}

impl RepositoryError {
    /// Whether the same call could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            RepositoryError::Store(error) => error.is_permanent(),
            RepositoryError::Object { source, .. } => source.is_permanent(),
            _ => true,
        }
    }

    /// Whether a name is taken by bytes that are others, or may be.
    pub fn is_conflict(&self) -> bool {
        matches!(self, RepositoryError::Conflict { .. } | RepositoryError::OtherCompareKey { .. })
    }

    /// Whether there is just no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RepositoryError::Store(error) if error.kind == StoreErrorKind::NotFound)
    }
}
