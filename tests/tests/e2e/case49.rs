//! Production replaced by its own restore goes on archiving; a copy for a look does not.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Site, Store};
use walseal_tests::workload::{self, Workload};

use crate::{flow, restored};

#[test]
fn case_49_restores_to_both_sides_of_the_fork_land() -> Result<()> {
    let mut site = Site::new(Cluster::builder().setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    load.goes_on(50, PATIENCE)?;
    let first = load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // The last acknowledged is not always the latest: two writers commit at once.
    let before_fork = first.iter().map(|commit| commit.time).max().context("there are commits")?;
    site.cluster.sql("create table made_by_mistake (a int)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;

    // Production is replaced by a restore to before the mistake.
    let production = restored::restore_with(&site, &before_fork.to_string(), "production", &["--keep-archiving"])?;
    let old = std::mem::replace(&mut site.cluster, production);
    drop(old);
    site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo());
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    load.goes_on(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    assert_eq!(site.cluster.value("select timeline_id from pg_control_checkpoint()")?, "2");
    let now = workload::rows(&site.cluster)?;

    let latest = restored::restore(&site, "latest", "latest")?;
    restored::holds_exactly(&latest, &now)?;
    assert_eq!(latest.value("select count(*) from pg_class where relname = 'made_by_mistake'")?, "0");
    drop(latest);

    // The moment is on both branches, and a person must say which is meant.
    let ambiguous = site.restorer.run(&["plan", "--to", &before_fork.to_string()])?.exits(1)?;
    for branch in ["00000001-", "00000002-"] {
        ensure!(ambiguous.stderr.contains(branch), "{branch} is not named: {ambiguous}");
    }
    let early = restored::restore_with(&site, &before_fork.to_string(), "early", &["--timeline", "1"])?;
    restored::holds_exactly(&early, &first.iter().map(|commit| commit.id).collect())?;
    drop(early);

    let abandoned = restored::restore_with(&site, "latest", "abandoned", &["--timeline", "1"])?;
    assert_eq!(abandoned.value("select count(*) from pg_class where relname = 'made_by_mistake'")?, "1");
    Ok(())
}

#[test]
fn case_50_a_restored_copy_never_writes_into_productions_repository() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("archive_mode", "on"), Store::Directory)?;
    let command = site.archiver.hook("push %p").replace('\'', "''");
    site.cluster.sql(&format!("alter system set archive_command = '{command}'"))?;
    site.cluster.reload()?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let load = Workload::start(&site.cluster, 1)?;
    load.reaches(50, PATIENCE)?;
    load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;

    let before = site.place.list()?;
    let mut copy = restored::restore(&site, "latest", "copy")?;
    assert_eq!(copy.value("show archive_mode")?, "off");
    let load = Workload::start(&copy, 2)?;
    load.reaches(100, PATIENCE)?;
    load.stop()?;
    copy.sql("select pg_switch_wal()")?;
    copy.sql("checkpoint")?;
    copy.stop(Stop::Fast)?;
    let after = site.place.list()?;
    let new: Vec<_> = after.iter().filter(|object| !before.contains(object)).collect();
    ensure!(new.is_empty(), "the copy wrote {new:?}");
    Ok(())
}
