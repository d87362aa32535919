//! What a snapshot says of itself, opened.

use std::fmt;

use serde::Serialize;
use walseal_common::repository::{Repository, SnapshotFact, SnapshotLabel};
use walseal_common::seal::Identity;

use super::SnapshotError;

/// A table, as it was dumped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Counted {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
}

/// Something that could not be read when it was dumped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unread {
    /// Whose table; none where it is about more than one.
    pub schema: Option<String>,
    /// The table, or what it is about.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What is called unread where no table was counted (section 15 of the format).
pub const UNCOUNTED: &str = "rows of tables";

impl Unread {
    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.schema.is_some()
    }

    /// Whether rows were not counted for it, of a table or of all.
    pub fn is_of_rows(&self) -> bool {
        self.is_table() || self.name == UNCOUNTED
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}: {}", self.name, self.why)
    }
}

/// The facts of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// The database.
    pub database: String,
    /// What the user called it.
    pub label: Option<String>,
    /// What `pg_dump` was told to take up; none for all of it.
    pub selection: Vec<String>,
    /// Its tables.
    pub tables: Vec<Counted>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Contents {
    /// Opens the facts that the label refers to.
    ///
    /// Errors: not the objects of the label; sealed to others; lines that are none.
    pub async fn read(
        repository: &Repository,
        label: &SnapshotLabel,
        identities: &[Identity],
    ) -> Result<Contents, SnapshotError> {
        let wrong = |why: &str| SnapshotError::Facts { id: label.id.to_string(), why: why.to_owned() };
        let mut found = None;
        let (mut tables, mut unread) = (Vec::new(), Vec::new());
        let mut text = Vec::new();
        for reference in &label.facts {
            let envelope = repository.read_reference(reference).await?;
            let plain = envelope.read_all(identities);
            let refuse =
                |source| walseal_common::repository::RepositoryError::Object { name: reference.name.clone(), source };
            text.extend(plain.map_err(refuse)?);
        }
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line).map_err(|error| wrong(&error.to_string()))? {
                SnapshotFact::Snapshot { database, label, selection } => found = Some((database, label, selection)),
                SnapshotFact::Table { schema, name, rows } => tables.push(Counted { schema, name, rows }),
                SnapshotFact::Unread { schema, name, why } => unread.push(Unread { schema, name, why }),
            }
        }
        let (database, label, selection) = found.ok_or_else(|| wrong("they name no database"))?;
        Ok(Contents { database, label, selection, tables, unread })
    }

    /// Rows of all its tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}
