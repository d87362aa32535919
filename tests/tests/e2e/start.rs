//! `restore --start`: recovery on a private server, to its end, and what it says then.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use walseal_tests::account::Account;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::oracle;
use walseal_tests::site::{Daemon, Site, Store};
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

/// A cluster with 1 MiB segments, a base backup, some 80 MiB of WAL behind it, and a row, whose transaction is given,
/// followed by another. What is restored of it is fetched segment by segment.
fn long_way() -> Result<(Site, String)> {
    let mut site = Site::new(Cluster::builder().segment_mib(1), Store::Directory)?;
    site.restorer.set_text("fetch.prefetch", "0");
    site.restorer.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t (a int, b text)")?;
    site.archiver.run_long(&["backup"])?.success()?;
    for part in 0..8 {
        site.cluster.sql(&format!("insert into t select {part}, md5(g::text) from generate_series(1, 100000) g"))?;
    }
    let last = site.cluster.value("insert into t values (100, 'last') returning pg_current_xact_id()::text")?;
    site.cluster.sql("insert into t values (101, 'too late')")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    Ok((site, last))
}

/// The log of the private server on a data directory.
fn log_beside(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".walseal/server.log");
    PathBuf::from(name)
}

/// Starts a restore, and waits until its server has replayed some WAL, and not all.
fn in_recovery(site: &Site, args: &[&str], folder: &Path) -> Result<Daemon> {
    let log = log_beside(folder);
    // What an earlier server said is not waited for.
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let mut restore = site.restorer.daemon(args)?;
    restore.until("replay to be under way", PATIENCE * 2, || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(!said.contains("recovery stopping"), "it was too fast to be interrupted: {said}");
        Ok((said.matches("restored log file").count() > 3).then_some(()))
    })?;
    Ok(restore)
}

/// Whether these tests, and what they start, run below `nohup`.
fn ignores_hangup() -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).context("a mask")?;
    Ok(u64::from_str_radix(mask.trim(), 16)? & 1 != 0)
}

/// The restored cluster, which does not run yet, holds all up to the row that was aimed at, and nothing behind it.
fn landed_exactly(site: &Site, folder: &Path) -> Result<()> {
    let mut landed = site.restored(folder)?;
    landed.start()?;
    assert_eq!(landed.value("select pg_is_in_recovery()")?, "f");
    assert_eq!(landed.value("select count(*) || ' ' || max(a) from t")?, "800001 100");
    oracle::amcheck(&landed)
}

#[test]
fn case_27_a_restore_that_is_killed_or_cut_off_during_replay_goes_on_with_the_same_command_and_lands_exactly()
-> Result<()> {
    let (site, last) = long_way()?;
    let folder = site.target("interrupted");
    let (to, place) = (format!("xid:{last}"), folder.to_string_lossy().into_owned());
    let args = ["restore", "--to", &to, "--target-dir", &place, "--start"];
    in_recovery(&site, &args, &folder)?.sigkill()?;
    ensure!(site.target("interrupted.walseal").join("recovering.json").exists(), "it is marked");

    // Another one than that is told what is there.
    let command = format!("walseal-restorer restore --to {to} --target-dir {place} --start");
    for other in [["restore", "--to", "latest", "--target-dir", &place, "--start"].as_slice(), &args[..5]] {
        let refused = site.restorer.run_long(other)?.exits(1)?;
        ensure!(refused.stderr.contains("not seen to its end") && refused.stderr.contains(&command), "{refused}");
    }

    // The connection of whoever typed it is lost.
    let mut restore = in_recovery(&site, &args, &folder)?;
    restore.signal(if ignores_hangup()? { Signal::TERM } else { Signal::HUP })?;
    let ended = restore.wait(PATIENCE)?.exits(1)?;
    ensure!(ended.stderr.contains("it was interrupted, and the server was stopped"), "{ended}");
    ensure!(ended.stderr.contains("give the same command again: it goes on with recovery where it was"), "{ended}");
    ensure!(!folder.join("postmaster.pid").exists() && oracle::lives_below(&folder)?.is_empty(), "no server is left");

    // The store is away for longer than is waited.
    let (repository, away) = (site.scratch.path().join("repository"), site.scratch.path().join("away"));
    let mut impatient = site.restorer.clone();
    impatient.set_text("fetch.retry", "0s");
    impatient.write_config()?;
    let restore = in_recovery(&site, &args, &folder)?;
    std::fs::rename(&repository, &away)?;
    let ended = restore.wait(PATIENCE)?.exits(1)?;
    std::fs::rename(&away, &repository)?;
    ensure!(ended.stderr.contains("the server ended before recovery did"), "{ended}");
    ensure!(ended.stderr.contains("give the same command again: it goes on with recovery where it was"), "{ended}");

    let said = site.restorer.run_long(&args)?.success()?;
    ensure!(said.stderr.contains("recovery goes on where it was"), "the files are not rebuilt: {said}");
    ensure!(said.stdout.contains(&format!("Last transaction: {last} ")), "{said}");
    ensure!(!site.target("interrupted.walseal").join("recovering.json").exists(), "recovery has ended");
    landed_exactly(&site, &folder)?;
    let refused = site.restorer.run_long(&args)?.exits(1)?;
    ensure!(refused.stderr.contains("data directory of a"), "{refused}");
    Ok(())
}

#[test]
fn the_server_that_a_killed_restore_left_is_ended_by_the_one_that_goes_on() -> Result<()> {
    let (site, last) = long_way()?;
    let folder = site.target("left");
    let (to, place) = (format!("xid:{last}"), folder.to_string_lossy().into_owned());
    let args = ["restore", "--to", &to, "--target-dir", &place, "--start", "--action", "pause", "--json"];
    in_recovery(&site, &args, &folder)?.sigkill()?;
    // This one fetches by itself, and comes to its end with nobody there.
    let pid = || -> Result<u64> {
        let text = std::fs::read_to_string(folder.join("postmaster.pid")).context("a server runs")?;
        Ok(text.lines().next().context("its number")?.parse()?)
    };
    let left = pid()?;
    let log = log_beside(&folder);
    eventually("the server that was left to pause", PATIENCE * 2, || {
        Ok(std::fs::read_to_string(&log)?.contains("pausing at the end of recovery").then_some(()))
    })?;
    let said = site.restorer.run_long(&args)?.success()?.json()?;
    let landing = &said["landing"];
    ensure!(landing["state"] == "paused" && landing["pid"] == pid()? && pid()? != left, "{left}: {said:#}");
    // That one is nobody's leftover: it runs because it was asked for.
    let refused = site.restorer.run_long(&args)?.exits(1)?;
    ensure!(refused.stderr.contains("runs now"), "{refused}");
    site.cluster.client("pg_ctl").args(["promote", "-s", "-w", "-D", &place]).within(PATIENCE).run()?.success()?;
    site.cluster.client("pg_ctl").args(["stop", "-s", "-m", "fast", "-D", &place]).within(PATIENCE).run()?.success()?;
    landed_exactly(&site, &folder)
}
