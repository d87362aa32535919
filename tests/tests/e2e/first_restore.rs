//! The loop on its smallest path and on a wider one: archive, back up, lose, restore.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::pgbench::Pgbench;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Site, Store};
use walseal_tests::workload::Workload;

use crate::{flow, restored};

#[test]
fn a_dropped_table_comes_back_from_a_directory() -> Result<()> {
    a_dropped_table_comes_back(Cluster::builder(), Store::Directory)
}

#[test]
fn a_dropped_table_comes_back_from_a_bucket() -> Result<()> {
    a_dropped_table_comes_back(Cluster::builder(), Store::S3)
}

#[test]
fn case_18_a_dropped_table_comes_back_with_segments_of_1_mib() -> Result<()> {
    a_dropped_table_comes_back(Cluster::builder().segment_mib(1), Store::Directory)
}

#[test]
fn case_18_a_dropped_table_comes_back_with_segments_of_64_mib() -> Result<()> {
    a_dropped_table_comes_back(Cluster::builder().segment_mib(64), Store::Directory)
}

fn a_dropped_table_comes_back(cluster: ClusterBuilder, store: Store) -> Result<()> {
    let mut site = Site::new(cluster.setting("wal_keep_size", "1GB"), store)?;
    let mut daemon = site.archive()?;
    let start = site.cluster.insert_lsn()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    Pgbench::initialise(&site.cluster, 2)?;
    let pgbench = Pgbench::start(&site.cluster, 2)?;
    // The load goes on while the backup is taken.
    site.archiver.run_long(&["backup"])?.success()?;
    load.goes_on(50, PATIENCE)?;
    pgbench.stop()?;
    let commits = load.stop()?;
    let before = commits.last().context("there are commits")?.time;
    let sum = "select count(*) || ' ' || coalesce(sum(abalance), 0) from pgbench_accounts";
    let expected = site.cluster.value(sum)?;
    let dropped = site.cluster.value(
        "begin; drop table commits, pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history; \
         select pg_current_xact_id(); commit",
    )?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let ends = restored::ends(&site.cluster, start)?;

    let mut restored = restored::restore(&site, &before.to_string(), "before")?;
    let by_then = walseal_tests::wal::committed_by(&ends, before);
    restored::holds_exactly(&restored, &restored::rows_of(&commits, &by_then))?;
    oracle::amcheck(&restored)?;
    ensure!(restored.value("select count(*) from pgbench_branches")? == "2", "pgbench's tables are there");
    restored.stop(Stop::Fast)?;
    oracle::checksums(&restored)?;

    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(latest.value("select count(*) from pg_class where relname = 'commits'")?, "0", "the table is dropped");
    drop(latest);

    let exclusive = restored::restore_with(&site, &format!("xid:{dropped}"), "exclusive", &["--exclusive"])?;
    assert_eq!(exclusive.value(sum)?, expected);
    drop(exclusive);

    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;
    Ok(())
}

#[test]
fn case_28_a_tablespace_is_restored_to_the_place_it_is_mapped_to() -> Result<()> {
    let site = Site::new(Cluster::builder().setting("wal_keep_size", "1GB"), Store::Directory)?;
    let old = site.scratch.dir("space")?;
    site.cluster.sql(&format!("create tablespace space location '{}'", old.display()))?;
    site.cluster.sql("create table far (a int primary key) tablespace space")?;
    let mut daemon = site.archive()?;
    site.cluster.sql("insert into far select generate_series(1, 1000)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("insert into far select generate_series(1001, 2000)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    let target = site.target("unmapped");
    let refused = site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &target.to_string_lossy()])?;
    ensure!(refused.code == Some(1), "a live tablespace is not written through: {refused}");
    ensure!(refused.stderr.contains(&*old.to_string_lossy()), "the message names the tablespace: {refused}");
    ensure!(!target.join("PG_VERSION").exists(), "nothing was written");

    let new = site.target("new-space");
    let mapping = format!("{}={}", old.display(), new.display());
    let restored = restored::restore_with(&site, "latest", "mapped", &["--tablespace", &mapping])?;
    assert_eq!(restored.value("select count(*) from far")?, "2000");
    assert_eq!(
        restored.value("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'")?,
        new.to_string_lossy()
    );
    assert_eq!(site.cluster.value("select count(*) from far")?, "2000", "the primary's tablespace is untouched");
    Ok(())
}

#[test]
fn case_51_the_tails_of_a_quiet_segment_stay_and_are_all_that_a_restore_needs() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table kept (id bigint)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    let mut before = Vec::new();
    for id in 0..3 {
        site.cluster.sql(&format!("insert into kept values ({id})"))?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        // Neither a new daemon nor time takes away what an earlier one stored.
        daemon.sigterm()?.success()?;
        let tails = tails(&site)?;
        ensure!(before.iter().all(|name| tails.contains(name)) && tails.len() > before.len(), "{before:?}, {tails:?}");
        before = tails;
        daemon = site.start_daemon()?;
    }
    daemon.sigterm()?.success()?;
    site.cluster.destroy()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select string_agg(id::text, ',' order by id) from kept")?, "0,1,2");
    Ok(())
}

/// Names of the pieces of segments that are not full.
fn tails(site: &Site) -> Result<Vec<String>> {
    let objects = site.place.list()?;
    Ok(objects.into_iter().map(|object| object.key).filter(|key| key.contains("/tail/")).collect())
}

#[test]
fn a_restore_refuses_a_folder_that_is_not_empty_and_leaves_it_alone() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let _daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let folder = site.scratch.dir("full")?;
    site.scratch.file("full/precious", "data")?;
    for (target, why) in [(folder.as_path(), "empty"), (site.cluster.data(), "runs now")] {
        let refused = site.restorer.run(&["restore", "--to", "latest", "--target-dir", &target.to_string_lossy()])?;
        ensure!(refused.code == Some(1) && refused.stderr.contains(why), "{refused}");
    }
    assert_eq!(std::fs::read_dir(&folder)?.count(), 1);
    assert_eq!(site.cluster.value("select 1")?, "1");
    Ok(())
}

#[test]
fn case_53_a_restored_cluster_archives_nothing_waits_for_nobody_and_has_no_old_target() -> Result<()> {
    let cluster = Cluster::builder().setting("recovery_target_time", "").setting("primary_conninfo", "host=nowhere");
    let cluster = cluster.setting("archive_mode", "on").setting("archive_command", "/bin/true");
    let site = Site::new(cluster, Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("alter system set recovery_target_name = ''")?;
    site.cluster.sql("create table t as select 1 as a")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let restored = restored::restore(&site, "latest", "restored")?;
    for (setting, value) in [
        ("archive_mode", "off"),
        ("synchronous_standby_names", ""),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
    ] {
        assert_eq!(restored.value(&format!("show {setting}"))?, value, "{setting}");
    }
    restored.sql("insert into t values (2)")?;
    Ok(())
}
