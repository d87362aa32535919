//! Where a stream begins, and what lies in the repository there.

use walseal_common::lsn::Lsn;
use walseal_common::seal::CompareDigest;
use walseal_common::timeline::Branch;

/// Where a stream begins.
#[derive(Clone, Debug)]
pub struct StartPoint {
    /// The branch to stream.
    pub branch: Branch,
    /// START_REPLICATION begins here: the start of a segment.
    pub start: Lsn,
    /// End of the contiguous durable WAL; not below `start`.
    pub frontier: Lsn,
    /// What is durable of the frontier's segment, to be compared with what the server sends. `None` when nothing is durable
    /// from `start` on: then that is the frontier.
    pub durable: Option<Durable>,
    /// Whole segments from here up to `start` lie in the repository, and this server's slot has not seen them confirmed.
    pub unseen: Option<Lsn>,
    /// The branch before, which the repository holds to its end; nothing is known to have been stored of this one yet.
    pub followed: Option<Followed>,
}

/// A branch whose end was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Followed {
    /// The branch.
    pub branch: Branch,
    /// Where the next one begins.
    pub fork: Lsn,
    /// What the repository holds of it beyond the fork, in bytes.
    pub surplus: u64,
}

impl StartPoint {
    /// The same, begun early enough to compare what the slot has not seen confirmed with what this server sends (case 17).
    /// `lost` is where the server is known to have no WAL.
    pub fn comparing(self, lost: Option<Lsn>) -> StartPoint {
        match self.unseen.filter(|unseen| lost != Some(*unseen)) {
            Some(start) => StartPoint { start, ..self },
            None => StartPoint { durable: self.durable.filter(|_| self.start < self.frontier), ..self },
        }
    }

    /// A stream that goes on from nothing.
    pub(super) fn fresh(branch: Branch, start: Lsn) -> StartPoint {
        StartPoint { branch, start, frontier: start, durable: None, unseen: None, followed: None }
    }
}

/// What lies in the repository of the segment in which the frontier lies, or which ends there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Durable {
    /// Digest of the segment from its start to the frontier.
    pub digest: CompareDigest,
    /// The object that ends at the frontier.
    pub name: String,
    /// Who wrote that object.
    pub writer: String,
    /// Objects that a reader needs for the part of the segment in which the frontier lies.
    pub pieces: u32,
}
