//! Rows of `pg_class` and `pg_namespace` that are new: names of relations that no base backup has seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::field::u32_at;
use super::super::page::WalVersion;
use super::super::record::RelationFile;

const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
/// `RELMAPPER_FILEMAGIC` (`relmapper.c`).
const MAP_MAGIC: u32 = 0x0059_2717;

/// A relation that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewRelation {
    /// Its database.
    pub database: u32,
    /// Its OID.
    pub oid: u32,
    /// Its file's name; 0 where it has none.
    pub filenode: u32,
    /// OID of its schema.
    pub schema: u32,
    /// Its name. `pg_temp_<OID>` is what a table of that OID is written anew into.
    pub name: String,
    /// `relkind` of `pg_class`.
    pub kind: char,
    /// Whether it is of one session only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub temporary: bool,
}

impl NewRelation {
    /// The OID of the table that this is the new form of, while `VACUUM FULL`, `CLUSTER`, `REFRESH MATERIALIZED VIEW` or
    /// `ALTER TABLE` writes it anew (`make_new_heap`, `cluster.c`).
    pub fn rewrites(&self) -> Option<u32> {
        self.name.strip_prefix("pg_temp_")?.parse().ok()
    }
}

/// A schema that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewSchema {
    /// Its database.
    pub database: u32,
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
}

/// Which files the catalogs are that are read here.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct CatalogFiles {
    /// Of `pg_class`, in databases where its file is another than at first.
    classes: BTreeMap<u32, u32>,
}

impl CatalogFiles {
    pub(super) fn is_pg_class(&self, file: &RelationFile) -> bool {
        self.classes.get(&file.database).copied().unwrap_or(PG_CLASS) == file.number
    }

    pub(super) fn is_pg_namespace(file: &RelationFile) -> bool {
        file.number == PG_NAMESPACE
    }

    /// Reads the main data of a change of a database's map of files (`xl_relmap_update`, `RelMapFile`).
    pub(super) fn remap(&mut self, main: &[u8]) -> Option<()> {
        let database = u32_at(main, 0)?;
        let map = main.get(12..)?;
        if u32_at(map, 0)? != MAP_MAGIC {
            return None;
        }
        let entries = map.get(8..)?.chunks_exact(8).take(u32_at(map, 4)? as usize);
        for entry in entries {
            if u32_at(entry, 0)? == PG_CLASS {
                self.classes.insert(database, u32_at(entry, 4)?);
            }
        }
        Some(())
    }
}

/// A row of `pg_class`, from its fixed columns.
pub(super) fn relation(version: WalVersion, database: u32, row: &[u8]) -> Option<NewRelation> {
    let kind_at = if version >= WalVersion::V18 { 119 } else { 115 };
    Some(NewRelation {
        database,
        oid: u32_at(row, 0)?,
        filenode: u32_at(row, 88)?,
        schema: u32_at(row, 68)?,
        name: name_at(row, 4)?,
        kind: char::from(*row.get(kind_at)?),
        temporary: *row.get(kind_at - 1)? == b't',
    })
}

/// A row of `pg_namespace`.
pub(super) fn schema(database: u32, row: &[u8]) -> Option<NewSchema> {
    Some(NewSchema { database, oid: u32_at(row, 0)?, name: name_at(row, 4)? })
}

/// A column of type `name`: 64 bytes, filled with zeros.
fn name_at(row: &[u8], at: usize) -> Option<String> {
    let name = row.get(at..at + 64)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}
