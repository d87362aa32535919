//! An ordinary connection to the server that is streamed, for what the daemon itself writes there at intervals.
//!
//! It is made when it is needed, and again after anything went wrong with it. Nobody waits for what is written: what goes wrong is
//! said once, and tried again at the next interval.

use std::time::Duration;

use tokio::time::timeout;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};

/// How long one time may take, with the connection that it may need.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether anything may be written: a standby takes nothing, and where the cluster is read-only somebody wants it so.
const WRITABLE: &str = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean)";

/// A connection, and whether it fails at the moment.
#[derive(Debug)]
pub struct WritingConnection {
    conninfo: Conninfo,
    application_name: String,
    /// What it is for, and the key that asks for it: "heartbeat (wal.heartbeat)".
    what: &'static str,
    connection: Option<SqlClient>,
    /// Whether the last time failed, which was said then.
    ailing: bool,
}

impl WritingConnection {
    /// One that is not there yet.
    pub fn new(conninfo: Conninfo, application_name: String, what: &'static str) -> WritingConnection {
        WritingConnection { conninfo, application_name, what, connection: None, ailing: false }
    }

    /// The connection to `host`, taken out, so that one on which something fails, or is given up, is not used again; and whether
    /// it is a new one. [`WritingConnection::put_back`] keeps it for the next time.
    ///
    /// Errors: the server's.
    pub async fn take(&mut self, host: Option<&str>) -> Result<(SqlClient, bool), PostgresError> {
        let kept =
            self.connection.take().filter(|sql| !sql.is_closed() && Some(sql.host().to_string().as_str()) == host);
        match kept {
            Some(sql) => Ok((sql, false)),
            None => Ok((self.connect(host).await?, true)),
        }
    }

    /// Keeps a connection on which all went well.
    pub fn put_back(&mut self, sql: SqlClient) {
        self.connection = Some(sql);
    }

    /// To the very server that is streamed: of several hosts another one may be an old primary (case 16).
    async fn connect(&self, host: Option<&str>) -> Result<SqlClient, PostgresError> {
        const DOING: &str = "preparing a connection to write failed";
        let streamed = self.conninfo.hosts().iter().find(|one| Some(one.to_string().as_str()) == host);
        let sql = match streamed {
            Some(host) => SqlClient::connect_to(&self.conninfo, host, &self.application_name).await?,
            None => SqlClient::connect(&self.conninfo, &self.application_name).await?,
        };
        // A commit that waits for a synchronous standby that is down must not hang here; and one that nobody flushes is not sent.
        sql.execute(DOING, "SET synchronous_commit = local", &[]).await?;
        Ok(sql)
    }

    /// Says what became of one time, where that is news.
    pub fn tell<T>(&mut self, outcome: Result<T, String>) -> Option<T> {
        let ailed = std::mem::replace(&mut self.ailing, outcome.is_err());
        match (&outcome, ailed) {
            (Err(why), false) => tracing::warn!(why, "no {} could be written; trying again each time", self.what),
            (Err(why), true) => tracing::debug!(why, "still no {}", self.what),
            (Ok(_), true) => tracing::info!("the {} is written again", self.what),
            (Ok(_), false) => {}
        }
        outcome.ok()
    }
}

/// What comes of `write` within the limit, or why nothing does.
pub async fn within_limit<T>(write: impl Future<Output = Result<T, PostgresError>>) -> Result<T, String> {
    match timeout(LIMIT, write).await {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the server did not answer within {} s", LIMIT.as_secs())),
    }
}

/// Whether the server takes anything at all now.
///
/// Errors: the server's.
pub async fn is_writable(sql: &SqlClient) -> Result<bool, PostgresError> {
    const DOING: &str = "asking whether the server takes writes failed";
    let row = sql.query_one(DOING, WRITABLE, &[]).await?;
    row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))
}
