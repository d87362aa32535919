//! SIGKILL of a base backup upon each object that it stores, one after the other: full, compared, and of changed blocks.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::process::Finished;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Site, Store};

use crate::restored;

/// As many objects as a backup of these clusters stores: names, data, lists, and the label.
const OBJECTS: usize = 7;

/// The objects of base backups, and which of these are visible.
fn stored(site: &Site) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let listed = site.place.list()?.into_iter().map(|object| object.key);
    let objects: BTreeSet<String> = listed.filter(|key| key.contains("/base/")).collect();
    let labels = objects.iter().filter(|key| key.ends_with("/label")).cloned().collect();
    Ok((objects, labels))
}

/// Changes some rows, so that each backup has something to store.
fn change(site: &Site) -> Result<()> {
    site.cluster.sql("update t set v = reverse(v) where n % 500 = 3").map(|_| ())
}

/// Kills a backup at its first object, another one at its second, and so on. A busy machine may let it go on for a while: one that ended,
/// or whose label came, is a backup, and no other is.
fn kill_at_each(site: &Site, verb: &[&str]) -> Result<()> {
    let mut cut_off = 0;
    for number in 1..=OBJECTS {
        change(site)?;
        let (before, visible) = stored(site)?;
        let mut backup = site.archiver.daemon(verb)?;
        eventually("an object", PATIENCE * 2, || {
            let running = backup.is_running()?;
            let reached = stored(site)?.0.len() >= before.len() + number;
            Ok((reached || !running).then_some(()))
        })?;
        let ended = backup.sigkill_unless_ended()?.map(Finished::success).transpose()?.is_some();
        let (after, labels) = stored(site)?;
        ensure!(before.is_subset(&after), "an object of an earlier backup is gone");
        let new = labels.difference(&visible).count();
        ensure!(new == 1 || !ended, "a backup that ended is visible");
        cut_off += usize::from(new == 0);
        let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
        assert_eq!(listed["bases"].as_array().map(Vec::len), Some(labels.len()), "{listed}");
        if new > 0 {
            restores(site, &format!("after-{number}"))?;
        }
    }
    ensure!(cut_off > 0, "the first object comes long before the label");
    Ok(())
}

fn site(cluster: ClusterBuilder) -> Result<Site> {
    let cluster = cluster.setting("wal_keep_size", "1GB").setting("autovacuum", "off");
    let mut site = Site::new(cluster, Store::Directory)?;
    // A machine that is busy with other tests makes the server slow, and a backup would wait for that to be over.
    site.archiver.set("base.backoff", "false");
    site.archiver.write_config()?;
    site.cluster.sql("create table t (n int primary key, v text) with (fillfactor = 85)")?;
    site.cluster.sql("insert into t select n, md5(n::text) || md5((n * 7)::text) from generate_series(1, 40000) n")?;
    site.archiver.run(&["init"])?.success()?;
    Ok(site)
}

fn restores(site: &Site, name: &str) -> Result<()> {
    restored::sound(restored::restore(site, "latest", name)?, &restored::dump(&site.cluster)?)
}

/// What is said of the backup that follows.
fn next(site: &Site) -> Result<String> {
    let next = site.archiver.run_long(&["backup"])?.success()?;
    restores(site, "next")?;
    Ok(next.stdout)
}

#[test]
fn case_36_i7_a_full_backup_that_is_killed_at_any_object_is_invisible_and_the_next_one_is_whole() -> Result<()> {
    let site = site(Cluster::builder())?;
    kill_at_each(&site, &["backup", "--full"])?;
    next(&site).map(|_| ())
}

#[test]
fn case_36_i7_an_incremental_backup_that_is_killed_at_any_object_is_invisible_and_the_next_one_is_whole() -> Result<()>
{
    let site = site(Cluster::builder())?;
    site.archiver.run_long(&["backup"])?.success()?;
    kill_at_each(&site, &["backup"])?;
    let next = next(&site)?;
    ensure!(next.contains(" (incremental to ") && !next.contains("changed blocks only"), "{next}");
    Ok(())
}

#[test]
fn case_36_i7_a_backup_of_changed_blocks_that_is_killed_at_any_object_is_invisible_and_the_next_one_is_whole()
-> Result<()> {
    let site = site(Cluster::builder().major(17).setting("summarize_wal", "on"))?;
    site.archiver.run_long(&["backup"])?.success()?;
    kill_at_each(&site, &["backup"])?;
    let next = next(&site)?;
    ensure!(next.contains("changed blocks only"), "{next}");
    Ok(())
}
