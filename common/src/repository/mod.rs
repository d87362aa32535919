//! What is in a repository: object names, identity, WAL, base label and manifest, snapshots, gaps, ledger. `docs/FORMAT.md` is normative.
//!
//! A [`Repository`] is one cluster's folder in a store, read with the eyes of somebody who trusts certain writers:
//! an object whose signature does not verify is an error, never an answer.

mod adoption;
mod ancestry;
mod attachment;
mod base;
mod catalog;
mod cover;
mod derivation;
mod drills;
mod error;
mod frontier;
mod gap;
mod hold;
mod identity;
mod intent;
mod layer;
mod lease;
mod ledger;
mod listing;
#[cfg(test)]
mod model;
mod name;
mod pages;
mod pruned;
mod reference;
mod resume;
mod scrub;
mod snapshot;
mod stock;
mod summary;
mod surplus;
mod usage;
mod wal;
mod wal_listing;
mod way;

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

pub use crate::timeline::Leg;
pub use adoption::{Adoption, Adoptions, Step};
pub use ancestry::Ancestry;
pub use attachment::{ConfigEntry, NameEntry};
pub use base::{
    BaseId, BaseType, Extent, FileEntry, FrameDigest, Label, ManifestEntry, ObjectReference, PathError, PathField,
    RelativePath, ResumePages,
};
pub use catalog::{CatalogEntry, CatalogPage};
pub use cover::Cover;
pub use derivation::{Derivation, Lineage};
pub use drills::{Drill, Proof, Provable, SnapshotDrill, SnapshotProof};
pub use error::RepositoryError;
pub use frontier::{BranchFrontier, FrontierRecord, NoBranchFrontier, WrittenFrontier, furthest, silence};
pub use gap::{Gap, GapRecord, Stretch};
pub use hold::{Hold, HoldRecord};
pub use identity::RepositoryIdentity;
pub use intent::{IntentPage, IntentRecord};
pub use layer::{BlockRun, LAYER_BLOCK, Layer, MOST_LAYERS, Span, spans};
pub use lease::{HeldLease, LeaseRecord};
pub use ledger::{
    Act, Body, Chain, DrillFacts, EvidenceFact, FailureClass, Finding, Head, KnownEntries, Ledger, LedgerEntry,
    LedgerReading, LedgerSigner, NoRunId, RunId, TargetFact, obscured,
};
pub use name::{ObjectName, UnknownName};
pub use pages::Pages;
pub use pruned::{Pruned, PrunedRecord};
pub use resume::{ResumeEntry, ResumeObject};
pub use scrub::{
    Flaw, FlawKind, Heads, Leftover, LeftoverWal, LostWindow, Reader, Reading, Survey, Witness, cure_of_base_object,
    cure_of_wal_object,
};
pub use snapshot::{SnapshotFact, SnapshotId, SnapshotLabel, is_dumped_again};
pub use surplus::{Beyond, Surplus};
pub use usage::{Sum, Usage};
pub use wal::WalPut;
pub use wal_listing::WalListing;
pub use way::{extents_along, lies_on};

use crate::seal::{
    Draft, Envelope, Identity, Kind, SIGNED_PREFIX_HINT, SealError, SealedObject, SignedHeader, TrustedWriters,
    WriterKey,
};
use crate::store::{ObjectStore, PutOutcome, StoreErrorKind};
use crate::timeline::SystemIdentifier;

/// Most bytes that one object has: 16 MiB of plaintext that zstd could not shrink, with room for header and trailer.
pub const MAX_OBJECT: u64 = (16 << 20) + (4 << 20);

/// One cluster's folder in a store.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    trust: Arc<TrustedWriters>,
}

impl Repository {
    /// The folder of `cluster` in `store`. Nothing is read yet.
    pub fn new(store: Arc<dyn ObjectStore>, cluster: SystemIdentifier, trust: TrustedWriters) -> Repository {
        Repository { store, cluster, trust: Arc::new(trust) }
    }

    /// The one cluster in `store`, or the one that is named.
    ///
    /// Errors: none, several without a name, not the named one.
    pub async fn find(
        store: Arc<dyn ObjectStore>,
        wanted: Option<SystemIdentifier>,
        trust: TrustedWriters,
    ) -> Result<Repository, RepositoryError> {
        let clusters = Repository::clusters(store.as_ref()).await?;
        let describe = || store.describe();
        let words = || clusters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let cluster = match (wanted, clusters.as_slice()) {
            (_, []) => return Err(RepositoryError::Empty { store: describe() }),
            (Some(wanted), found) if found.contains(&wanted) => wanted,
            (Some(wanted), _) => {
                return Err(RepositoryError::NoSuchCluster {
                    store: describe(),
                    wanted: wanted.to_string(),
                    found: words(),
                });
            }
            (None, [one]) => *one,
            (None, _) => return Err(RepositoryError::SeveralClusters { store: describe(), found: words() }),
        };
        Ok(Repository::new(store, cluster, trust))
    }

    /// Every cluster with an `identity` in `store`, in no more calls than there are folders.
    pub async fn clusters(store: &dyn ObjectStore) -> Result<Vec<SystemIdentifier>, RepositoryError> {
        let mut clusters = Vec::new();
        let mut after: Option<String> = None;
        while let Some(first) = store.list("", after.as_deref(), 1).await?.objects.into_iter().next() {
            let folder = first.key.split('/').next().unwrap_or_default();
            if let Ok(cluster) = folder.parse::<SystemIdentifier>() {
                let key = ObjectName::Identity.key(cluster);
                match store.get_range(&key, 0..1).await {
                    Ok(_) => clusters.push(cluster),
                    Err(error) if error.kind == StoreErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // '0' is the byte after '/': everything below the folder sorts before it.
            after = Some(format!("{folder}0"));
        }
        Ok(clusters)
    }

    /// The cluster whose folder this is.
    pub fn cluster(&self) -> SystemIdentifier {
        self.cluster
    }

    /// Whose objects count.
    pub fn trust(&self) -> &TrustedWriters {
        &self.trust
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where it is, for messages.
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// An object without frames: its `body` is plain, and signed under `name`.
    ///
    /// Errors: it has no form as JSON, or is too long.
    pub fn signed<B: Serialize>(
        &self,
        kind: Kind,
        name: &ObjectName,
        body: &B,
        writer: &WriterKey,
    ) -> Result<SealedObject, RepositoryError> {
        // What frames would be like is in every header.
        let (frame_size, level) = (64 << 10, 1);
        let draft = Draft { kind, cluster: self.cluster, name: name.to_string(), wal: None, frame_size, level };
        draft.sign(writer, body).map_err(|source| self.refused(name, source))
    }

    /// Stores a finished object under its own name, once.
    pub async fn put(&self, object: &SealedObject) -> Result<PutOutcome, RepositoryError> {
        let key = format!("{}/{}", self.cluster, object.name);
        Ok(self.store.put_new(&key, object.bytes.clone()).await?)
    }

    /// Reads a whole object and verifies both its signatures.
    ///
    /// Errors: not there; not exactly what a trusted writer signed under this name.
    pub async fn read(&self, name: &ObjectName) -> Result<Envelope, RepositoryError> {
        let bytes = self.store.get(&name.key(self.cluster)).await?;
        self.verify(name, bytes)
    }

    /// Verifies bytes that were read as the object `name`.
    pub fn verify(&self, name: &ObjectName, bytes: Bytes) -> Result<Envelope, RepositoryError> {
        let text = name.to_string();
        Envelope::read(bytes, &self.trust, self.cluster, &text)
            .map_err(|source| RepositoryError::Object { name: text, source })
    }

    /// Reads and verifies only the header of an object: one small read. Also returns the object's size in bytes.
    pub async fn read_header(&self, name: &ObjectName) -> Result<(SignedHeader, u64), RepositoryError> {
        let key = name.key(self.cluster);
        let text = name.to_string();
        let mut part = self.store.get_range(&key, 0..SIGNED_PREFIX_HINT).await?;
        let refuse = |source| RepositoryError::Object { name: text.clone(), source };
        let length = SignedHeader::length(&part.bytes).map_err(refuse)?;
        if length > part.bytes.len() as u64 && part.object_size >= length {
            part = self.store.get_range(&key, 0..length).await?;
        }
        let signed = SignedHeader::read(&part.bytes, &self.trust, self.cluster, &text).map_err(refuse)?;
        Ok((signed, part.object_size))
    }

    /// Reads a whole object and opens it.
    pub async fn open(&self, name: &ObjectName, identities: &[Identity]) -> Result<Vec<u8>, RepositoryError> {
        let envelope = self.read(name).await?;
        let plain = envelope.read_all(identities);
        plain.map_err(|source| RepositoryError::Object { name: name.to_string(), source })
    }

    /// What the repository is.
    ///
    /// Errors: [`RepositoryError::Empty`] when `init` has not been here.
    pub async fn identity(&self) -> Result<RepositoryIdentity, RepositoryError> {
        let envelope = self.read(&ObjectName::Identity).await.map_err(|error| {
            if error.is_not_found() { RepositoryError::Empty { store: self.describe() } } else { error }
        })?;
        envelope.trailer.body().map_err(|source| self.refused(&ObjectName::Identity, source))
    }

    /// The label of a base backup, verified.
    pub async fn label(&self, id: &BaseId) -> Result<Label, RepositoryError> {
        Ok(self.signed_label(id).await?.0)
    }

    /// Whether a base backup has a label, whatever that is worth.
    ///
    /// Errors: the store's.
    pub async fn is_labelled(&self, id: &BaseId) -> Result<bool, RepositoryError> {
        match self.label(id).await {
            Err(error) if error.is_not_found() => Ok(false),
            Err(error @ RepositoryError::Store(_)) => Err(error),
            _ => Ok(true),
        }
    }

    /// The label of a base backup, verified, and who wrote it: `walsealw1…`.
    pub async fn signed_label(&self, id: &BaseId) -> Result<(Label, String), RepositoryError> {
        let name = ObjectName::Label(id.clone());
        let envelope = self.read(&name).await?;
        let label: Label = envelope.trailer.body().map_err(|source| self.refused(&name, source))?;
        if label.id == *id {
            Ok((label, envelope.header().writer.clone()))
        } else {
            let (found, expected) = (label.id.to_string(), id.to_string());
            Err(self.refused(&name, SealError::WrongName { found, expected }))
        }
    }

    /// The list of files of a base backup, page by page in order; each page is checked against the label.
    pub async fn manifest_page(
        &self,
        label: &Label,
        page: usize,
        identities: &[Identity],
    ) -> Result<Vec<ManifestEntry>, RepositoryError> {
        let missing = || SealError::Truncated("the label lists no such page");
        let own = ObjectName::Label(label.id.clone());
        let reference = label.manifest.get(page).ok_or_else(missing).map_err(|source| self.refused(&own, source))?;
        let envelope = self.read_reference(reference).await?;
        let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
        let plain = envelope.read_all(identities).map_err(refuse)?;
        plain
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line)
                    .map_err(|error| refuse(SealError::Structure(format!("a line of the list of files: {error}"))))
            })
            .collect()
    }

    fn refused(&self, name: &ObjectName, source: SealError) -> RepositoryError {
        RepositoryError::Object { name: name.to_string(), source }
    }
}
