//! What a repository holds, as far as retention has to know it: plain data.
//!
//! Of each object of a base backup 8 bytes are in memory, of each of WAL about 56 (I11: some tens of MB for a million objects).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use walseal_common::lsn::{Lsn, LsnRange};
pub use walseal_common::repository::Sum;
use walseal_common::repository::{BaseId, CatalogPage, HeldLease, Label, ObjectName, RunId};
use walseal_common::seal::WriterPublic;
use walseal_common::segment::SegmentSize;
use walseal_common::store::Lock;
use walseal_common::timeline::Branch;

use super::branch::{BranchHoldings, WalPiece};
use super::pieces::{PieceKind, Pieces};

/// A base backup whose label verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// Which.
    pub id: BaseId,
    /// The branch at its start and stop.
    pub branch: Branch,
    /// Where replay begins.
    pub start: Lsn,
    /// From here on it is consistent.
    pub stop: Lsn,
    /// By then everything in it had happened, by every clock that tells: a time from here on can be restored with it.
    pub ready: Timestamp,
    /// It shows the cluster as it was then or later.
    pub shows: Timestamp,
    /// Page checksum failures (case 31).
    pub suspect: u64,
    /// Whether a drill of it passed.
    pub proven: bool,
    /// Every object that it needs.
    pub needs: Pieces,
}

impl Base {
    /// What a label says.
    ///
    /// Errors: the name of an object that it needs and that this version does not know.
    pub fn of(label: &Label, proven: bool) -> Result<Base, String> {
        Ok(Base {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            ready: label.stop_time.max(label.highest_time.unwrap_or(label.stop_time)),
            shows: label.shows(),
            suspect: label.suspect,
            proven,
            needs: Pieces::of_label(label)?,
        })
    }
}

/// A label that does not verify, so that nobody knows what it needs.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct UnreadableLabel {
    /// Whose.
    pub id: BaseId,
    /// What is wrong with it.
    pub why: String,
}

/// What lies below `base/<id>/`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Folder {
    /// Bytes of the label; `None` without one.
    pub label: Option<u64>,
    /// The other objects, in order: number and bytes.
    pub pieces: BTreeMap<PieceKind, Vec<(u32, u32)>>,
    /// When the store took the newest of them; `None` where it does not tell of any.
    pub newest: Option<i64>,
}

impl Folder {
    /// Whether the piece is there.
    pub fn has(&self, kind: PieceKind, number: u32) -> bool {
        let pieces = self.pieces.get(&kind).map_or(&[][..], Vec::as_slice);
        pieces.binary_search_by_key(&number, |(number, _)| *number).is_ok()
    }
}

/// An object that is small and of which there are many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Small {
    /// Its name.
    pub name: ObjectName,
    /// Its bytes.
    pub size: u64,
    /// When the store took it, in seconds since 1970, where it tells.
    pub stored: Option<i64>,
}

/// What a repository holds.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// Size of the cluster's segments.
    pub size: SegmentSize,
    /// The base backups whose label verifies, oldest first.
    pub bases: Vec<Base>,
    /// Those whose label does not.
    pub unreadable: Vec<UnreadableLabel>,
    /// What lies below `base/`.
    pub folders: BTreeMap<BaseId, Folder>,
    /// Every branch that has WAL or a catalog page, or that a label names.
    pub branches: BTreeMap<Branch, BranchHoldings>,
    /// Base backups that stay until some time, whatever else.
    pub holds: BTreeMap<BaseId, Timestamp>,
    /// What writers at work rely on.
    pub leases: Vec<HeldLease>,
    /// Every object of a lease.
    pub lease_objects: BTreeMap<RunId, Vec<Small>>,
    /// Of objects that would go, what the store does not let go yet: they stay.
    pub locked: BTreeMap<ObjectName, Lock>,
    /// Base backups, with a label or without, that an intent names: what is left of them was about to go.
    pub announced: BTreeSet<BaseId>,
    /// Every frontier of a writer, the newest first.
    pub frontiers: BTreeMap<WriterPublic, Vec<Small>>,
    /// Everything, by the first part of its name.
    pub kinds: BTreeMap<String, Sum>,
    /// Objects that the store took within a day before it was looked at, by its own times.
    pub fresh: u64,
    /// Names that this version does not know: never touched.
    pub unknown: Sum,
    /// The first of them.
    pub unknown_names: Vec<String>,
    /// The newest time that the store gave to any object: its own clock shows at least this.
    pub newest: Option<i64>,
}

impl Holdings {
    /// Those of a repository in which nothing lies.
    pub fn empty(size: SegmentSize) -> Holdings {
        Holdings {
            size,
            bases: Vec::new(),
            unreadable: Vec::new(),
            folders: BTreeMap::new(),
            branches: BTreeMap::new(),
            holds: BTreeMap::new(),
            leases: Vec::new(),
            lease_objects: BTreeMap::new(),
            locked: BTreeMap::new(),
            announced: BTreeSet::new(),
            frontiers: BTreeMap::new(),
            kinds: BTreeMap::new(),
            fresh: 0,
            unknown: Sum::default(),
            unknown_names: Vec::new(),
            newest: None,
        }
    }

    /// Whether every object that the backup needs is there, by name.
    pub fn is_whole(&self, base: &Base) -> bool {
        let labelled = self.folders.get(&base.id).is_some_and(|folder| folder.label.is_some());
        let there = |(id, kind, number): (&BaseId, PieceKind, u32)| {
            self.folders.get(id).is_some_and(|folder| folder.has(kind, number))
        };
        labelled && base.needs.iter().all(there)
    }

    /// What is left when the objects of these names are gone.
    pub fn without(&self, gone: &BTreeSet<ObjectName>) -> Holdings {
        let mut left = self.clone();
        let size = self.size;
        for (id, folder) in &mut left.folders {
            if gone.contains(&ObjectName::Label(id.clone())) {
                folder.label = None;
            }
            for (kind, pieces) in &mut folder.pieces {
                pieces.retain(|(number, _)| !gone.contains(&kind.name(id, *number)));
            }
        }
        left.bases.retain(|base| !gone.contains(&ObjectName::Label(base.id.clone())));
        for (branch, holdings) in &mut left.branches {
            let mut listing = holdings.listing(*branch, size);
            let mut cut = Vec::new();
            holdings.wal.retain(|object| {
                let name = object.name(*branch, size);
                let goes = gone.contains(&name);
                if goes {
                    listing.leave_out(&name);
                    cut.push(object.number);
                }
                !goes
            });
            // Where a segment lost an object, what is left of it counts as the names show.
            cut.dedup();
            for number in cut {
                let range = number.range(size);
                let held = listing.contiguous_end(range.start).min(range.end);
                let verified = holdings.verified.get(&number).map_or(range.start, |range| range.end);
                let partial = holdings.wal.iter().any(|o| o.number == number && o.piece == WalPiece::Partial);
                let end = if partial { held.max(verified) } else { held };
                holdings.extents =
                    without_range(&holdings.extents, LsnRange { start: end.max(range.start), end: range.end });
            }
            holdings.pages.retain(|(first, _)| !gone.contains(&CatalogPage::name(*branch, *first, size)));
            holdings.summaries.retain(|summary| !gone.contains(&summary.name(*branch, size)));
        }
        left
    }
}

fn without_range(extents: &[LsnRange], out: LsnRange) -> Vec<LsnRange> {
    let parts = extents.iter().flat_map(|extent| {
        let before = LsnRange { start: extent.start, end: extent.end.min(out.start) };
        let after = LsnRange { start: extent.start.max(out.end), end: extent.end };
        if out.is_empty() { [*extent, LsnRange { start: extent.end, end: extent.end }] } else { [before, after] }
    });
    parts.filter(|part| part.start < part.end).collect()
}
