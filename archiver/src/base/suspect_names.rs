//! Which relations lie in files with page checksums that failed, asked of the server (case 31).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::terminal::printable;

use super::suspect::RelationFile;

/// How long the server may take for all of them.
const PATIENCE: Duration = Duration::from_secs(15);

const NAME: &str = "walseal suspect pages";

const DOING: &str = "asking which relations the suspect files are failed";

/// Each of `files`, with its relation where the server tells: `shop.public.orders (base/16384/16399)`.
pub async fn named(conninfo: &Conninfo, files: &[String]) -> Vec<String> {
    let parsed: Vec<RelationFile> = files.iter().filter_map(|file| file.parse().ok()).collect();
    let mut names = BTreeMap::new();
    match timeout(PATIENCE, ask(conninfo, &parsed, &mut names)).await {
        Ok(Ok(())) => {}
        // The files are known all the same.
        Ok(Err(error)) => tracing::warn!(%error, "not all relations of suspect files are named"),
        Err(_) => tracing::warn!("not all relations of suspect files are named: the server took too long to say"),
    }
    let named =
        |file: &String| names.get(file).map_or_else(|| file.clone(), |name| format!("{} ({file})", printable(name)));
    files.iter().map(named).collect()
}

/// Adds what each database says of its files.
async fn ask(
    conninfo: &Conninfo,
    files: &[RelationFile],
    names: &mut BTreeMap<String, String>,
) -> Result<(), PostgresError> {
    let mut of_database: BTreeMap<u32, Vec<&RelationFile>> = BTreeMap::new();
    for file in files {
        of_database.entry(file.database).or_default().push(file);
    }
    let failed = |error| SqlClient::error(DOING, &error);
    let first = SqlClient::connect(conninfo, NAME).await?;
    for (database, files) in of_database {
        let mut other = None;
        if database != 0 {
            let query = "SELECT datname::text FROM pg_database WHERE oid = $1 AND datallowconn";
            let rows = first.query(DOING, query, &[&database]).await?;
            let Some(row) = rows.first() else { continue };
            let name: String = row.try_get(0).map_err(failed)?;
            other = Some(SqlClient::connect(&conninfo.with_dbname(&name), NAME).await?);
        }
        let sql = other.as_ref().unwrap_or(&first);
        for file in files {
            let rows = sql.query(DOING, RELATION, &[&file.tablespace, &file.filenode]).await?;
            if let Some(row) = rows.first() {
                names.insert(file.to_string(), row.try_get(0).map_err(failed)?);
            }
        }
    }
    Ok(())
}

/// The relation with file number $2 in tablespace $1 of this database, or of those that all share; with what makes it worth less, or
/// more, than a table.
const RELATION: &str = "SELECT concat_ws('.', CASE WHEN NOT c.relisshared THEN current_database() END, n.nspname, c.relname) \
     || CASE WHEN c.relkind = 'i' THEN ', an index' \
        WHEN t.oid IS NOT NULL THEN ', which belongs to ' || t.oid::regclass::text ELSE '' END \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.reltoastrelid = c.oid \
     WHERE c.oid = pg_filenode_relation($1, $2)";
