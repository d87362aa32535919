//! The heartbeat: a commit now and then on a cluster where nobody else commits, so that recovery to a time finds a later one and
//! ends there (case 9).
//!
//! It has a connection of its own and is waited for by nobody. What goes wrong is said once, and tried again at the next beat.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};

use crate::stream::{ProgressWatch, StreamEnded};

/// How long one beat may take, with the connection that it may need.
const LIMIT: Duration = Duration::from_secs(10);

/// A message that commits. A standby takes none, and where the cluster is read-only somebody wants it so.
const BEAT: &str = "SELECT CASE WHEN pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN NULL \
                    ELSE pg_logical_emit_message(true, 'walseal', 'heartbeat')::text END";

/// Commits whenever no transaction has become durable for `interval` while a stream runs. Returns when the stream's owner is gone.
pub async fn beat(conninfo: Conninfo, application_name: String, interval: Duration, progress: ProgressWatch) {
    let heart = Heart { conninfo, application_name, connection: None, ailing: false };
    // The only end is that of the stream.
    drop(heart.beat(interval, progress).await);
}

struct Heart {
    conninfo: Conninfo,
    application_name: String,
    connection: Option<SqlClient>,
    /// Whether the last beat failed, which was said then.
    ailing: bool,
}

impl Heart {
    async fn beat(mut self, interval: Duration, mut progress: ProgressWatch) -> Result<(), StreamEnded> {
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
                    self.once(progress.now().host).await;
                }
            }
        }
    }

    /// One beat on `host`, the server that is streamed.
    async fn once(&mut self, host: Option<String>) {
        let beat = timeout(LIMIT, self.emit(host)).await;
        let failed = match beat {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the server did not answer within {} s", LIMIT.as_secs())),
        };
        let ails = failed.is_some();
        match (failed, std::mem::replace(&mut self.ailing, ails)) {
            (Some(why), false) => {
                tracing::warn!(why, "no heartbeat could be written (wal.heartbeat); trying again at each beat");
            }
            (Some(why), true) => tracing::debug!(why, "still no heartbeat"),
            (None, true) => tracing::info!("heartbeats are written again"),
            (None, false) => {}
        }
    }

    async fn emit(&mut self, host: Option<String>) -> Result<(), PostgresError> {
        const DOING: &str = "writing a heartbeat to the WAL failed";
        // Taken out, so that a connection on which a beat fails, or is given up, is not used again.
        let kept = self.connection.take().filter(|sql| !sql.is_closed() && Some(sql.host().to_string()) == host);
        let sql = match kept {
            Some(sql) => sql,
            None => self.connect(host.as_deref()).await?,
        };
        let row = sql.query_one(DOING, BEAT, &[]).await?;
        let written: Option<String> = row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))?;
        tracing::debug!(lsn = written.as_deref().unwrap_or("none, the server is read-only"), "heartbeat");
        self.connection = Some(sql);
        Ok(())
    }

    /// To the very server that is streamed: of several hosts another one may be an old primary (case 16).
    async fn connect(&self, host: Option<&str>) -> Result<SqlClient, PostgresError> {
        const DOING: &str = "preparing the heartbeat's connection failed";
        let streamed = self.conninfo.hosts().iter().find(|one| Some(one.to_string().as_str()) == host);
        let sql = match streamed {
            Some(host) => SqlClient::connect_to(&self.conninfo, host, &self.application_name).await?,
            None => SqlClient::connect(&self.conninfo, &self.application_name).await?,
        };
        // A commit that waits for a synchronous standby that is down must not hang here; and one that nobody flushes is not sent.
        sql.execute(DOING, "SET synchronous_commit = local", &[]).await?;
        Ok(sql)
    }
}
