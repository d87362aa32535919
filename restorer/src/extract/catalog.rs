//! What the restored instance has: databases, tables and what belongs to them.

use serde::Serialize;
use tokio_postgres::Row;
use walseal_common::postgres::{PostgresError, SqlClient};

use super::TableName;

/// What `pg_dump --table` takes for a table: `relkind` of `pg_class`, and its word.
const KINDS: [(&str, Kind); 6] = [
    ("r", Kind::Table),
    ("p", Kind::PartitionedTable),
    ("m", Kind::MaterializedView),
    ("v", Kind::View),
    ("f", Kind::ForeignTable),
    ("S", Kind::Sequence),
];

/// A table and, because `pg_dump` takes a parent without its children, everything below it.
const FAMILY: &str = "with recursive family(oid) as ( \
     select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'm', 'v', 'f', 'S') \
     union select i.inhrelid from family f join pg_inherits i on i.inhparent = f.oid) \
     select n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u', pg_table_size(c.oid) \
     from family f join pg_class c on c.oid = f.oid join pg_namespace n on n.oid = c.relnamespace \
     order by n.nspname = $1 and c.relname = $2 desc, 1, 2";

/// Every table that somebody may have meant.
const NAMES: &str = "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relkind in ('r', 'p', 'm', 'v', 'f', 'S') and c.relpersistence <> 't' \
     and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' order by 1, 2";

/// What a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A table with rows of its own.
    Table,
    /// A table whose rows are in its partitions.
    PartitionedTable,
    /// A view with rows of its own.
    MaterializedView,
    /// A view.
    View,
    /// A table whose rows are on another server.
    ForeignTable,
    /// A sequence.
    Sequence,
}

/// A table as the instance has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundTable {
    /// Its name.
    pub name: TableName,
    /// What it is.
    pub kind: Kind,
    /// Bytes of it and of what is below it, without indexes.
    pub bytes: u64,
    /// Partitions and tables that inherit from it, however far down.
    pub below: Vec<TableName>,
    /// Which of all these are unlogged, and so come back empty (case 32).
    pub unlogged: Vec<TableName>,
}

/// The table with this name; `None` where there is none.
///
/// Errors: the server's.
pub async fn find(client: &SqlClient, wanted: &TableName) -> Result<Option<FoundTable>, PostgresError> {
    const DOING: &str = "looking for a table failed";
    let mut found: Option<FoundTable> = None;
    for row in client.query(DOING, FAMILY, &[&wanted.schema, &wanted.name]).await? {
        let failed = |error| SqlClient::error(DOING, &error);
        let (name, relkind) = (table_name(&row)?, row.try_get::<_, String>(2).map_err(failed)?);
        let (unlogged, bytes): (bool, i64) = (row.try_get(3).map_err(failed)?, row.try_get(4).map_err(failed)?);
        let kind = KINDS.iter().find(|(letter, _)| *letter == relkind).map_or(Kind::Table, |(_, kind)| *kind);
        let table = found.get_or_insert_with(|| FoundTable {
            name: name.clone(),
            kind,
            bytes: 0,
            below: Vec::new(),
            unlogged: Vec::new(),
        });
        table.bytes = table.bytes.saturating_add(bytes.unsigned_abs());
        table.unlogged.extend(unlogged.then(|| name.clone()));
        if name != table.name {
            table.below.push(name);
        }
    }
    Ok(found)
}

/// The names of all tables.
///
/// Errors: the server's.
pub async fn names(client: &SqlClient) -> Result<Vec<TableName>, PostgresError> {
    client.query("listing tables failed", NAMES, &[]).await?.iter().map(table_name).collect()
}

/// The databases that can be connected to.
///
/// Errors: the server's.
pub async fn databases(client: &SqlClient) -> Result<Vec<String>, PostgresError> {
    const DOING: &str = "listing databases failed";
    let rows = client.query(DOING, "select datname::text from pg_database where datallowconn order by 1", &[]).await?;
    rows.iter().map(|row| row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))).collect()
}

/// Bytes of the database that is connected to.
///
/// Errors: the server's.
pub async fn database_size(client: &SqlClient) -> Result<u64, PostgresError> {
    const DOING: &str = "asking for the database's size failed";
    let row = client.query_one(DOING, "select pg_database_size(current_database())", &[]).await?;
    let bytes: i64 = row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))?;
    Ok(bytes.unsigned_abs())
}

fn table_name(row: &Row) -> Result<TableName, PostgresError> {
    let text = |column| row.try_get(column).map_err(|error| SqlClient::error("reading a name failed", &error));
    Ok(TableName { schema: text(0)?, name: text(1)? })
}
