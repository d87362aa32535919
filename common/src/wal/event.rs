//! How to walk, and what a walk meets.

use super::content::Content;
use super::record::ResourceManager;
use super::transaction::{KIND_MASK, PREPARE};
use super::xid::Xid;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::{SegmentNumber, SegmentSize};
use crate::timeline::SystemIdentifier;

/// How to walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkOptions {
    /// Whether to compute each record's CRC-32C. Needed where the bytes may be left over from something else, as in a
    /// recycled segment; a live stream can do without.
    pub check_crc: bool,
    /// Hand out the bodies of records up to this many bytes, in [`Record::body`]; also the most memory that a walk takes
    /// for one. `None`: no bodies.
    pub body_limit: Option<u32>,
    /// The cluster that the WAL must be of; `None` for any, but always one and the same.
    pub system: Option<SystemIdentifier>,
    /// Take records of resource managers that this program does not know, too: a link and a checksum that are right say that
    /// somebody's PostgreSQL wrote them. Only with `check_crc`; without, the manager is what tells WAL from leftovers.
    pub any_manager: bool,
}

impl Default for WalkOptions {
    fn default() -> Self {
        WalkOptions { check_crc: true, body_limit: None, system: None, any_manager: false }
    }
}

/// What a walk meets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The walk began within a record, whose rest was passed over. Comes first, if at all, once that record has ended.
    LeadingSkipped {
        /// From the start of the walk to the end of that record.
        range: LsnRange,
    },
    /// A complete record.
    Record(Record<'a>),
}

/// A complete record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Where it starts; `pg_waldump` calls this its lsn.
    pub start: Lsn,
    /// Where it ends, with the padding to 8 bytes: when WAL up to here is there, the record is.
    pub end: Lsn,
    /// Start of the record before.
    pub prev: Lsn,
    /// Bytes of the record itself, without page headers and padding.
    pub length: u32,
    /// The transaction, or [`Xid::INVALID`].
    pub xid: Xid,
    /// Who interprets it.
    pub manager: ResourceManager,
    /// What kind of record it is (upper four bits), by resource manager, and flags.
    pub info: u8,
    /// What it says, for the kinds that are interpreted.
    pub content: Content,
    /// The bytes after the fixed header, where [`WalkOptions::body_limit`] asks for them; see
    /// [`RecordBody`](super::RecordBody).
    pub body: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Whether it is `PREPARE TRANSACTION`, which waits for synchronous standbys as commits do.
    pub fn is_prepare(&self) -> bool {
        self.manager == ResourceManager::TRANSACTION && self.info & KIND_MASK == PREPARE
    }

    /// The segment to which the record belongs: the one with its last byte (case 54).
    pub const fn segment(&self, size: SegmentSize) -> SegmentNumber {
        size.number(Lsn(self.end.0.saturating_sub(1)))
    }

    /// Whether the record ends in `range`, and so belongs to it (case 54).
    pub fn belongs_to(&self, range: LsnRange) -> bool {
        range.start < self.end && self.end <= range.end
    }
}
