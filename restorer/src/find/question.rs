//! What is asked of the WAL.

use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::{Record, RecordBody, WalVersion};

use super::wanted::{TablePattern, Wanted};

/// What is asked of the WAL.
#[derive(Clone, Debug)]
pub enum Question {
    /// The worst of what is wanted, between two times.
    Worst {
        /// What.
        wanted: Wanted,
        /// From this time on.
        since: PgTimestamp,
        /// Up to this time; `None` for the end.
        until: Option<PgTimestamp>,
        /// At most so many.
        most: usize,
    },
    /// What was done to tables between two times, step by step.
    Activity {
        /// Only this table.
        table: Option<TablePattern>,
        /// From this time on.
        since: PgTimestamp,
        /// Up to this time; `None` for the end.
        until: Option<PgTimestamp>,
        /// In at most so many steps.
        steps: usize,
    },
    /// The commits around a time.
    Around {
        /// The time.
        time: PgTimestamp,
        /// So many on each side.
        each: usize,
    },
    /// One transaction and its records: the newest with this id.
    Transaction {
        /// Its id, as users see it or as WAL has it.
        xid: u64,
        /// At most so many records.
        most: usize,
    },
}

/// A record of the transaction that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecordLine {
    /// Where it starts.
    pub lsn: Lsn,
    /// Its resource manager, as `pg_waldump` calls it.
    pub manager: String,
    /// What kind of record it is: upper four bits, hexadecimal.
    pub kind: String,
    /// Its bytes.
    pub length: u32,
    /// The file that its first block is one of.
    pub file: Option<String>,
    /// That block's number.
    pub block: Option<u32>,
}

impl RecordLine {
    pub(super) fn of(record: &Record<'_>, version: WalVersion) -> RecordLine {
        let body = record.body.and_then(|body| RecordBody::parse(version, body).ok());
        let block = body.as_ref().and_then(|body| body.blocks.first());
        RecordLine {
            lsn: record.start,
            manager: record.manager.to_string(),
            kind: format!("0x{:02X}", record.info & 0xF0),
            length: record.length,
            file: block.map(|block| block.relation.to_string()),
            block: block.map(|block| block.block),
        }
    }
}
