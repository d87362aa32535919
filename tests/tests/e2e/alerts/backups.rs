//! The alerts of base backups, and the heart that does not beat while none can be taken for too long.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, PermissionsExt};

use anyhow::{Context, Result, ensure};

use walseal_tests::clock::Clock;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::inbox::Inbox;
use walseal_tests::site::Daemon;

use super::site;

/// Seconds.
const HOUR: i64 = 3600;

#[test]
pub fn a_base_backup_that_fails_and_stays_away_is_told_twice_over_until_one_is_taken() -> Result<()> {
    let settings = [("base.schedule", "0 2 * * *"), ("base.jitter", "0s"), ("wal.frontier_interval", "1s")];
    let (mut site, told) = site(Cluster::builder(), &settings)?;
    let (inbox, beats) = (Inbox::start()?, "/beats");
    site.archiver.set_text("alerts.heartbeat_url", &inbox.url(beats));
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    // What the server cannot read it cannot send.
    let unreadable = site.scratch.file("unreadable", "")?;
    let inside = site.cluster.data().join("global/unreadable");
    std::fs::rename(&unreadable, &inside)?;
    std::fs::set_permissions(&inside, Permissions::from_mode(0o000))?;
    let clock = Clock::new(&site.scratch)?;
    let mut daemon = Daemon::start(clock.ticks_for(site.archiver.call(&["run"])))?;
    told.arrives(&mut daemon, "backup-failed", &["raised"])?;
    let failed = told.of("backup-failed")?.pop().context("the alert")?;
    ensure!(
        failed["severity"] == "warning"
            && failed["text"].as_str().is_some_and(|text| text.contains("global/unreadable")),
        "{failed}"
    );
    let before = inbox.posts(beats).len();
    daemon.until("the heart to beat: WAL is durable all the same", PATIENCE, || {
        Ok((inbox.posts(beats).len() > before).then_some(()))
    })?;
    ensure!(told.states("backup-overdue")?.is_empty(), "nothing is overdue yet");

    clock.set(2 * HOUR)?;
    told.arrives(&mut daemon, "backup-overdue", &["raised"])?;
    let overdue = told.of("backup-overdue")?.pop().context("the alert")?;
    ensure!(
        overdue["severity"] == "critical"
            && overdue["text"].as_str().is_some_and(|text| text.contains("there is none yet; none is under way")),
        "{overdue}"
    );
    // One may have been on its way when the alert came, and none follows while frontiers are written.
    let frontiers = || -> Result<usize> {
        let objects = site.place.list()?;
        Ok(objects.iter().filter(|object| object.key.contains("/frontier/")).count())
    };
    let (beaten, written) = (inbox.posts(beats).len(), frontiers()?);
    daemon.until("the frontier to be written several times more", PATIENCE, || {
        Ok((frontiers()? > written + 2).then_some(()))
    })?;
    ensure!(inbox.posts(beats).len() <= beaten + 1, "the heart beats while a base backup is overdue");

    std::fs::remove_file(&inside)?;
    clock.ticks_for(site.archiver.call(&["backup"])).within(PATIENCE * 4).run()?.success()?;
    told.arrives(&mut daemon, "backup-failed", &["raised", "cleared"])?;
    told.arrives(&mut daemon, "backup-overdue", &["raised", "cleared"])?;
    let beaten = inbox.posts(beats).len();
    daemon.until("the heart to beat again", PATIENCE, || Ok((inbox.posts(beats).len() > beaten).then_some(())))
}

#[test]
pub fn case_31_pages_that_are_damaged_are_told_with_their_table_until_they_are_gone() -> Result<()> {
    let (mut site, told) = site(Cluster::builder(), &[])?;
    site.cluster.sql("create schema shop; create table shop.orders as select generate_series(1, 10000) as n")?;
    let path = site.cluster.value("select pg_relation_filepath('shop.orders')")?;
    site.cluster.stop(Stop::Fast)?;
    let file = std::fs::OpenOptions::new().write(true).open(site.cluster.data().join(&path))?;
    for block in [1, 3, 4] {
        file.write_all_at(b"damage", block * 8192 + 4000)?;
    }
    site.cluster.start()?;
    site.archiver.run(&["init"])?.success()?;
    let backup = site.archiver.run_long(&["backup"])?.success()?;
    let named = format!("3 page checksum failure(s), in postgres.shop.orders ({path})");
    ensure!(backup.stdout.contains(&named), "{backup}");

    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    told.arrives(&mut daemon, "backup-suspect", &["raised"])?;
    let suspect = told.of("backup-suspect")?.pop().context("the alert")?;
    ensure!(
        suspect["severity"] == "critical" && suspect["text"].as_str().is_some_and(|text| text.contains(&named)),
        "{suspect}"
    );
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(status["bases"].as_array().is_some_and(|bases| bases.iter().all(|base| base["suspect"] == 3)), "{status}");

    site.cluster.sql("drop table shop.orders; checkpoint")?;
    let sound = site.archiver.run_long(&["backup"])?.success()?;
    ensure!(!sound.stdout.contains("SUSPECT"), "{sound}");
    told.arrives(&mut daemon, "backup-suspect", &["raised", "cleared"])?;
    daemon.sigterm()?.success()?;
    // The record has the files, and no names that a user gave.
    let record = site.restorer.run(&["ledger", "--json"])?.success()?;
    ensure!(record.stdout.matches(&format!("\"{path}\"")).count() == 2 && !record.stdout.contains("shop"), "{record}");
    Ok(())
}
