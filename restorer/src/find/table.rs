//! What was done to one table.

use std::fmt::{self, Write};

use serde::Serialize;
use walseal_common::wal::change::RowCounts;

use crate::extract::name::identifier;

/// What was done, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A table, or a database, is gone.
    Drop,
    /// A table was emptied.
    Truncate,
    /// Rows were deleted.
    Delete,
    /// Rows were updated.
    Update,
    /// The catalogs were changed.
    Ddl,
    /// Rows were inserted; nothing is gone.
    Insert,
}

impl Kind {
    /// All of them, the worst first.
    pub const ALL: [Kind; 6] = [Kind::Drop, Kind::Truncate, Kind::Delete, Kind::Update, Kind::Ddl, Kind::Insert];

    /// As a person writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Drop => "drop",
            Kind::Truncate => "truncate",
            Kind::Delete => "delete",
            Kind::Update => "update",
            Kind::Ddl => "ddl",
            Kind::Insert => "insert",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(word: &str) -> Result<Kind, String> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
            format!("\"{word}\" is no kind of change; expected drop, truncate, delete, update, ddl or insert")
        })
    }
}

/// A table, by what is known of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Table {
    /// Its database, by name; by OID where the name is not known.
    pub database: String,
    /// Its schema; null where it is not known.
    pub schema: Option<String>,
    /// Its name; null where nothing tells it.
    pub name: Option<String>,
    /// Its OID; null where nothing tells it.
    pub oid: Option<u32>,
    /// Its file, where that is all that is known of it: tablespace, database and number, as WAL writes it.
    pub file: Option<String>,
}

impl Table {
    /// Whether its names are known, so that `--table` can name it.
    pub fn is_named(&self) -> bool {
        self.schema.is_some() && self.name.is_some()
    }
}

/// As SQL would name it, with its database; where its name is not known, what is.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = identifier(&self.database);
        match (&self.schema, &self.name, &self.file) {
            (Some(schema), Some(name), _) => write!(f, "{database}.{}.{}", identifier(schema), identifier(name)),
            (None, Some(name), _) => write!(f, "{database}, {} (in a schema of unknown name)", identifier(name)),
            (_, None, Some(file)) => write!(f, "{database}, a relation of unknown name (file {file})"),
            _ => write!(f, "{database}, a relation of unknown name (OID {})", self.oid.unwrap_or_default()),
        }
    }
}

/// What was done to one table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableChange {
    /// The table.
    #[serde(flatten)]
    pub table: Table,
    /// Whether it is gone.
    pub dropped: bool,
    /// Whether it was emptied by `TRUNCATE`.
    pub truncated: bool,
    /// Whether it was written anew, with the same rows.
    pub rewritten: bool,
    /// Its rows.
    pub rows: RowCounts,
    /// Pieces of long values (TOAST) that were written or removed.
    pub toast: u64,
    /// Bytes of WAL about its rows, long values and indexes.
    pub bytes: u64,
}

impl TableChange {
    /// What was done to it, the worst.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        let all = [
            (self.dropped, Kind::Drop),
            (self.truncated, Kind::Truncate),
            (self.rows.deleted > 0, Kind::Delete),
            (self.rows.updated > 0, Kind::Update),
            (self.rewritten, Kind::Ddl),
            (self.rows.inserted > 0, Kind::Insert),
        ];
        all.into_iter().filter_map(|(is, kind)| is.then_some(kind))
    }
}

pub(super) fn rows(count: u64) -> String {
    format!("{count} {}", if count == 1 { "row" } else { "rows" })
}

/// What was done to it, for a person.
pub(super) fn words(change: &TableChange) -> String {
    let mut words = Vec::new();
    let marks = [(change.dropped, "dropped"), (change.truncated, "truncated"), (change.rewritten, "rewrote")];
    words.extend(marks.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()));
    words.extend(counted(&change.rows));
    if words.is_empty() {
        words.push("wrote".to_owned());
    }
    let mut text = words.join(", ");
    let of = if text.ends_with("rows") || text.ends_with("row") { " of" } else { "" };
    // Writing to a string does not fail.
    let _ = write!(text, "{of} {}", change.table);
    text
}

/// Those counts that are not 0, in words, the worst first.
pub fn counted(counts: &RowCounts) -> Vec<String> {
    let all = [("deleted", counts.deleted), ("updated", counts.updated), ("inserted", counts.inserted)];
    all.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what} {}", rows(count))).collect()
}
