//! Storing what was found: read again, examined again, and put once.

use std::sync::Arc;

use walseal_common::lsn::Lsn;
use walseal_common::repository::{Act, ObjectName, WalPut};

use super::HealError;
use super::examine::Examiner;
use super::healer::Healer;
use super::known::Knowledge;
use super::plan::{Fill, HealPlan};
use super::source::{Brought, Source};
use crate::shipment::{Piece, PieceKind};
use crate::stream::{Cutter, store_histories};

/// What was stored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stored {
    /// Objects.
    pub objects: u64,
    /// Bytes of WAL in them.
    pub bytes: u64,
}

impl Healer {
    /// Stores what the plan found in `sources`, the same as for the plan. Everything is durable when this returns. `report` hears
    /// of each object.
    ///
    /// Errors: as [`Healer::plan`]; a source gives other bytes than before. What was stored by then is right, and stays.
    pub async fn fill(
        &self,
        plan: &HealPlan,
        sources: &[Arc<dyn Source>],
        mut report: impl FnMut(&ObjectName) + Send,
    ) -> Result<Stored, HealError> {
        let mut stored = Stored::default();
        for fill in plan.gaps.iter().flat_map(|gap| &gap.fills) {
            if let Some(source) = sources.get(fill.place) {
                self.fill_one(fill, source.as_ref(), &mut stored, &mut report).await?;
            }
        }
        Ok(stored)
    }

    async fn fill_one(
        &self,
        fill: &Fill,
        source: &dyn Source,
        stored: &mut Stored,
        report: &mut (impl FnMut(&ObjectName) + Send),
    ) -> Result<(), HealError> {
        let changed = |at: Lsn, why: String| HealError::Changed { source_name: source.describe(), at, why };
        if let Some(history) = &fill.history {
            store_histories(&self.repository, &self.keys, history).await.map_err(Box::new)?;
        }
        let rules = self.rules(fill.branch, fill.history.as_ref());
        let nothing = Knowledge::default();
        let unfit = |at: Lsn, why: String| changed(at, why);
        let mut examiner = Examiner::new(&rules, &nothing.known, fill.read_from)
            .map_err(|why| unfit(fill.read_from, why.to_string()))?;
        let mut cutter =
            Cutter::new(fill.branch, self.identity.segment_size, self.keys.writer.compare(), fill.read_from, None);
        let reading = source.read(fill.branch.timeline, fill.read_from, fill.range.end).await?;
        let reading = reading.filter(|reading| reading.start == fill.read_from);
        let Some(mut reading) = reading else { return Err(changed(fill.read_from, "it is gone".to_owned())) };
        let mut pieces = Vec::new();
        while cutter.received() < fill.range.end {
            let at = cutter.received();
            let bytes = match reading.brought.recv().await {
                Some(Ok(Brought::Wal(bytes))) => bytes,
                Some(Ok(Brought::Finished(_))) => continue,
                Some(Ok(Brought::End(why))) => return Err(changed(at, why)),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(changed(at, "it broke off".to_owned())),
            };
            let length = usize::try_from(fill.range.end.bytes_since(at)).unwrap_or(usize::MAX).min(bytes.len());
            let bytes = bytes.get(..length).unwrap_or_default();
            examiner.push(bytes).map_err(|why| unfit(at, why.to_string()))?;
            cutter.push(bytes, &mut pieces).map_err(|differs| unfit(at, differs.to_string()))?;
            for piece in pieces.drain(..) {
                self.check(fill, &piece).map_err(|why| changed(piece.start, why))?;
                self.store(fill, piece, stored, report).await?;
            }
        }
        let rest = if fill.is_end { cutter.partial() } else { cutter.cut_tail() };
        if let Some(rest) = rest {
            if !fill.is_end && examiner.checked() < fill.range.end {
                return Err(changed(examiner.checked(), "its last record is not whole".to_owned()));
            }
            self.store(fill, rest, stored, report).await?;
        }
        self.ledger.record(Act::GapHealed { branch: fill.branch, from: fill.range.start, to: fill.range.end });
        Ok(())
    }

    /// Whether a piece is what the plan saw.
    fn check(&self, fill: &Fill, piece: &Piece) -> Result<(), String> {
        match fill.digests.get(&piece.range().end) {
            Some(digest) if *digest == piece.digest_end => Ok(()),
            _ => Err("its bytes are others".to_owned()),
        }
    }

    async fn store(
        &self,
        fill: &Fill,
        piece: Piece,
        stored: &mut Stored,
        report: &mut (impl FnMut(&ObjectName) + Send),
    ) -> Result<(), HealError> {
        if piece.range().end <= fill.range.start {
            // The segment before the gap, which was read for its end.
            return Ok(());
        }
        let piece = match piece.kind {
            // One that holds less may have the name; then the rest of it is kept beside.
            PieceKind::Partial if self.has(&piece.name()).await? => Piece { kind: PieceKind::Tail, ..piece },
            _ => piece,
        };
        let (name, bytes) = (piece.name(), piece.bytes.len());
        let room = self.memory.room(piece.footprint()).await;
        if piece.ship_unless_there(&self.repository, &self.keys, &room).await? == WalPut::Stored {
            stored.objects += 1;
            stored.bytes += bytes;
            report(&name);
        }
        Ok(())
    }

    async fn has(&self, name: &ObjectName) -> Result<bool, HealError> {
        match self.repository.read_header(name).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
