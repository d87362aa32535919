//! A replication slot that is gone: with the WAL still there nothing is lost, without it the gap is recorded, and a base
//! backup follows by itself.

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_common::segment::SegmentName;
use walseal_common::timeline::TimelineId;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::port;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::workload;

use crate::{flow, metrics, restored};

fn labels(site: &Site) -> Result<usize> {
    let objects = site.place.list()?;
    Ok(objects.iter().filter(|object| object.key.contains("/base/") && object.key.ends_with("/label")).count())
}

fn gaps(site: &Site) -> Result<usize> {
    Ok(site.place.list()?.iter().filter(|object| object.key.contains("/gap/")).count())
}

fn insert(site: &Site, id: i64) -> Result<()> {
    site.cluster.sql(&format!("insert into kept values ({id})")).map(|_| ())
}

#[test]
fn case_14_a_dropped_slot_loses_nothing_while_the_server_still_has_the_wal() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
    for id in 0..5 {
        insert(&site, id)?;
        site.cluster.sql("select pg_switch_wal()")?;
    }
    site.cluster.sql("checkpoint")?;
    let mut daemon = site.start_daemon()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!((gaps(&site)?, labels(&site)?), (0, 1));
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select count(*) from kept")?, "5");
    Ok(())
}

/// A cluster of which WAL was lost, with a base backup before it and one behind it, and the daemon that took the second by itself.
struct AfterLoss {
    site: Site,
    daemon: Daemon,
    /// Between the rows 2 and 3, in the last segment before the gap.
    before: Lsn,
    /// Within the gap.
    within: Lsn,
}

fn lose_wal() -> Result<AfterLoss> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "0"), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    insert(&site, 1)?;
    site.archiver.run_long(&["backup"])?.success()?;
    insert(&site, 2)?;
    let before = site.cluster.insert_lsn()?;
    insert(&site, 3)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
    // Enough for the server to recycle what nobody keeps.
    for id in 10..14 {
        insert(&site, id)?;
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.sql("checkpoint")?;
    }
    let within = site.cluster.flush_lsn()?;
    for id in 20..30 {
        insert(&site, id)?;
        site.cluster.sql("select pg_switch_wal()")?;
        site.cluster.sql("checkpoint")?;
    }
    let mut daemon = site.start_daemon()?;
    daemon.says("gap: this WAL is not in the repository", PATIENCE)?;
    daemon.until("a base backup that nobody asked for", PATIENCE, || Ok((labels(&site)? == 2).then_some(())))?;
    assert_eq!(gaps(&site)?, 1);
    Ok(AfterLoss { site, daemon, before, within })
}

#[test]
fn a_gap_and_the_time_that_would_be_lost_are_figures_and_the_same_as_in_status() -> Result<()> {
    let AfterLoss { mut site, daemon, .. } = lose_wal()?;
    daemon.sigterm()?.success()?;
    let port = port::free()?;
    site.archiver.set_text("http.listen", &port.to_string());
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    insert(&site, 100)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.until("the gap in the figures", PATIENCE, || {
        Ok((metrics::scrape(port)?.samples.get("walseal_gaps") == Some(&1.0)).then_some(()))
    })?;
    assert_eq!(metrics::scrape(port)?.of("walseal_gaps_found_total")?, 0.0, "this daemon found none");

    site.cluster.stop(Stop::Immediate)?;
    let lost = || metrics::scrape(port)?.of("walseal_rpo_seconds");
    let before =
        daemon.until("an age of what was heard last", PATIENCE, || Ok(Some(lost()?).filter(|lost| *lost > 1.0)))?;
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    let told = status["rpo_seconds"].as_f64().context("the daemon knows")?;
    ensure!(status["rpo_at_most"] == true && (before..=lost()?).contains(&told), "{before} {status:#}");
    Ok(())
}

#[test]
fn i5_a_lost_slot_becomes_a_gap_record_and_a_base_backup_by_itself() -> Result<()> {
    let AfterLoss { site, mut daemon, before, within } = lose_wal()?;
    insert(&site, 100)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    let ledger = site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let recorded = ledger["entries"].as_array().context("entries")?.iter().find(|entry| entry["act"] == "gap-recorded");
    ensure!(recorded.is_some_and(|entry| entry["facts"]["from"].is_string()), "{ledger}");

    // What is behind the gap is whole again, what is before it still is, and what is in it is refused.
    let rows = workload_of(&site)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select string_agg(id::text, ',' order by id) from kept")?, rows);
    let early = restored::restore(&site, &format!("lsn:{before}"), "early")?;
    assert_eq!(early.value("select string_agg(id::text, ',' order by id) from kept")?, "1,2");
    drop(early);
    let refused = site.restorer.run(&["plan", "--to", &format!("lsn:{within}")])?;
    ensure!(refused.code == Some(1), "a target within the gap: {refused}");

    // Another start takes no other backup: the gap is mended.
    daemon.sigterm()?.success()?;
    let mut daemon = site.start_daemon()?;
    insert(&site, 101)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!((gaps(&site)?, labels(&site)?), (1, 2));
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    let gap = status["gaps"].get(0).context("status lists the gap")?;
    ensure!(gap["why"].as_str().is_some_and(|why| why.contains(flow::SLOT)), "{status}");
    Ok(())
}

#[test]
fn i5_case_05_a_gap_that_the_cluster_went_back_to_before_counts_no_more() -> Result<()> {
    let AfterLoss { mut site, mut daemon, before, .. } = lose_wal()?;
    insert(&site, 100)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;
    let folder = site.target("back");
    let to = format!("lsn:{before}");
    site.restorer.run_long(&["restore", "--to", &to, "--target-dir", &folder.to_string_lossy()])?.success()?;
    site.cluster = site.restored(&folder)?;
    site.cluster.start()?;
    site.cluster.wait_promoted(PATIENCE)?;
    site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo());
    site.archiver.write_config()?;

    // Its WAL has not come as far as the gap lay: all the same no base backup is missing, and none is taken but the one that is asked for.
    let mut daemon = Some(site.archive()?);
    insert(&site, 4)?;
    flow::wait_durable(&site.cluster, daemon.as_mut().context("it runs")?)?;
    site.archiver.run_long(&["backup"])?.success()?;
    assert_eq!((gaps(&site)?, labels(&site)?), (1, 3));
    // By the daemon's branch, and by the newest one where no daemon runs.
    for daemon in [None, daemon.take()] {
        if let Some(daemon) = daemon {
            daemon.sigterm()?.success()?;
        }
        let status = site.archiver.run(&["status"])?;
        ensure!(status.stdout.starts_with("Any second from"), "{status}");
        ensure!(status.stdout.contains("the cluster went back to before it"), "{status}");
        ensure!(status.stdout.matches("given up with branch 00000001-").count() == 1, "{status}");
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        ensure!(status["gaps"][0]["given_up"] == true, "{status}");
        let bases = status["bases"].as_array().context("bases")?;
        let given_up: Vec<bool> = bases.iter().map(|base| base["given_up"] == true).collect();
        assert_eq!(given_up, [false, true, false], "{status}");
    }
    let restored = restored::restore(&site, "latest", "latest")?;
    assert_eq!(restored.value("select string_agg(id::text, ',' order by id) from kept")?, "1,2,4");
    Ok(())
}

fn workload_of(site: &Site) -> Result<String> {
    site.cluster.value("select string_agg(id::text, ',' order by id) from kept")
}

#[test]
fn i5_a_gap_whose_base_backup_was_prevented_gets_it_at_the_next_start() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "0"), Store::Directory)?;
    let mut daemon = site.archive()?;
    workload::Workload::start(&site.cluster, 1)?.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigkill()?;
    let active = format!("select count(*) from pg_replication_slots where slot_name = '{}' and active", flow::SLOT);
    let session = site.cluster.session()?;
    walseal_tests::deadline::eventually("the server to notice", PATIENCE, || {
        Ok((session.value(&active)? == "0").then_some(()))
    })?;
    site.cluster.sql(&format!("select pg_drop_replication_slot('{}')", flow::SLOT))?;
    for _ in 0..12 {
        site.cluster.sql("create table if not exists t (n int); insert into t values (1); select pg_switch_wal()")?;
        site.cluster.sql("checkpoint")?;
    }
    let mut daemon = site.start_daemon()?;
    daemon.until("the record of the gap", PATIENCE, || Ok((gaps(&site)? == 1).then_some(())))?;
    // Perhaps in the middle of its backup, perhaps before, perhaps after.
    daemon.sigkill()?;
    let mut daemon = site.start_daemon()?;
    daemon.until("the base backup", PATIENCE, || Ok((labels(&site)? >= 1).then_some(())))?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    restored::restore(&site, "latest", "restored")?;
    Ok(())
}

#[test]
fn i5_confirmed_wal_that_vanished_from_the_bucket_is_an_alarm_and_is_streamed_again() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    for id in 0..4 {
        insert(&site, id)?;
        site.cluster.sql("select pg_switch_wal()")?;
    }
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    // Somebody removes the newest end: the last two segments, and whatever tails there are.
    let mut segments = Vec::new();
    for object in site.place.list()? {
        if object.key.contains("/tail/") {
            site.place.remove(&object.key)?;
        } else if object.key.contains("/wal/") {
            segments.push(object.key);
        }
    }
    segments.sort();
    for key in segments.iter().rev().take(2) {
        site.place.remove(key)?;
    }
    let mut daemon = site.start_daemon()?;
    daemon.says("objects were removed, or somebody else moved the slot", PATIENCE)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.says("over: the repository holds WAL up to", PATIENCE)?;
    assert_eq!(gaps(&site)?, 0, "the server still had it");
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select count(*) from kept")?, "4");
    Ok(())
}

#[test]
fn case_14_a_slot_whose_own_wal_is_gone_is_made_anew_and_the_gap_recorded() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    insert(&site, 1)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let size = site.cluster.segment_size()?;
    let from = size.number(flow::confirmed(&site.cluster)?.context("the slot has a position")?);
    for id in 10..16 {
        insert(&site, id)?;
        site.cluster.sql("select pg_switch_wal()")?;
    }
    site.cluster.sql("checkpoint")?;
    // Somebody "makes room" in pg_wal; the slot still says that it keeps all of it.
    let mut number = from;
    while number.0 < from.0 + 3 {
        let name = SegmentName::new(TimelineId::FIRST, number, size).to_string();
        std::fs::remove_file(site.cluster.data().join("pg_wal").join(&name)).with_context(|| name)?;
        number = number.next();
    }
    let mut daemon = site.start_daemon()?;
    daemon.until("the record of the gap", PATIENCE, || Ok((gaps(&site)? == 1).then_some(())))?;
    daemon.until("the base backup", PATIENCE, || Ok((labels(&site)? == 1).then_some(())))?;
    insert(&site, 100)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let rows = workload_of(&site)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select string_agg(id::text, ',' order by id) from kept")?, rows);
    Ok(())
}
