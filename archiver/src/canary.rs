//! Keeps the canary: a row at intervals, for drills to find (`walseal_common::canary`).
//!
//! The table is made where the role may make it; where it may not, the lines that are missing are said, once. While a connection
//! lasts, a row follows from the one that was written before, whatever the table says by then: so a newest row that somebody
//! removed leaves a hole.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use walseal_common::canary::{ADD, SCHEMA, TABLE};
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};

use crate::doctor::Finding;
use crate::stream::{ProgressWatch, StreamEnded};
use crate::writing_connection::{WritingConnection, is_writable, within_limit};

/// Whether the schema and the table are there.
const THERE: &str = "SELECT to_regnamespace('walseal') IS NOT NULL, to_regclass('walseal.canary') IS NOT NULL";

/// Adds a row every `every` while a stream runs. Returns when the stream's owner is gone.
pub async fn keep(conninfo: Conninfo, application_name: String, every: Duration, progress: ProgressWatch) {
    let role = conninfo.user().to_owned();
    let connection = WritingConnection::new(conninfo, application_name, "row of the canary (wal.canary)");
    // The only end is that of the stream.
    drop(Keeper { connection, role, newest: None }.keep(every, progress).await);
}

struct Keeper {
    connection: WritingConnection,
    role: String,
    /// Number and digest of the row that was written before over the connection that is kept.
    newest: Option<(i64, Vec<u8>)>,
}

impl Keeper {
    async fn keep(mut self, every: Duration, mut progress: ProgressWatch) -> Result<(), StreamEnded> {
        let mut due = interval(every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            progress.connected().await?;
            let host = progress.now().host;
            let added = within_limit(self.add(host.as_deref())).await;
            let added = added.map_err(|why| format!("{why}; {}", grant(&self.role)));
            self.connection.tell(added);
        }
    }

    async fn add(&mut self, host: Option<&str>) -> Result<(), PostgresError> {
        const DOING: &str = "adding a row to walseal.canary failed";
        // What fails here, or is given up, is followed by a new connection, and by the row that is the newest by then.
        let before = self.newest.take();
        let (sql, is_new) = self.connection.take(host).await?;
        if !is_writable(&sql).await? {
            tracing::debug!("no row of the canary: the server is read-only");
            self.connection.put_back(sql);
            return Ok(());
        }
        let before = before.filter(|_| !is_new);
        if is_new {
            make(&sql).await?;
        }
        let (n, digest) = before.unzip();
        let row = sql.query_one(DOING, ADD, &[&n, &digest]).await?;
        let failed = |error| SqlClient::error(DOING, &error);
        let there: Option<i64> = row.try_get(2).map_err(failed)?;
        if let (Some(n), true) = (n, there != n) {
            tracing::warn!(
                row = n,
                "the newest row of walseal.canary is gone or another: somebody changed the table, and drills will find the hole"
            );
        }
        self.newest = Some((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?));
        self.connection.put_back(sql);
        Ok(())
    }
}

/// Makes what is missing of schema and table.
///
/// Errors: the role may not.
async fn make(sql: &SqlClient) -> Result<(), PostgresError> {
    const DOING: &str = "making the table walseal.canary failed";
    let (schema, table) = is_there(sql).await?;
    if !table {
        if !schema {
            sql.execute(DOING, SCHEMA, &[]).await?;
        }
        sql.execute(DOING, TABLE, &[]).await?;
    }
    Ok(())
}

async fn is_there(sql: &SqlClient) -> Result<(bool, bool), PostgresError> {
    const DOING: &str = "looking for the table walseal.canary failed";
    let row = sql.query_one(DOING, THERE, &[]).await?;
    let failed = |error| SqlClient::error(DOING, &error);
    Ok((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?))
}

/// What a superuser grants with.
fn grant(role: &str) -> String {
    let plain = role.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let role = if plain { role.to_owned() } else { format!("\"{}\"", role.replace('"', "\"\"")) };
    format!("as a superuser, in the database of cluster.conninfo: CREATE SCHEMA walseal AUTHORIZATION {role};")
}

/// Whether the canary can be kept by `role`.
pub async fn finding(sql: &SqlClient, role: &str) -> Finding {
    const CHECK: &str = "canary";
    const DOING: &str = "asking whether the canary may be kept failed";
    const MAY: &str = "SELECT CASE WHEN to_regclass('walseal.canary') IS NOT NULL \
         THEN has_table_privilege('walseal.canary', 'SELECT') AND has_table_privilege('walseal.canary', 'INSERT') \
           AND has_table_privilege('walseal.canary', 'DELETE') \
         WHEN to_regnamespace('walseal') IS NOT NULL THEN has_schema_privilege('walseal', 'CREATE') \
         ELSE has_database_privilege(current_database(), 'CREATE') END";
    let asked = async {
        let row = sql.query_one(DOING, MAY, &[]).await?;
        let may: bool = row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))?;
        Ok::<_, PostgresError>((may, is_there(sql).await?.1))
    };
    match asked.await {
        Ok((true, true)) => Finding::fine(CHECK, "walseal.canary is there, and gets rows from the daemon"),
        Ok((true, false)) => Finding::fine(CHECK, "walseal.canary is not there yet; the daemon makes it"),
        Ok((false, _)) => Finding::warning(
            CHECK,
            format!("wal.canary is set, and the role {role} may not keep walseal.canary: no rows are written"),
        )
        .fix(grant(role))
        .fix("wal.canary = false"),
        Err(error) => Finding::not_checked(CHECK, error).fix(grant(role)),
    }
}
