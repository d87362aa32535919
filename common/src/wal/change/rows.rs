//! What a record of the heap does to rows (`heapam_xlog.h`). Pruning, freezing, locks and visibility do nothing to them.

use serde::{Deserialize, Serialize};

use super::super::field::u16_at;
use super::super::record::{RecordBody, RelationFile, ResourceManager};

const OPERATION: u8 = 0x70;
const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const HOT_UPDATE: u8 = 0x40;
/// Of [`ResourceManager::HEAP2`].
const MULTI_INSERT: u8 = 0x50;

/// An insert that `ON CONFLICT` tried first is taken back.
const DELETE_IS_SUPER: u8 = 1 << 3;
/// The row goes on in another partition: an update of the partition key.
const DELETE_IS_MOVE: u8 = 1 << 4;

/// What one record does to rows of one relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowChange {
    /// So many rows are new.
    Inserted(u64),
    /// A row has a new version here, or moves to another partition, where it is inserted.
    Updated,
    /// A row is gone.
    Deleted,
    /// An insert of the same transaction never counted (`INSERT … ON CONFLICT`).
    Retracted,
}

/// Rows by what was done to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RowCounts {
    /// New rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inserted: u64,
    /// New versions of rows, and rows that went to another partition. A row that is updated twice counts twice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub updated: u64,
    /// Rows that are gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RowCounts {
    /// Adds what one record did.
    pub fn add(&mut self, change: RowChange) {
        match change {
            RowChange::Inserted(rows) => self.inserted = self.inserted.saturating_add(rows),
            RowChange::Updated => self.updated = self.updated.saturating_add(1),
            RowChange::Deleted => self.deleted = self.deleted.saturating_add(1),
            RowChange::Retracted => self.inserted = self.inserted.saturating_sub(1),
        }
    }

    /// Adds other rows.
    pub fn merge(&mut self, other: RowCounts) {
        self.inserted = self.inserted.saturating_add(other.inserted);
        self.updated = self.updated.saturating_add(other.updated);
        self.deleted = self.deleted.saturating_add(other.deleted);
    }

    /// All of them.
    pub const fn total(&self) -> u64 {
        self.inserted.saturating_add(self.updated).saturating_add(self.deleted)
    }
}

/// What the record does to rows, and of which relation; `None` where it does nothing to them.
///
/// Errors: in words, when the bytes are not those of such a record.
pub fn row_change(
    manager: ResourceManager,
    info: u8,
    body: &RecordBody<'_>,
) -> Result<Option<(RelationFile, RowChange)>, &'static str> {
    const SHORT: &str = "a record of the heap is shorter than PostgreSQL writes it";
    let change = match (manager, info & OPERATION) {
        (ResourceManager::HEAP, INSERT) => RowChange::Inserted(1),
        (ResourceManager::HEAP, UPDATE | HOT_UPDATE) => RowChange::Updated,
        (ResourceManager::HEAP, DELETE) => match *body.main.get(7).ok_or(SHORT)? {
            flags if flags & DELETE_IS_SUPER != 0 => RowChange::Retracted,
            flags if flags & DELETE_IS_MOVE != 0 => RowChange::Updated,
            _ => RowChange::Deleted,
        },
        (ResourceManager::HEAP2, MULTI_INSERT) => RowChange::Inserted(u64::from(u16_at(body.main, 2).ok_or(SHORT)?)),
        _ => return Ok(None),
    };
    let block = body.blocks.first().ok_or("a record of the heap that refers to no block")?;
    Ok(Some((block.relation, change)))
}
