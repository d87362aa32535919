//! What the server says of our slot, and what of its settings concerns us.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient, SqlClient};

use crate::doctor::wal_room::WalRoom;
use crate::stream::Progress;

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that let nobody in is tried again after this: some roles may only stream.
const AGAIN: Duration = Duration::from_secs(60);

const NAME: &str = "walseal lookout";

/// What was seen; what is not known is `None`.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) slot: Option<SlotView>,
    pub(super) synchronous_standby_names: Option<String>,
    /// The disk of `pg_wal`.
    pub(super) room: Option<WalRoom>,
    /// Whether the slots were seen, so that one that is missing here is not there.
    pub(super) saw_slots: bool,
}

/// The slot, by `pg_replication_slots`.
#[derive(Debug)]
pub(super) struct SlotView {
    pub(super) wal_status: Option<String>,
    /// Bytes of WAL that it keeps.
    pub(super) kept: Option<u64>,
    /// Bytes that may be written until it is at risk; `None` without a limit.
    pub(super) allowed: Option<u64>,
}

/// Looks at the server that is streamed, over one connection that it keeps.
pub(super) struct ServerWatch {
    conninfo: Conninfo,
    slot: String,
    connection: Option<Connection>,
    refused: Option<Instant>,
}

struct Connection {
    sql: SqlClient,
    /// The data directory, where it lies on this machine and this role may know it.
    data: Option<String>,
}

impl ServerWatch {
    pub(super) fn new(conninfo: Conninfo, slot: String) -> ServerWatch {
        ServerWatch { conninfo, slot, connection: None, refused: None }
    }

    /// Looks at the server that is streamed, or was last.
    pub(super) async fn look(&mut self, now: &Progress) -> View {
        let host = self.conninfo.hosts().iter().find(|host| Some(host.to_string()) == now.host).cloned();
        let Some(host) = host else { return View::default() };
        match timeout(PATIENCE, self.try_look(&host)).await {
            Ok(Ok(view)) => view,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the server was not seen");
                self.connection = None;
                View::default()
            }
            Err(_) => {
                self.connection = None;
                View::default()
            }
        }
    }

    async fn try_look(&mut self, host: &Host) -> Result<View, PostgresError> {
        self.connection = self.connection.take().filter(|known| known.sql.host() == host && !known.sql.is_closed());
        if self.connection.is_none() {
            if self.refused.is_some_and(|refused| refused.elapsed() < AGAIN) {
                return Ok(View::default());
            }
            match self.connect(host).await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    tracing::debug!(%error, "no ordinary connection; the settings are asked over a replication connection");
                    self.refused = Some(Instant::now());
                    let mut client = ReplicationClient::connect_to(&self.conninfo, host, NAME).await?;
                    let names = client.show("synchronous_standby_names").await?;
                    client.close().await;
                    return Ok(View { synchronous_standby_names: Some(names), ..View::default() });
                }
            }
        }
        let Some(Connection { sql, data }) = &self.connection else { return Ok(View::default()) };
        let room = data.as_deref().and_then(WalRoom::below);
        let (slot, names) = read(sql, &self.slot).await?;
        Ok(View { slot, synchronous_standby_names: Some(names), room, saw_slots: true })
    }

    async fn connect(&self, host: &Host) -> Result<Connection, PostgresError> {
        let sql = SqlClient::connect_to(&self.conninfo, host, NAME).await?;
        // Only superusers and pg_read_all_settings are told; an error is an answer here.
        let data = match host.is_unix() {
            true => sql
                .query_one("reading data_directory failed", "SELECT current_setting('data_directory')", &[])
                .await
                .ok(),
            false => None,
        };
        let data = data.and_then(|row| row.try_get::<_, String>(0).ok());
        Ok(Connection { sql, data })
    }
}

async fn read(sql: &SqlClient, slot: &str) -> Result<(Option<SlotView>, String), PostgresError> {
    const DOING: &str = "reading pg_replication_slots failed";
    let query = "SELECT wal_status, \
                 (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
                  - restart_lsn)::bigint, safe_wal_size, current_setting('synchronous_standby_names'), slot_name IS NULL \
                 FROM (VALUES (1)) AS one LEFT JOIN pg_replication_slots ON slot_name = $1";
    let row = sql.query_one(DOING, query, &[&slot]).await?;
    let failed = |error| SqlClient::error(DOING, &error);
    let size = |bytes: Option<i64>| bytes.map(|bytes| u64::try_from(bytes).unwrap_or_default());
    let names = row.try_get(3).map_err(failed)?;
    if row.try_get(4).map_err(failed)? {
        return Ok((None, names));
    }
    let view = SlotView {
        wal_status: row.try_get(0).map_err(failed)?,
        kept: size(row.try_get(1).map_err(failed)?),
        allowed: size(row.try_get(2).map_err(failed)?),
    };
    Ok((Some(view), names))
}
