//! What one transaction did.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::super::record::RelationFile;
use super::super::transaction::TransactionEnd;
use super::catalog::{NewRelation, NewSchema};
use super::ending::RelationOid;
use super::rows::{RowChange, RowCounts};
use super::succession::{ClassChange, Replaced};
use crate::lsn::Lsn;

/// What a transaction did to one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RelationWork {
    /// Rows of a table; of a TOAST table its pieces, of an index none.
    #[serde(flatten)]
    pub rows: RowCounts,
    /// Bytes of the records whose first block is one of this file.
    pub bytes: u64,
}

/// What a transaction did that committed, its subtransactions included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Its commit.
    pub end: TransactionEnd,
    /// Start of its first record that was read.
    pub first: Lsn,
    /// Start of its commit record: who stops there, exclusively, has everything before and not this.
    pub commit: Lsn,
    /// End of its commit record.
    pub commit_end: Lsn,
    /// Records, the commit among them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By file.
    pub relations: BTreeMap<RelationFile, RelationWork>,
    /// Files that it made (main forks).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<RelationFile>,
    /// Files that its commit removed, those that it made itself among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RelationFile>,
    /// Those of them in whose place others came, as `TRUNCATE` does; all others went with their relations, as far as anybody can
    /// tell. `None` where it removed nothing, or where that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Vec<Replaced>>,
    /// Relations that it dropped, as far as PostgreSQL says; see [`Ending::dropped`](super::Ending::dropped).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<RelationOid>,
    /// Tables that `TRUNCATE` named, which only `wal_level = logical` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<RelationOid>,
    /// OIDs of databases that it removed. Their files go where the record says so, before the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped_databases: Vec<u32>,
    /// Relations that it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_relations: Vec<NewRelation>,
    /// Schemas that it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_schemas: Vec<NewSchema>,
    /// Whether it may have begun before the WAL that was read, so that there may be more to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_have_begun_before: bool,
    /// Records of which not everything could be taken in: the numbers are too low.
    #[serde(default)]
    pub left_out: u64,
}

impl Work {
    /// Whether it is more than rows: files or relations that came or went.
    pub fn is_structural(&self) -> bool {
        !(self.removed.is_empty()
            && self.dropped.is_empty()
            && self.created.is_empty()
            && self.truncated.is_empty()
            && self.dropped_databases.is_empty()
            && self.new_relations.is_empty()
            && self.new_schemas.is_empty())
            || self.relations.iter().any(|(file, work)| file.number < FIRST_NORMAL && work.rows.total() > 0)
    }

    /// Entries of lists, which is what takes memory.
    pub(super) fn weight(&self) -> usize {
        1 + self.relations.len()
            + self.created.len()
            + self.removed.len()
            + self.replaced.as_ref().map_or(0, Vec::len)
            + self.dropped.len()
            + self.truncated.len()
            + self.dropped_databases.len()
            + self.new_relations.len()
            + self.new_schemas.len()
    }

    /// Rows that were deleted or updated, in whatever file: at least as many as a user's tables lost.
    pub fn lost_rows(&self) -> u64 {
        self.relations
            .values()
            .map(|work| work.rows.deleted.saturating_add(work.rows.updated))
            .fold(0, u64::saturating_add)
    }
}

/// OIDs, and names of files at first, below belong to the catalogs that `initdb` makes (`FirstNormalObjectId`, `transam.h`).
pub const FIRST_NORMAL: u32 = 16_384;

/// The work of a transaction, or subtransaction, under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenWork {
    pub(super) first: Lsn,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) relations: BTreeMap<RelationFile, RelationWork>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) created: Vec<RelationFile>,
    /// The file that it made last, while no row of `pg_class` was written since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<RelationFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) class_changes: Vec<ClassChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) truncated: Vec<RelationOid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dropped_databases: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) new_relations: Vec<NewRelation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) new_schemas: Vec<NewSchema>,
    #[serde(default)]
    pub(super) left_out: u64,
}

impl OpenWork {
    pub(super) fn new(first: Lsn) -> OpenWork {
        OpenWork {
            first,
            records: 0,
            bytes: 0,
            relations: BTreeMap::new(),
            created: Vec::new(),
            made: None,
            class_changes: Vec::new(),
            truncated: Vec::new(),
            dropped_databases: Vec::new(),
            new_relations: Vec::new(),
            new_schemas: Vec::new(),
            left_out: 0,
        }
    }

    /// Entries of lists, which is what takes memory.
    pub(super) fn weight(&self) -> usize {
        1 + self.relations.len()
            + self.created.len()
            + self.class_changes.len()
            + self.truncated.len()
            + self.dropped_databases.len()
            + self.new_relations.len()
            + self.new_schemas.len()
    }

    /// Counts what a record did to a file. `room`: whether one more file may be kept in mind.
    pub(super) fn count(&mut self, file: RelationFile, bytes: u64, change: Option<RowChange>, room: bool) -> bool {
        let entry = self.relations.entry(file);
        let is_new = matches!(entry, Entry::Vacant(_));
        if is_new && !room {
            self.left_out += 1;
            return false;
        }
        let work = entry.or_default();
        work.bytes = work.bytes.saturating_add(bytes);
        if let Some(change) = change {
            work.rows.add(change);
        }
        is_new
    }

    /// Adds the work of a subtransaction.
    pub(super) fn merge(&mut self, other: OpenWork) {
        self.first = self.first.min(other.first);
        self.records += other.records;
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (file, work) in other.relations {
            let mine = self.relations.entry(file).or_default();
            mine.rows.merge(work.rows);
            mine.bytes = mine.bytes.saturating_add(work.bytes);
        }
        self.created.extend(other.created);
        self.class_changes.extend(other.class_changes);
        self.truncated.extend(other.truncated);
        self.dropped_databases.extend(other.dropped_databases);
        self.new_relations.extend(other.new_relations);
        self.new_schemas.extend(other.new_schemas);
        self.left_out += other.left_out;
    }
}
