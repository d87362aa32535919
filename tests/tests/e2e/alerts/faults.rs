//! The alerts of slots, vanished WAL, retention, drills and dumps, each from the fault that causes it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::inbox::Inbox;
use walseal_tests::site::Site;
use walseal_tests::told::Told;

use super::site;
use crate::{drill, flow};

#[test]
pub fn wal_that_was_durable_and_vanished_is_told_until_it_is_back() -> Result<()> {
    let (site, told) = site(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), &[])?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select repeat(md5(g::text), 30) from generate_series(1, 4000) g")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    // What a careless lifecycle rule of the bucket does.
    let objects = site.place.list()?.into_iter().map(|object| object.key);
    let wal: Vec<String> = objects.filter(|key| key.contains("/wal/") || key.contains("/tail/")).collect();
    let newest = wal.iter().filter(|key| key.contains("/wal/")).max().context("whole segments")?;
    for key in wal.iter().filter(|key| key.contains("/tail/")).chain([newest]) {
        site.place.remove(key)?;
    }
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "confirmed-missing", &["raised", "cleared"])
}

#[test]
pub fn case_26_a_slot_that_keeps_more_than_its_limit_is_told_until_the_wal_is_in_the_repository() -> Result<()> {
    let cluster =
        Cluster::builder().segment_mib(1).setting("max_slot_wal_keep_size", "4MB").setting("max_wal_size", "1GB");
    // The server is asked as often as a limit of our own needs; this one is never reached.
    let (site, told) =
        site(cluster.setting("checkpoint_timeout", "1h"), &[("wal.give_up_at", "1TiB"), ("wal.stall_limit", "1s")])?;
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let (folder, aside) = (site.scratch.path().join("repository"), site.scratch.path().join("unmounted"));
    std::fs::rename(&folder, &aside)?;
    site.cluster.sql("create table t as select repeat(md5(g::text), 30) from generate_series(1, 20000) g")?;
    told.arrives(&mut daemon, "slot-at-risk", &["raised"])?;
    std::fs::rename(&aside, &folder)?;
    told.arrives(&mut daemon, "slot-at-risk", &["raised", "cleared"])?;
    flow::wait_durable(&site.cluster, &mut daemon).map(|_| ())
}

#[test]
pub fn case_26_an_archive_command_that_fails_is_told_with_what_waits_until_it_works() -> Result<()> {
    let cluster = Cluster::builder().segment_mib(1).setting("archive_mode", "on").setting("archive_command", "false");
    // The server is asked as often as a limit of our own needs; this one is never reached.
    let (site, told) = site(cluster, &[("wal.give_up_at", "1TiB"), ("alerts.backlog", "2MiB")])?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select repeat(md5(g::text), 30) from generate_series(1, 8000) g")?;
    told.arrives(&mut daemon, "archive-command-fails", &["raised"])?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let jam = told.of("archive-command-fails")?.into_iter().next().context("the alert")?;
    let text = jam["text"].as_str().unwrap_or_default();
    for part in ["fails at 00000001", "of WAL wait in pg_wal", "of that disk ", "the server's log says why"] {
        ensure!(text.contains(part), "{part:?} is missing: {jam}");
    }
    ensure!(jam["severity"] == "critical", "{jam}");
    // The stream does not need it, and no backlog of the slot hides it.
    assert_eq!(told.of("backlog")?, Vec::<Value>::new());
    site.cluster.sql("alter system set archive_command = 'true'")?;
    site.cluster.sql("select pg_reload_conf()")?;
    told.arrives(&mut daemon, "archive-command-fails", &["raised", "cleared"])
}

#[test]
pub fn retention_that_is_refused_is_told_until_it_is_kept_to() -> Result<()> {
    let (mut site, told) = site(Cluster::builder(), &[("retention.window", "1s"), ("retention.grace", "0s")])?;
    let permission = site.scratch.path().join("told/permission");
    site.archiver.set_text("retention.before_window_moves", &format!("test -e '{}'", permission.display()));
    for key in ["daily", "weekly", "min_proven"] {
        site.archiver.set(&format!("retention.{key}"), "0");
    }
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    let backup = || -> Result<()> {
        site.archiver.run_long(&["backup", "--full"])?.success()?;
        site.cluster.sql("create table if not exists t (a int); insert into t values (1)")?;
        // The window begins a whole second back, and at a whole second: so much later the next backup lies in it alone.
        site.cluster.sql("select pg_sleep(2.1)").map(|_| ())
    };
    for _ in 0..3 {
        backup()?;
    }
    told.arrives(&mut daemon, "retention-refused", &["raised"])?;
    let news = told.news()?;
    let refused = news.iter().find(|news| news["kind"] == "retention-refused").context("the alert")?;
    ensure!(refused["text"].as_str().is_some_and(|text| text.contains("before_window_moves said no")), "{refused}");
    std::fs::write(&permission, "")?;
    backup()?;
    told.arrives(&mut daemon, "retention-refused", &["raised", "cleared"])
}

#[test]
fn that_nothing_was_proven_for_too_long_is_told_until_a_drill_passes() -> Result<()> {
    let mut site = drill::site(Cluster::builder())?;
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.set_text("alerts.proven_within", "8s");
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "drill-overdue", &["raised"])?;
    site.restorer.run_long(&["drill"])?.success()?;
    // After as long again it would be told anew.
    daemon.until("the end of the alert", PATIENCE, || {
        let states = told.states("drill-overdue")?;
        Ok((states.get(..2) == Some(&["raised".to_owned(), "cleared".to_owned()])).then_some(()))
    })
}

/// How often a failure to dump was told of, or its end.
fn failures(told: &Told, state: &str) -> Result<usize> {
    Ok(told.states("snapshot-failed")?.iter().filter(|one| *one == state).count())
}

#[test]
pub fn a_daemon_that_only_dumps_tells_of_failures_and_shrunk_tables_and_its_heart_beats_on_success_only() -> Result<()>
{
    let (mut site, told) = site(Cluster::builder(), &[("snapshot.interval", "1s")])?;
    let (inbox, path) = (Inbox::start()?, "/beats");
    site.archiver.set("wal.enabled", "false");
    site.archiver.set_text("alerts.heartbeat_url", &inbox.url(path));
    site.archiver.write_config()?;
    site.cluster.sql("create table orders as select g as id from generate_series(1, 500) g")?;
    let mut daemon = site.archiver.daemon(&["run"])?;
    let beat = daemon.until("a heartbeat", PATIENCE, || Ok(inbox.posts(path).first().cloned()))?;
    ensure!(beat["schema"] == "walseal.heartbeat/1" && beat["success"] == "snapshots-stored", "{beat}");
    site.cluster.sql("delete from orders where id > 3")?;
    // The next snapshot has no less.
    told.arrives(&mut daemon, "table-shrank", &["raised", "cleared"])?;
    site.cluster.stop(Stop::Immediate)?;
    // Of a database, where a dump of it was under way, and of the server.
    daemon.until("the failure to be told", PATIENCE, || Ok((failures(&told, "raised")? > 0).then_some(())))?;
    // What was told before that was told of successes; nothing is while it fails. It tries again after a minute.
    let before = inbox.posts(path).len();
    daemon.says("tried again", PATIENCE)?;
    assert_eq!(inbox.posts(path).len(), before);
    site.cluster.start()?;
    daemon.until("the end of the alert", PATIENCE * 3, || {
        Ok((failures(&told, "raised")? == failures(&told, "cleared")?).then_some(()))
    })?;
    daemon.until("a heartbeat again", PATIENCE, || Ok((inbox.posts(path).len() > before).then_some(())))
}

#[test]
pub fn what_stands_across_a_restart_is_told_once_and_what_ended_meanwhile_is_told_then() -> Result<()> {
    let (mut site, told) = site(Cluster::builder(), &[])?;
    let with_two = site.archiver.clone();
    site.seal_to_one()?;
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("alter system set synchronous_standby_names = '*'")?;
    site.cluster.sql("select pg_reload_conf()")?;
    for kind in ["one-recipient", "synchronous-unasked"] {
        told.arrives(&mut daemon, kind, &["raised"])?;
    }
    // As a machine that loses its power leaves it.
    let remembered = site.scratch.path().join("state/alerts.json");
    daemon.until("both to be written down", PATIENCE, || {
        let text = std::fs::read_to_string(&remembered).unwrap_or_default();
        Ok(["one-recipient", "synchronous-unasked"].iter().all(|kind| text.contains(kind)).then_some(()))
    })?;
    let since = |site: &Site| -> Result<Value> {
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        let alerts = status["alerts"].as_array().with_context(|| status.to_string())?;
        let one = alerts.iter().find(|alert| alert["kind"] == "one-recipient").context("it stands")?;
        Ok(one["since"].clone())
    };
    let before = since(&site)?;
    daemon.sigkill()?;
    site.cluster.sql("alter system reset synchronous_standby_names")?;
    site.cluster.sql("select pg_reload_conf()")?;
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "synchronous-unasked", &["raised", "cleared"])?;
    assert_eq!((since(&site)?, told.states("one-recipient")?), (before, vec!["raised".to_owned()]));
    // A second recipient counts from the next start on.
    daemon.sigterm()?.success()?;
    site.archiver = with_two;
    site.archiver.write_config()?;
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "one-recipient", &["raised", "cleared"])
}
