//! `.partial` files: the last, unfinished segment of a timeline that ended (case 4).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walseal_common::lsn::Lsn;
use walseal_common::repository::{ObjectName, WalPut};
use walseal_common::seal::WalSection;
use walseal_common::segment::{SegmentName, WalFileName};

use super::archivist::{Archivist, Load, blocking};
use super::freight::Freight;
use super::lineage::{Lineage, fork_within};
use super::{PushError, Pushed};
use crate::memory::Room;
use crate::shipment::{Piece, PieceKind};

impl Archivist {
    /// Makes the valid part of a `.partial` durable.
    pub(super) async fn push_partial(
        &self,
        path: &Path,
        folder: &Path,
        segment: SegmentName,
    ) -> Result<Pushed, PushError> {
        let name = WalFileName::Partial(segment);
        let lineage = self.lineage(folder, segment).await?;
        let freight = Arc::new(self.open(path, name, segment, lineage.clone()).await?);
        self.prove_kinship(&freight, &lineage, folder, segment, name).await?;
        self.ship_partial(freight, lineage, folder.to_owned(), segment, name).await
    }

    /// Makes the valid part of the last segment of a timeline durable; its file has the name `name`.
    pub(super) async fn ship_partial(
        &self,
        freight: Arc<Freight>,
        lineage: Lineage,
        folder: PathBuf,
        segment: SegmentName,
        name: WalFileName,
    ) -> Result<Pushed, PushError> {
        let (branch, system) = (lineage.branch, self.repository.cluster());
        let range = freight.number().range(self.identity.segment_size);
        let file = freight.clone();
        let end = blocking(move || end_of(&file, &lineage, &folder, range, name, system)).await?;
        let _alone = self.berth(&WalFileName::Partial(segment).to_string()).await;
        let end = end.bytes_since(range.start);
        let mut load = Load::partial(freight, branch, &self.identity, &self.keys, end);
        let mut outcome = Pushed::AlreadyThere;
        while !load.is_done() {
            let (room, rest, pieces) = self.next_part(load).await?;
            load = rest;
            for piece in pieces {
                let put = match piece.kind {
                    PieceKind::Partial => self.ensure_partial(piece, load.freight.clone(), &room).await?,
                    _ => piece.ship_unless_there(&self.repository, &self.keys, &room).await?,
                };
                if put == WalPut::Stored {
                    outcome = Pushed::Shipped;
                }
            }
            drop(room);
        }
        Ok(outcome)
    }

    /// Makes the last piece of a `.partial` durable. Nodes may differ in how much of the segment they have: where the object
    /// that is there holds less, the whole piece is kept as a tail beside it, where it holds more of the same, it is enough.
    pub(super) async fn ensure_partial(
        &self,
        piece: Piece,
        freight: Arc<Freight>,
        room: &Room,
    ) -> Result<WalPut, PushError> {
        let name = ObjectName::Partial(piece.branch, piece.segment());
        let there: Option<WalSection> = match self.repository.read_header(&name).await {
            Ok((signed, _)) => signed.header.wal,
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let key = self.keys.writer.compare().clone();
        let end = piece.range().end;
        let comparable =
            there.filter(|there| there.end != end && there.start == piece.start && there.compare_key == key.id());
        let Some(there) = comparable else {
            return Ok(piece.ship_unless_there(&self.repository, &self.keys, room).await?);
        };
        let length = self.identity.segment_size.offset(piece.start) + there.end.bytes_since(piece.start);
        let digest = blocking(move || freight.digest(&key, length)).await?;
        match digest == there.digest_end {
            false => Ok(piece.ship_unless_there(&self.repository, &self.keys, room).await?),
            true if there.end > end => Ok(WalPut::AlreadyThere),
            true => {
                let tail = Piece { kind: PieceKind::Tail, ..piece };
                Ok(tail.ship_unless_there(&self.repository, &self.keys, room).await?)
            }
        }
    }
}

/// Where the part that counts ends: with the last complete record, and never beyond the fork.
fn end_of(
    freight: &Freight,
    lineage: &Lineage,
    folder: &Path,
    range: walseal_common::lsn::LsnRange,
    name: WalFileName,
    system: walseal_common::timeline::SystemIdentifier,
) -> Result<Lsn, PushError> {
    let valid = freight.valid_end()?;
    let fork = fork_within(folder, lineage.origin, range, system)?;
    let end = fork.map_or(valid.position, |fork| fork.min(valid.position));
    if end <= range.start {
        return Err(PushError::NoValidWal { name, why: valid.to_string() });
    }
    if let Some(fork) = fork.filter(|fork| end < *fork) {
        tracing::warn!(%name, %fork, %valid, "less valid WAL than the history of the next timeline says; storing what there is");
    }
    Ok(end)
}
