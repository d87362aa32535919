//! WAL and base backups of a standby, by choice.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::oracle;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::told::Told;

use crate::restored;

/// A primary with a table, and its standby, which the site archives; the primary is another host of the connection string.
fn archived_standby(major: u16) -> Result<(Cluster, Site)> {
    archived_standby_by(major, None)
}

/// Like [`archived_standby`], by a role of this name that may replicate and look, and no more.
fn archived_standby_by(major: u16, role: Option<&str>) -> Result<(Cluster, Site)> {
    let cluster = Cluster::builder().major(major).segment_mib(1).setting("wal_keep_size", "1GB");
    let mut site = Site::new(cluster, Store::Directory)?;
    site.cluster.sql("create table kept as select generate_series(1, 1000) as id")?;
    if let Some(role) = role {
        site.cluster.sql(&format!("create role {role} login replication in role pg_monitor"))?;
    }
    let standby = site.standby("standby", &site.cluster, &[("hot_standby_feedback", "on")])?;
    let primary = std::mem::replace(&mut site.cluster, standby);
    let rest = primary.conninfo().replace(&format!("host={}", primary.sockets().display()), "");
    let (first, second) = (site.cluster.sockets().display(), primary.sockets().display());
    let mut conninfo = format!("host={first},{second} {rest} target_session_attrs=standby");
    if let Some(role) = role {
        conninfo = conninfo.replace(&format!("user={}", site.scratch.account().name), &format!("user={role}"));
        ensure!(conninfo.contains(&format!("user={role} ")), "{conninfo}");
    }
    site.archiver.set_text("cluster.conninfo", &conninfo);
    site.archiver.write_config()?;
    Ok((primary, site))
}

/// Waits until everything that the primary has written is in the repository.
fn durable(site: &Site, primary: &Cluster, daemon: &mut Daemon) -> Result<()> {
    let flushed = primary.flush_lsn()?;
    daemon.until(&format!("{flushed} to be durable"), PATIENCE, || {
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        let frontier: Lsn = status["stream"]["frontier"].as_str().context("a frontier")?.parse()?;
        Ok((frontier >= flushed).then_some(()))
    })
}

fn a_quiet_primarys_standby_is_backed_up(major: u16) -> Result<()> {
    let (primary, site) = archived_standby(major)?;
    let mut daemon = site.archive()?;
    // Nobody writes on the primary while it goes on.
    let taken = site.archiver.run_long(&["backup"])?.success()?;
    ensure!(taken.stdout.contains("Base backup "), "{taken}");
    primary.sql("insert into kept select generate_series(1001, 2000)")?;
    durable(&site, &primary, &mut daemon)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select count(*) from kept")?, "2000");
    oracle::amcheck(&latest)
}

#[test]
fn case_16_a_standby_is_archived_by_choice_only() -> Result<()> {
    let (_primary, mut site) = archived_standby(15)?;
    let alone = site.cluster.conninfo();
    site.archiver.set_text("cluster.conninfo", &alone);
    site.archiver.write_config()?;
    let init = site.archiver.run(&["init"])?;
    let words = "only with target_session_attrs=standby in cluster.conninfo";
    ensure!(init.stdout.contains(words) || init.stderr.contains(words), "{init}");
    let mut daemon = site.archiver.daemon(&["run"])?;
    daemon.says("target_session_attrs=standby", PATIENCE)?;
    ensure!(site.place.list()?.iter().all(|object| !object.key.contains("/wal/") && !object.key.contains("/tail/")));
    // It looks again: the host may be promoted.
    site.cluster.sql("select pg_promote()")?;
    site.cluster.sql("create table more as select 1 as n")?;
    durable(&site, &site.cluster, &mut daemon)
}

#[test]
pub fn case_33_a_standby_that_is_cut_off_from_its_primary_is_told_until_it_receives_again() -> Result<()> {
    let (mut primary, mut site) = archived_standby(15)?;
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.set_text("alerts.rpo", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    durable(&site, &primary, &mut daemon)?;
    primary.stop(Stop::Fast)?;
    // It answers, and has nothing new: to the stream all seems well.
    told.arrives(&mut daemon, "standby-cut-off", &["raised"])?;
    let check = site.archiver.run(&["status", "--check"])?.exits(2)?;
    ensure!(check.stdout.contains("has not been connected to its primary"), "{check}");
    primary.start()?;
    told.arrives(&mut daemon, "standby-cut-off", &["raised", "cleared"])?;
    primary.sql("insert into kept select generate_series(1001, 2000)")?;
    durable(&site, &primary, &mut daemon)
}

#[test]
fn case_33_a_standby_of_postgresql_15_is_backed_up_while_its_primary_is_quiet() -> Result<()> {
    a_quiet_primarys_standby_is_backed_up(15)
}

#[test]
fn case_33_a_standby_of_postgresql_17_is_backed_up_while_its_primary_is_quiet() -> Result<()> {
    a_quiet_primarys_standby_is_backed_up(17)
}

/// Lets a backup of the standby wait for its WAL, until both log and status say `words` of it, and then end well. Returns whether the
/// primary switched its WAL meanwhile.
fn a_backup_that_waits_says(words: &str, primary: &Cluster, site: &Site, daemon: &mut Daemon) -> Result<bool> {
    // The standby's WAL does not come: the process that sends it is held.
    let sender = "select pid from pg_stat_replication where application_name = 'walseal_orders'";
    let sender: i32 = site.cluster.value(sender)?.parse()?;
    let sender = Pid::from_raw(sender).context("a process id is positive")?;
    kill_process(sender, Signal::STOP)?;
    primary.sql("insert into kept select generate_series(1001, 2000)")?;
    primary.sql("checkpoint")?;
    let written = primary.flush_lsn()?;
    let replayed = format!("select pg_last_wal_replay_lsn() >= '{written}'");
    eventually("the standby to have it", PATIENCE, || Ok((site.cluster.value(&replayed)? == "t").then_some(())))?;
    site.cluster.sql("checkpoint")?;
    let segment = || primary.value("select pg_walfile_name(pg_current_wal_insert_lsn())");
    let before = segment()?;
    let client = site.archiver.call(&["backup"]).spawn()?;
    daemon.says(words, PATIENCE)?;
    daemon.until("the status to say so", PATIENCE, || {
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        let stage = status["backup"]["stage"].as_str().unwrap_or_default();
        Ok((stage.contains("waiting for WAL through ") && stage.contains(&format!(" so far; {words}"))).then_some(()))
    })?;
    let after = segment()?;
    kill_process(sender, Signal::CONT)?;
    client.wait(PATIENCE)?.success()?;
    let log = daemon.log();
    ensure!(log.matches(words).count() == 1, "{log}");
    Ok(after > before)
}

#[test]
fn case_33_a_backup_that_waits_for_wal_says_so_and_asks_the_primary_once_to_switch() -> Result<()> {
    let (primary, site) = archived_standby(15)?;
    let mut daemon = site.archive()?;
    durable(&site, &primary, &mut daemon)?;
    ensure!(a_backup_that_waits_says("asked the primary ", &primary, &site, &mut daemon)?, "no switch");
    durable(&site, &primary, &mut daemon)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select count(*) from kept")?, "2000");
    Ok(())
}

#[test]
fn case_33_where_the_primary_refuses_to_switch_the_backup_says_why_and_what_to_run_and_waits() -> Result<()> {
    let (primary, site) = archived_standby_by(15, Some("walseal"))?;
    let mut daemon = site.archive()?;
    durable(&site, &primary, &mut daemon)?;
    let words = "the primary could not be asked to switch WAL (asking for a switch of WAL failed: permission denied for function pg_switch_wal [42501]; grant this user what is missing); to hasten it, \
                 run on the primary: SELECT pg_switch_wal()";
    ensure!(!a_backup_that_waits_says(words, &primary, &site, &mut daemon)?, "it switched all the same");
    durable(&site, &primary, &mut daemon)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select count(*) from kept")?, "2000");
    Ok(())
}
