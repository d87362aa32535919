//! What the server says of our slot, and what of its settings concerns us.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use walseal_common::lsn::Lsn;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient, SqlClient};
use walseal_common::segment::SegmentSize;

use super::jam::{Archiving, Jam};
use super::upstream::Upstream;
use crate::doctor::wal_room::WalRoom;
use crate::stream::Progress;

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the server is asked, unless somebody must know sooner. Each time over a connection of its own: one that stays would hold up a smart shutdown.
const INTERVAL: Duration = Duration::from_secs(30);

/// A server that does not let this role in is asked again after this: some may only stream, and its log fills.
const AGAIN: Duration = Duration::from_secs(600);

const NAME: &str = "walseal lookout";

/// What was seen; what is not known is `None`.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(super) slot: Option<SlotView>,
    pub(super) synchronous_standby_names: Option<String>,
    /// The disk of `pg_wal`.
    pub(super) room: Option<WalRoom>,
    /// The server's own archiving.
    pub(super) archiving: Archiving,
    /// Where its WAL comes from.
    pub(super) upstream: Upstream,
    /// Whether the slots were seen, so that one that is missing here is not there.
    pub(super) saw_slots: bool,
    /// Whether it was seen just now.
    pub(super) fresh: bool,
}

impl View {
    /// Bytes of WAL that the slot keeps.
    pub(super) fn kept(&self) -> Option<u64> {
        self.slot.as_ref().and_then(|slot| slot.kept)
    }
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

/// Looks at the server that is streamed.
pub(super) struct ServerWatch {
    conninfo: Conninfo,
    slot: String,
    interval: Duration,
    /// Which host was asked last, and when it is to be asked again.
    asked: Option<(String, Instant)>,
    view: View,
}

impl ServerWatch {
    /// Asks no more often than `interval` says, and than is usual where it says nothing.
    pub(super) fn new(conninfo: Conninfo, slot: String, interval: Option<Duration>) -> ServerWatch {
        let interval = interval.unwrap_or(INTERVAL);
        ServerWatch { conninfo, slot, interval, asked: None, view: View::default() }
    }

    /// The server that is streamed, or was last, as it is or was an interval ago.
    pub(super) async fn look(&mut self, now: &Progress) -> &View {
        self.view.fresh = false;
        let Some(host) = self.conninfo.hosts().iter().find(|host| Some(host.to_string()) == now.host).cloned() else {
            return &self.view;
        };
        let name = host.to_string();
        if self.asked.as_ref().is_some_and(|(asked, again)| *asked == name && Instant::now() < *again) {
            return &self.view;
        }
        let mut again = self.interval;
        self.view = match timeout(PATIENCE, self.ask(&host, &mut again)).await {
            Ok(Ok(view)) => view,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the server was not seen");
                View::default()
            }
            Err(_) => View::default(),
        };
        self.asked = Some((name, Instant::now() + again));
        &self.view
    }

    async fn ask(&self, host: &Host, again: &mut Duration) -> Result<View, PostgresError> {
        let sql = match SqlClient::connect_to(&self.conninfo, host, NAME).await {
            Ok(sql) => sql,
            // Invalid authorization: the role may only stream.
            Err(error) if error.sqlstate().is_some_and(|state| state.starts_with("28")) => {
                tracing::debug!(%error, "no ordinary connection; the settings are asked over a replication connection");
                *again = AGAIN;
                let mut client = ReplicationClient::connect_to(&self.conninfo, host, NAME).await?;
                let names = client.show("synchronous_standby_names").await?;
                client.close().await;
                return Ok(View { synchronous_standby_names: Some(names), ..View::default() });
            }
            Err(error) => return Err(error),
        };
        // Only superusers and pg_read_all_settings are told; an error is an answer here.
        let data = match host.is_unix() {
            true => sql
                .query_one("reading data_directory failed", "SELECT current_setting('data_directory')", &[])
                .await
                .ok(),
            false => None,
        };
        let room = data.and_then(|row| row.try_get::<_, String>(0).ok()).and_then(|data| WalRoom::below(&data));
        let (slot, names) = read(&sql, &self.slot).await?;
        // What a role may not see of it takes nothing from the rest.
        let archiving = read_archiving(&sql).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the server's own archiving was not seen");
            Archiving::Unknown
        });
        let upstream = read_upstream(&sql).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "whether the server receives WAL was not seen");
            Upstream::Unknown
        });
        let names = Some(names);
        Ok(View { slot, synchronous_standby_names: names, room, archiving, upstream, saw_slots: true, fresh: true })
    }
}

/// On a standby that does not archive, and where it is off, it does not fail, whatever happened before.
async fn read_archiving(sql: &SqlClient) -> Result<Archiving, PostgresError> {
    const DOING: &str = "reading pg_stat_archiver failed";
    let query = "SELECT last_failed_wal, \
                 (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint, \
                 (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') \
                 FROM pg_stat_archiver \
                 WHERE last_failed_time > coalesce(last_archived_time, '-infinity') AND last_failed_wal IS NOT NULL \
                 AND (current_setting('archive_mode') = 'always' \
                      OR current_setting('archive_mode') = 'on' AND NOT pg_is_in_recovery())";
    let Some(row) = sql.query_opt(DOING, query, &[]).await? else { return Ok(Archiving::Fine) };
    let failed = |error| SqlClient::error(DOING, &error);
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
    let end = Lsn(number(row.try_get(1).map_err(failed)?));
    let size = SegmentSize::new(number(row.try_get(2).map_err(failed)?)).ok();
    Ok(Archiving::Fails(Jam::at(row.try_get(0).map_err(failed)?, end, size)))
}

/// Every role sees whether there is a WAL receiver. Who may not read `primary_conninfo` sees no row of it, and cannot tell a standby that is
/// cut off from one that has no primary.
async fn read_upstream(sql: &SqlClient) -> Result<Upstream, PostgresError> {
    const DOING: &str = "reading pg_stat_wal_receiver failed";
    let query = "SELECT NOT pg_is_in_recovery() OR EXISTS (SELECT 1 FROM pg_stat_wal_receiver), \
                 (SELECT setting = '' FROM pg_settings WHERE name = 'primary_conninfo')";
    let row = sql.query_one(DOING, query, &[]).await?;
    let failed = |error| SqlClient::error(DOING, &error);
    Ok(match (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?) {
        (true, _) | (false, Some(true)) => Upstream::Fine,
        (false, Some(false)) => Upstream::CutOff,
        (false, None) => Upstream::Unknown,
    })
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
