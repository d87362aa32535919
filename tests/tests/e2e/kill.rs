//! SIGKILL of the archiver and of the server, at any moment.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::pgbench::Pgbench;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::workload::Workload;

use crate::{flow, restored};

/// Commits between two kills, after the archiver has confirmed something or at once: so that kills meet connecting,
/// cutting, shipping and confirming.
const LIVES: [(bool, usize); 12] = [
    (true, 40),
    (false, 300),
    (true, 1),
    (true, 0),
    (false, 1),
    (true, 25),
    (true, 700),
    (false, 7),
    (true, 150),
    (true, 2),
    (false, 60),
    (true, 400),
];

#[test]
fn i1_nothing_that_was_confirmed_is_missing_after_kills_and_the_loss_of_the_primary_directory() -> Result<()> {
    nothing_confirmed_is_missing(Store::Directory)
}

#[test]
fn i1_nothing_that_was_confirmed_is_missing_after_kills_and_the_loss_of_the_primary_bucket() -> Result<()> {
    nothing_confirmed_is_missing(Store::S3)
}

fn nothing_confirmed_is_missing(store: Store) -> Result<()> {
    let cluster = Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB").setting("wal_sender_timeout", "5s");
    let mut site = Site::new(cluster, store)?;
    // Ships often, so that a kill finds something under way.
    site.archiver.set_text("wal.ship_interval", "20ms");
    // The workload alone makes a small machine answer slowly.
    site.archiver.set("base.backoff", "false");
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    let from = flow::confirmed(&site.cluster)?.context("a slot made with RESERVE_WAL has a position")?;
    let mut daemon = site.start_daemon()?;
    Pgbench::initialise(&site.cluster, 1)?;
    let pgbench = Pgbench::start(&site.cluster, 2)?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(10, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;

    let mut confirmed = from;
    for (after_progress, commits) in LIVES {
        if after_progress {
            daemon.until("something new to be confirmed", PATIENCE, || {
                Ok(flow::confirmed(&site.cluster)?.is_some_and(|lsn| lsn > confirmed).then_some(()))
            })?;
        }
        load.goes_on(commits, PATIENCE)?;
        daemon.sigkill()?;
        let now = flow::confirmed(&site.cluster)?.context("the slot is there")?;
        ensure!(now >= confirmed, "the slot moved back from {confirmed} to {now}");
        let held = flow::held(&site, from)?;
        ensure!(held >= now, "{now} was confirmed, and the repository ends at {held}");
        confirmed = now;
        daemon = site.archiver.daemon(&["run"])?;
    }
    pgbench.stop()?;
    // The last daemon gets going again by itself, although the slot was left active by a killed one.
    let reached = flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(reached > confirmed, "the archiver made no progress after the last kill");
    flow::fetch_agrees_with_the_server(&site, from, reached)?;

    load.goes_on(100, PATIENCE)?;
    let confirmed = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    site.cluster.stop(Stop::Immediate)?;
    let commits = load.cut_off()?;
    site.cluster.destroy()?;
    // It ships what it had received; nothing else holds that now.
    daemon.sigterm()?.success()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_all_until(&restored, &commits, confirmed)
}

#[test]
fn a_backup_that_is_killed_does_not_exist_and_the_next_one_does() -> Result<()> {
    let site = Site::new(Cluster::builder().setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table filler as select g, repeat(md5(g::text), 20) from generate_series(1, 100000) g")?;
    let labels = || -> Result<usize> {
        let objects = site.place.list()?;
        Ok(objects.iter().filter(|object| object.key.contains("/base/") && object.key.ends_with("/label")).count())
    };
    let data = || -> Result<bool> { Ok(site.place.list()?.iter().any(|object| object.key.contains("/base/"))) };
    let backup = site.archiver.daemon(&["backup"])?;
    daemon.until("the first object of a base backup", PATIENCE, || Ok(data()?.then_some(())))?;
    // The daemon takes the backup; the verb only asks for it.
    daemon.sigkill()?;
    let asked = backup.wait(PATIENCE)?;
    ensure!(asked.code == Some(1), "the verb says that its backup failed: {asked}");
    assert_eq!(labels()?, 0, "a killed backup has no label");
    let refused = site.restorer.run(&["plan", "--to", "latest"])?;
    ensure!(refused.code == Some(1), "there is no base to plan with: {refused}");

    let mut daemon = site.archiver.daemon(&["run"])?;
    site.archiver.run_long(&["backup"])?.success()?;
    assert_eq!(labels()?, 1);
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select count(*) from filler")?, "100000");
    Ok(())
}

#[test]
fn case_21_a_crash_of_the_server_is_followed_by_more_of_the_same_wal() -> Result<()> {
    let cluster = Cluster::builder().durable().segment_mib(1).setting("wal_keep_size", "1GB");
    let mut site = Site::new(cluster, Store::Directory)?;
    let mut daemon: Daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let mut all = Vec::new();
    for _ in 0..3 {
        let load = Workload::start(&site.cluster, 2)?;
        load.reaches(50, PATIENCE)?;
        site.cluster.crash()?;
        all.extend(load.cut_off()?);
        ensure!(daemon.is_running()?, "the archiver outlives its server:\n{}", daemon.log());
        site.cluster.start()?;
    }
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let expected = walseal_tests::workload::rows(&site.cluster)?;
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &expected)?;
    ensure!(all.iter().all(|commit| expected.contains(&commit.id)), "the server itself lost a commit");
    Ok(())
}

#[test]
fn i1_i7_a_server_that_dies_under_stream_and_backup_leaves_no_half_backup_and_is_followed_again() -> Result<()> {
    let cluster = Cluster::builder().durable().segment_mib(1).setting("wal_keep_size", "1GB");
    let mut site = Site::new(cluster, Store::Directory)?;
    // Slow enough to be met in the middle.
    site.archiver.set_text("base.max_rate", "4MiB");
    site.archiver.set("base.backoff", "false");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let from = flow::confirmed(&site.cluster)?.context("a slot made with RESERVE_WAL has a position")?;
    let size = site.cluster.segment_size()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let mut all = Vec::new();
    for how in [None, Some(Stop::Immediate)] {
        let load = Workload::start(&site.cluster, 2)?;
        load.reaches(20, PATIENCE)?;
        let asked = site.archiver.daemon(&["backup", "--full"])?;
        let session = site.cluster.session()?;
        let under_way = "select coalesce(max(backup_streamed), 0) > 1048576 from pg_stat_progress_basebackup";
        daemon.until("a base backup under way", PATIENCE, || Ok((session.value(under_way)? == "t").then_some(())))?;
        let confirmed = flow::confirmed(&site.cluster)?.context("the slot is there")?;
        drop(session);
        match how {
            None => site.cluster.crash()?,
            Some(how) => site.cluster.stop(how).map(|_| ())?,
        }
        all.extend(load.cut_off()?);
        let failed = asked.wait(PATIENCE * 2)?;
        ensure!(failed.code == Some(1), "the verb says that its backup failed: {failed}");
        let held = flow::held_in(&site, size, from)?;
        ensure!(held >= confirmed, "{confirmed} was confirmed, and the repository ends at {held}");
        ensure!(daemon.is_running()?, "the archiver outlives its server:\n{}", daemon.log());
        site.cluster.start()?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
        ensure!(listed["bases"].as_array().is_some_and(|bases| bases.len() == 1), "no half backup exists: {listed}");
    }
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let expected = walseal_tests::workload::rows(&site.cluster)?;
    ensure!(all.iter().all(|commit| expected.contains(&commit.id)), "the server itself lost a commit");
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    for (number, name) in [(0, "from-the-first"), (1, "from-the-last")] {
        let base = listed["bases"][number]["id"].as_str().context("a base backup")?;
        let restored = restored::restore_with(&site, "latest", name, &["--base", base])?;
        restored::holds_exactly(&restored, &expected)?;
    }
    Ok(())
}
