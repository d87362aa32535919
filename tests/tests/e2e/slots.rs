//! A slot that keeps too much is given up; one that somebody else uses is left alone.

use anyhow::{Context, Result, ensure};

use rustix::process::Signal;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::site::{Site, Store};

use crate::{flow, restored};

fn keys(site: &Site, part: &str) -> Result<Vec<String>> {
    let objects = site.place.list()?.into_iter().map(|object| object.key);
    Ok(objects.filter(|key| key.contains(part)).collect())
}

fn rows(cluster: &Cluster) -> Result<String> {
    cluster.value("select string_agg(id::text, ',' order by id) from kept")
}

#[test]
fn case_26_a_slot_that_keeps_more_than_give_up_at_is_dropped_and_the_gap_recorded_and_followed_by_a_base() -> Result<()>
{
    let builder = Cluster::builder().segment_mib(1).setting("wal_keep_size", "0");
    let mut site = Site::new(builder.setting("min_wal_size", "2MB").setting("max_wal_size", "4MB"), Store::Directory)?;
    site.archiver.set_text("wal.give_up_at", "8MiB");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    site.cluster.sql("create table load (filler text)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("insert into kept values (1)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    let folder = site.scratch.path().join("repository");
    let aside = site.scratch.path().join("unmounted");
    std::fs::rename(&folder, &aside)?;
    let second = site.cluster.value("insert into kept values (2) returning pg_current_xact_id()")?;
    daemon.says("no stream; trying again until it works", PATIENCE)?;
    let slots = "select count(*) from pg_replication_slots";
    ensure!(site.cluster.value(slots)? == "1", "within the limit it is kept");
    for _ in 0..12 {
        site.cluster.sql("insert into load select repeat('x', 1000) from generate_series(1, 900)")?;
    }
    daemon.says("was given up at", PATIENCE)?;
    ensure!(daemon.log().contains("more than wal.give_up_at = 8 MiB, because: "), "it says why:\n{}", daemon.log());
    // Nothing holds WAL any more, also while the store stays away.
    for id in 3..8 {
        site.cluster.sql(&format!("insert into kept values ({id}); select pg_switch_wal()"))?;
        site.cluster.sql("checkpoint")?;
    }
    assert_eq!(site.cluster.value(slots)?, "0", "no slot is made for a store that is away");
    let status = site.archiver.run(&["status", "--json"])?.exits(1)?.json()?;
    let alerts = status["alerts"].as_array().context("alerts")?;
    ensure!(alerts.iter().any(|alert| alert["kind"] == "slot-lost" && alert["severity"] == "critical"), "{status}");

    std::fs::rename(&aside, &folder)?;
    daemon.until("the record of the gap", PATIENCE, || Ok((keys(&site, "/gap/")?.len() == 1).then_some(())))?;
    daemon.until("the base backup behind it", PATIENCE, || Ok((keys(&site, "/label")?.len() == 2).then_some(())))?;
    site.cluster.sql("insert into kept values (100)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(site.cluster.value(slots)?, "1");
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let why = listed["gaps"][0]["record"]["why"].as_str().context("why")?;
    ensure!(why.contains("wal.give_up_at = 8 MiB"), "{listed}");
    // What was received and not durable when the store went is the end of the window, in one object.
    assert_eq!(keys(&site, ".partial")?.len(), 1);
    let before = listed["gaps"][0]["start"].as_str().context("where the gap begins")?;
    ensure!(listed["windows"][0]["to"] == before, "{listed}");

    let rows_now = rows(&site.cluster)?;
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(rows(&latest)?, rows_now);
    drop(latest);
    // The second row was committed while the store was away, and is not lost.
    let first = listed["bases"][0]["id"].as_str().context("a base backup")?;
    let early = restored::restore_with(&site, &format!("xid:{second}"), "early", &["--base", first])?;
    assert_eq!(rows(&early)?, "1,2");
    daemon.sigterm()?.success().map(|_| ())
}

#[test]
fn case_52_a_second_archiver_on_the_slot_says_who_holds_it_and_takes_nothing_over() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut first = site.archive()?;
    let holder = format!("select active_pid from pg_replication_slots where slot_name = '{}'", flow::SLOT);
    let pid = site.cluster.value(&holder)?;
    let elsewhere = site.scratch.dir("other-state")?;
    let call = site.archiver.call(&["run"]).env("WALSEAL_CLUSTER_STATE_DIR", &elsewhere);
    let mut second = call.spawn()?;
    let words = format!("is in use on {}", site.cluster.sockets().display());
    eventually("the second one to say who holds the slot", PATIENCE, || {
        ensure!(second.is_running()?, "it has ended: {}", second.said());
        Ok(second.said().contains(&words).then_some(()))
    })?;
    let said = second.said();
    for part in [
        format!("by server process {pid}: application walseal_orders on the server's own host, connected since 2"),
        "Nothing is taken over".to_owned(),
    ] {
        ensure!(said.contains(&part), "{part:?} is missing: {said}");
    }
    // The first one goes on, and is the one that the server knows.
    site.cluster.sql("create table t (n int)")?;
    flow::wait_durable(&site.cluster, &mut first)?;
    assert_eq!(site.cluster.value(&holder)?, pid);
    assert_eq!(site.cluster.value("select count(*) from pg_replication_slots")?, "1");
    second.signal(Signal::TERM)?;
    second.ends(PATIENCE)?;
    first.sigterm()?.success().map(|_| ())
}
