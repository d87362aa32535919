//! What is dumped.

use jiff::Timestamp;
use walseal_common::seal::CompareKey;

/// Which databases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Databases {
    /// The one that the connection string names.
    Connected,
    /// All that can be dumped.
    All,
    /// These.
    Named(Vec<String>),
}

/// What is dumped of each, and what is said of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Order {
    /// Arguments of `pg_dump` that choose a part; none for all of it.
    pub selection: Vec<String>,
    /// What the user calls it; sealed.
    pub label: Option<String>,
    /// Not to be removed before.
    pub hold_until: Option<Timestamp>,
}

impl Order {
    /// The name under which dumps of `database` by this order belong together, for whoever holds the compare key.
    pub fn series(&self, database: &str, compare: &CompareKey) -> String {
        let mut hasher = compare.hasher();
        hasher.update(b"snapshot\n");
        hasher.update(database.as_bytes());
        for argument in &self.selection {
            hasher.update(b"\n");
            hasher.update(argument.as_bytes());
        }
        hasher.digest().to_string().chars().take(16).collect()
    }

    /// Whether it is all of a database.
    pub fn is_whole(&self) -> bool {
        self.selection.is_empty()
    }
}
