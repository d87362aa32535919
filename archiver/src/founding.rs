//! A repository where there is none yet: what its store can do, and its identity.

use walseal_common::repository::{ObjectName, Repository, RepositoryError, RepositoryIdentity, RunId};
use walseal_common::seal::{Draft, Kind, SealError};
use walseal_common::segment::SegmentSize;
use walseal_common::store::{Capabilities, PutOutcome, StoreError, StoreErrorKind, probe};
use walseal_common::timeline::SystemIdentifier;

use crate::archive::Archive;

/// What the server says of itself that an identity holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its system identifier.
    pub cluster: SystemIdentifier,
    /// As its `server_version_num`.
    pub version: u32,
    /// Bytes of its WAL segments.
    pub segment_size: SegmentSize,
}

/// What a repository was made of, or found to be.
#[derive(Clone, Debug)]
pub struct Founded {
    /// Its folder.
    pub repository: Repository,
    /// What it is.
    pub identity: RepositoryIdentity,
    /// Whether it was not there before.
    pub made: bool,
}

/// Finds out what the store can do.
///
/// Errors: it does not list, put and get.
pub async fn probe_store(archive: &Archive) -> Result<Capabilities, StoreError> {
    let id = RunId::random().map_err(|error| StoreError {
        kind: StoreErrorKind::Protocol,
        operation: "probe",
        key: String::new(),
        store: archive.store.describe(),
        reason: error.to_string(),
    })?;
    probe(archive.store.as_ref(), &id.to_string()).await
}

/// Makes the repository of `server`, unless it is there.
///
/// Errors: the store's; it is there and is not what it should be.
pub async fn found(archive: &Archive, server: &Server, capabilities: Capabilities) -> Result<Founded, RepositoryError> {
    let repository = Repository::new(archive.store.clone(), server.cluster, archive.trust.clone());
    let identity = RepositoryIdentity {
        format: 1,
        cluster: server.cluster,
        postgres_major: server.version / 10_000,
        segment_size: server.segment_size,
        predecessor: None,
        capabilities,
    };
    let name = ObjectName::Identity.to_string();
    let refused = |source: SealError| RepositoryError::Object { name: ObjectName::Identity.to_string(), source };
    let (kind, cluster) = (Kind::Identity, server.cluster);
    let draft = Draft { kind, cluster, name, wal: None, frame_size: 64 << 10, level: 1 };
    let mut sealer = draft.seal(&archive.keys.recipients, &archive.keys.writer).map_err(refused)?;
    sealer.frame(&archive.keys.writer.compare().to_sealed_content()).map_err(refused)?;
    let object = sealer.finish_with(Some(&identity)).map_err(refused)?;
    match repository.put(&object).await? {
        PutOutcome::Created => Ok(Founded { repository, identity, made: true }),
        PutOutcome::AlreadyExists => {
            let identity = repository.identity().await?;
            Ok(Founded { repository, identity, made: false })
        }
    }
}
