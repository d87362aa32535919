//! Restores to each kind of target, compared with what the server's own WAL says had committed.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::wal::{TransactionEnd, committed_by};
use walseal_tests::workload::{self, Commit, Workload};

use crate::{flow, restored};

/// A site with a base backup and commits after it, all durable.
struct Archived {
    site: Site,
    _daemon: Daemon,
    commits: Vec<Commit>,
    ends: Vec<TransactionEnd>,
    /// Ends of transactions after the base backup.
    after_base: Vec<TransactionEnd>,
}

impl Archived {
    fn new(during: impl FnOnce(&Cluster, &Workload) -> Result<()>) -> Result<Archived> {
        let cluster = Cluster::builder().setting("wal_keep_size", "1GB").setting("max_prepared_transactions", "4");
        let site = Site::new(cluster, Store::Directory)?;
        let mut daemon = site.archive()?;
        let start = site.cluster.insert_lsn()?;
        let load = Workload::start(&site.cluster, 3)?;
        load.reaches(20, PATIENCE)?;
        site.archiver.run_long(&["backup"])?.success()?;
        let based = site.cluster.insert_lsn()?;
        load.goes_on(60, PATIENCE)?;
        during(&site.cluster, &load)?;
        load.goes_on(60, PATIENCE)?;
        let commits = load.stop()?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        let ends = restored::ends(&site.cluster, start)?;
        let after_base = ends.iter().filter(|end| end.lsn > based).cloned().collect();
        Ok(Archived { site, _daemon: daemon, commits, ends, after_base })
    }

    /// A commit well after the base backup, with others behind it.
    fn middle(&self) -> Result<&TransactionEnd> {
        let committed: Vec<_> = self.after_base.iter().filter(|end| end.committed).collect();
        committed.get(committed.len() / 2).copied().context("there are commits after the base backup")
    }

    /// The rows of commits whose record `wanted` accepts.
    fn rows(&self, wanted: impl Fn(&TransactionEnd) -> bool) -> BTreeSet<i64> {
        let held = self.ends.iter().filter(|end| end.committed && wanted(end)).map(|end| end.xid).collect();
        restored::rows_of(&self.commits, &held)
    }
}

#[test]
fn a_time_ends_before_the_first_later_end_of_a_transaction() -> Result<()> {
    let archived = Archived::new(|cluster, _| cluster.sql("begin; create table gone (a int); rollback").map(|_| ()))?;
    let middle = archived.middle()?;
    for (name, time) in [("at", middle.time), ("before", middle.time - jiff::SignedDuration::from_micros(1))] {
        let restored = restored::restore(&archived.site, &time.to_string(), name)?;
        let expected = restored::rows_of(&archived.commits, &committed_by(&archived.ends, time));
        restored::holds_exactly(&restored, &expected)?;
    }
    Ok(())
}

#[test]
fn a_time_is_taken_as_postgres_prints_it() -> Result<()> {
    let archived = Archived::new(|_, _| Ok(()))?;
    let time = archived.middle()?.time;
    let printed = archived.site.cluster.value(&format!("select '{time}'::timestamptz"))?;
    let restored = restored::restore(&archived.site, &printed, "printed")?;
    restored::holds_exactly(&restored, &restored::rows_of(&archived.commits, &committed_by(&archived.ends, time)))
}

#[test]
fn an_lsn_includes_the_record_that_starts_there_unless_told_otherwise() -> Result<()> {
    let archived = Archived::new(|_, _| Ok(()))?;
    let lsn = archived.middle()?.lsn;
    let restored = restored::restore(&archived.site, &format!("lsn:{lsn}"), "inclusive")?;
    restored::holds_exactly(&restored, &archived.rows(|end| end.lsn <= lsn))?;
    drop(restored);
    let restored = restored::restore_with(&archived.site, &format!("lsn:{lsn}"), "exclusive", &["--exclusive"])?;
    restored::holds_exactly(&restored, &archived.rows(|end| end.lsn < lsn))
}

#[test]
fn case_10_a_transaction_is_the_last_one_or_the_first_one_left_out() -> Result<()> {
    let archived = Archived::new(|_, _| Ok(()))?;
    let middle = archived.middle()?;
    let restored = restored::restore(&archived.site, &format!("xid:{}", middle.xid), "inclusive")?;
    restored::holds_exactly(&restored, &archived.rows(|end| end.lsn <= middle.lsn))?;
    drop(restored);
    let target = format!("xid:{}", middle.xid);
    let restored = restored::restore_with(&archived.site, &target, "exclusive", &["--exclusive"])?;
    restored::holds_exactly(&restored, &archived.rows(|end| end.lsn < middle.lsn))
}

#[test]
fn case_10_a_prepared_transaction_counts_where_it_commits() -> Result<()> {
    let mut prepared = String::new();
    let archived = Archived::new(|cluster, load| {
        let session = cluster.session()?;
        session.rows("begin; create table two_phases (a int)")?;
        prepared = session.value("select pg_current_xact_id()")?;
        session.rows("prepare transaction 'two phases'")?;
        load.goes_on(20, PATIENCE)?;
        session.rows("commit prepared 'two phases'").map(|_| ())
    })?;
    let xid: u32 = prepared.parse()?;
    let end = archived.ends.iter().find(|end| end.xid == xid).context("it was committed")?;
    let restored = restored::restore(&archived.site, &format!("xid:{xid}"), "prepared")?;
    restored::holds_exactly(&restored, &archived.rows(|other| other.lsn <= end.lsn))?;
    assert_eq!(restored.value("select count(*) from two_phases")?, "0");
    Ok(())
}

#[test]
fn a_name_is_found_in_the_wal() -> Result<()> {
    let mut point = String::new();
    let archived = Archived::new(|cluster, _| {
        point = cluster.value("select pg_create_restore_point('before_migration')")?;
        Ok(())
    })?;
    let lsn = point.parse()?;
    let listed = archived.site.restorer.run_long(&["list", "--restore-points", "--json"])?.success()?.json()?;
    assert_eq!(listed["restore_points"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["restore_points"][0]["name"], "before_migration");
    let restored = restored::restore(&archived.site, "name:before_migration", "named")?;
    restored::holds_exactly(&restored, &archived.rows(|end| end.lsn < lsn))?;
    let nobody = archived.site.target("nobody");
    let args = ["restore", "--to", "name:nobody_made_this", "--target-dir", &nobody.to_string_lossy()];
    let refused = archived.site.restorer.run_long(&args)?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("nobody_made_this"), "{refused}");
    ensure!(!nobody.join("PG_VERSION").exists(), "nothing was written");
    Ok(())
}

#[test]
fn latest_holds_everything_and_immediate_a_prefix_of_it() -> Result<()> {
    let archived = Archived::new(|_, _| Ok(()))?;
    let restored = restored::restore(&archived.site, "latest", "latest")?;
    restored::holds_exactly(&restored, &archived.rows(|_| true))?;
    drop(restored);

    let restored = restored::restore(&archived.site, "immediate", "immediate")?;
    let held = workload::rows(&restored)?;
    let in_order: Vec<i64> = archived
        .ends
        .iter()
        .filter_map(|end| archived.commits.iter().find(|commit| commit.xid == u64::from(end.xid)))
        .map(|commit| commit.id)
        .collect();
    let prefix: BTreeSet<i64> = in_order.iter().take(held.len()).copied().collect();
    assert_eq!(held, prefix, "the consistent point is a point in WAL");
    ensure!(held.len() >= 20, "everything before the base backup is there");
    let after = archived.after_base.iter().filter(|end| end.committed).map(|end| end.xid).collect();
    ensure!(held.is_disjoint(&restored::rows_of(&archived.commits, &after)), "nothing after the base backup is there");
    Ok(())
}

#[test]
fn case_07_a_target_before_every_base_is_refused_with_the_earliest_point() -> Result<()> {
    let archived = Archived::new(|_, _| Ok(()))?;
    let early = archived.ends.first().context("there are commits")?;
    let target = archived.site.target("early");
    let targets = [
        (early.time.to_string(), "earliest"),
        (format!("lsn:{}", early.lsn), "earliest"),
        // In WAL that no base backup reaches the transaction is not looked for.
        (format!("xid:{}", early.xid), "no end of transaction"),
    ];
    for (to, why) in targets {
        let args = ["restore", "--to", &to, "--target-dir", &target.to_string_lossy()];
        let refused = archived.site.restorer.run_long(&args)?;
        ensure!(refused.code == Some(1) && refused.stderr.contains(why), "{to}: {refused}");
        ensure!(!target.join("PG_VERSION").exists(), "nothing was written");
    }
    Ok(())
}

#[test]
fn case_07_a_base_backup_of_an_idle_cluster_is_no_way_to_before_its_last_commit() -> Result<()> {
    let site = Site::new(Cluster::builder().setting("autovacuum", "off"), Store::Directory)?;
    let mut daemon = site.archive()?;
    let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    site.cluster.sql("create table one (a int)")?;
    let between = site.cluster.value(now)?;
    site.cluster.sql("create table two (a int)")?;
    let after = site.cluster.value(now)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigkill()?;
    // This archiver sees no transaction before the backup is complete.
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table three (a int)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let refused = site.restorer.run_long(&["plan", "--to", &between])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("The earliest point that can be reached"), "{refused}");
    let restored = restored::restore(&site, &after, "after")?;
    let tables =
        "select string_agg(relname, ' ' order by relname) from pg_class where relname in ('one', 'two', 'three')";
    assert_eq!(restored.value(tables)?, "one two");
    Ok(())
}

#[test]
fn case_08_a_time_after_the_last_commit_is_refused_and_latest_is_offered() -> Result<()> {
    let archived = Archived::new(|_, _| Ok(()))?;
    let last = archived.ends.last().context("there are commits")?.time;
    let later = last + jiff::SignedDuration::from_hours(1);
    let target = archived.site.target("later");
    let args = ["restore", "--to", &later.to_string(), "--target-dir", &target.to_string_lossy()];
    let refused = archived.site.restorer.run_long(&args)?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("--to latest"), "{refused}");
    Ok(())
}

#[test]
fn a_time_without_an_offset_is_refused_with_ready_commands() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let target = site.target("vague");
    let args = ["restore", "--to", "2026-11-21 02:30:00", "--target-dir", &target.to_string_lossy()];
    let refused = site.restorer.call(&args).env("TZ", "Asia/Tokyo").run()?.exits(2)?;
    // Tokyo has been nine hours ahead all along.
    for reading in ["02:30:00Z", "02:30:00+09:00"] {
        let command = refused.stderr.lines().find(|line| line.contains(reading));
        let ready = command.is_some_and(|line| line.contains("restore --to") && line.contains("--target-dir"));
        ensure!(ready, "{reading} is no ready command: {refused}");
    }
    Ok(())
}
