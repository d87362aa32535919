//! Whose WAL a file is, where two servers wrote the same timeline (case 17).
//!
//! On a branch that was adopted nothing lands that does not go on with what is there: the other server's files have the same names,
//! and would take those of the living one's.

use std::path::Path;
use std::sync::Arc;

use walseal_common::repository::RepositoryError;
use walseal_common::segment::{SegmentName, SegmentNumber, WalFileName};

use super::PushError;
use super::archivist::{Archivist, blocking};
use super::freight::Freight;
use super::lineage::Lineage;
use crate::heal::Knowledge;
use crate::shipment::ShipError;

impl Archivist {
    /// Proves that the file is WAL of the server that the branch belongs to: its own bytes, or those of the segment before it, are
    /// those that the branch holds. Nothing has to be proven of a branch that no adoption leads to.
    ///
    /// Errors: the branch holds other bytes; [`PushError::NotKin`] where nobody can tell.
    pub(super) async fn prove_kinship(
        &self,
        freight: &Arc<Freight>,
        lineage: &Lineage,
        folder: &Path,
        segment: SegmentName,
        name: WalFileName,
    ) -> Result<(), PushError> {
        if lineage.branch == lineage.origin || self.agrees(freight, lineage).await? {
            return Ok(());
        }
        let unknown = || PushError::NotKin { name, branch: lineage.branch };
        let size = freight.size();
        let before = freight.number().0.checked_sub(1).map(SegmentNumber).ok_or_else(unknown)?;
        let before = SegmentName::new(segment.timeline, before, size);
        let path = folder.join(before.to_string());
        let before = match self.open(&path, WalFileName::Segment(before), before, lineage.clone()).await {
            Ok(before) => Arc::new(before),
            Err(PushError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(unknown());
            }
            Err(error) => return Err(error),
        };
        if self.agrees(&before, lineage).await? { Ok(()) } else { Err(unknown()) }
    }

    /// Whether the branch holds bytes of the segment, and the file the same.
    ///
    /// Errors: it holds others.
    async fn agrees(&self, freight: &Arc<Freight>, lineage: &Lineage) -> Result<bool, PushError> {
        let (key, size) = (self.keys.writer.compare(), freight.size());
        let about = (lineage.branch, freight.number().range(size));
        let knowledge = Knowledge::of(&self.repository, key.id(), size, about, None).await?;
        // The furthest digest speaks for all before it.
        let Some((end, known)) = knowledge.known.into_iter().next_back() else { return Ok(false) };
        let (file, key, length) = (freight.clone(), key.clone(), end.bytes_since(freight.start()));
        if blocking(move || file.digest(&key, length)).await? == known.digest {
            return Ok(true);
        }
        Err(ShipError::Repository(RepositoryError::Conflict { name: known.name, writer: known.writer }).into())
    }
}
