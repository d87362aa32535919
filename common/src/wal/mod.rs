//! Reading WAL bytes: pages, records, and what a segment contains. No I/O.
//!
//! Builds for PostgreSQL 14 to 18, told apart by the magic number of each page. The bytes are not trusted:
//! every length is checked, and memory does not grow with what they claim.
//!
//! [`Walker`] takes contiguous WAL in pieces of any size, so it serves a stream as it arrives as well as whole
//! segments, and hands out one [`Event`] for each complete record:
//!
//! ```
//! use walseal_common::segment::{SegmentNumber, SegmentSize};
//! use walseal_common::wal::{WalSummary, WalkOptions, Walker};
//!
//! # fn read(segment: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let size = SegmentSize::DEFAULT;
//! let mut walker = Walker::new(SegmentNumber(3).start(size), size, WalkOptions::default())?;
//! let mut summary = WalSummary::default();
//! for piece in segment.chunks(100_000) {
//!     walker.push(piece, |event| summary.add(&event))?;
//! }
//! println!("{} transactions end here; read up to {}", summary.transactions(), walker.position());
//! # Ok(()) }
//! ```
//!
//! [`FinishWalk`] tells a finished segment from one that is still being written. [`sample`] makes WAL by hand, for tests.
//!
//! Sources, in PostgreSQL's tree: `src/include/access/xlog_internal.h` (pages), `xlogrecord.h` (records),
//! `xact.h` (transactions), `src/include/catalog/pg_control.h` (checkpoints), and
//! `src/backend/access/transam/xlogreader.c` (what counts as valid).

pub mod change;
mod content;
mod end;
mod error;
mod event;
mod field;
mod finish;
mod header;
mod leading;
mod page;
mod pages;
mod record;
mod rules;
pub mod sample;
mod summary;
mod transaction;
mod walker;
mod xid;

#[cfg(test)]
mod finish_tests;
#[cfg(test)]
mod walker_tests;

pub use content::{Checkpoint, Content, EndOfRecovery, ParameterChange, RestorePoint};
pub use end::{EndReason, WalkEnd, valid_end};
pub use error::WalError;
pub use event::{Event, Record, WalkOptions};
pub use finish::{Doubt, Finish, FinishWalk};
pub use header::{ExpectedHeader, check_segment_header};
pub use page::{LongHeader, PAGE_SIZE, PageHeader, WalVersion};
pub use record::{BlockImage, BlockReference, RecordBody, RecordHeader, RelationFile, ResourceManager};
pub use summary::{CommitPoint, TimeRange, WalSummary};
pub use transaction::{TransactionEnd, TransactionOutcome};
pub use walker::Walker;
pub use xid::{FullXid, Xid};
