//! Commits that return only when they are in the repository.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::dice::{Dice, USUAL_SEED, number_from};
use walseal_tests::ledger::{self, Ledger};
use walseal_tests::proxy::Line;
use walseal_tests::site::{Daemon, Site, Store};

use crate::{flow, restored};

/// A cluster whose commits wait for the archiver alone, and the archiver.
fn synchronous(store: Store) -> Result<(Site, Daemon)> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("max_prepared_transactions", "5"), store)?;
    site.archiver.set("wal.synchronous", "true");
    // Nothing but a commit itself gets shipped in time.
    site.archiver.set_text("wal.ship_interval", "1h");
    site.archiver.set("base.backoff", "false");
    site.archiver.write_config()?;
    let daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    wait_for_us(&mut site)?;
    Ok((site, daemon))
}

fn wait_for_us(site: &mut Site) -> Result<()> {
    site.cluster.configure(&format!("synchronous_standby_names = '{}'", flow::SLOT))?;
    site.cluster.reload()?;
    let session = site.cluster.session()?;
    eventually("the archiver to be the synchronous standby", PATIENCE, || {
        Ok((session.value("select coalesce(min(sync_state), '') from pg_stat_replication")? == "sync").then_some(()))
    })
}

#[test]
fn i1_every_commit_that_was_acknowledged_is_in_the_repository_when_the_primary_is_destroyed_at_any_moment() -> Result<()>
{
    let seed = number_from("WALSEAL_TEST_SEED", USUAL_SEED)?;
    let mut dice = Dice::new(seed);
    for life in 0..number_from("WALSEAL_TEST_PRIMARIES", 3)? {
        let store = if dice.below(2) == 0 { Store::Directory } else { Store::S3 };
        let writers = 1 + usize::try_from(dice.below(16))?;
        let commits = usize::try_from(dice.below(400))?;
        eprintln!("life {life}: {store:?}, {writers} writers, {commits} commits");
        primary_is_destroyed(store, writers, commits, Duration::from_micros(dice.below(30_000)))
            .with_context(|| format!("life {life} of seed {seed}: {store:?}, {writers} writers, {commits} commits"))?;
    }
    Ok(())
}

fn primary_is_destroyed(store: Store, writers: usize, commits: usize, later: Duration) -> Result<()> {
    let (mut site, daemon) = synchronous(store)?;
    let ledger = Ledger::start(&site.cluster, writers, Duration::ZERO)?;
    ledger.goes_on(commits, PATIENCE)?;
    // Any moment of whatever goes on.
    std::thread::sleep(later);
    // The archiver first: what it had received and not stored must not count as stored.
    daemon.sigkill()?;
    site.cluster.crash()?;
    let acknowledged = ledger.stop()?;
    site.cluster.destroy()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    let held = ledger::rows(&restored)?;
    let lost: Vec<_> = acknowledged.iter().filter(|entry| !held.contains(&entry.id)).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} commits are lost, for example {:?}",
        lost.len(),
        acknowledged.len(),
        lost.first()
    );
    ensure!(acknowledged.len() >= commits);
    Ok(())
}

#[test]
fn i1_no_commit_returns_while_the_store_is_away_and_all_do_when_it_is_back() -> Result<()> {
    let (mut site, first) = synchronous(Store::S3)?;
    first.sigterm()?.success()?;
    let (place, proxy) = site.place.behind_a_proxy()?;
    site.archiver.use_place(&place);
    site.archiver.set_text("alerts.store_after", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    let ledger = Ledger::start(&site.cluster, 4, Duration::ZERO)?;
    ledger.goes_on(20, PATIENCE)?;
    proxy.set(Line::Down);
    // Each writer waits for a commit by the time that all four wait.
    let session = site.cluster.session()?;
    eventually("all writers to wait", PATIENCE, || {
        let waiting = session.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")?;
        Ok((waiting == "4").then_some(()))
    })?;
    let acknowledged = ledger.entries();
    let held = flow::held(&site, acknowledged.first().context("a commit")?.before)?;
    let beyond = acknowledged.iter().find(|entry| entry.before >= held);
    ensure!(beyond.is_none(), "the repository ends at {held}, and {beyond:?} was acknowledged");
    daemon.says("commits wait until it is back; to let them go without it", PATIENCE)?;
    proxy.set(Line::Up);
    ledger.goes_on(20, PATIENCE)?;
    ledger.stop()?;
    Ok(())
}

#[test]
fn prepared_transactions_wait_as_well_and_a_rollback_waits_for_nobody() -> Result<()> {
    let (mut site, daemon) = synchronous(Store::Directory)?;
    let session = site.cluster.session()?;
    session.rows("create table t (n int)")?;
    session.rows("begin")?;
    session.rows("insert into t values (1)")?;
    session.rows("prepare transaction 'one'")?;
    session.rows("commit prepared 'one'")?;
    session.rows("begin; insert into t values (2); prepare transaction 'two'")?;
    session.rows("rollback prepared 'two'")?;
    session.rows("begin; insert into t values (3); rollback")?;
    drop(daemon);
    site.cluster.crash()?;
    site.cluster.destroy()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    ensure!(restored.value("select string_agg(n::text, ',') from t")? == "1");
    Ok(())
}
