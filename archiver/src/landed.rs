//! Segments that the stream of this process has made durable, with their digests: whoever pushes one of them is answered
//! without a look at the repository.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walseal_common::seal::CompareDigest;
use walseal_common::segment::SegmentNumber;
use walseal_common::timeline::Branch;

/// Most segments remembered (I11), the newest ones: a backlog of 64 GiB in segments of 16 MiB.
const MOST: usize = 4096;

/// The newest whole segments that were stored by this process. What it forgets is looked for in the repository.
#[derive(Clone, Default, Debug)]
pub struct Landed(Arc<Mutex<VecDeque<(Branch, SegmentNumber, CompareDigest)>>>);

impl Landed {
    /// The segment is durable, and has this digest (I1).
    pub fn note(&self, branch: Branch, segment: SegmentNumber, digest: CompareDigest) {
        let mut segments = self.segments();
        if segments.len() == MOST {
            segments.pop_front();
        }
        segments.push_back((branch, segment, digest));
    }

    /// The digest of the segment, where this process has made it durable and still knows.
    pub fn digest(&self, branch: Branch, segment: SegmentNumber) -> Option<CompareDigest> {
        let segments = self.segments();
        segments.iter().rev().find(|(on, number, _)| (*on, *number) == (branch, segment)).map(|(_, _, digest)| *digest)
    }

    fn segments(&self) -> MutexGuard<'_, VecDeque<(Branch, SegmentNumber, CompareDigest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
