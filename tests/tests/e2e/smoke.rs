//! The whole loop in short, on every major that is not the suite's own: init, stream, hook, base backup, doctor, a table lost,
//! a restore to before and to the latest moment.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::oracle;
use walseal_tests::site::{Site, Store};
use walseal_tests::workload::{self, Workload};

use crate::{flow, restored};

#[test]
fn case_34_smoke_on_postgresql_14() -> Result<()> {
    smoke(14)
}

#[test]
fn case_34_smoke_on_postgresql_16() -> Result<()> {
    smoke(16)
}

#[test]
fn case_34_smoke_on_postgresql_17() -> Result<()> {
    smoke(17)
}

#[test]
fn case_34_smoke_on_postgresql_18() -> Result<()> {
    smoke(18)
}

fn smoke(major: u16) -> Result<()> {
    let cluster = Cluster::builder().major(major).segment_mib(1).setting("archive_mode", "on");
    let mut site = Site::new(cluster.setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    // From now on WAL comes both ways.
    let hook = site.archiver.hook("push %p").replace('\'', "''");
    site.cluster.sql(&format!("alter system set archive_command = '{hook}'"))?;
    site.cluster.reload()?;
    let start = site.cluster.insert_lsn()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    load.goes_on(20, PATIENCE)?;
    site.cluster.sql("select pg_switch_wal()")?;
    load.goes_on(20, PATIENCE)?;
    let commits = load.stop()?;
    let before = commits.last().context("there are commits")?.time;
    site.cluster.sql("drop table commits; create table after_the_drop as select 1 as n")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    eventually("the hook to have archived a segment", PATIENCE, || {
        Ok((site.cluster.value("select archived_count > 0 from pg_stat_archiver")? == "t").then_some(()))
    })?;
    assert_eq!(site.cluster.value("select failed_count from pg_stat_archiver")?, "0", "the hook never failed");
    let doctor = site.archiver.run(&["doctor"])?.success()?;
    ensure!(doctor.stdout.contains("the hook of walseal, beside the stream"), "{doctor}");
    ensure!(doctor.stdout.contains(&format!("PostgreSQL {major}.")), "{doctor}");
    let ends = restored::ends(&site.cluster, start)?;

    // Each restore is checked by this major's pg_verifybackup.
    let mut early = restored::restore(&site, &before.to_string(), "early")?;
    let by_then = walseal_tests::wal::committed_by(&ends, before);
    restored::holds_exactly(&early, &restored::rows_of(&commits, &by_then))?;
    ensure!(workload::rows(&early)?.len() >= 60, "the rows from before the drop are back");
    oracle::amcheck(&early)?;
    early.stop(Stop::Fast)?;
    oracle::checksums(&early)?;

    let latest = restored::restore(&site, "latest", "latest")?;
    let tables = "select string_agg(relname, ',') from pg_class where relname in ('commits', 'after_the_drop')";
    assert_eq!(latest.value(tables)?, "after_the_drop");
    drop(latest);
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;
    Ok(())
}
