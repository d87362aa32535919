//! Whether a segment is finished: its WAL valid to the very end.
//!
//! A segment that is still being written has the same size and the same first page as a finished one. What tells them
//! apart is where the records end, and the last of a finished one is either
//!
//! - one that ends with the segment's last byte;
//! - one that goes on in the next segment: records start at every multiple of 8 and may be split anywhere, also within
//!   their header, so no finished segment ends with unused bytes;
//! - a switch (`pg_switch_wal()`, `archive_timeout`, a fast shutdown with `archive_mode`). The rest is padding: zeros, also
//!   where page headers would be (`CopyXLogRecordToWAL` in `xlog.c`, the same in PostgreSQL 14 to 18).

use std::fmt;

use super::end::{EndReason, WalkEnd};
use super::error::WalError;
use super::event::{Event, WalkOptions};
use super::walker::Walker;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::{SegmentNumber, SegmentSize};
use crate::timeline::SystemIdentifier;

/// What the bytes of a segment say of whether it is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// It is: valid WAL to its last byte, the last record checked against its checksum, or a switch and zeros after it.
    Proven,
    /// It looks so, and its bytes alone cannot prove it.
    Unproven(Doubt),
    /// It is not: valid WAL ends before. It is still being written, or was copied while it was, or it is damaged.
    Broken(WalkEnd),
}

/// Why the bytes of a segment do not prove that it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The record that reaches the segment's end has a part in another segment, and its checksum is over all of it. The
    /// server writes whole pages, so the last page of a segment may hold such a record of which not every byte was there yet.
    Unchecked {
        /// End of the last record that was checked; the segment's start where there was none.
        from: Lsn,
    },
    /// What follows a switch is not zero everywhere. The server writes the zeros after the switch, so this is a moment within
    /// the switch; or a crash came in that moment, and recovery went on with the next segment. That is for ever, and right.
    Padding {
        /// End of the switch.
        switch: Lsn,
        /// The first byte found that is not zero.
        at: Lsn,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Unchecked { from } => {
                write!(f, "the record after {from} has a part in another segment, so it cannot be checked here")
            }
            Doubt::Padding { switch, at } => {
                write!(f, "the rest after the switch that ends at {switch} is not zero at {at}")
            }
        }
    }
}

/// A walk through one segment, from its first byte to its last, that finds whether it is finished.
///
/// Every record is checked against its checksum, except one of which a part lies in another segment. Records of resource
/// managers that this program does not know count like others: link and checksum say enough.
///
/// ```
/// use walseal_common::segment::{SegmentNumber, SegmentSize};
/// use walseal_common::timeline::SystemIdentifier;
/// use walseal_common::wal::{Finish, FinishWalk};
///
/// # fn check(segment: &[u8], system: SystemIdentifier) -> Result<bool, Box<dyn std::error::Error>> {
/// let mut walk = FinishWalk::new(SegmentNumber(3), SegmentSize::DEFAULT, system)?;
/// for piece in segment.chunks(100_000) {
///     walk.push(piece, |_event| ());
/// }
/// Ok(walk.finish() == Finish::Proven)
/// # }
/// ```
#[derive(Debug)]
pub struct FinishWalk {
    walker: Walker,
    segment: LsnRange,
    /// End of the last record that was checked.
    checked: Option<Lsn>,
    /// The first byte after a switch that is not zero.
    not_zero: Option<Lsn>,
}

impl FinishWalk {
    /// For segment `number` of the cluster `system`.
    ///
    /// Errors: none in practice; a segment's start is always the start of a page.
    pub fn new(number: SegmentNumber, size: SegmentSize, system: SystemIdentifier) -> Result<FinishWalk, WalError> {
        let segment = number.range(size);
        let options = WalkOptions { system: Some(system), any_manager: true, ..WalkOptions::default() };
        let walker = Walker::new(segment.start, size, options)?;
        Ok(FinishWalk { walker, segment, checked: None, not_zero: None })
    }

    /// Takes the bytes that follow those pushed before, and hands each event to `visit`. Returns whether it can still be
    /// finished; after `false`, more bytes change nothing.
    pub fn push<F: FnMut(Event<'_>)>(&mut self, bytes: &[u8], mut visit: F) -> bool {
        let from = self.walker.next_byte();
        let checked = &mut self.checked;
        let walked = self.walker.push(bytes, |event| {
            if let Event::Record(record) = &event {
                *checked = Some(record.end);
            }
            visit(event);
        });
        if walked.is_err() {
            return false;
        }
        if let Some(switch) = self.walker.last_switch().filter(|_| self.not_zero.is_none()) {
            let padding = switch.max(from);
            let skipped = usize::try_from(padding.bytes_since(from)).unwrap_or(usize::MAX);
            let other = first_not_zero(bytes.get(skipped..).unwrap_or_default());
            self.not_zero = other.map(|at| padding.advance(at as u64));
        }
        true
    }

    /// What the bytes said, after all of the segment's were pushed.
    pub fn finish(&self) -> Finish {
        let end = self.walker.end();
        if end.reason != EndReason::OutOfBytes || end.at != self.segment.end {
            return Finish::Broken(end);
        }
        match (self.walker.last_switch(), self.not_zero) {
            (Some(switch), Some(at)) => Finish::Unproven(Doubt::Padding { switch, at }),
            (Some(_), None) => Finish::Proven,
            (None, _) if self.checked == Some(self.segment.end) => Finish::Proven,
            (None, _) => Finish::Unproven(Doubt::Unchecked { from: self.checked.unwrap_or(self.segment.start) }),
        }
    }
}

/// Offset of the first byte that is not zero.
fn first_not_zero(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let pages = bytes.chunks(ZEROS.len());
    // Comparing whole stretches takes a tenth of the time that looking at each byte does, and most are all zero.
    let (number, page) = pages.enumerate().find(|(_, page)| ZEROS.get(..page.len()) != Some(page))?;
    page.iter().position(|byte| *byte != 0).map(|at| number * ZEROS.len() + at)
}
