//! Sealing and storing what a base backup carries beside its files: lines, page by page.

use serde::Serialize;
use walseal_common::repository::{BaseId, ObjectName, ObjectReference, Repository};
use walseal_common::seal::{Draft, Kind, SealError};

use super::BaseError;
use super::shipper::put;
use crate::keys::ArchiveKeys;

/// A page is stored when it has so many bytes.
const PAGE: usize = 2 << 20;

/// Plaintext in a frame, in bytes.
const FRAME: u32 = 1 << 20;

/// Pages of one kind, each sealed and stored as soon as it is full.
pub struct Attachment<'a> {
    repository: &'a Repository,
    keys: &'a ArchiveKeys,
    level: i32,
    kind: Kind,
    name: fn(BaseId, u32) -> ObjectName,
    id: BaseId,
    page: Vec<u8>,
    stored: Vec<ObjectReference>,
}

impl<'a> Attachment<'a> {
    /// The names of the backup `id`.
    pub fn names(repository: &'a Repository, keys: &'a ArchiveKeys, id: &BaseId, level: i32) -> Attachment<'a> {
        let (kind, name) = (Kind::Names, ObjectName::Names as fn(BaseId, u32) -> ObjectName);
        Attachment { repository, keys, level, kind, name, id: id.clone(), page: Vec::new(), stored: Vec::new() }
    }

    /// The configuration of the backup `id`.
    pub fn config(repository: &'a Repository, keys: &'a ArchiveKeys, id: &BaseId, level: i32) -> Attachment<'a> {
        let (kind, name) = (Kind::Config, ObjectName::Config as fn(BaseId, u32) -> ObjectName);
        Attachment { kind, name, ..Attachment::names(repository, keys, id, level) }
    }

    /// Adds a line. A page that is full is durable on return.
    ///
    /// Errors: it could not be sealed or stored.
    pub async fn line(&mut self, entry: &impl Serialize) -> Result<(), BaseError> {
        let unwritten = |error: serde_json::Error| self.failed(SealError::Structure(error.to_string()));
        let line = serde_json::to_vec(entry).map_err(unwritten)?;
        self.page.extend_from_slice(&line);
        self.page.push(b'\n');
        if self.page.len() >= PAGE { self.store().await } else { Ok(()) }
    }

    /// Stores what is left, and says what the label has to refer to.
    ///
    /// Errors: as [`Attachment::line`].
    pub async fn finish(mut self) -> Result<Vec<ObjectReference>, BaseError> {
        if !self.page.is_empty() {
            self.store().await?;
        }
        Ok(self.stored)
    }

    async fn store(&mut self) -> Result<(), BaseError> {
        let name = self.next_name();
        let draft = Draft {
            kind: self.kind,
            cluster: self.repository.cluster(),
            name: name.to_string(),
            wal: None,
            frame_size: FRAME,
            level: self.level,
        };
        let plain = std::mem::take(&mut self.page);
        // Some tens of milliseconds a page, as long as a server needs to bring the next one.
        let seal = || {
            let mut sealer = draft.seal(&self.keys.recipients, &self.keys.writer)?;
            sealer.frames_of(&plain)?;
            sealer.finish().map(ObjectReference::with)
        };
        let (object, reference) = tokio::task::block_in_place(seal).map_err(|source| self.failed(source))?;
        put(self.repository, &name, &object).await?;
        self.stored.push(reference);
        Ok(())
    }

    fn next_name(&self) -> ObjectName {
        (self.name)(self.id.clone(), u32::try_from(self.stored.len()).unwrap_or(u32::MAX))
    }

    fn failed(&self, source: SealError) -> BaseError {
        BaseError::Seal { name: self.next_name().to_string(), source }
    }
}
