//! `restore --start`: recovery on a private server, to its end, and what it says then.

use anyhow::{Context, Result, ensure};

use walseal_tests::account::Account;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::site::{Site, Store};
use walseal_tests::wal::committed_by;
use walseal_tests::workload::Workload;

use crate::{flow, restored};

#[test]
fn a_restore_that_is_started_lands_on_the_last_commit_before_the_time_and_says_so() -> Result<()> {
    let site = Site::new(Cluster::builder().setting("wal_keep_size", "1GB"), Store::Directory)?;
    let mut daemon = site.archive()?;
    let start = site.cluster.insert_lsn()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(10, PATIENCE)?;
    site.archiver.run_long(&["backup"])?.success()?;
    load.goes_on(40, PATIENCE)?;
    let chosen = load.commits().last().context("there are commits")?.clone();
    load.goes_on(40, PATIENCE)?;
    let commits = load.stop()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let ends = restored::ends(&site.cluster, start)?;
    let held = committed_by(&ends, chosen.time);
    let last = ends.iter().rev().find(|end| held.contains(&end.xid)).context("there are commits by then")?;

    let folder = site.target("started");
    let to = chosen.time.to_string();
    let args = ["restore", "--to", &to, "--target-dir", &folder.to_string_lossy(), "--start"];
    let said = site.restorer.run_long(&args)?.success()?;
    let words = format!("{}\n{}", said.stdout, said.stderr);
    ensure!(words.contains(&last.xid.to_string()), "it ends by saying where it landed, at {}: {said}", last.xid);
    ensure!(words.contains("archiv"), "it says that archiving is off: {said}");
    let mut landed = site.restored(&folder)?;
    landed.start()?;
    assert_eq!(landed.value("select pg_is_in_recovery()")?, "f");
    restored::holds_exactly(&landed, &restored::rows_of(&commits, &held))?;
    oracle::amcheck(&landed)
}

#[test]
fn a_restore_by_root_serves_its_server_whose_user_cannot_read_the_identity() -> Result<()> {
    let me = Account::current()?;
    if me.uid != 0 {
        return Ok(()); // Then there is no other user to become; every other test restores as oneself.
    }
    let site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table t as select generate_series(1, 60000) as a")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    for path in [site.restorer.folder().join("identity.key"), site.restorer.config(), site.restorer.folder().to_owned()]
    {
        me.own(&path)?;
    }
    let folder = site.target("started");
    let to = folder.to_string_lossy().into_owned();
    let restore = |more: &[&str]| {
        let call = site.scratch.call_as(&me, site.restorer.program()).arg("--config").arg(site.restorer.config());
        call.args(["restore", "--to", "latest", "--target-dir", &to]).args(more).within(PATIENCE * 2).run()
    };
    // Its user would have to fetch by itself.
    let refused = restore(&[])?.exits(1)?;
    ensure!(refused.stderr.contains("PostgreSQL will need"), "{refused}");
    restore(&["--start"])?.success()?;
    let left = site.target("started.walseal");
    ensure!(!left.join("fetch.sock").exists() && !left.join("fetch.ready").exists(), "it is served no more");
    let mut landed = site.restored(&folder)?;
    landed.start()?;
    assert_eq!(landed.value("select count(*) from t")?, "60000");
    Ok(())
}

#[test]
fn a_paused_restore_shows_its_data_and_can_still_be_promoted() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table t as select 1 as a")?;
    let point = site.cluster.value("select pg_create_restore_point('look')")?;
    ensure!(!point.is_empty(), "a restore point has a place");
    site.cluster.sql("insert into t values (2)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let folder = site.target("paused");
    let args = ["restore", "--to", "name:look", "--target-dir", &folder.to_string_lossy(), "--action", "pause"];
    site.restorer.run_long(&args)?.success()?;
    let mut paused = site.restored(&folder)?;
    paused.start()?;
    let session = paused.session()?;
    let state = || -> Result<Option<()>> {
        Ok((session.value("select pg_get_wal_replay_pause_state()")? == "paused").then_some(()))
    };
    walseal_tests::deadline::eventually("recovery to pause", PATIENCE, state)?;
    assert_eq!(session.value("select count(*) from t")?, "1");
    session.rows("select pg_promote()")?;
    paused.wait_promoted(PATIENCE)?;
    paused.sql("insert into t values (3)")?;
    Ok(())
}
