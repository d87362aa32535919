//! Real clusters, archived by the archiver and restored by the restorer, as a user would.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod delta;

use std::fs;

use anyhow::{Context, Result, ensure};
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::session::Session;
use walseal_tests::settings::append;
use walseal_tests::site::{Daemon, Site, Store};

/// A cluster with a base backup, and some life before and after it.
struct Story {
    site: Site,
    daemon: Daemon,
}

impl Story {
    fn new(configuration: &str) -> Result<Story> {
        let cluster = Cluster::builder().segment_mib(1).setting("max_prepared_transactions", "3");
        let site = Site::new(cluster, Store::Directory)?;
        append(&site.cluster.data().join("postgresql.conf"), configuration)?;
        let daemon = site.archive()?;
        site.cluster.sql("create table t (i int primary key, filler text)")?;
        insert(&site.cluster.session()?, 1, 1000)?;
        site.archiver.run_long(&["backup"])?.success()?;
        insert(&site.cluster.session()?, 1001, 2000)?;
        Ok(Story { site, daemon })
    }

    /// Waits until everything up to now is in the repository.
    fn shipped(&mut self) -> Result<()> {
        let lsn = self.site.cluster.value("select pg_current_wal_flush_lsn()")?;
        let ask = format!("select count(*) from pg_replication_slots where restart_lsn >= '{lsn}'");
        let cluster = &self.site.cluster;
        self.daemon.until("the archiver to confirm", PATIENCE, || Ok((cluster.value(&ask)? == "1").then_some(())))
    }
}

fn insert(session: &Session, from: u32, to: u32) -> Result<()> {
    session.rows(&format!("insert into t select i, repeat(md5(i::text), 10) from generate_series({from}, {to}) i"))?;
    Ok(())
}

/// What a table holds, in one line.
const CONTENT: &str = "select count(*) || ' ' || coalesce(md5(string_agg(i || filler, ',' order by i)), '') from t";

#[test]
fn a_restore_to_a_time_verifies_starts_and_holds_what_was_committed_then() -> Result<()> {
    let mut story = Story::new("")?;
    let before = story.site.cluster.value(CONTENT)?;
    let time = story.site.cluster.value("select clock_timestamp()")?;
    story.site.cluster.sql("drop table t")?;
    insert_other(&story.site.cluster)?;
    story.shipped()?;

    let site = &story.site;
    let data = site.target("restored");
    let data_text = data.to_str().context("UTF-8")?;
    let done = site.restorer.run_long(&["restore", "--to", &time, "--target-dir", data_text])?.success()?;
    ensure!(done.stdout.contains("To go live") && done.stdout.contains("Archiving is off"), "{done}");
    oracle::verify_backup(&site.scratch, site.cluster.server(), &data)?;

    let mut restored = site.restored(&data)?;
    restored.start()?;
    restored.wait_promoted(PATIENCE)?;
    assert_eq!(restored.value(CONTENT)?, before);
    assert_eq!(restored.value("select count(*) from pg_class where relname = 'other'")?, "0");
    assert_eq!(restored.value("select timeline_id from pg_control_checkpoint()")?, "2");
    for (setting, value) in [("archive_mode", "off"), ("synchronous_standby_names", ""), ("primary_conninfo", "")] {
        assert_eq!(restored.value(&format!("select current_setting('{setting}')"))?, value, "{setting}");
    }
    oracle::amcheck(&restored)?;
    restored.stop(Stop::Fast)?;
    oracle::checksums(&restored)
}

fn insert_other(cluster: &Cluster) -> Result<()> {
    cluster.sql("create table other as select 1 as one")?;
    Ok(())
}

#[test]
fn case_53_targets_in_the_clusters_own_configuration_do_not_stop_recovery() -> Result<()> {
    // Both ends of the alphabet: PostgreSQL applies settings in the order of files and lines.
    let inherited = "recovery_target_xid = '3'\nrecovery_target_name = ''\nrecovery_target_action = 'shutdown'\n\
                     recovery_target_inclusive = off\nsynchronous_standby_names = '*'\nsynchronous_commit = local\n\
                     primary_conninfo = 'host=/nowhere'\nrecovery_min_apply_delay = '1h'\n";
    let mut story = Story::new("")?;
    append(&story.site.cluster.data().join("postgresql.conf"), inherited)?;
    story.site.archiver.run_long(&["backup"])?.success()?;
    let xid = {
        let session = story.site.cluster.session()?;
        session.rows("begin; insert into t values (5000, 'kept')")?;
        let xid = session.value("select pg_current_xact_id()")?;
        session.rows("commit; insert into t values (5001, 'not kept')")?;
        xid
    };
    story.shipped()?;
    let site = &story.site;
    for (name, target) in [("by-xid", format!("xid:{xid}")), ("latest", "latest".to_owned())] {
        let data = site.target(name);
        let words = ["restore", "--to", &target, "--start", "--json", "--target-dir", data.to_str().context("UTF-8")?];
        site.restorer.run_long(&words)?.success()?;
        let mut restored = site.restored(&data)?;
        restored.start()?;
        let rows = restored.value("select string_agg(filler, ',' order by i) from t where i >= 5000")?;
        assert_eq!(rows, if name == "latest" { "kept,not kept" } else { "kept" });
        restored.stop(Stop::Fast)?;
    }
    Ok(())
}

#[test]
fn start_runs_recovery_to_each_action_and_says_where_it_landed() -> Result<()> {
    let mut story = Story::new("")?;
    let before = story.site.cluster.value(CONTENT)?;
    story.site.cluster.value("select pg_create_restore_point('here')")?;
    insert(&story.site.cluster.session()?, 3001, 3010)?;
    story.shipped()?;
    let site = &story.site;
    let restore = |name: &str, action: &str| {
        let data = site.target(name);
        let words = ["restore", "--to", "name:here", "--start", "--action", action, "--target-dir"];
        let done = site.restorer.run_long(&[&words[..], &[data.to_str().context("UTF-8")?]].concat())?.success()?;
        Ok::<_, anyhow::Error>((data, done.stdout))
    };

    let (data, said) = restore("promoted", "promote")?;
    for part in ["recovery stopping at restore point \"here\"", "Last transaction: ", "not in: ", "Timeline: 2"] {
        ensure!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
    ensure!(!data.join("postmaster.pid").exists(), "the private server was stopped");
    let mut restored = site.restored(&data)?;
    restored.start()?;
    assert_eq!(restored.value(CONTENT)?, before);
    restored.stop(Stop::Fast)?;

    let (data, said) = restore("shut-down", "shutdown")?;
    ensure!(said.contains("Timeline: 1") && said.contains("replays the WAL"), "{said}");
    ensure!(data.join("recovery.signal").exists(), "still in recovery");

    let (data, said) = restore("paused", "pause")?;
    let socket = data.with_extension("walseal").join("run");
    ensure!(said.contains(&format!("psql -h {}", socket.display())), "{said}");
    let user = &site.scratch.account().name;
    let session = Session::connect(&format!("host={} port=5432 user={user} dbname=postgres", socket.display()))?;
    assert_eq!(session.value("select pg_is_in_recovery()")?, "t");
    assert_eq!(session.value(CONTENT)?, before);
    drop(session);
    site.cluster.client("pg_ctl").args(["stop", "-m", "fast", "-w", "-D"]).arg(&data).run()?.success()?;
    Ok(())
}

#[test]
fn case_48_a_cluster_whose_configuration_lies_elsewhere_is_started_with_a_minimal_one() -> Result<()> {
    let mut story = Story::new("")?;
    // As Debian has it: the data directory holds no postgresql.conf. The server has read it and runs on.
    let configuration = story.site.cluster.data().join("postgresql.conf");
    fs::rename(&configuration, story.site.target("postgresql.conf"))?;
    story.site.archiver.run_long(&["backup"])?.success()?;
    let session = story.site.cluster.session()?;
    session.rows("begin; insert into t values (7000, 'prepared'); prepare transaction 'p'")?;
    insert(&session, 8000, 8010)?;
    drop(session);
    story.shipped()?;
    let site = &story.site;
    let data = site.target("restored");
    let words = ["restore", "--to", "latest", "--start", "--target-dir", data.to_str().context("UTF-8")?];
    let done = site.restorer.run_long(&words)?.success()?;
    let place = format!("/etc/postgresql/{}/main", site.cluster.server().major());
    ensure!(done.stdout.contains(&place), "{done}");
    ensure!(!data.join("postgresql.conf").exists(), "nothing is put into the cluster");
    fs::copy(site.target("postgresql.conf"), data.join("postgresql.conf"))?;
    site.scratch.account().own(&data.join("postgresql.conf"))?;
    let mut restored = site.restored(&data)?;
    restored.start()?;
    assert_eq!(restored.value("select gid from pg_prepared_xacts")?, "p");
    assert_eq!(restored.value("select count(*) from t where i >= 8000")?, "11");
    restored.stop(Stop::Fast)?;
    Ok(())
}

#[test]
fn i6_recovery_stops_when_wal_is_lost_after_the_restore_began() -> Result<()> {
    let mut story = Story::new("")?;
    story.shipped()?;
    let site = &story.site;
    let data = site.target("restored");
    let words = ["restore", "--to", "latest", "--target-dir", data.to_str().context("UTF-8")?];
    site.restorer.run_long(&words)?.success()?;
    // Everything of WAL goes away; what the plan knew is pinned beside the data directory.
    let folder = site.target("repository");
    let repository = walk(&folder)?;
    ensure!(!repository.is_empty(), "no WAL in {}", folder.display());
    for file in repository {
        fs::remove_file(file)?;
    }
    let mut restorer = site.restorer.clone();
    restorer.set_text("fetch.retry", "0s");
    restorer.write_config()?;
    let mut restored = site.restored(&data)?;
    let ended = restored.run_to_end(PATIENCE)?;
    ensure!(ended.stderr.contains("a hole, not the end"), "{ended}");
    ensure!(data.join("recovery.signal").exists(), "it was not promoted");
    Ok(())
}

/// All files of WAL below a repository's folder.
fn walk(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        } else if path.components().any(|part| part.as_os_str() == "wal" || part.as_os_str() == "tail") {
            found.push(path);
        }
    }
    Ok(found)
}
