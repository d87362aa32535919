//! Files that were found, or made, durable a moment before PostgreSQL asks for them, so that its call need not read them again.

use std::collections::VecDeque;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use walseal_common::segment::SegmentName;
use walseal_common::timeline::Branch;

/// Most files remembered; more than any look ahead.
const MOST: usize = 64;

/// What tells that a file is the one that was read, and was not written since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    /// Of an open file, before it is read.
    pub(super) fn of(file: &Metadata) -> Print {
        Print {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Segments that are durable with exactly the bytes of these files.
#[derive(Debug, Default)]
pub(super) struct Verified {
    files: Mutex<VecDeque<(SegmentName, Branch, Print)>>,
}

impl Verified {
    /// The segment is durable with the bytes of the file with this print (I1).
    pub(super) fn remember(&self, segment: SegmentName, branch: Branch, print: Print) {
        let mut files = self.files();
        files.retain(|(name, _, _)| *name != segment);
        if files.len() == MOST {
            files.pop_front();
        }
        files.push_back((segment, branch, print));
    }

    /// Whether anything is remembered of the segment.
    pub(super) fn knows(&self, segment: SegmentName) -> bool {
        self.files().iter().any(|(name, _, _)| *name == segment)
    }

    /// Whether just this file is remembered. It is forgotten then: what is asked for again is looked at again.
    pub(super) fn take(&self, segment: SegmentName, branch: Branch, print: Print) -> bool {
        let mut files = self.files();
        let at = files.iter().position(|(name, _, _)| *name == segment);
        at.and_then(|at| files.remove(at)).is_some_and(|known| known == (segment, branch, print))
    }

    fn files(&self) -> MutexGuard<'_, VecDeque<(SegmentName, Branch, Print)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
