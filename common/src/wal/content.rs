//! What a record says, for the few kinds that recovery to a target depends on.

use super::field::{i64_at, u32_at, u64_at};
use super::page::WalVersion;
use super::record::{RecordBody, RecordHeader, ResourceManager, lsn_at};
use super::transaction::TransactionEnd;
use super::xid::FullXid;
use crate::lsn::Lsn;
use crate::time::PgTimestamp;
use crate::timeline::TimelineId;

// Kinds of records of the resource manager XLOG (`pg_control.h`).
const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const SWITCH: u8 = 0x40;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// Bytes of a restore point's name with the zero that ends it (`MAXFNAMELEN`).
const NAME_LEN: usize = 64;

/// The longest body of a record of [`ResourceManager::XLOG`] that is read; the longest that PostgreSQL writes of these
/// kinds, a checkpoint, has about 100 bytes.
pub(super) const LONGEST_CONTROL_BODY: u32 = 512;

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A kind of record that is not interpreted.
    Other,
    /// A transaction ended.
    Transaction(TransactionEnd),
    /// `pg_create_restore_point()`.
    RestorePoint(RestorePoint),
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// Recovery ended and a timeline began, without a checkpoint.
    EndOfRecovery(EndOfRecovery),
    /// Settings that a standby depends on changed.
    ParameterChange(ParameterChange),
    /// The rest of the segment is padding (`pg_switch_wal()`).
    Switch,
    /// A crash cut off the record that began at `lost`; it never happened.
    Overwrite {
        /// Start of the record that was cut off.
        lost: Lsn,
        /// When that was noticed.
        time: PgTimestamp,
    },
    /// A record of a kind that is interpreted, whose bytes do not fit; says why. What it said is not known.
    Unreadable(&'static str),
}

/// A named restore point (`xl_restore_point`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestorePoint {
    /// The name that a user gave: up to 63 bytes; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// When it was made.
    pub time: PgTimestamp,
}

/// A checkpoint (`CheckPoint`), as far as finding a target needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Where replay from this checkpoint begins.
    pub redo: Lsn,
    /// The timeline it was made on.
    pub timeline: TimelineId,
    /// The timeline before, where this checkpoint begins a new one; else the same.
    pub previous_timeline: TimelineId,
    /// The next transaction id.
    pub next_xid: FullXid,
    /// When the checkpoint began, to the second.
    pub time: PgTimestamp,
    /// Whether it was made at shutdown (or at the end of recovery).
    pub shutdown: bool,
}

/// The end of recovery (`xl_end_of_recovery`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndOfRecovery {
    /// When.
    pub time: PgTimestamp,
    /// The timeline that begins.
    pub timeline: TimelineId,
    /// The timeline it forked off.
    pub previous_timeline: TimelineId,
}

/// Settings that a restored server must not have lower (`xl_parameter_change`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterChange {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
}

/// Whether the record is of the XLOG kinds that [`control`] reads from a body.
pub(super) fn is_control(header: &RecordHeader) -> bool {
    header.manager == ResourceManager::XLOG
        && matches!(
            header.kind(),
            CHECKPOINT_SHUTDOWN
                | CHECKPOINT_ONLINE
                | PARAMETER_CHANGE
                | RESTORE_POINT
                | END_OF_RECOVERY
                | OVERWRITE_CONTRECORD
        )
}

/// Whether the rest of the segment after this record is padding.
pub(super) fn is_switch(header: &RecordHeader) -> bool {
    header.manager == ResourceManager::XLOG && header.kind() == SWITCH
}

/// Reads a record for which [`is_control`] holds. `None` stands for a body that was too long to keep.
pub(super) fn control(version: WalVersion, header: &RecordHeader, body: Option<&[u8]>) -> Content {
    let Some(body) = body else {
        return Content::Unreadable("a control record is far longer than PostgreSQL writes any");
    };
    let main = match RecordBody::parse(version, body) {
        Ok(parsed) => parsed.main,
        Err(why) => return Content::Unreadable(why),
    };
    let read = match header.kind() {
        CHECKPOINT_SHUTDOWN => checkpoint(main, true),
        CHECKPOINT_ONLINE => checkpoint(main, false),
        PARAMETER_CHANGE => parameter_change(main),
        RESTORE_POINT => restore_point(main),
        END_OF_RECOVERY => end_of_recovery(main),
        OVERWRITE_CONTRECORD => overwrite(main),
        _ => Some(Content::Other),
    };
    read.unwrap_or(Content::Unreadable("a control record is shorter than PostgreSQL writes it, or names timeline 0"))
}

fn timeline_at(main: &[u8], offset: usize) -> Option<TimelineId> {
    u32_at(main, offset).and_then(TimelineId::new)
}

fn checkpoint(main: &[u8], shutdown: bool) -> Option<Content> {
    // These offsets hold from 14 to 18: what 17 added (wal_level) fills what was padding before.
    Some(Content::Checkpoint(Checkpoint {
        redo: lsn_at(main, 0)?,
        timeline: timeline_at(main, 8)?,
        previous_timeline: timeline_at(main, 12)?,
        next_xid: FullXid(u64_at(main, 24)?),
        time: PgTimestamp::from_unix_seconds(i64_at(main, 64)?),
        shutdown,
    }))
}

fn parameter_change(main: &[u8]) -> Option<Content> {
    Some(Content::ParameterChange(ParameterChange {
        max_connections: u32_at(main, 0)?,
        max_worker_processes: u32_at(main, 4)?,
        max_wal_senders: u32_at(main, 8)?,
        max_prepared_transactions: u32_at(main, 12)?,
        max_locks_per_transaction: u32_at(main, 16)?,
        wal_level: u32_at(main, 20)?,
    }))
}

fn restore_point(main: &[u8]) -> Option<Content> {
    let time = PgTimestamp(i64_at(main, 0)?);
    let field = main.get(8..8 + NAME_LEN)?;
    let name = field.split(|&byte| byte == 0).next()?;
    Some(Content::RestorePoint(RestorePoint { name: String::from_utf8_lossy(name).into_owned(), time }))
}

fn end_of_recovery(main: &[u8]) -> Option<Content> {
    Some(Content::EndOfRecovery(EndOfRecovery {
        time: PgTimestamp(i64_at(main, 0)?),
        timeline: timeline_at(main, 8)?,
        previous_timeline: timeline_at(main, 12)?,
    }))
}

fn overwrite(main: &[u8]) -> Option<Content> {
    Some(Content::Overwrite { lost: lsn_at(main, 0)?, time: PgTimestamp(i64_at(main, 8)?) })
}
