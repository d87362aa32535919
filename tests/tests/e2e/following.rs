//! `restore --standby`: a standby that goes on from the repository.

use anyhow::{Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::proxy::Line;
use walseal_tests::site::{Site, Store};

use crate::flow;

/// A standby of the site's cluster, restored and running.
fn standby(site: &Site, more: &[&str]) -> Result<Cluster> {
    let folder = site.target("standby");
    let place = folder.to_string_lossy();
    let args = [&["restore", "--standby", "--to", "latest", "--target-dir", &*place], more].concat();
    let said = site.restorer.run_long(&args)?.success()?;
    ensure!(said.stdout.contains("It is a standby"), "{said}");
    let mut standby = site.restored(&folder)?;
    standby.set_override("wal_retrieve_retry_interval", "100ms");
    standby.start()?;
    Ok(standby)
}

/// Waits until the standby has that many rows.
fn follows(standby: &Cluster, rows: u32) -> Result<()> {
    let session = standby.session()?;
    eventually(&format!("{rows} rows on the standby"), PATIENCE, || {
        Ok((session.value("select count(*) from t")? == rows.to_string()).then_some(()))
    })
}

#[test]
fn case_01_a_standby_follows_the_repository_tail_by_tail_outlives_an_outage_and_is_promoted() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::S3)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t (a int)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    let (place, proxy) = site.place.behind_a_proxy()?;
    site.restorer.use_place(&place);
    site.restorer.set_text("fetch.retry_standby", "1s");
    site.restorer.write_config()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let standby = standby(&site, &[])?;
    let segment = || site.cluster.value("select pg_walfile_name(pg_current_wal_lsn())");
    site.cluster.sql("insert into t values (1)")?;
    follows(&standby, 1)?;
    let first = segment()?;
    for row in 2..=3 {
        site.cluster.sql(&format!("insert into t values ({row})"))?;
        follows(&standby, row)?;
    }
    assert_eq!(segment()?, first, "all of it came in tails of one segment");
    proxy.set(Line::Down);
    site.cluster.sql("insert into t values (4)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    eventually("the standby to be told to ask again", PATIENCE, || {
        Ok(standby.log().contains("this standby may ask again").then_some(()))
    })?;
    assert_eq!(standby.value("select count(*) from t")?, "3");
    proxy.set(Line::Up);
    follows(&standby, 4)?;
    // Past the end of a segment, too.
    site.cluster.sql("select pg_switch_wal(); insert into t values (5)")?;
    follows(&standby, 5)?;
    assert_eq!(standby.value("select pg_promote()")?, "t");
    standby.wait_promoted(PATIENCE)?;
    standby.sql("insert into t values (6)")?;
    assert_eq!(standby.value("select count(*) || ' ' || current_setting('archive_mode') from t")?, "6 off");
    Ok(())
}

#[test]
fn a_standby_that_is_told_its_primary_streams_from_it_where_the_repository_ends() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select generate_series(1, 20000) as a")?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("insert into t select generate_series(20001, 60000)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // From here on only the primary has it.
    daemon.sigterm()?.success()?;
    let conninfo = site.cluster.conninfo();
    let standby = standby(&site, &["--primary-conninfo", &conninfo, "--delay", "1ms"])?;
    site.cluster.sql("insert into t select generate_series(60001, 60100)")?;
    follows(&standby, 60_100)?;
    assert_eq!(standby.value("select status from pg_stat_wal_receiver")?, "streaming");
    assert_eq!(standby.value("show recovery_min_apply_delay")?, "1ms");
    ensure!(standby.log().contains("restored log file"), "what the repository has comes from there: {}", standby.log());
    Ok(())
}
