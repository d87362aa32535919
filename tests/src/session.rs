//! A connection that tests speak SQL over, one call after the other.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// An open connection.
#[derive(Debug)]
pub struct Session {
    // The runtime drives the connection while a call waits; it goes last.
    client: Client,
    runtime: Runtime,
}

impl Session {
    /// Connects as `conninfo` says, without TLS: over a Unix socket.
    pub fn connect(conninfo: &str) -> Result<Session> {
        let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        let connecting = runtime.block_on(tokio_postgres::connect(conninfo, NoTls));
        let (client, connection) = connecting.with_context(|| format!("connecting to \"{conninfo}\""))?;
        runtime.spawn(async move {
            // A broken connection is told to the caller by the call that it breaks.
            let _ = connection.await;
        });
        Ok(Session { client, runtime })
    }

    /// Runs SQL and returns the rows of all its statements, each value as text.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages =
            self.runtime.block_on(self.client.simple_query(sql)).with_context(|| format!("running {sql}"))?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// Runs SQL and returns the first value of the first row; empty for NULL.
    ///
    /// Errors: there is no row.
    pub fn value(&self, sql: &str) -> Result<String> {
        let rows = self.rows(sql)?;
        let first = rows.into_iter().next().with_context(|| format!("no row from {sql}"))?;
        Ok(first.into_iter().next().flatten().unwrap_or_default())
    }
}
