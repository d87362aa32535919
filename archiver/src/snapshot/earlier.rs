//! The rows that were counted last time, on this host: what the archiver seals it cannot read again (I9). A cache: without it
//! nobody hears of a table that shrank, and nothing else changes (I8).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walseal_common::repository::SnapshotFact;

/// What is said to be unread where no table could be counted.
pub(super) const UNCOUNTED: &str = "rows of tables";

/// Rows by table, `schema.name`, by series.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Counts {
    series: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What is remembered, and where.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    counts: Counts,
    file: Option<PathBuf>,
}

/// A table that has fewer rows than last time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// `schema.name`.
    pub table: String,
    /// Rows last time.
    pub before: u64,
    /// Rows now; none where the table is gone.
    pub now: Option<u64>,
}

impl Earlier {
    /// What `folder` remembers; without one, nothing beyond this process.
    pub fn of(folder: Option<&Path>) -> Earlier {
        let file = folder.map(|folder| folder.join("snapshot-counts.json"));
        let read = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let counts = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Earlier { counts, file }
    }

    /// The tables that lost more than `percent` of their rows since last time, or are gone. From now on `facts` are last time's.
    /// Where nothing could be counted nothing is compared, and what is remembered stays.
    pub fn compare(&mut self, series: &str, facts: &[SnapshotFact], percent: u32) -> Vec<Shrunk> {
        let uncounted =
            |fact: &SnapshotFact| matches!(fact, SnapshotFact::Unread { schema: None, name, .. } if name == UNCOUNTED);
        if facts.iter().any(uncounted) {
            return Vec::new();
        }
        let counted = |fact: &SnapshotFact| match fact {
            SnapshotFact::Table { schema, name, rows } => Some((format!("{schema}.{name}"), *rows)),
            _ => None,
        };
        let now: BTreeMap<String, u64> = facts.iter().filter_map(counted).collect();
        // A table that may not be read any more is told as such, not as gone.
        let unread = |table: &str| {
            facts.iter().any(|fact| match fact {
                SnapshotFact::Unread { schema: Some(schema), name, .. } => format!("{schema}.{name}") == table,
                _ => false,
            })
        };
        let before = self.counts.series.insert(series.to_owned(), now.clone()).unwrap_or_default();
        let least = |rows: u64| u128::from(rows) * u128::from(100 - percent.min(100));
        let shrank = |(table, before): (String, u64)| match now.get(&table) {
            Some(rows) if u128::from(*rows) * 100 < least(before) => Some(Shrunk { table, before, now: Some(*rows) }),
            None if before > 0 && !unread(&table) => Some(Shrunk { table, before, now: None }),
            _ => None,
        };
        before.into_iter().filter_map(shrank).collect()
    }

    /// Writes it down.
    pub fn save(&self) {
        let Some(file) = &self.file else { return };
        let partial = file.with_extension("partial");
        let written = serde_json::to_vec(&self.counts)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&partial, bytes))
            .and_then(|()| std::fs::rename(&partial, file));
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "the rows that were counted are not remembered for the next snapshot");
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn table(name: &str, rows: u64) -> SnapshotFact {
        SnapshotFact::Table { schema: "public".to_owned(), name: name.to_owned(), rows }
    }

    #[test]
    fn i8_a_table_that_shrank_is_told_from_what_is_remembered_and_nothing_from_what_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut earlier = Earlier::of(Some(folder.path()));
        assert_eq!(earlier.compare("shop", &[table("orders", 100), table("old", 7), table("hidden", 3)], 50), []);
        earlier.save();
        let hidden = SnapshotFact::Unread {
            schema: Some("public".to_owned()),
            name: "hidden".to_owned(),
            why: "permission denied".to_owned(),
        };
        let mut again = Earlier::of(Some(folder.path()));
        assert_eq!(again.compare("shop", &[table("orders", 50), table("old", 7), hidden.clone()], 50), []);
        let shrunk = again.compare("shop", &[table("orders", 24), hidden], 50);
        let gone = Shrunk { table: "public.old".to_owned(), before: 7, now: None };
        let fewer = Shrunk { table: "public.orders".to_owned(), before: 50, now: Some(24) };
        assert_eq!(shrunk, [gone, fewer]);
        let uncounted =
            SnapshotFact::Unread { schema: None, name: UNCOUNTED.to_owned(), why: "no pg_restore".to_owned() };
        assert_eq!(again.compare("shop", &[uncounted], 50), [], "what was not counted is not gone");
        assert_eq!(again.compare("shop", &[table("orders", 1)], 50).len(), 1, "and is compared the next time");
        // Another series, a part of the same database too, is another matter; garbage is nothing.
        assert_eq!(again.compare("other", &[table("orders", 1)], 50), []);
        std::fs::write(folder.path().join("snapshot-counts.json"), "garbage").expect("written");
        assert_eq!(Earlier::of(Some(folder.path())).compare("shop", &[table("orders", 1)], 50), []);
    }
}
