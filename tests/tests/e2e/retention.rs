//! Retention: what a dry run promises is what can be restored afterwards; nothing else is touched on the way.

mod cost;
mod promises;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::site::{Daemon, Site, Store};

use crate::{flow, restored};

/// A site with small segments whose archiver promises this.
fn site(daily: u32) -> Result<Site> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "64MB"), Store::Directory)?;
    site.archiver.set("retention.daily", &daily.to_string());
    site.archiver.set("retention.weekly", "0");
    site.archiver.set("retention.min_proven", "0");
    site.archiver.set("retention.prune", "false");
    site.archiver.write_config()?;
    Ok(site)
}

/// Promises any second since `begin`, to the second before it.
fn promise_since(site: &mut Site, begin: Timestamp) -> Result<()> {
    let seconds = Timestamp::now().duration_since(begin).as_secs() + 1;
    site.archiver.set_text("retention.window", &format!("{seconds}s"));
    site.archiver.write_config()
}

/// A row, and when it was committed and nothing else for more than a microsecond.
fn mark(cluster: &Cluster) -> Result<Timestamp> {
    cluster.sql("create table if not exists marks (n bigserial, filling text)")?;
    cluster.sql("insert into marks (filling) select repeat('x', 1000) from generate_series(1, 1500)")?;
    let time =
        cluster.value("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")?;
    Ok(time.parse()?)
}

fn rows(cluster: &Cluster) -> Result<String> {
    cluster.value("select count(*) from marks")
}

fn texts(values: &Value, field: &str) -> BTreeSet<String> {
    values.as_array().into_iter().flatten().filter_map(|one| one[field].as_str().map(str::to_owned)).collect()
}

fn labels(site: &Site) -> Result<BTreeSet<String>> {
    let objects = site.place.list()?.into_iter();
    let id = |key: String| Some(key.split_once("/base/")?.1.strip_suffix("/label")?.to_owned());
    Ok(objects.filter_map(|object| id(object.key)).collect())
}

fn prune(site: &Site, more: &[&str]) -> Result<Value> {
    site.archiver.run_long(&[&["prune", "--json"], more].concat())?.success()?.json()
}

/// A site with six backups of which at least the first three are beyond the window.
fn six_backups() -> Result<(Site, Daemon)> {
    let mut site = site(0)?;
    let mut daemon = site.archive()?;
    let mut marks = Vec::new();
    for number in 0..6 {
        if number == 4 {
            // The window begins up to two seconds before the fifth: after the fourth.
            site.cluster.sql("select pg_sleep(2.1)")?;
        }
        site.archiver.run_long(&["backup", "--full"])?.success()?;
        marks.push(mark(&site.cluster)?);
    }
    flow::wait_durable(&site.cluster, &mut daemon)?;
    promise_since(&mut site, marks[4])?;
    Ok((site, daemon))
}

#[test]
fn i10_a_prune_that_was_killed_leaves_whole_backups_and_the_next_one_goes_on() -> Result<()> {
    let (site, _daemon) = six_backups()?;
    let before = labels(&site)?;
    let mut running = site.archiver.call(&["prune", "--grace", "0"]).spawn()?;
    eventually("something to go", PATIENCE, || Ok((labels(&site)? != before || !running.is_running()?).then_some(())))?;
    running.kill()?;
    // Nothing of what went is missed, and what is there can be restored, each backup by itself.
    site.archiver.run(&["verify", "--quick"])?.success()?;
    for id in labels(&site)? {
        site.restorer.run(&["plan", "--to", "immediate", "--base", &id])?.success()?;
    }
    let done = prune(&site, &["--grace", "0"])?;
    let stay = texts(&done["keep"], "id");
    assert_eq!(labels(&site)?, stay);
    ensure!(stay.len() <= 3, "the others are gone: {done:#}");
    let left = site.place.list()?;
    let stray =
        |key: &str| key.split_once("/base/").is_some_and(|(_, rest)| !stay.iter().any(|id| rest.starts_with(id)));
    ensure!(!left.iter().any(|object| stray(&object.key)), "nothing is left of the others: {left:?}");
    ensure!(!left.iter().any(|object| object.key.contains("/intent/")), "the intents are done with");
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(rows(&latest)?, rows(&site.cluster)?);
    Ok(())
}

#[test]
fn case_40_what_goes_is_announced_and_a_backup_under_way_keeps_all_that_it_may_refer_to() -> Result<()> {
    let (mut site, _daemon) = six_backups()?;
    let before = labels(&site)?;
    let announced = prune(&site, &[])?;
    ensure!(announced["done"]["announced"]["objects"].as_u64() > Some(0), "{announced:#}");
    ensure!(announced["done"]["next"].is_string(), "{announced:#}");
    assert_eq!(labels(&site)?, before, "it is announced for two days");

    // Slow enough to be under way for as long as it takes.
    site.cluster
        .sql("create table filling as select repeat(md5(n::text), 30) as text from generate_series(1, 20000) as n")?;
    site.archiver.set_text("base.max_rate", "1MiB");
    site.archiver.write_config()?;
    site.archiver.set_text("cluster.state_dir", &site.scratch.dir("alone")?.to_string_lossy());
    let mut backup = site.archiver.call(&["backup"]).within(PATIENCE * 4).spawn()?;
    let lease = || Ok(site.place.list()?.iter().any(|object| object.key.contains("/lease/")).then_some(()));
    eventually("the lease", PATIENCE, lease)?;
    prune(&site, &["--grace", "0"])?;
    if backup.is_running()? {
        ensure!(labels(&site)?.is_superset(&before), "nothing below base/ goes");
    }
    backup.wait(PATIENCE * 4)?.success()?;
    let dry = prune(&site, &["--dry-run"])?;
    ensure!(!dry["keep"].to_string().contains("lease"), "nobody relies on them any more: {dry:#}");
    let latest = restored::restore(&site, "latest", "latest")?;
    assert_eq!(rows(&latest)?, rows(&site.cluster)?);
    Ok(())
}

#[test]
fn a_hold_keeps_a_backup_until_it_is_released() -> Result<()> {
    let (site, _daemon) = six_backups()?;
    let second = labels(&site)?.into_iter().nth(1).context("six backups")?;
    site.archiver.run(&["hold", "20200101T000000Z-00000000", "--until", "90d"])?.exits(1)?;
    site.archiver.run(&["hold", &second, "--until", "yesterday"])?.exits(2)?;
    site.archiver.run(&["hold", &second, "--until", "90d"])?.success()?;
    let listed = site.archiver.run(&["hold", "--list", "--json"])?.success()?.json()?;
    assert_eq!(texts(&listed["holds"], "base"), BTreeSet::from([second.clone()]));
    let done = prune(&site, &["--grace", "0"])?;
    assert_eq!(labels(&site)?, texts(&done["keep"], "id"));
    ensure!(labels(&site)?.contains(&second) && labels(&site)?.len() <= 4, "those of the window, and the held one");
    let copy = restored::restore_with(&site, "immediate", "held", &["--base", &second])?;
    ensure!(rows(&copy)?.parse::<u32>()? > 0, "it holds what it held");
    site.archiver.run(&["hold", &second, "--release"])?.success()?;
    let listed = site.archiver.run(&["hold", "--list", "--json"])?.success()?.json()?;
    assert_eq!(listed["holds"], serde_json::json!([]));
    let dry = prune(&site, &["--dry-run"])?;
    ensure!(!dry["keep"].to_string().contains("hold"), "nobody holds it any more: {dry:#}");
    Ok(())
}

#[test]
fn a_hook_that_says_no_keeps_what_can_be_restored() -> Result<()> {
    let (mut site, _daemon) = six_backups()?;
    let before = labels(&site)?;
    site.archiver.set_text("retention.before_window_moves", "echo \"the blobs of $WALSEAL_WINDOW_BEFORE\" >&2; exit 1");
    site.archiver.write_config()?;
    let refused = site.archiver.run_long(&["prune", "--grace", "0"])?.exits(1)?;
    ensure!(
        refused.stderr.contains("retention.before_window_moves said no") && refused.stderr.contains("the blobs of 20"),
        "{refused}"
    );
    assert_eq!(labels(&site)?, before);
    Ok(())
}
