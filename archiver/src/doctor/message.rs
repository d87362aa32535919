//! The proof: a message written to the server's WAL, and the time until it is durable in the repository.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::postgres::{PostgresError, SqlClient};
use walseal_common::terminal::units;

use super::Finding;
use crate::socket::{self, Client, ClientError, Request};

/// How long a message may take before the way is called broken, beside `wal.ship_interval`.
const LIMIT: Duration = Duration::from_secs(30);

/// A message that went the whole way.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Message {
    /// Where it was written.
    pub lsn: Lsn,
    /// From its commit until it was durable, in seconds.
    pub durable_after_seconds: f64,
}

impl Message {
    /// As it is told.
    pub fn line(&self) -> String {
        let after = Duration::try_from_secs_f64(self.durable_after_seconds).unwrap_or_default();
        format!("wrote a message at {}, durable after {}", self.lsn, units::duration(after))
    }
}

pub(super) const CHECK: &str = "message";

/// Writes a message and waits for the daemon to have made it durable.
pub(super) async fn send(sql: &SqlClient, state_dir: &Path, ship_interval: Duration) -> Result<Message, Finding> {
    let (lsn, until) = write(sql).await.map_err(|error| Finding::failed(CHECK, error))?;
    let begun = Instant::now();
    arrives(until, state_dir, ship_interval).await.map_err(|why| why.after(&format!("wrote a message at {lsn}")))?;
    Ok(Message { lsn, durable_after_seconds: begun.elapsed().as_secs_f64() })
}

/// A standby takes no message: waits for what it has replayed by now.
pub(super) async fn look(sql: &SqlClient, state_dir: &Path, ship_interval: Duration) -> Finding {
    const DOING: &str = "asking for the WAL that was replayed failed";
    let lsn = match read(sql, DOING, "SELECT pg_last_wal_replay_lsn()::text").await {
        Ok(lsn) => lsn,
        Err(error) => return Finding::failed(CHECK, error),
    };
    match arrives(lsn, state_dir, ship_interval).await {
        Ok(()) => {
            Finding::fine(CHECK, format!("a standby takes none; all that it had replayed, up to {lsn}, is durable"))
        }
        Err(why) => why.after(&format!("the standby has replayed WAL up to {lsn}")),
    }
}

/// Why WAL does not arrive.
enum Lost {
    NoDaemon,
    Late(ClientError),
}

impl Lost {
    /// `seen` is a clause.
    fn after(self, seen: &str) -> Finding {
        match self {
            Lost::NoDaemon => Finding::failed(CHECK, format!("{seen}, and no daemon runs that would make it durable"))
                .fix("systemctl start walseal-archiver, or: walseal-archiver run"),
            Lost::Late(error) => Finding::failed(CHECK, format!("{seen}, which did not become durable: {error}"))
                .fix("walseal-archiver status shows what keeps it; the server's slot keeps the WAL meanwhile"),
        }
    }
}

/// Waits for the daemon to have made everything up to `lsn` durable.
async fn arrives(lsn: Lsn, state_dir: &Path, ship_interval: Duration) -> Result<(), Lost> {
    let daemon = Client::connect(&socket::path(state_dir)).await.ok_or(Lost::NoDaemon)?;
    let limit_ms = u64::try_from((LIMIT + ship_interval).as_millis()).unwrap_or(u64::MAX);
    let asked = daemon.ask(&Request::AwaitDurable { lsn, limit_ms }, |_, _, _| ()).await;
    asked.map(|_| ()).map_err(Lost::Late)
}

/// Where the message lies, and up to where WAL is flushed with its commit in it.
async fn write(sql: &SqlClient) -> Result<(Lsn, Lsn), PostgresError> {
    const DOING: &str = "writing a message to the WAL failed";
    // A commit that waits for a standby that is down must not hang this; and one that waits for nobody must be flushed.
    sql.execute(DOING, "SET synchronous_commit = local", &[]).await?;
    let lsn = read(sql, DOING, "SELECT pg_logical_emit_message(true, 'walseal', 'doctor')::text").await?;
    let until = read(sql, DOING, "SELECT pg_current_wal_flush_lsn()::text").await?;
    Ok((lsn, until))
}

async fn read(sql: &SqlClient, doing: &str, query: &str) -> Result<Lsn, PostgresError> {
    let row = sql.query_one(doing, query, &[]).await?;
    let text: String = row.try_get(0).map_err(|error| SqlClient::error(doing, &error))?;
    text.parse().map_err(|_| PostgresError::Protocol { doing: doing.to_owned(), why: format!("\"{text}\" is no LSN") })
}
