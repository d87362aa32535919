//! What a failover does to the slot (case 14): PostgreSQL does not copy it to a standby, and Patroni drops what it does not know.
//!
//! Patroni's configuration is not for SQL to see, but its sessions are, by name, and so is what it keeps: from version 3.2 on a
//! permanent slot is on every member. So the other hosts of `cluster.conninfo` are asked.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use walseal_common::lsn::Lsn;
use walseal_common::postgres::{Conninfo, Host, PostgresError, SqlClient};
use walseal_common::terminal::units;

use super::{Examination, Finding};

const CHECK: &str = "failover";

/// How long another host may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// How far the slot of a standby may lie behind the primary's, in bytes, before it is taken for one that nobody moves. Patroni
/// moves it once in `loop_wait`, 10 s by default.
const IN_STEP: u64 = 1 << 30;

/// The servers of the cluster, as far as the connection string names them.
struct Scene {
    /// The `cluster_name` where Patroni manages the server.
    patroni: Option<String>,
    /// Where our slot is on the primary.
    slot: Option<Lsn>,
    /// The other hosts of the connection string.
    others: Vec<(String, Other)>,
}

/// Another host.
enum Other {
    /// In recovery.
    Standby {
        /// Where our slot is there; `None` where there is none, or one that keeps nothing.
        slot: Option<Lsn>,
        /// Its `wal_keep_size`, in MB.
        keeps: i64,
    },
    /// The primary that was looked at, by another name.
    Same,
    /// One that takes writes.
    Primary,
    /// It was not reached.
    Silent(String),
}

/// Looks at every host. `sql` is a connection to the primary, `slot` the name of our slot.
pub(super) async fn examine(conninfo: &Conninfo, slot: &str, sql: &SqlClient, examination: &mut Examination<'_>) {
    match look(conninfo, slot, sql).await {
        Ok(scene) => scene.judge(slot).into_iter().for_each(|finding| examination.add(finding)),
        Err(error) => examination.add(Finding::not_checked(CHECK, error)),
    }
}

async fn look(conninfo: &Conninfo, slot: &str, sql: &SqlClient) -> Result<Scene, PostgresError> {
    const DOING: &str = "looking for Patroni failed";
    // Both are shown to every role. The name was "Patroni" before version 3.2, and is "Patroni heartbeat", "Patroni restapi" since.
    let query = "SELECT current_setting('cluster_name'), \
                 EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'Patroni' OR application_name LIKE 'Patroni %')";
    let failed = |error| SqlClient::error(DOING, &error);
    let row = sql.query_one(DOING, query, &[]).await?;
    let cluster_name: String = row.try_get(0).map_err(failed)?;
    let seen: bool = row.try_get(1).map_err(failed)?;
    let own = of_server(sql, slot).await?;
    let (others, born) = (conninfo.hosts().iter().filter(|host| *host != sql.host()), own.born.as_str());
    let others = join_all(others.map(|host| async move { (host.to_string(), ask(conninfo, host, slot, born).await) }));
    Ok(Scene { patroni: seen.then_some(cluster_name), slot: own.slot, others: others.await })
}

/// What a server says of itself.
struct OfServer {
    standby: bool,
    /// When it was started: tells it from every other.
    born: String,
    slot: Option<Lsn>,
    keeps: i64,
}

async fn of_server(sql: &SqlClient, slot: &str) -> Result<OfServer, PostgresError> {
    const DOING: &str = "reading pg_replication_slots failed";
    let query = "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text, \
                 (SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'physical'), \
                 (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_keep_size')";
    let row = sql.query_one(DOING, query, &[&slot]).await?;
    let failed = |error| SqlClient::error(DOING, &error);
    let slot: Option<String> = row.try_get(2).map_err(failed)?;
    Ok(OfServer {
        standby: row.try_get(0).map_err(failed)?,
        born: row.try_get(1).map_err(failed)?,
        slot: slot.and_then(|text| text.parse().ok()),
        keeps: row.try_get(3).map_err(failed)?,
    })
}

async fn ask(conninfo: &Conninfo, host: &Host, slot: &str, primary: &str) -> Other {
    let answer = timeout(PATIENCE, async {
        let sql = SqlClient::connect_to(conninfo, host, "walseal doctor").await?;
        of_server(&sql, slot).await
    });
    match answer.await {
        Ok(Ok(server)) if server.born == primary => Other::Same,
        Ok(Ok(OfServer { standby: true, slot, keeps, .. })) => Other::Standby { slot, keeps },
        Ok(Ok(_)) => Other::Primary,
        Ok(Err(error)) => Other::Silent(error.to_string()),
        Err(_) => Other::Silent(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

impl Scene {
    fn judge(&self, slot: &str) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.others.iter().filter_map(|(host, other)| alarming(host, other)).collect();
        findings.extend(match &self.patroni {
            Some(name) => Some(self.under_patroni(name, slot)),
            None => self.without_patroni(slot),
        });
        findings
    }

    /// The standbys that were reached, with the position of our slot there and their `wal_keep_size`.
    fn standbys(&self) -> impl Iterator<Item = (&str, Option<Lsn>, i64)> {
        self.others.iter().filter_map(|(host, other)| match other {
            Other::Standby { slot, keeps } => Some((host.as_str(), *slot, *keeps)),
            _ => None,
        })
    }

    fn under_patroni(&self, name: &str, slot: &str) -> Finding {
        let scope = if name.is_empty() { "SCOPE" } else { name };
        let keeps = format!(
            "patronictl edit-config {scope}, and add, so that Patroni (3.2 or later) keeps the slot on every member:\n\
             slots:\n  {slot}:\n    type: physical"
        );
        let manages = format!("Patroni manages this server ({scope})");
        if self.others.is_empty() {
            let text = format!(
                "{manages}, and cluster.conninfo names one host: whether Patroni keeps {slot} on the other members is not seen"
            );
            return Finding::warning(CHECK, text)
                .fix("name every member: host=db1,db2,db3 … target_session_attrs=read-write")
                .fix(format!("where that address follows the leader, see to it that Patroni keeps the slot: {keeps}"));
        }
        // First, because it fills a disk. A member that lacks the slot has the same cure.
        let behind = |at: Option<Lsn>| Some(self.slot?.bytes_since(at?));
        let frozen =
            self.standbys().filter_map(|(host, at, _)| Some((host, behind(at).filter(|bytes| *bytes > IN_STEP)?)));
        if let Some((host, bytes)) = frozen.max_by_key(|(_, bytes)| *bytes) {
            let text = format!(
                "{manages}, and nobody moves {slot} on {host}: it lies {} behind, and keeps as much WAL there (with ignore_slots \
                 Patroni leaves a slot where it was)",
                units::size(bytes)
            );
            return Finding::warning(CHECK, text).fix(format!("take it out of ignore_slots; {keeps}"));
        }
        let lacking: Vec<&str> = self.standbys().filter(|(_, at, _)| at.is_none()).map(|(host, ..)| host).collect();
        if !lacking.is_empty() {
            let text = format!(
                "{manages} and does not keep {slot}, which is not on {}: the next leader has none, and this one drops it when it \
                 looks at its slots while the daemon is not connected",
                lacking.join(", ")
            );
            return Finding::warning(CHECK, text).fix(keeps).fix(
                "with an older Patroni the same, and beside it wal_keep_size = '1GB' or more in its parameters: the next leader \
                 makes the slot anew, and must still have the WAL",
            );
        }
        let at: Vec<String> = self.standbys().filter_map(|(host, at, _)| Some(format!("{host} ({})", at?))).collect();
        if at.is_empty() {
            let text = format!("{manages}, and no other member was reached: whether it keeps {slot} there is not seen");
            return Finding::warning(CHECK, text).fix(format!("run this again when they are up; see to it: {keeps}"));
        }
        let silent = self.others.iter().any(|(_, other)| matches!(other, Other::Silent(_)));
        let every = if silent { "every member that was reached" } else { "every member" };
        Finding::fine(CHECK, format!("{manages} and keeps {slot} on {every}: {}", at.join(", ")))
    }

    fn without_patroni(&self, slot: &str) -> Option<Finding> {
        if let Some((host, Some(at), _)) = self.standbys().find(|(_, at, _)| at.is_some()) {
            let text =
                format!("the standby {host} has {slot}, too, at {at}: it keeps all WAL from there on, for nobody");
            return Some(
                Finding::warning(CHECK, text)
                    .fix(format!("on {host}: SELECT pg_drop_replication_slot('{slot}');"))
                    .fix("leave it where something of yours moves it on as the primary's moves"),
            );
        }
        let hosts: Vec<&str> = self.standbys().map(|(host, ..)| host).collect();
        let keeps = self.standbys().map(|(.., keeps)| keeps).min()?;
        let text = format!("after a failover to {} the daemon makes {slot} anew", hosts.join(" or "));
        if keeps == 0 {
            let text =
                format!("{text}, and wal_keep_size = 0 there: what the new primary has removed by then is a gap");
            return Some(Finding::warning(CHECK, text).fix(
                "wal_keep_size = '1GB'   # what is written while nobody streams; in postgresql.conf of every server, then SELECT \
                 pg_reload_conf();",
            ));
        }
        let kept = units::size(keeps.cast_unsigned() << 20);
        Some(Finding::fine(CHECK, format!("{text}, and wal_keep_size gives it {kept} of WAL for that")))
    }
}

/// What is wrong with another host, whoever manages it.
fn alarming(host: &str, other: &Other) -> Option<Finding> {
    match other {
        Other::Silent(why) => Some(
            Finding::warning(CHECK, format!("{host} was not reached: {why}"))
                .fix("start it, or take it out of cluster.conninfo"),
        ),
        Other::Primary => Some(
            Finding::failed(CHECK, format!("{host} takes writes, too: two primaries"))
                .fix("stop the one on the older timeline; what is written there nobody follows"),
        ),
        Other::Same | Other::Standby { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const SLOT: &str = "walseal_orders";

    fn standby(host: &str, slot: Option<u64>) -> (String, Other) {
        (host.to_owned(), Other::Standby { slot: slot.map(Lsn), keeps: 128 })
    }

    fn judge(patroni: Option<&str>, others: Vec<(String, Other)>) -> Vec<Finding> {
        Scene { patroni: patroni.map(str::to_owned), slot: Some(Lsn(3 << 30)), others }.judge(SLOT)
    }

    #[test]
    fn case_14_under_patroni_the_slot_must_be_on_every_member_and_move() {
        let fine = judge(Some("orders"), vec![standby("db2", Some(3 << 30)), standby("db3", Some((3 << 30) - 5))]);
        assert!(fine.len() == 1 && fine[0].verdict == Verdict::Fine, "{fine:?}");
        assert!(fine[0].text.contains("db2 (0/C0000000)"), "{fine:?}");
        for (others, word) in [
            (vec![standby("db2", Some(3 << 30)), standby("db3", None)], "not on db3"),
            (vec![standby("db2", Some(1 << 30))], "nobody moves walseal_orders on db2: it lies 2 GiB behind"),
            (vec![standby("db2", Some(1 << 30)), standby("db3", None)], "nobody moves walseal_orders on db2"),
            (vec![], "names one host"),
        ] {
            let findings = judge(Some("orders"), others);
            let [finding] = findings.as_slice() else { panic!("{findings:?}") };
            assert!(finding.verdict == Verdict::Warning && finding.text.contains(word), "{finding:?}");
            let added = "slots:\n  walseal_orders:\n    type: physical";
            assert!(
                finding.fix.iter().any(|fix| fix.contains("edit-config orders") && fix.ends_with(added)),
                "{finding:?}"
            );
        }
        let silent = judge(Some(""), vec![("db2".to_owned(), Other::Silent("down".to_owned()))]);
        assert!(silent.len() == 2 && silent.iter().all(|finding| finding.verdict == Verdict::Warning), "{silent:?}");
    }

    #[test]
    fn case_14_without_patroni_a_slot_that_a_standby_kept_fills_its_disk() {
        assert!(judge(None, vec![]).is_empty());
        let fine = judge(None, vec![standby("db2", None), ("vip".to_owned(), Other::Same)]);
        assert!(fine.len() == 1 && fine[0].verdict == Verdict::Fine && fine[0].text.contains("128 MiB"), "{fine:?}");
        let left = judge(None, vec![standby("db1", Some(77)), standby("db2", None)]);
        assert!(left[0].verdict == Verdict::Warning && left[0].fix[0].contains("on db1: SELECT pg_drop"), "{left:?}");
        let none = judge(None, vec![("db2".to_owned(), Other::Standby { slot: None, keeps: 0 })]);
        assert!(none[0].verdict == Verdict::Warning && none[0].fix[0].contains("wal_keep_size"), "{none:?}");
        let two = judge(None, vec![("db1".to_owned(), Other::Primary)]);
        assert!(two[0].verdict == Verdict::Failed && !two[0].fix.is_empty(), "{two:?}");
    }
}
