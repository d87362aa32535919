//! What is wrong with WAL bytes.

use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::{SystemIdentifier, TimelineId};

/// The bytes are not the WAL that was expected at this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Fewer bytes than a page header takes.
    #[error("a WAL page header takes {needed} bytes, but there are only {found}; the file is cut off or empty")]
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes that the header takes.
        needed: usize,
    },
    /// The page magic is of no PostgreSQL that this program reads.
    #[error(
        "unknown WAL page magic 0x{0:04X}; PostgreSQL 14 to 18 write 0xD10D, 0xD110, 0xD113, 0xD116 and 0xD118, so this is \
         another version's WAL, a page that was never written, or no WAL at all"
    )]
    UnknownMagic(u16),
    /// One stretch of WAL with pages of two majors.
    #[error("a page of PostgreSQL {found} follows pages of PostgreSQL {expected}; these are WAL of two clusters")]
    OtherVersion {
        /// The major of this page.
        found: u16,
        /// The major of the pages before.
        expected: u16,
    },
    /// Flag bits that PostgreSQL does not define.
    #[error("the WAL page header has unknown flag bits 0x{0:04X}; the page is damaged")]
    UnknownFlags(u16),
    /// Timeline 0.
    #[error("the WAL page header names timeline 0, which PostgreSQL never uses; the page is damaged")]
    NoTimeline,
    /// The first page of a segment without the long header.
    #[error("the first page of a WAL segment has no long header; this is not the start of a segment")]
    NoLongHeader,
    /// The page says that it belongs elsewhere.
    #[error(
        "the WAL page says that it belongs at {found}, expected {expected}; it is left over from a recycled segment, or the \
         file has another's name"
    )]
    OtherAddress {
        /// Address in the page header.
        found: Lsn,
        /// Address where the page was found.
        expected: Lsn,
    },
    /// The segment's own header names another segment than its file name.
    #[error(
        "the WAL segment's header says that it starts at {found}, but {name} starts at {expected}; the file has \
         another segment's name"
    )]
    OtherSegment {
        /// Address in the header.
        found: Lsn,
        /// Start of the segment that was expected.
        expected: Lsn,
        /// Name of the segment that was expected.
        name: SegmentName,
    },
    /// Another cluster's WAL.
    #[error(
        "the WAL is from the cluster with system identifier {found}, expected {expected}; is archive_command of a copied \
         server still set?"
    )]
    OtherCluster {
        /// System identifier in the page header.
        found: SystemIdentifier,
        /// The cluster that was expected.
        expected: SystemIdentifier,
    },
    /// Another timeline's WAL.
    #[error("the WAL is of timeline {}, expected {}; the file has another timeline's name", found.number(), expected.number())]
    OtherTimeline {
        /// Timeline in the page header.
        found: TimelineId,
        /// The timeline that was expected.
        expected: TimelineId,
    },
    /// The timeline of a page is lower than that of a page before.
    #[error("a WAL page of timeline {} follows pages of timeline {}; it is left over from a recycled segment", found.number(), before.number())]
    TimelineGoesBack {
        /// Timeline of this page.
        found: TimelineId,
        /// Highest timeline of the pages before.
        before: TimelineId,
    },
    /// Another `wal_segment_size`.
    #[error("the WAL has segments of {found} bytes, expected {}; is this another cluster's?", expected.bytes())]
    OtherSegmentSize {
        /// Size in the page header, in bytes.
        found: u32,
        /// The size that was expected.
        expected: SegmentSize,
    },
    /// A server built with another WAL page size.
    #[error("the WAL has pages of {0} bytes; only PostgreSQL's default of 8192 is supported")]
    OtherPageSize(u32),
    /// A walk can start at a page only.
    #[error("a walk through WAL starts at a page of 8192 bytes, {0} is none; start at the segment's first byte")]
    StartNotAPage(Lsn),
}

impl WalError {
    /// Whether the same bytes will fail again; only bytes that are still to come can help.
    pub const fn is_permanent(&self) -> bool {
        !matches!(self, WalError::Short { .. })
    }
}
