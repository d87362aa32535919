//! What lies on a branch: WAL, catalog pages, summaries.

use std::collections::BTreeMap;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{ObjectName, Step, WalListing};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

/// What an object of WAL is of its segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WalPiece {
    /// All of it.
    Whole,
    /// A part of one over 16 MiB.
    Part(u8),
    /// The valid part of the last one.
    Partial,
    /// A durable piece.
    Tail(LsnRange),
}

/// An object of WAL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WalObject {
    /// Its segment.
    pub number: SegmentNumber,
    /// What it is of it.
    pub piece: WalPiece,
    /// Its bytes.
    pub size: u64,
    /// When the store took it; `None` where it does not tell.
    pub stored: Option<i64>,
}

impl WalObject {
    /// Its name.
    pub fn name(&self, branch: Branch, size: SegmentSize) -> ObjectName {
        let segment = SegmentName::new(branch.timeline, self.number, size);
        match self.piece {
            WalPiece::Whole => ObjectName::Wal(branch, segment, None),
            WalPiece::Part(part) => ObjectName::Wal(branch, segment, Some(part)),
            WalPiece::Partial => ObjectName::Partial(branch, segment),
            WalPiece::Tail(range) => ObjectName::Tail(branch, segment, range),
        }
    }

    /// The object of that name.
    pub fn of(name: &ObjectName, size: SegmentSize, bytes: u64, stored: Option<i64>) -> Option<(Branch, WalObject)> {
        let (branch, segment, piece) = match name {
            ObjectName::Wal(branch, segment, None) => (branch, segment, WalPiece::Whole),
            ObjectName::Wal(branch, segment, Some(part)) => (branch, segment, WalPiece::Part(*part)),
            ObjectName::Partial(branch, segment) => (branch, segment, WalPiece::Partial),
            ObjectName::Tail(branch, segment, range) => (branch, segment, WalPiece::Tail(*range)),
            _ => return None,
        };
        Some((*branch, WalObject { number: segment.number(size)?, piece, size: bytes, stored }))
    }
}

/// What lies on a branch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BranchHoldings {
    /// The way to it, itself last; `None` where the repository does not tell from which branches it comes.
    pub way: Option<Vec<Step>>,
    /// Its WAL, in order of the segments.
    pub wal: Vec<WalObject>,
    /// Ranges of WAL without a hole, in order.
    pub extents: Vec<LsnRange>,
    /// First segments of its catalog pages, with their bytes, in order.
    pub pages: Vec<(SegmentNumber, u64)>,
    /// Its summaries.
    pub summaries: Vec<Summary>,
    /// Bytes whose whole segment, or `.partial`, is there and verifies: their tails say nothing more. By segment.
    pub verified: BTreeMap<SegmentNumber, LsnRange>,
}

impl BranchHoldings {
    /// When the store took the newest object of its WAL; `None` where it does not tell of one, and where there is none.
    pub fn last_stored(&self) -> Option<i64> {
        self.wal.iter().map(|object| object.stored).max_by_key(|stored| stored.unwrap_or(i64::MAX)).flatten()
    }

    /// Its WAL by name.
    pub fn listing(&self, branch: Branch, size: SegmentSize) -> WalListing {
        WalListing::of(branch, size, self.wal.iter().map(|object| object.name(branch, size)))
    }

    /// The last segment of which anything is there, as the end of its last byte.
    pub fn highest(&self, size: SegmentSize) -> Lsn {
        let extents = self.extents.last().map_or(Lsn::INVALID, |extent| extent.end);
        let of = |object: &WalObject| match object.piece {
            WalPiece::Tail(range) => range.end,
            WalPiece::Partial => object.number.start(size),
            WalPiece::Whole | WalPiece::Part(_) => object.number.end(size),
        };
        self.wal.iter().map(of).max().unwrap_or(Lsn::INVALID).max(extents)
    }
}

/// What the transactions of a run of segments did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The first segment of the run.
    pub first: SegmentNumber,
    /// The last one.
    pub last: SegmentNumber,
    /// Its bytes.
    pub size: u64,
}

impl Summary {
    /// Its name on `branch`.
    pub fn name(&self, branch: Branch, size: SegmentSize) -> ObjectName {
        let segment = |number| SegmentName::new(branch.timeline, number, size);
        ObjectName::Summary(branch, segment(self.first), segment(self.last))
    }
}
