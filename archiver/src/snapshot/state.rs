//! A state of a database that stays as it is while it is dumped and counted.

use walseal_common::lsn::Lsn;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::sql::quoted;
use walseal_common::postgres::{Conninfo, DumpList, PostgresError, SqlClient};
use walseal_common::repository::SnapshotFact;

/// A transaction that holds the state open.
#[derive(Debug)]
pub(super) struct State {
    client: SqlClient,
    /// What `pg_dump --snapshot` takes.
    pub(super) name: String,
    /// The server's position just before.
    pub(super) lsn: Option<Lsn>,
}

/// Nothing but the end of the dump ends the transaction; and rows that a policy hides are an error, not a smaller count.
const BEGIN: &str = "begin isolation level repeatable read read only; set local statement_timeout = 0; \
     set local idle_in_transaction_session_timeout = 0; set local row_security = off; set local search_path = pg_catalog";

const LSN: &str =
    "select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text";

/// Tables with rows of their own that `pg_dump` takes up: members of extensions belong to the extension.
const TABLES: &str = "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
     where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
     and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') \
     order by 1, 2";

/// Databases that can be dumped: those that take connections, templates aside, and that the user may connect to.
const DATABASES: &str = "select datname::text from pg_database where datallowconn and not datistemplate \
     and has_database_privilege(oid, 'CONNECT') and not datname = any ($1) order by 1";

/// Databases that belong to a provider, who lets nobody in.
const PROVIDERS: [&str; 4] = ["rdsadmin", "cloudsqladmin", "azure_maintenance", "azure_sys"];

/// The databases of a server that can be dumped, by name.
pub(super) async fn databases(client: &SqlClient) -> Result<Vec<String>, PostgresError> {
    let rows = client.query("reading pg_database failed", DATABASES, &[&PROVIDERS.as_slice()]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

impl State {
    /// Connects and takes hold of the database as it is now.
    pub(super) async fn hold(conninfo: &Conninfo, host: &Host, database: &str) -> Result<State, PostgresError> {
        let to = conninfo.with_dbname(database);
        let client = SqlClient::connect_to(&to, host, "walseal snapshot").await?;
        // Some providers' servers have no positions of WAL.
        let lsn = match client.query_one("asking for the position failed", LSN, &[]).await {
            Ok(row) => row.get::<_, Option<String>>(0).and_then(|text| text.parse().ok()),
            Err(error) if error.is_disconnect() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the server does not tell its position");
                None
            }
        };
        client.simple_query("beginning a transaction failed", BEGIN).await?;
        let row = client.query_one("exporting the snapshot failed", "select pg_export_snapshot()", &[]).await?;
        Ok(State { client, name: row.get(0), lsn })
    }

    /// Counts the rows of every table, or of those in `dumped`. One that may not be read is named, with the reason.
    ///
    /// Errors: the connection broke.
    pub(super) async fn count(&self, dumped: Option<&DumpList>) -> Result<Vec<SnapshotFact>, PostgresError> {
        let rows = self.client.query("reading pg_class failed", TABLES, &[]).await?;
        let mut facts = Vec::with_capacity(rows.len());
        for row in rows {
            let (schema, name): (String, String) = (row.get(0), row.get(1));
            if dumped.is_some_and(|dumped| !dumped.has(&schema, &name)) {
                continue;
            }
            let sql = format!("select count(*) from only {}.{}", quoted(&schema), quoted(&name));
            self.client.execute("setting a savepoint failed", "savepoint walseal", &[]).await?;
            facts.push(match self.client.query_one("counting failed", &sql, &[]).await {
                Ok(row) => {
                    let rows = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
                    SnapshotFact::Table { schema, name, rows }
                }
                Err(error) if error.is_disconnect() => return Err(error),
                Err(error) => {
                    let undo = "rollback to savepoint walseal";
                    self.client.execute("rolling back failed", undo, &[]).await?;
                    SnapshotFact::Unread { schema: Some(schema), name, why: error.to_string() }
                }
            });
        }
        Ok(facts)
    }

    /// Lets go of it.
    pub(super) async fn release(self) {
        self.client.close().await;
    }
}
