//! Which relation is which file: read from every database that lets this role in.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::time::timeout;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::NameEntry;

use super::BaseError;
use super::attachment::Attachment;

/// How long one database may take.
const PATIENCE: Duration = Duration::from_secs(60);

const NAME: &str = "walseal names";

/// A database, and whether it lets anybody in.
struct Database {
    name: String,
    open: bool,
}

/// Adds the names of every database and of its relations, and where they could not be read, why. Says how many databases could not.
///
/// Errors: the repository's; what a server does not tell is no error.
pub async fn read(conninfo: &Conninfo, host: &Host, pages: &mut Attachment<'_>) -> Result<usize, BaseError> {
    let mut unread = 0;
    let databases = match timeout(PATIENCE, databases(conninfo, host, pages)).await {
        Ok(Ok(databases)) => databases,
        Ok(Err(Failed::Pages(error))) => return Err(error),
        Ok(Err(Failed::Server(error))) => return all_unread(pages, error.to_string()).await,
        Err(_) => return all_unread(pages, too_long()).await,
    };
    // What all databases share is read with the first one that lets us in.
    let mut shared = true;
    for database in databases.iter().filter(|database| database.open) {
        let why = match timeout(PATIENCE, relations(conninfo, host, &database.name, shared, pages)).await {
            Ok(Ok(())) => {
                shared = false;
                continue;
            }
            Ok(Err(Failed::Pages(error))) => return Err(error),
            Ok(Err(Failed::Server(error))) => error.to_string(),
            Err(_) => too_long(),
        };
        unread += 1;
        tracing::debug!(database = database.name, why, "the names of its relations are not in the base backup");
        pages.line(&NameEntry::Unread { database: Some(database.name.clone()), why }).await?;
    }
    Ok(unread)
}

fn too_long() -> String {
    format!("not answered within {} s", PATIENCE.as_secs())
}

async fn all_unread(pages: &mut Attachment<'_>, why: String) -> Result<usize, BaseError> {
    pages.line(&NameEntry::Unread { database: None, why }).await?;
    Ok(1)
}

/// Whose fault it is.
enum Failed {
    Server(PostgresError),
    Pages(BaseError),
}

impl From<PostgresError> for Failed {
    fn from(error: PostgresError) -> Failed {
        Failed::Server(error)
    }
}

async fn databases(conninfo: &Conninfo, host: &Host, pages: &mut Attachment<'_>) -> Result<Vec<Database>, Failed> {
    const DOING: &str = "reading pg_database failed";
    let sql = SqlClient::connect_to(conninfo, host, NAME).await?;
    let failed = |error| Failed::Server(SqlClient::error(DOING, &error));
    let query = "SELECT oid, datname::text, dattablespace, datallowconn FROM pg_database ORDER BY oid";
    let mut found = Vec::new();
    for row in sql.query(DOING, query, &[]).await? {
        let name: String = row.try_get(1).map_err(failed)?;
        let (oid, tablespace) = (row.try_get(0).map_err(failed)?, row.try_get(2).map_err(failed)?);
        pages.line(&NameEntry::Database { oid, name: name.clone(), tablespace }).await.map_err(Failed::Pages)?;
        found.push(Database { name, open: row.try_get(3).map_err(failed)? });
    }
    Ok(found)
}

/// Row by row, so that memory does not grow with the catalog.
async fn relations(
    conninfo: &Conninfo,
    host: &Host,
    database: &str,
    shared: bool,
    pages: &mut Attachment<'_>,
) -> Result<(), Failed> {
    const DOING: &str = "reading pg_class failed";
    let sql = SqlClient::connect_to(&conninfo.with_dbname(database), host, NAME).await?;
    let failed = |error| Failed::Server(SqlClient::error(DOING, &error));
    let query = format!(
        "SELECT CASE WHEN c.relisshared THEN 0::oid ELSE d.oid END, c.oid, pg_relation_filenode(c.oid), \
         COALESCE(NULLIF(c.reltablespace, 0), d.dattablespace), n.nspname::text, c.relname::text, c.relkind::text, \
         COALESCE(i.indrelid, t.oid), \
         CASE WHEN c.relkind IN ('r', 'm') THEN \
         COALESCE(NULLIF(pg_stat_get_live_tuples(c.oid), 0), NULLIF(c.reltuples, -1)::int8) END \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON c.relkind = 't' AND t.reltoastrelid = c.oid \
         CROSS JOIN (SELECT oid, dattablespace FROM pg_database WHERE datname = current_database()) d \
         WHERE c.relpersistence <> 't' AND ({shared} OR NOT c.relisshared) AND pg_relation_filenode(c.oid) IS NOT NULL"
    );
    let rows = sql.inner().query_raw(query.as_str(), std::iter::empty::<i32>()).await.map_err(failed)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let entry = NameEntry::Relation {
            database: row.try_get(0).map_err(failed)?,
            oid: row.try_get(1).map_err(failed)?,
            filenode: row.try_get(2).map_err(failed)?,
            tablespace: row.try_get(3).map_err(failed)?,
            schema: row.try_get(4).map_err(failed)?,
            name: row.try_get(5).map_err(failed)?,
            kind: row.try_get(6).map_err(failed)?,
            table: row.try_get(7).map_err(failed)?,
            rows: row.try_get::<_, Option<i64>>(8).map_err(failed)?.and_then(|rows| u64::try_from(rows).ok()),
        };
        pages.line(&entry).await.map_err(Failed::Pages)?;
    }
    Ok(())
}
