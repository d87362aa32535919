//! `pg_ctl stop -m fast` of a primary under load, with the store up, down, and down for a while.

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::pgbench::Pgbench;
use walseal_tests::proxy::Line;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::workload::{self, Workload};

use crate::{flow, restored};

#[test]
fn case_12_a_fast_stop_ends_and_loses_nothing_while_the_store_is_up() -> Result<()> {
    for archive_mode in ["off", "on"] {
        let cluster = Cluster::builder().setting("archive_mode", archive_mode).setting("archive_command", "/bin/true");
        let mut site = Site::new(cluster, Store::Directory)?;
        let mut daemon = site.archive()?;
        site.archiver.run_long(&["backup"])?.success()?;
        let load = Workload::start(&site.cluster, 3)?;
        load.reaches(100, PATIENCE)?;
        site.cluster.stop(Stop::Fast)?;
        let commits = load.cut_off()?;
        ensure!(daemon.is_running()?, "the archiver waits for the server to come back:\n{}", daemon.log());
        let restored = restored::restore(&site, "latest", "restored")?;
        let held = workload::rows(&restored)?;
        let lost = commits.iter().find(|commit| !held.contains(&commit.id));
        ensure!(lost.is_none(), "archive_mode {archive_mode}: {lost:?} was acknowledged before the stop");
    }
    Ok(())
}

fn a_stop_ends_in_an_outage(line: Line, full: bool) -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::S3)?;
    let (proxied, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&proxied);
    site.archiver.write_config()?;
    let mut daemon: Daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    Pgbench::initialise(&site.cluster, 1)?;
    let before = flow::wait_durable(&site.cluster, &mut daemon)?;
    let load = Workload::start(&site.cluster, 2)?;
    proxy.set(line);
    if full {
        // More than any buffer holds that is bounded as it must be (I11).
        site.cluster.sql(
            "select pg_logical_emit_message(false, 'filler', repeat('x', 1000000)) from generate_series(1, 300)",
        )?;
    }
    load.goes_on(50, PATIENCE)?;
    site.cluster.stop(Stop::Fast)?;
    let commits = load.cut_off()?;
    ensure!(daemon.is_running()?, "the archiver outlives the outage:\n{}", daemon.log());

    // The slot kept what the store could not take.
    proxy.set(Line::Up);
    site.cluster.start()?;
    let after = flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(after > before, "the archiver goes on by itself");
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_all_until(&restored, &commits, after)
}

#[test]
fn case_12_a_fast_stop_ends_while_the_store_refuses() -> Result<()> {
    a_stop_ends_in_an_outage(Line::Down, false)
}

#[test]
fn case_12_a_fast_stop_ends_while_the_store_does_not_answer() -> Result<()> {
    a_stop_ends_in_an_outage(Line::Stalled, false)
}

#[test]
fn case_12_a_fast_stop_ends_in_the_middle_of_an_outage_with_a_full_buffer() -> Result<()> {
    a_stop_ends_in_an_outage(Line::Stalled, true)
}

#[test]
fn sigterm_ships_the_tail_and_exits_0() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    // Nothing is shipped because of the time: what is confirmed at the end was shipped for the signal.
    site.archiver.set_text("wal.ship_interval", "1h");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    let commits = load.stop()?;
    let flushed = site.cluster.flush_lsn()?;
    daemon.until(&format!("{flushed} to be received"), PATIENCE, || {
        let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
        let received: Lsn = status["stream"]["received"].as_str().context("a stream that has received")?.parse()?;
        Ok((received >= flushed).then_some(()))
    })?;
    let before = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    ensure!(before < flushed, "{before} was confirmed before the signal, so that the test shows nothing");
    daemon.sigterm()?.success()?;
    let confirmed = flow::confirmed(&site.cluster)?.context("the slot is there")?;
    ensure!(confirmed >= flushed, "{confirmed} was confirmed at the end, {flushed} was flushed");
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &commits.iter().map(|commit| commit.id).collect())
}
