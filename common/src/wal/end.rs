//! Where valid WAL ends, and why.

use super::error::WalError;
use super::event::WalkOptions;
use super::page::PageHeader;
use super::walker::Walker;
use crate::lsn::Lsn;
use crate::segment::SegmentSize;

/// Why a walk ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// There are no more bytes; the WAL may go on.
    #[error("there are no more bytes")]
    OutOfBytes,
    /// A record shorter than a record's header; zeros mostly, where nothing was written yet.
    #[error("the record there has length {0}, and even the shortest has 24")]
    TooShort(u32),
    /// A record longer than PostgreSQL writes any.
    #[error("the record there has length {0}, longer than PostgreSQL writes any")]
    TooLong(u32),
    /// A record of a resource manager that this version does not have.
    #[error("the record there is of resource manager {0}, which does not exist")]
    UnknownManager(u8),
    /// The record does not follow the one before: it is left over from a recycled segment.
    #[error("the record there follows one at {found}, but the one before is at {expected}")]
    BrokenLink {
        /// What the record names as the one before.
        found: Lsn,
        /// Start of the one before.
        expected: Lsn,
    },
    /// The first record of a walk names one before that lies after it.
    #[error("the record there follows one at {0}, which lies after it")]
    LinkForward(Lsn),
    /// The record's checksum does not match its bytes.
    #[error("the record there has checksum {found:08X}, its bytes have {expected:08X}")]
    BadChecksum {
        /// Checksum in the record.
        found: u32,
        /// Checksum of its bytes.
        expected: u32,
    },
    /// A record should go on with this page, and the page does not say so.
    #[error("the page there does not go on with the record before it")]
    NoContinuation,
    /// A page goes on with a record, and there is none to go on with.
    #[error("the page there goes on with a record that does not exist")]
    UnexpectedContinuation,
    /// A page goes on with a record, but not where it broke off.
    #[error("the page there goes on with {found} bytes of a record that has {expected} left")]
    OtherContinuation {
        /// Bytes left, by the page header.
        found: u32,
        /// Bytes left, by the record's length.
        expected: u32,
    },
    /// A page header that is not right.
    #[error("{0}")]
    Page(#[from] WalError),
}

/// The end of valid WAL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("valid WAL ends at {position}: at {at}, {reason}")]
pub struct WalkEnd {
    /// End of the last complete record with the padding to 8 bytes after it; the start of the walk when there was none.
    /// The padding of a segment after a switch is not counted.
    pub position: Lsn,
    /// Where the reason lies: the start of a record or of a page, or for [`EndReason::OutOfBytes`] the end of the bytes.
    /// Never below `position`.
    pub at: Lsn,
    /// Why.
    pub reason: EndReason,
}

impl WalkEnd {
    /// Whether the same bytes will end here again; more bytes can only help where they ran out.
    pub const fn is_permanent(&self) -> bool {
        !matches!(self.reason, EndReason::OutOfBytes)
    }
}

/// Where the valid WAL ends in `bytes`, which begin at `start`: the start of a page, as a rule of a segment. For segments
/// that may be recycled ones, as a `.partial` (case 4): record by record, with links and checksums, as recovery reads.
///
/// The rest of a record that began before `start` can't be checked against its checksum; only its pages are.
///
/// Errors: when not even the first page is WAL of this place, or `start` is not the start of a page.
pub fn valid_end(bytes: &[u8], start: Lsn, size: SegmentSize) -> Result<WalkEnd, WalError> {
    PageHeader::parse(bytes)?.check_place(start, size)?;
    let mut walker = Walker::new(start, size, WalkOptions::default())?;
    Ok(match walker.push(bytes, |_| ()) {
        Ok(()) => walker.end(),
        Err(end) => end,
    })
}
