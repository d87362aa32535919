//! Base backups that nobody asks for, one at a time, and those that are asked to stop.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::process::Process;
use walseal_tests::site::{Daemon, Site, Store};

use crate::flow;

fn labels(site: &Site) -> Result<usize> {
    let objects = site.place.list()?;
    Ok(objects.iter().filter(|object| object.key.contains("/base/") && object.key.ends_with("/label")).count())
}

/// Objects of leases: one when it is taken, one when it is released.
fn leases(site: &Site) -> Result<usize> {
    Ok(site.place.list()?.iter().filter(|object| object.key.contains("/lease/")).count())
}

fn status(site: &Site) -> Result<Value> {
    site.archiver.run(&["status", "--json"])?.json()
}

/// The last entry of this kind in the ledger.
fn last(site: &Site, act: &str) -> Result<Value> {
    let ledger = site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let entries = ledger["entries"].as_array().context("entries")?;
    entries.iter().rfind(|entry| entry["act"] == act).cloned().with_context(|| format!("no {act} in {ledger}"))
}

/// A site whose archiver has these settings.
fn site(cluster: walseal_tests::settings::ClusterBuilder, settings: &[(&str, &str)]) -> Result<Site> {
    let mut site = Site::new(cluster, Store::Directory)?;
    for (key, value) in settings {
        site.archiver.set_text(key, value);
    }
    site.archiver.write_config()?;
    Ok(site)
}

#[test]
fn a_daemon_takes_the_first_backup_by_itself_and_says_when_the_next_one_is_due() -> Result<()> {
    let cluster = Cluster::builder().setting("timezone", "America/New_York");
    let mut site = site(cluster, &[("base.schedule", "0 2 * * *"), ("base.jitter", "5m")])?;
    let mut daemon = site.archive()?;
    daemon.says("there is no base backup yet", PATIENCE)?;
    daemon.until("the first base backup", PATIENCE, || Ok((labels(&site)? == 1).then_some(())))?;
    let next = daemon.until("the next one to be told", PATIENCE, || {
        let next = &status(&site)?["next_backup"];
        let now: jiff::Timestamp = jiff::Timestamp::now();
        let at = next["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        Ok(at.filter(|at| *at > now).map(|_| next.clone()))
    })?;
    assert_eq!((&next["schedule"], &next["timezone"]), (&"0 2 * * *".into(), &"America/New_York".into()));
    let shown = site.archiver.run(&["status"])?.success()?;
    ensure!(shown.stdout.contains("next base   in ") && shown.stdout.contains("America/New_York"), "{shown}");
    // Another start finds that it is there.
    daemon.sigterm()?.success()?;
    site.archiver.set_text("base.timezone", "Asia/Tokyo");
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    daemon.until("the next one to be told", PATIENCE, || {
        Ok((status(&site)?["next_backup"]["timezone"] == "Asia/Tokyo").then_some(()))
    })?;
    assert_eq!(labels(&site)?, 1);
    Ok(())
}

#[test]
fn a_backup_that_is_due_is_taken_and_spreads_its_checkpoint() -> Result<()> {
    let cluster = Cluster::builder().setting("log_checkpoints", "on").setting("checkpoint_timeout", "30s");
    let mut site = site(cluster, &[])?;
    site.archiver.run(&["init"])?.success()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let by_hand = site.cluster.log();
    ensure!(by_hand.contains("checkpoint starting: immediate force wait"), "{by_hand}");
    site.archiver.set_text("base.schedule", "* * * * *");
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    daemon.until("the next minute, and its base backup", PATIENCE * 3, || Ok((labels(&site)? == 2).then_some(())))?;
    let log = site.cluster.log();
    ensure!(log.contains("checkpoint starting: force wait"), "{log}");
    Ok(())
}

#[test]
fn a_backup_by_schedule_that_fails_is_an_alert_and_is_tried_again() -> Result<()> {
    // The stream takes the only walsender.
    let cluster = Cluster::builder().setting("max_wal_senders", "1");
    let site = site(cluster, &[("base.schedule", "0 2 * * *")])?;
    let mut daemon = site.archive()?;
    let alert = daemon.until("the alert", PATIENCE, || {
        let status = status(&site)?;
        let alerts = status["alerts"].as_array().context("alerts")?;
        Ok(alerts.iter().find(|alert| alert["kind"] == "backup-failed").cloned())
    })?;
    let text = alert["text"].as_str().context("a text")?;
    ensure!(text.contains("is tried again in 1 min") && text.contains("max_wal_senders"), "{alert}");
    assert_eq!(last(&site, "base-failed")?["facts"]["class"], "server");
    assert_eq!(labels(&site)?, 0);
    Ok(())
}

#[test]
fn a_time_zone_that_this_host_does_not_know_is_refused_at_the_start() -> Result<()> {
    let site = site(Cluster::builder(), &[("base.timezone", "Mars/Phobos"), ("base.schedule", "0 2 * * *")])?;
    site.archiver.run(&["init"])?.success()?;
    let refused = site.archiver.run(&["run"])?.exits(1)?;
    ensure!(refused.stderr.contains("base.timezone: the time zone \"Mars/Phobos\" is not known"), "{refused}");
    Ok(())
}

/// A backup by hand that copies, slowly.
fn copying(site: &Site, daemon: &mut Daemon) -> Result<(Process, Value)> {
    let client = site.archiver.call(&["backup"]).spawn()?;
    let under_way = daemon.until("the base backup to copy", PATIENCE, || {
        let backup = &status(site)?["backup"];
        let copies = backup["stage"] == "copying" && backup["done"].as_u64() > Some(0);
        Ok(copies.then(|| backup.clone()))
    })?;
    Ok((client, under_way))
}

/// The server is done with base backups.
fn nobody_copies(site: &Site) -> Result<()> {
    let copying = "select count(*) from pg_stat_activity where application_name = 'walseal base backup'";
    eventually("the server's process to end", PATIENCE, || Ok((site.cluster.value(copying)? == "0").then_some(())))
}

#[test]
fn a_backup_by_hand_shows_how_far_it_is_and_ends_when_it_is_interrupted() -> Result<()> {
    let mut site = site(Cluster::builder(), &[("base.max_rate", "512KiB")])?;
    let mut daemon = site.archive()?;
    let (mut client, under_way) = copying(&site, &mut daemon)?;
    let id = under_way["id"].as_str().context("an id")?.to_owned();
    assert_eq!(under_way["occasion"], "by-hand");
    assert_eq!(leases(&site)?, 1, "case 40: what it relies on is held");

    // One at a time, and the second one is told of the first.
    let busy = site.archiver.run(&["backup"])?.exits(1)?;
    ensure!(busy.stderr.contains("already under way") && busy.stderr.contains(&id), "{busy}");
    ensure!(busy.stderr.contains(": copying, ") && busy.stderr.contains(" %)"), "{busy}");
    let shown = site.archiver.run(&["status"])?;
    ensure!(shown.stdout.contains(&format!("backup      under way: {id}, asked for by hand")), "{shown}");

    daemon.until("the client to show how far it is", PATIENCE, || {
        let said = client.stderr()?;
        Ok((said.contains("the server makes a checkpoint") && said.contains(" of ")).then_some(()))
    })?;
    client.signal(Signal::INT)?;
    let ended = client.wait(PATIENCE)?.exits(1)?;
    ensure!(ended.stderr.contains("the base backup was asked to stop; nothing of it is visible"), "{ended}");
    nobody_copies(&site)?;
    let failed = last(&site, "base-failed")?;
    assert_eq!((&failed["facts"]["class"], &failed["facts"]["id"]), (&"stopped".into(), &id.clone().into()));
    assert_eq!(status(&site)?["backup"], Value::Null);
    assert_eq!(leases(&site)?, 2, "and released");
    ensure!(site.cluster.log().contains("canceling statement due to user request"), "{}", site.cluster.log());

    // The daemon's own end stops one, too, and is not held up by it.
    let (client, under_way) = copying(&site, &mut daemon)?;
    daemon.sigterm()?.success()?;
    client.wait(PATIENCE)?.exits(1)?;
    nobody_copies(&site)?;
    let failed = last(&site, "base-failed")?;
    assert_eq!((&failed["facts"]["class"], &failed["facts"]["id"]), (&"stopped".into(), &under_way["id"]));
    assert_eq!(labels(&site)?, 0, "i7: nothing of either is visible");

    // Without a daemon it is the same.
    let mut alone = site.archiver.call(&["backup"]).spawn()?;
    eventually("the base backup to copy", PATIENCE, || Ok(alone.stderr()?.contains(" of ").then_some(())))?;
    alone.signal(Signal::TERM)?;
    let ended = alone.wait(PATIENCE)?.exits(1)?;
    ensure!(ended.stderr.contains("asked to stop"), "{ended}");
    nobody_copies(&site)?;
    assert_eq!(last(&site, "base-failed")?["facts"]["class"], "stopped");

    site.archiver.unset("base.max_rate");
    site.archiver.write_config()?;
    site.archiver.run_long(&["backup"])?.success()?;
    assert_eq!(labels(&site)?, 1);
    Ok(())
}

#[test]
fn a_backup_goes_on_when_whoever_asked_for_it_is_gone_without_a_word() -> Result<()> {
    let site = site(Cluster::builder(), &[("base.max_rate", "4MiB")])?;
    let mut daemon = site.archive()?;
    let (mut client, _) = copying(&site, &mut daemon)?;
    client.kill()?;
    daemon.until("the base backup that it had asked for", PATIENCE, || Ok((labels(&site)? == 1).then_some(())))?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    Ok(())
}
