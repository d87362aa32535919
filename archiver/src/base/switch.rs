//! A primary is asked to switch WAL for a backup of its standby (case 33).
//!
//! A standby's backup ends where its data files are consistent, and only the primary writes the WAL that follows. On a quiet primary
//! that may take long. The archiver waits politely first, asks once, and where it may not, says what to run.

use std::time::Duration;

use tokio::time::timeout;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};

/// How long a backup of a standby waits for its WAL before it asks for more.
pub const POLITE: Duration = Duration::from_secs(10);

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a person may run where nobody could be asked.
const BY_HAND: &str = "to hasten it, run on the primary: SELECT pg_switch_wal()";

/// Asks the primary among the hosts of `conninfo`, beside `standby`, to switch WAL. Says in words what came of it.
pub async fn ask(conninfo: &Conninfo, standby: &Host) -> String {
    let mut failures = Vec::new();
    for host in conninfo.hosts().iter().filter(|host| *host != standby) {
        match timeout(PATIENCE, switch(conninfo, host)).await {
            Ok(Ok(true)) => return format!("asked the primary {host} to switch WAL"),
            // Another standby.
            Ok(Ok(false)) => {}
            Ok(Err(error)) => failures.push(error.to_string()),
            Err(_) => failures.push(format!("{host} did not answer within {} s", PATIENCE.as_secs())),
        }
    }
    match failures.as_slice() {
        [] => format!("cluster.conninfo names no primary; {BY_HAND}"),
        failures => format!("the primary could not be asked to switch WAL ({}); {BY_HAND}", failures.join("; ")),
    }
}

/// Switches, if this is a primary.
async fn switch(conninfo: &Conninfo, host: &Host) -> Result<bool, PostgresError> {
    let sql = SqlClient::connect_to(conninfo, host, "walseal switch").await?;
    if sql.was_standby() {
        return Ok(false);
    }
    sql.simple_query("asking for a switch of WAL failed", "SELECT pg_switch_wal()").await?;
    sql.close().await;
    Ok(true)
}
