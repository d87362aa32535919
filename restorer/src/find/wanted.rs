//! What is looked for, and which of two findings is the worse.

use std::cmp::Reverse;
use std::str::FromStr;

use walseal_common::wal::RelationFile;
use walseal_common::wal::change::{RowCounts, Unlisted};

use super::finding::Finding;
use super::table::{Kind, Table};
use crate::extract::name::{QualifiedTable, TableName};

/// A table by schema and name, in one database or in all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TablePattern {
    /// The database, where it is named.
    pub database: Option<String>,
    /// The table.
    pub table: TableName,
}

impl TablePattern {
    /// Whether the table is one, by its names.
    pub fn holds(&self, table: &Table) -> bool {
        let database = self.database.as_ref().is_none_or(|database| *database == table.database);
        let name = table.name.as_ref() == Some(&self.table.name);
        database && name && table.schema.as_ref() == Some(&self.table.schema)
    }
}

impl FromStr for TablePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<TablePattern, String> {
        match text.parse::<QualifiedTable>() {
            Ok(QualifiedTable { database, table }) => Ok(TablePattern { database: Some(database), table }),
            Err(error) => match format!("x.{text}").parse::<QualifiedTable>() {
                Ok(QualifiedTable { table, .. }) => Ok(TablePattern { database: None, table }),
                Err(_) => Err(format!("{error}; the database may be left out here")),
            },
        }
    }
}

/// What is looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Only what was done to this table.
    pub table: Option<TablePattern>,
    /// Only these kinds; none for all that take something away or change it.
    pub kinds: Vec<Kind>,
    /// Only where at least so many rows were deleted or updated; drops, truncates and changes of the catalogs have no number of rows.
    pub min_rows: u64,
}

impl Wanted {
    /// Whether the finding is one.
    pub fn holds(&self, finding: &Finding) -> bool {
        let of_kind =
            |kind: Kind| if self.kinds.is_empty() { kind != Kind::Insert } else { self.kinds.contains(&kind) };
        let enough = |kind: Kind, rows: u64| {
            !matches!(kind, Kind::Delete | Kind::Update | Kind::Insert) || rows >= self.min_rows
        };
        let Some(pattern) = &self.table else {
            let rows = finding
                .rows
                .deleted
                .saturating_add(finding.rows.updated)
                .max(if self.kinds.contains(&Kind::Insert) { finding.rows.inserted } else { 0 });
            return finding.kinds.iter().any(|kind| of_kind(*kind) && enough(*kind, rows));
        };
        let mut named = finding.tables.iter().filter(|change| pattern.holds(&change.table));
        named.any(|table| {
            let rows = table.rows.deleted.saturating_add(table.rows.updated);
            table.kinds().any(|kind| of_kind(kind) && enough(kind, rows.max(table.rows.inserted)))
        })
    }
}

impl Wanted {
    /// Whether any transaction that is not listed may be one: `may_be` tells whether a file may be one of the table.
    pub fn may_be_among(&self, unlisted: &Unlisted, may_be: impl Fn(&RelationFile, &TablePattern) -> bool) -> bool {
        if unlisted.structural > 0 {
            return true;
        }
        // The others change rows and nothing else.
        let of_kind = |kind: Kind| self.kinds.is_empty() || self.kinds.contains(&kind);
        let (deletes, updates) = (of_kind(Kind::Delete), of_kind(Kind::Update));
        let lost = |rows: &RowCounts| deletes && rows.deleted > 0 || updates && rows.updated > 0;
        let of_table = |file: &RelationFile| self.table.as_ref().is_none_or(|pattern| may_be(file, pattern));
        unlisted.largest >= self.min_rows.max(1)
            && unlisted.relations.iter().any(|(file, sum)| lost(&sum.rows) && of_table(file))
    }
}

/// By this the worst finding sorts first: the kind of damage, then how many tables are gone or empty, then how many rows are gone or
/// changed, then the newest.
pub fn badness(finding: &Finding) -> impl Ord + use<> {
    let worst = finding.kinds.first().copied().unwrap_or(Kind::Insert);
    // A delete and an update of the same size are equally bad; of different sizes the larger one is.
    let class = match worst {
        Kind::Drop => 0,
        Kind::Truncate => 1,
        Kind::Delete | Kind::Update => 2,
        Kind::Ddl => 3,
        Kind::Insert => 4,
    };
    let gone = finding.tables.iter().filter(|table| table.dropped || table.truncated).count();
    let rows = finding.rows.deleted.saturating_add(finding.rows.updated);
    let databases = finding.dropped_databases.len();
    (class, Reverse(databases), Reverse(gone), Reverse(rows), Reverse(finding.catalog_rows), Reverse(finding.lsn))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use walseal_common::wal::change::Sum;

    use super::*;

    /// What cannot be one is not read for: that would be all the WAL of a busy day.
    #[test]
    fn sums_without_a_row_of_the_wanted_kind_hold_nothing_that_is_looked_for() {
        let file = |number| RelationFile { tablespace: 1663, database: 5, number };
        let sum = |deleted, updated| {
            let rows = RowCounts { inserted: 50, deleted, updated };
            Sum { transactions: 100, rows, ..Sum::default() }
        };
        let relations = BTreeMap::from([(file(1), sum(0, 300)), (file(2), sum(7, 0))]);
        let updates_only = BTreeMap::from([(file(1), sum(0, 300))]);
        let unlisted = |relations: &BTreeMap<RelationFile, Sum>, structural| Unlisted {
            transactions: 100,
            structural,
            largest: 39,
            relations: relations.clone(),
        };
        let wanted = |kinds: &[Kind], table: Option<&str>, min_rows| Wanted {
            table: table.map(|table| table.parse().expect("a table")),
            kinds: kinds.to_vec(),
            min_rows,
        };
        let second = |file: &RelationFile, _: &TablePattern| file.number == 2;
        let among =
            |wanted: Wanted, relations, structural| wanted.may_be_among(&unlisted(relations, structural), second);
        let (delete, update) = ([Kind::Delete], [Kind::Update]);
        assert!(among(wanted(&delete, None, 0), &relations, 0) && !among(wanted(&delete, None, 0), &updates_only, 0));
        assert!(among(wanted(&update, None, 0), &updates_only, 0) && among(wanted(&[], None, 39), &updates_only, 0));
        assert!(!among(wanted(&[], None, 40), &relations, 0), "none of them lost so many");
        assert!(among(wanted(&delete, Some("public.t"), 0), &relations, 0));
        assert!(!among(wanted(&update, Some("public.t"), 0), &relations, 0));
        assert!(!among(wanted(&[Kind::Drop, Kind::Ddl], None, 0), &relations, 0));
        assert!(among(wanted(&[Kind::Drop], None, 40), &updates_only, 1), "nobody listed what else it did");
    }
}
