//! Gaps are filled from what others still have, and a restore into what was a gap lands exactly.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::repository::ObjectName;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::process::Process;
use walseal_tests::site::{Daemon, Site, Store};

use crate::{flow, restored};

/// A cluster of which the archiver lost WAL, and somebody who still has it.
struct Loss {
    site: Site,
    standby: Cluster,
    /// What `pg_receivewal` received of all of it.
    received: PathBuf,
    daemon: Option<Daemon>,
    /// After the second and the third of four rows, in segments that nobody but those two has any more.
    time: String,
    within: Lsn,
}

fn insert(site: &Site, id: i64) -> Result<()> {
    site.cluster.sql(&format!("insert into kept values ({id})")).map(|_| ())
}

/// Switches segments and lets the server recycle them; both of the others have them by then.
fn recycle(site: &Site, standby: &Cluster, receiver: &mut Process) -> Result<()> {
    for _ in 0..3 {
        site.cluster.sql("select pg_switch_wal()")?;
        let flushed = site.cluster.flush_lsn()?;
        let caught_up = format!("select coalesce(pg_last_wal_receive_lsn() >= '{flushed}', false)");
        eventually("the standby to have it", PATIENCE, || Ok((standby.value(&caught_up)? == "t").then_some(())))?;
        let received = format!(
            "select coalesce(bool_or(flush_lsn >= '{flushed}'), false) from pg_stat_replication where application_name = \
             'pg_receivewal'"
        );
        eventually("pg_receivewal to have it", PATIENCE, || {
            ensure!(receiver.is_running()?, "pg_receivewal has ended: {}", receiver.said());
            Ok((site.cluster.value(&received)? == "t").then_some(()))
        })?;
        site.cluster.sql("checkpoint")?;
    }
    Ok(())
}

impl Loss {
    fn new() -> Result<Loss> {
        let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "0"), Store::Directory)?;
        let standby = site.standby("standby", &site.cluster, &[("wal_keep_size", "1GB")])?;
        let received = site.scratch.dir("received")?;
        let call = site.cluster.client("pg_receivewal").args(["--synchronous", "-s", "1", "-d"]);
        let mut receiver = call.arg(site.cluster.conninfo()).arg("-D").arg(&received).spawn()?;
        let mut daemon = site.archive()?;
        site.cluster.sql("create table kept (id bigint)")?;
        site.archiver.run_long(&["backup"])?.success()?;
        insert(&site, 1)?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        daemon.sigterm()?.success()?;
        site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
        recycle(&site, &standby, &mut receiver)?;
        insert(&site, 2)?;
        let time = site.cluster.value("select clock_timestamp()")?;
        insert(&site, 3)?;
        let within = site.cluster.insert_lsn()?;
        insert(&site, 4)?;
        recycle(&site, &standby, &mut receiver)?;
        let mut daemon = site.start_daemon()?;
        daemon.says("gap: this WAL is not in the repository", PATIENCE)?;
        daemon.until("a base backup behind the gap", PATIENCE, || Ok((labels(&site)? == 2).then_some(())))?;
        insert(&site, 5)?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        recycle(&site, &standby, &mut receiver)?;
        receiver.kill()?;
        Ok(Loss { site, standby, received, daemon: Some(daemon), time, within })
    }

    fn listed(&self) -> Result<serde_json::Value> {
        self.site.restorer.run(&["list", "--json"])?.success()?.json()
    }

    /// Each of three targets, of which two lie in what was the gap, lands where it must.
    fn lands_exactly(&self) -> Result<()> {
        let targets =
            [(self.time.clone(), "1,2"), (format!("lsn:{}", self.within), "1,2,3"), ("latest".into(), "1,2,3,4,5")];
        for (number, (target, rows)) in targets.iter().enumerate() {
            let restored = restored::restore(&self.site, target, &format!("restored{number}"))?;
            let held = restored.value("select string_agg(id::text, ',' order by id) from kept")?;
            ensure!(held == *rows, "{target} has {held} instead of {rows}");
        }
        Ok(())
    }
}

fn labels(site: &Site) -> Result<usize> {
    let objects = site.place.list()?;
    Ok(objects.iter().filter(|object| object.key.contains("/base/") && object.key.ends_with("/label")).count())
}

fn objects(site: &Site) -> Result<Vec<String>> {
    Ok(site.place.list()?.into_iter().map(|object| object.key).collect())
}

#[test]
fn i5_a_gap_is_healed_from_a_standby_and_a_time_inside_it_lands_exactly() -> Result<()> {
    let mut loss = Loss::new()?;
    let daemon = loss.daemon.take().context("it runs")?;
    let Loss { site, standby, .. } = &loss;
    let listed = loss.listed()?;
    ensure!(listed["windows"].as_array().is_some_and(|windows| windows.len() == 2), "{listed}");
    let why = listed["gaps"][0]["record"]["why"].as_str().context("a recorded gap")?;
    ensure!(why.contains(flow::SLOT), "{listed}");
    let refused = site.restorer.run(&["plan", "--to", &loss.time])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("Gap: "), "a time within the gap: {refused}");

    // The primary has none of it; it says so, and nothing is stored.
    let nothing = site.archiver.run(&["heal"])?;
    ensure!(nothing.code == Some(1) && nothing.stderr.contains("still missing"), "{nothing}");
    ensure!(nothing.stdout.contains("pg_wal of the primary"), "{nothing}");
    // A dry run says what would be done, and does not.
    let dry = site.archiver.run(&["heal", "--from-standby", &standby.conninfo(), "--dry-run", "--json"])?;
    let dry = dry.success()?.json()?;
    ensure!(dry["gaps"][0]["left"].as_array().is_some_and(Vec::is_empty) && dry["objects"] == 0, "{dry}");
    ensure!(loss.listed()?["windows"].as_array().is_some_and(|windows| windows.len() == 2), "a dry run stores nothing");

    // The daemon streams on meanwhile.
    let healed = site.archiver.run(&["heal", "--from-standby", &standby.conninfo(), "--json"])?.success()?.json()?;
    ensure!(healed["gaps"][0]["fills"][0]["agrees_with"].as_array().is_some_and(|with| with.len() >= 2), "{healed}");
    let windows = |which: &str| healed[which].as_array().map(Vec::len);
    ensure!((windows("before"), windows("now")) == (Some(2), Some(1)), "{healed}");
    let listed = loss.listed()?;
    ensure!(listed["gaps"].as_array().is_some_and(Vec::is_empty), "{listed}");
    loss.lands_exactly()?;
    let again = site.archiver.run(&["heal", "--from-standby", &standby.conninfo()])?.success()?;
    ensure!(again.stdout.contains("No gap is open."), "{again}");
    let held = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    ensure!(held["stream"]["connected"] == true, "the daemon was left alone: {held}");
    daemon.sigterm()?.success().map(|_| ())
}

#[test]
fn i5_a_gap_is_healed_from_what_pg_receivewal_has_without_a_daemon() -> Result<()> {
    let mut loss = Loss::new()?;
    loss.daemon.take().context("it runs")?.sigterm()?.success()?;
    let folder = loss.received.to_string_lossy().into_owned();
    let healed = loss.site.archiver.run(&["heal", "--from", &folder])?.success()?;
    ensure!(healed.stdout.contains(&format!("in the folder {folder}; agrees with ")), "{healed}");
    ensure!(healed.stdout.contains("Any position in these can be restored:"), "{healed}");
    loss.lands_exactly()
}

#[test]
fn case_16_heal_refuses_another_cluster_and_a_password_on_the_command_line() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    for id in 0..4 {
        site.cluster.sql(&format!("create table t{id} (n int)"))?;
        site.cluster.sql("select pg_switch_wal()")?;
    }
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let is_whole = |key: &&String| {
        key.split_once('/').is_some_and(|(_, name)| matches!(name.parse(), Ok(ObjectName::Wal(_, _, None))))
    };
    let all = objects(&site)?;
    let whole: Vec<&String> = all.iter().filter(is_whole).collect();
    let lost = whole.get(1).context("four segments")?;
    let Some(Ok(ObjectName::Wal(_, segment, _))) = lost.split_once('/').map(|(_, name)| name.parse()) else {
        unreachable!("it was chosen for its name")
    };
    let size = site.cluster.segment_size()?;
    let at = segment.number(size).context("a number")?.start(size).to_string();
    site.place.remove(lost)?;

    // Clusters of one kind are copies of one another; one with other segments is another.
    let other = Cluster::builder().inside(&site.scratch).start()?;
    let refused = site.archiver.run(&["heal", "--gap", &at, "--from-standby", &other.conninfo()])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains(&other.system_identifier()?), "{refused}");
    let with_password = format!("{} password=secret", site.cluster.conninfo());
    let refused = site.archiver.run(&["heal", "--gap", &at, "--from-standby", &with_password])?;
    ensure!(refused.code == Some(2) && refused.stderr.contains("passfile"), "{refused}");
    ensure!(!refused.stderr.contains("password=secret"), "{refused}");
    let elsewhere = site.archiver.run(&["heal", "--gap", "0/100"])?;
    ensure!(elsewhere.code == Some(1) && elsewhere.stderr.contains("no WAL is missing at 0/100"), "{elsewhere}");
    ensure!(objects(&site)?.len() < all.len(), "nothing was stored");

    // The primary itself still has it.
    let healed = site.archiver.run(&["heal", "--gap", &at])?.success()?;
    ensure!(
        healed.stdout.contains("Hole without a record") && healed.stdout.contains("pg_wal of the primary"),
        "{healed}"
    );
    ensure!(objects(&site)?.contains(lost), "it is there again");
    daemon.sigterm()?.success().map(|_| ())
}
