//! What a transaction did, told as what was done to tables.

use std::collections::BTreeSet;

use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::Xid;
use walseal_common::wal::change::{RowCounts, Work};

use super::names::Names;
use super::table::{Kind, TableChange, rows, words};
use super::telling::{Told, database};
use crate::extract::name::identifier;

/// A transaction that committed, and what it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The transaction.
    pub xid: Xid,
    /// When it committed, by the server's clock.
    pub time: PgTimestamp,
    /// Start of its commit record.
    pub lsn: Lsn,
    /// Where its first record lies that was read.
    pub first_lsn: Lsn,
    /// Where a restore has to stop, exclusively, to be without it.
    pub before: Lsn,
    /// Whether a base backup leads there; else nothing can be restored to it.
    pub restorable: bool,
    /// What was done, the worst first.
    pub kinds: Vec<Kind>,
    /// By table, the worst first; those of the catalogs are not among them.
    pub tables: Vec<TableChange>,
    /// Databases that are gone.
    pub dropped_databases: Vec<String>,
    /// Rows of all tables.
    pub rows: RowCounts,
    /// Rows of the catalogs that were changed.
    pub catalog_rows: u64,
    /// Records of WAL.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Subtransactions that committed with it.
    pub subtransactions: u32,
    /// Whether there may be more to it than the numbers say: it may have begun before the WAL that was read, or there was too much.
    pub incomplete: bool,
}

impl Finding {
    /// What `work` did, by the names that are known before it. `restorable` says whether a base backup leads to a position.
    pub fn of(work: &Work, names: &Names, restorable: impl Fn(Lsn) -> bool) -> Finding {
        let Told { mut tables, catalog_rows } = Told::of(work, names);
        tables.sort_by_key(|table| {
            let lost = table.rows.deleted.saturating_add(table.rows.updated);
            (table.kinds().next().unwrap_or(Kind::Insert), std::cmp::Reverse(lost), table.table.name.clone())
        });
        let dropped_databases: Vec<String> = work.dropped_databases.iter().map(|oid| database(names, *oid)).collect();
        let mut kinds: BTreeSet<Kind> = tables.iter().flat_map(TableChange::kinds).collect();
        kinds.extend((!dropped_databases.is_empty()).then_some(Kind::Drop));
        kinds.extend((catalog_rows > 0).then_some(Kind::Ddl));
        let mut rows = RowCounts::default();
        tables.iter().for_each(|table| rows.merge(table.rows));
        // Recovery removes a database's files where the record says so, and before that the database is marked as unusable: only
        // who stops before all of it has it.
        let before = if work.dropped_databases.is_empty() { work.commit } else { work.first };
        Finding {
            xid: work.end.xid,
            time: work.end.time,
            lsn: work.commit,
            first_lsn: work.first,
            before,
            restorable: restorable(before),
            kinds: kinds.into_iter().collect(),
            tables,
            dropped_databases,
            rows,
            catalog_rows,
            records: work.records,
            bytes: work.bytes,
            subtransactions: work.end.subtransactions,
            incomplete: work.may_have_begun_before || work.left_out > 0,
        }
    }

    /// What was done, a line for each table, at most `most` of them.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut lines: Vec<String> =
            self.dropped_databases.iter().map(|name| format!("dropped database {}", identifier(name))).collect();
        lines.extend(self.tables.iter().map(words));
        if lines.is_empty() && self.catalog_rows > 0 {
            lines.push(format!("changed {} in the catalogs", rows(self.catalog_rows)));
        }
        if lines.len() > most {
            let more = lines.len() - most;
            lines.truncate(most);
            lines.push(format!("and {more} more tables"));
        }
        lines
    }
}
