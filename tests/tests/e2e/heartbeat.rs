//! Time moves on a cluster where nobody commits.

use anyhow::{Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::site::{Site, Store};

use crate::restored;

const NOW: &str = "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

#[test]
fn case_09_a_restore_to_a_time_on_an_idle_cluster_lands() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.archiver.set_text("wal.heartbeat", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table orders as select 42 as id")?;
    site.archiver.run_long(&["backup"])?.success()?;
    let idle = site.cluster.value(NOW)?;
    let written = site.cluster.value("select txid_current_snapshot()")?;
    daemon.until("the plan to reach the moment", PATIENCE, || {
        let planned = site.restorer.run(&["plan", "--to", &idle])?;
        Ok((planned.code == Some(0)).then_some(()))
    })?;
    let restored = restored::restore(&site, &idle, "idle")?;
    ensure!(restored.value("select id from orders")? == "42", "the table is there");
    ensure!(
        site.cluster.value("select txid_current_snapshot()")? != written,
        "heartbeats have transactions of their own"
    );

    // The connection is cut off; the stream goes on, and so does the heart, after a word.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'walseal_orders' and backend_type = 'client backend'";
    ensure!(site.cluster.value(cut)? == "1", "one connection of its own");
    let later = site.cluster.value(NOW)?;
    daemon.until("the plan to reach the later moment", PATIENCE, || {
        let planned = site.restorer.run(&["plan", "--to", &later])?;
        Ok((planned.code == Some(0)).then_some(()))
    })?;
    Ok(())
}

#[test]
fn case_09_no_heartbeat_is_written_unasked_or_where_the_cluster_is_read_only() -> Result<()> {
    let mut site = Site::new(Cluster::builder().setting("default_transaction_read_only", "on"), Store::Directory)?;
    let snapshot = "select pg_snapshot_xmax(pg_current_snapshot())";
    let mut daemon = site.archive()?;
    let before = site.cluster.value(snapshot)?;
    daemon.sigterm()?.success()?;
    site.archiver.set_text("wal.heartbeat", "1s");
    site.archiver.write_config()?;
    daemon = site.start_daemon()?;
    // A beat that was held back has a connection, and found the cluster as it is.
    let beats = "select count(*) from pg_stat_activity where application_name = 'walseal_orders' and query like 'SELECT CASE%' and state = 'idle'";
    eventually("a beat", PATIENCE, || Ok((site.cluster.value(beats)? == "1").then_some(())))?;
    ensure!(site.cluster.value(snapshot)? == before, "a transaction was begun on a read-only cluster");
    ensure!(daemon.is_running()?, "it goes on");
    Ok(())
}
