//! The heartbeat: a commit now and then on a cluster where nobody else commits, so that recovery to a time finds a later one and
//! ends there (case 9).
//!
//! It has a connection of its own and is waited for by nobody. What goes wrong is said once, and tried again at the next beat.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};

use crate::stream::{ProgressWatch, StreamEnded};
use crate::writing_connection::{WritingConnection, within_limit};

/// A message that commits. A standby takes none, and where the cluster is read-only somebody wants it so.
const BEAT: &str = "SELECT CASE WHEN pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN NULL \
                    ELSE pg_logical_emit_message(true, 'walseal', 'heartbeat')::text END";

/// Commits whenever no transaction has become durable for `interval` while a stream runs. Returns when the stream's owner is gone.
pub async fn beat(conninfo: Conninfo, application_name: String, interval: Duration, progress: ProgressWatch) {
    let connection = WritingConnection::new(conninfo, application_name, "heartbeat (wal.heartbeat)");
    // The only end is that of the stream.
    drop(keep_beating(connection, interval, progress).await);
}

async fn keep_beating(
    mut connection: WritingConnection,
    interval: Duration,
    mut progress: ProgressWatch,
) -> Result<(), StreamEnded> {
    let mut seen = progress.now().highest_time;
    let mut due = Instant::now() + interval;
    loop {
        tokio::select! {
            durable = progress.transaction_beside(seen) => {
                seen = durable?;
                due = Instant::now() + interval;
            }
            () = sleep_until(due) => {
                due = Instant::now() + interval;
                progress.connected().await?;
                let host = progress.now().host;
                let beat = within_limit(emit(&mut connection, host.as_deref())).await;
                connection.tell(beat);
            }
        }
    }
}

/// One beat on `host`, the server that is streamed.
async fn emit(connection: &mut WritingConnection, host: Option<&str>) -> Result<(), PostgresError> {
    const DOING: &str = "writing a heartbeat to the WAL failed";
    let (sql, _) = connection.take(host).await?;
    let row = sql.query_one(DOING, BEAT, &[]).await?;
    let written: Option<String> = row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))?;
    tracing::debug!(lsn = written.as_deref().unwrap_or("none, the server is read-only"), "heartbeat");
    connection.put_back(sql);
    Ok(())
}
