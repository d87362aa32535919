//! The server: whether it lets us in, what it is, and what its settings will do to us.

use walseal_common::config::Config;
use walseal_common::lsn::Lsn;
use walseal_common::postgres::conninfo::TargetSessionAttrs;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient, SqlClient};
use walseal_common::terminal::units;
use walseal_common::timeline::SystemIdentifier;

use super::settings::{self, ArchiveSettings};
use super::synchronous::synchronous;
use super::wal_room::{WalRoom, keep_size};
use super::{Examination, Finding};
use crate::admission::Admission;
use crate::primary;

/// A server that was let in by, for the checks that follow.
pub(super) struct Seen {
    /// Ordinary connections; `None` where they are refused.
    pub(super) sql: Option<SqlClient>,
    /// Which cluster it is.
    pub(super) cluster: SystemIdentifier,
    /// Whether it is in recovery.
    pub(super) standby: bool,
    /// The oldest WAL that the slot keeps.
    pub(super) slot: Option<Lsn>,
}

/// Looks at everything that the server tells. `streams` is whether a daemon says that it is streaming.
pub(super) async fn examine(
    config: &Config,
    conninfo: &Conninfo,
    slot: &str,
    streams: bool,
    examination: &mut Examination<'_>,
) -> Option<Seen> {
    let admission = Admission::of(conninfo);
    let mut client = match primary::connect(conninfo, "walseal doctor").await {
        Ok(client) => client,
        Err(error) => {
            examination.add(Finding::failed("server", &error).fixes(admission.fixes(&error)));
            return None;
        }
    };
    let system = match client.identify_system().await {
        Ok(system) => system,
        Err(error) => {
            examination.add(Finding::failed("server", error));
            return None;
        }
    };
    let standby = client.parameter("in_hot_standby") == Some("on");
    examination.add(role(&client, conninfo, standby, system.system_identifier));
    examination.add(settings::version(client.server_version_num()));
    examination.add(Finding::fine("replication", format!("the role {} may replicate", conninfo.user())));
    if let Err(error) = examine_settings(config, &mut client, slot, examination).await {
        examination.add(Finding::not_checked("settings", error));
    }
    let sql = match SqlClient::connect_to(conninfo, client.host(), "walseal doctor").await {
        Ok(sql) => Some(sql),
        Err(error) => {
            let text = format!("ordinary connections are refused, so that slot and archiver are not seen: {error}");
            examination.add(Finding::not_checked("sql", text).fixes(admission.fixes(&error)));
            None
        }
    };
    client.close().await;
    let mut restart = None;
    if let Some(sql) = &sql {
        match read_slot(sql, slot).await {
            Ok(state) => {
                restart = state.as_ref().and_then(|state| state.restart);
                examination.add(judge_slot(slot, state.as_ref(), streams));
            }
            Err(error) => examination.add(Finding::not_checked("slot", error)),
        }
    }
    Some(Seen { sql, cluster: system.system_identifier, standby, slot: restart })
}

fn role(client: &ReplicationClient, conninfo: &Conninfo, standby: bool, cluster: SystemIdentifier) -> Finding {
    let chosen =
        matches!(conninfo.target_session_attrs(), TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby);
    let what = if standby { "a standby" } else { "a primary" };
    let text = format!("{} answers: {what} of cluster {cluster}", client.host());
    if standby && !chosen {
        return Finding::failed(
            "server",
            format!("{text}, and walseal streams from the primary unless told otherwise"),
        )
        .fix("name the primary in cluster.conninfo")
        .fix("stream from the standby: target_session_attrs=standby in cluster.conninfo");
    }
    Finding::fine("server", text)
}

/// First version that keeps WAL summaries.
const VERSION_17: u32 = 170_000;

async fn examine_settings(
    config: &Config,
    client: &mut ReplicationClient,
    slot: &str,
    examination: &mut Examination<'_>,
) -> Result<(), PostgresError> {
    examination.add(settings::wal_level(&client.show("wal_level").await?));
    let room = WalRoom::of(client).await;
    let give_up_at = config.wal.give_up_at.as_ref().map(|limit| limit.value);
    examination.add(keep_size(&client.show("max_slot_wal_keep_size").await?, room, give_up_at));
    let names = client.show("synchronous_standby_names").await?;
    examination.add(synchronous(&names, slot, config.wal.synchronous.value));
    examination.add(settings::checksums(&client.show("data_checksums").await?));
    if client.server_version_num() >= VERSION_17 {
        examination.add(settings::summarize_wal(&client.show("summarize_wal").await?));
    }
    Ok(())
}

/// What `pg_replication_slots` says of our slot.
struct Slot {
    kind: String,
    holder: Option<i32>,
    restart: Option<Lsn>,
    wal_status: Option<String>,
    /// Bytes of WAL that it keeps.
    kept: Option<i64>,
}

async fn read_slot(sql: &SqlClient, slot: &str) -> Result<Option<Slot>, PostgresError> {
    const DOING: &str = "reading pg_replication_slots failed";
    let query = "SELECT slot_type, active_pid, restart_lsn::text, wal_status, \
                 (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
                  - restart_lsn)::bigint \
                 FROM pg_replication_slots WHERE slot_name = $1";
    let Some(row) = sql.query_opt(DOING, query, &[&slot]).await? else { return Ok(None) };
    let failed = |error| SqlClient::error(DOING, &error);
    let restart: Option<String> = row.try_get(2).map_err(failed)?;
    Ok(Some(Slot {
        kind: row.try_get(0).map_err(failed)?,
        holder: row.try_get(1).map_err(failed)?,
        restart: restart.and_then(|text| text.parse().ok()),
        wal_status: row.try_get(3).map_err(failed)?,
        kept: row.try_get(4).map_err(failed)?,
    }))
}

fn judge_slot(name: &str, slot: Option<&Slot>, streams: bool) -> Finding {
    const CHECK: &str = "slot";
    let Some(slot) = slot else {
        return Finding::failed(CHECK, format!("{name} is not there: the server keeps no WAL for the archiver"))
            .fix("walseal-archiver init, then a base backup: walseal-archiver backup");
    };
    if slot.kind != "physical" {
        return Finding::failed(CHECK, format!("{name} is a {} slot", slot.kind))
            .fix("name another in cluster.slot, and run walseal-archiver init")
            .fix(format!("where nobody needs it: SELECT pg_drop_replication_slot('{name}');"));
    }
    let status = slot.wal_status.as_deref().unwrap_or("unknown");
    let kept = units::size(u64::try_from(slot.kept.unwrap_or_default()).unwrap_or_default());
    let text = match slot.holder {
        Some(pid) => format!("{name}: active (server process {pid}), wal_status {status}, keeps {kept} of WAL"),
        None => format!("{name}: not active, wal_status {status}, keeps {kept} of WAL"),
    };
    match (status, slot.holder) {
        ("lost", _) => {
            Finding::failed(CHECK, format!("{text}: the server has removed WAL that was not in the repository"))
                .fix("start the daemon, which makes it anew and says what is missing; then: walseal-archiver backup")
        }
        ("unreserved", _) => {
            Finding::warning(CHECK, format!("{text}: the next checkpoint removes WAL that is still needed"))
                .fix("let the daemon catch up, or raise max_slot_wal_keep_size, at once")
        }
        (_, None) if streams => {
            Finding::failed(CHECK, format!("{text}, although the daemon streams: from another server?"))
                .fix("compare cluster.conninfo with the server that the daemon's log names")
        }
        _ => Finding::fine(CHECK, text),
    }
}

/// How the server archives by itself.
pub(super) async fn examine_archiving(sql: &SqlClient, examination: &mut Examination<'_>) {
    match read_archiving(sql).await {
        Ok(archiving) => examination.add(settings::archiving(&archiving)),
        Err(error) => examination.add(Finding::not_checked("archive_command", error)),
    }
}

async fn read_archiving(sql: &SqlClient) -> Result<ArchiveSettings, PostgresError> {
    const DOING: &str = "reading pg_stat_archiver failed";
    let query = "SELECT current_setting('archive_mode'), coalesce(current_setting('archive_command', true), ''), \
                 coalesce(current_setting('archive_library', true), ''), \
                 (SELECT last_failed_time > coalesce(last_archived_time, '-infinity') FROM pg_stat_archiver)";
    let row = sql.query_one(DOING, query, &[]).await?;
    let failed = |error| SqlClient::error(DOING, &error);
    Ok(ArchiveSettings {
        mode: row.try_get(0).map_err(failed)?,
        command: row.try_get(1).map_err(failed)?,
        library: row.try_get(2).map_err(failed)?,
        fails: row.try_get(3).map_err(failed)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn slot(kind: &str, holder: Option<i32>, status: &str) -> Slot {
        Slot {
            kind: kind.to_owned(),
            holder,
            restart: Some(Lsn(0x300_0000)),
            wal_status: Some(status.to_owned()),
            kept: Some(5 << 20),
        }
    }

    #[test]
    fn case_14_a_slot_that_is_gone_lost_or_of_another_kind_is_told_with_its_cure() {
        let judge = |slot: Option<&Slot>, streams| judge_slot("walseal_orders", slot, streams);
        let fine = judge(Some(&slot("physical", Some(7), "reserved")), true);
        assert!(fine.verdict == Verdict::Fine && fine.text.contains("server process 7") && fine.text.contains("5 MiB"));
        assert_eq!(judge(Some(&slot("physical", None, "extended")), false).verdict, Verdict::Fine);
        for (failed, streams) in [
            (None, false),
            (Some(slot("logical", None, "reserved")), false),
            (Some(slot("physical", None, "lost")), false),
            (Some(slot("physical", None, "reserved")), true),
        ] {
            let finding = judge(failed.as_ref(), streams);
            assert!(finding.verdict == Verdict::Failed && !finding.fix.is_empty(), "{finding:?}");
        }
        assert_eq!(judge(Some(&slot("physical", Some(7), "unreserved")), true).verdict, Verdict::Warning);
    }
}
