//! Snapshots: dumps of databases by `pg_dump`. Section 15 of the format.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BaseId, ObjectName, ObjectReference, Repository, RepositoryError};
use crate::lsn::Lsn;
use crate::seal::{Kind, SealError, SealedObject, WriterKey};
use crate::store::LARGEST_PAGE;

/// Name of a snapshot: when it began, and a number. Of the same form as a base backup's; sorts by time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(BaseId);

impl SnapshotId {
    /// A new id for now, as [`BaseId::generate`].
    ///
    /// Errors: no random bytes.
    pub fn generate() -> Result<SnapshotId, SealError> {
        BaseId::generate().map(SnapshotId)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// When it began, by the archiver's clock, to the second; none where the digits are no time.
    pub fn begun(&self) -> Option<Timestamp> {
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", self.as_str().get(..16)?).ok()?;
        Some(time.in_tz("UTC").ok()?.timestamp())
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SnapshotId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |_| format!("\"{text}\" is not the id of a snapshot; expected one such as 20261121T023000Z-9f3a01bc");
        text.parse().map(SnapshotId).map_err(wrong)
    }
}

/// The plain, signed body of a snapshot's label. Written last: without it the snapshot does not exist (I7). Names of databases and
/// tables, and what the user called it, are among the sealed facts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotLabel {
    /// The snapshot's name.
    pub id: SnapshotId,
    /// The same for all dumps of the same part of the same database by archivers that share a compare key; shows nothing to others.
    pub series: String,
    /// The archiver's clock when it began.
    pub start_time: Timestamp,
    /// The archiver's clock when all but the label was stored.
    pub stop_time: Timestamp,
    /// The server's version number, for example 150018.
    pub postgres_version: u32,
    /// The version number of the `pg_dump` that made it: no older `pg_restore` reads it.
    pub dump_version: u32,
    /// The server's position just before the state that was dumped, where it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
    /// Not to be removed before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
    /// Whether it is a whole database, and not a part of one.
    pub whole: bool,
    /// Bytes of the archive.
    pub dump_size: u64,
    /// Bytes of all objects that it wrote, without the label.
    pub stored_size: u64,
    /// The archive in `pg_dump`'s custom format, in order.
    pub dump: Vec<ObjectReference>,
    /// SQL that makes roles and tablespaces, in order; none where they could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub globals: Vec<ObjectReference>,
    /// JSON lines of [`SnapshotFact`], in order.
    pub facts: Vec<ObjectReference>,
}

impl SnapshotLabel {
    /// One of nothing, for tests: begun and stored at `begun`.
    ///
    /// Errors: `begun` is of a year that an id cannot hold.
    pub fn sample(begun: Timestamp, number: u32, series: &str) -> Result<SnapshotLabel, String> {
        Ok(SnapshotLabel {
            id: format!("{}-{number:08x}", begun.strftime("%Y%m%dT%H%M%SZ")).parse()?,
            series: series.to_owned(),
            start_time: begun,
            stop_time: begun,
            postgres_version: 150_018,
            dump_version: 150_018,
            lsn: None,
            hold_until: None,
            whole: true,
            dump_size: 0,
            stored_size: 0,
            dump: Vec::new(),
            globals: Vec::new(),
            facts: Vec::new(),
        })
    }
}

/// Of what was dumped so much earlier than the newest backup of all nobody expects another one: a part that was dumped once, a database
/// that is gone, a checkpoint before a migration. No drill is due of it.
const DUMPED_NO_MORE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Whether another snapshot like the one begun at `begun` is expected, with the newest backup of all, of whichever kind, begun at
/// `newest`. What a clock that was ahead called the newest is taken as of `now`.
pub fn is_dumped_again(begun: Timestamp, newest: Timestamp, now: Timestamp) -> bool {
    newest.min(now).duration_since(begun) <= DUMPED_NO_MORE
}

/// A line of a snapshot's sealed facts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SnapshotFact {
    /// What was dumped; the first line.
    Snapshot {
        /// The database.
        database: String,
        /// What the user called it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
        /// Arguments of `pg_dump` that choose a part of the database.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        selection: Vec<String>,
    },
    /// Rows of a table, in the very state that was dumped. Partitions are counted, and not the tables above them.
    Table {
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
        /// How many.
        rows: u64,
    },
    /// Something that could not be read.
    Unread {
        /// Whose table; none where it is about more than one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<String>,
        /// The table, or `roles and tablespaces`, or `passwords of roles`, or `rows of tables`, where none was counted.
        name: String,
        /// Why.
        why: String,
    },
}

impl Repository {
    /// The label of a snapshot, verified.
    ///
    /// Errors: not there; not what a trusted writer signed under this name.
    pub async fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotLabel, RepositoryError> {
        let name = ObjectName::Snapshot(id.clone());
        let label: SnapshotLabel =
            self.read(&name).await?.trailer.body().map_err(|source| self.refused(&name, source))?;
        if label.id == *id {
            return Ok(label);
        }
        let (found, expected) = (label.id.to_string(), id.to_string());
        Err(self.refused(&name, SealError::WrongName { found, expected }))
    }

    /// Whether a snapshot has a label, whatever that is worth.
    ///
    /// Errors: the store's.
    pub async fn has_snapshot(&self, id: &SnapshotId) -> Result<bool, RepositoryError> {
        match self.snapshot(id).await {
            Err(error) if error.is_not_found() => Ok(false),
            Err(error @ RepositoryError::Store(_)) => Err(error),
            _ => Ok(true),
        }
    }

    /// A snapshot's label as an object, which makes it visible once it is put.
    ///
    /// Errors: it is too long.
    pub fn signed_snapshot(&self, label: &SnapshotLabel, writer: &WriterKey) -> Result<SealedObject, RepositoryError> {
        self.signed(Kind::Snapshot, &ObjectName::Snapshot(label.id.clone()), label, writer)
    }

    /// Ids of all snapshots that have a label, oldest first.
    pub async fn snapshot_ids(&self) -> Result<Vec<SnapshotId>, RepositoryError> {
        Ok(self.snapshot_folders().await?.into_iter().filter_map(|(id, whole)| whole.then_some(id)).collect())
    }

    /// Ids below `snapshot/`, oldest first, and whether each has a label.
    pub async fn snapshot_folders(&self) -> Result<Vec<(SnapshotId, bool)>, RepositoryError> {
        let mut found = Vec::new();
        let mut pages = self.pages("snapshot/", None, 1);
        while let Some(first) = pages.next().await?.and_then(|page| page.into_iter().next()) {
            let folder = first.key.get("snapshot/".len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            if let Ok(id) = folder.parse::<SnapshotId>() {
                let label = ObjectName::Snapshot(id.clone()).to_string();
                let there = self.first_objects(&label, 1).await?.iter().any(|meta| meta.key == label);
                found.push((id, there));
            }
            pages.pass(&format!("snapshot/{folder}"));
        }
        Ok(found)
    }

    /// Names of all objects of a snapshot, the label last: whoever removes them in reverse leaves nothing that looks whole.
    pub async fn snapshot_objects(&self, id: &SnapshotId) -> Result<BTreeSet<ObjectName>, RepositoryError> {
        let prefix = format!("snapshot/{id}/");
        let mut names = BTreeSet::new();
        let mut pages = self.pages(&prefix, None, LARGEST_PAGE);
        while let Some(page) = pages.next().await? {
            names.extend(page.iter().filter_map(|meta| meta.key.parse::<ObjectName>().ok()));
        }
        Ok(names)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_those_of_the_format() {
        for line in [
            r#"{"type":"snapshot","database":"shop","label":"before","selection":["--table=orders"]}"#,
            r#"{"type":"snapshot","database":"shop"}"#,
            r#"{"type":"table","schema":"public","name":"orders","rows":3}"#,
            r#"{"type":"unread","schema":"public","name":"secrets","why":"permission denied"}"#,
            r#"{"type":"unread","name":"passwords of roles","why":"permission denied"}"#,
        ] {
            let fact: SnapshotFact = serde_json::from_str(line).expect("a line");
            assert_eq!(serde_json::to_string(&fact).expect("JSON"), line);
        }
    }

    #[test]
    fn an_id_of_another_shape_is_refused_as_one() {
        let error = "20261121".parse::<SnapshotId>().expect_err("too short");
        assert!(error.contains("of a snapshot"), "{error}");
    }
}
