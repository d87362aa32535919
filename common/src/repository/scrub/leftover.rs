//! What is on record as removed and is still there: the next prune removes it, or keeps it where it is promised by then, and writes that
//! down. What is there counts; of what only this holds, nobody would miss anything.

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, LsnRange};
use crate::repository::{BaseId, Pruned};
use crate::timeline::Branch;

/// WAL on record as removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeftoverWal {
    /// The branch.
    pub branch: Branch,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
}

/// All that is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Leftover {
    /// Base backups, oldest first.
    pub bases: Vec<BaseId>,
    /// WAL.
    pub wal: Vec<LeftoverWal>,
}

impl Leftover {
    /// Takes in what of `extents` is on record.
    pub(super) fn note_wal(&mut self, extents: &[(Branch, LsnRange)], pruned: &Pruned) {
        for (branch, extent) in extents {
            let there = extent.within(pruned.on(*branch)).into_iter();
            self.wal.extend(there.map(|LsnRange { start: from, end: to }| LeftoverWal { branch: *branch, from, to }));
        }
    }
}
