//! The checks, each on its own.
//!
//! | module | looks at |
//! | --- | --- |
//! | [`precision`] | where recovery ended, against what the WAL says |
//! | [`canary`] | the chain of rows that the archiver wrote |
//! | [`freshness`] | how much would be lost, and how long it took |
//! | [`extensions`] | libraries that the cluster's functions are in |
//! | [`catalogs`] | indexes that are not valid, collations that sort otherwise here |
//! | [`structure`] | tables and indexes, by `pg_amcheck` |
//! | [`counts`] | tables and their rows, against the drill before |
//! | [`foreign_keys`] | whether rows that refer to others have them |
//! | [`assertions`] | the user's own questions |
//! | [`pages`] | every page, on the stopped instance |

pub mod assertions;
pub mod canary;
pub mod catalogs;
pub mod counts;
pub mod extensions;
pub mod foreign_keys;
pub mod freshness;
pub mod pages;
pub mod precision;
pub mod structure;

use walseal_common::postgres::{PostgresError, SqlClient};

/// The databases that can be connected to; templates only where they are asked for.
///
/// Errors: the server's.
async fn databases(client: &SqlClient) -> Result<Vec<String>, PostgresError> {
    let sql = "select datname::text from pg_database where datallowconn and not datistemplate order by 1";
    let rows = client.query("listing databases failed", sql, &[]).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

/// A column that is text.
///
/// Errors: it is not.
fn text(row: &tokio_postgres::Row, column: usize) -> Result<String, PostgresError> {
    row.try_get(column).map_err(|error| SqlClient::error("reading an answer failed", &error))
}
