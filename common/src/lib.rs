//! What both programs of walseal must agree on, and what talks to the outside.
//!
//! Rooms, lower before upper; a lower room never imports an upper one:
//!
//! | room | holds |
//! | --- | --- |
//! | [`lsn`], [`timeline`], [`segment`], [`time`] | newtypes; no I/O |
//! | [`schedule`] | times as cron writes them, in a time zone; no I/O beyond the host's list of time zones |
//! | [`clock`] | what the time of a host is worth |
//! | [`canary`] | the rows of a chained table in the cluster; no I/O |
//! | [`buffer`] | large buffers that go back to the system at once; no I/O |
//! | [`uncached`] | files that are written past the page cache |
//! | [`state_file`] | a small file of local state, replaced as a whole |
//! | [`secret`] | text that must not be seen |
//! | [`nearest`] | the known name that a wrong one most looks like |
//! | [`wal`] | reading WAL bytes: pages, records, what a segment contains; no I/O |
//! | [`seal`] | the sealed object: keys, envelope, frames, signatures; no I/O |
//! | [`store`] | the object-store trait, its backends and decorators |
//! | [`repository`] | what is in a repository, by name and by content |
//! | [`postgres`] | talking to a server: SQL and the replication protocol |
//! | [`config`] | the configuration file, environment, credentials |
//! | [`objective`] | what was promised, and how far it was kept, by the ledger and the frontiers; no I/O |
//! | [`telemetry`] | logging, alerts, metrics, the HTTP side of a daemon |
//! | [`terminal`] | what both programs show a person: errors, exit codes, tables, progress, JSON |
//!
//! ```
//! use walseal_common::lsn::Lsn;
//! use walseal_common::segment::{SegmentName, SegmentSize};
//! use walseal_common::timeline::TimelineId;
//!
//! let lsn: Lsn = "0/3000060".parse()?;
//! let size = SegmentSize::DEFAULT;
//! let name = SegmentName::new(TimelineId::FIRST, size.number(lsn), size);
//! assert_eq!(name.to_string(), "000000010000000000000003");
//! # Ok::<(), walseal_common::lsn::LsnParseError>(())
//! ```

pub mod buffer;
pub mod canary;
pub mod clock;
pub mod config;
pub mod lsn;
pub mod nearest;
pub mod objective;
pub mod postgres;
pub mod repository;
pub mod schedule;
pub mod seal;
pub mod secret;
pub mod segment;
pub mod state_file;
pub mod store;
pub mod telemetry;
pub mod terminal;
pub mod time;
pub mod timeline;
pub mod uncached;
pub mod wal;
