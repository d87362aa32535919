//! Rows that were dumped beside rows that are there.

use serde::Serialize;
use walseal_common::postgres::sql::quoted;
use walseal_common::postgres::{PostgresError, SqlClient};

use super::contents::Counted;

/// A table that is not as it was dumped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Differing {
    /// The table, and the rows that were dumped.
    #[serde(flatten)]
    pub dumped: Counted,
    /// The rows that are there; none where they cannot be counted.
    pub found: Option<u64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Counts the rows of each table, and names those that differ.
///
/// Errors: the connection broke.
pub async fn compare(client: &SqlClient, tables: &[Counted]) -> Result<Vec<Differing>, PostgresError> {
    client.simple_query("setting row_security failed", "set row_security = off; set statement_timeout = 0").await?;
    let mut differing = Vec::new();
    for table in tables {
        let sql = format!("select count(*) from only {}.{}", quoted(&table.schema), quoted(&table.name));
        let (found, why) = match client.query_one("counting failed", &sql, &[]).await {
            Ok(row) => (u64::try_from(row.get::<_, i64>(0)).ok(), None),
            Err(error) if error.is_disconnect() => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        if found != Some(table.rows) {
            differing.push(Differing { dumped: table.clone(), found, why });
        }
    }
    Ok(differing)
}

/// Those of `tables` that are there already, as `schema.name`.
pub async fn present(client: &SqlClient, tables: &[Counted]) -> Result<Vec<String>, PostgresError> {
    let mut there = Vec::new();
    for table in tables {
        let name = format!("{}.{}", quoted(&table.schema), quoted(&table.name));
        let row = client.query_one("looking for a table failed", "select to_regclass($1)::text", &[&name]).await?;
        if row.get::<_, Option<String>>(0).is_some() {
            there.push(name);
        }
    }
    Ok(there)
}
