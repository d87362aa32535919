//! What transactions did, as their records tell: rows of which relation, files removed, relations that came and went. No I/O.
//!
//! Push each [`Event`](super::Event) of a walk with bodies into a [`ChangeWalk`]; where a transaction commits, it hands out its
//! [`Work`], that of subtransactions included, and of prepared transactions where they commit.
//!
//! What differs between majors, of the records that are read here:
//!
//! | record | 14 | 15 | 16 | 17 | 18 |
//! | --- | --- | --- | --- | --- | --- |
//! | heap insert, delete, update, multi-insert | the same in all | | | | |
//! | commit, abort: list of dropped statistics, which names every relation that was dropped | none | 12 bytes each | 12 | 12 | 16 |
//! | which files were given up for others: in the order of changes of `pg_class`, see `succession.rs` | the same in all | | | | |
//! | drop of a database (`xl_dbase_drop_rec`) | kind 0x10 | 0x20 | 0x20 | 0x20 | 0x20 |
//! | row of `pg_class`: where `relkind` lies | 115 | 115 | 115 | 115 | 119 |
//! | pruning, freezing (never counted) | kinds 0x10 to 0x30 of Heap2 in all | | | | |
//!
//! Sources: `heapam_xlog.h`, `xact.h`, `storage_xlog.h`, `dbcommands_xlog.h`, `relmapper.h`, `standbydefs.h`, `pg_class.h`.

mod catalog;
mod ending;
mod rows;
mod run;
mod succession;
mod tuple;
mod walk;
mod work;

#[cfg(test)]
mod tests;

pub use catalog::{NewRelation, NewSchema};
pub use ending::{Ending, RelationOid};
pub use rows::{RowChange, RowCounts, row_change};
pub use run::{RunSummary, RunWalk, Sum, Unlisted};
pub use succession::{ClassChange, Replaced};
pub use walk::{BODY_LIMIT, ChangeWalk, WalkState};
pub use work::{FIRST_NORMAL, OpenWork, RelationWork, Work};
