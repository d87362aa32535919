//! SIGKILL of a dump upon each object that it stores, one after the other.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::site::{Site, Store};

use super::{ODD, conninfo, id, listed, shop, site, take};

/// As many objects as a dump of this database stores: three of the archive, roles and tablespaces, facts, and the label.
const OBJECTS: usize = 6;

/// The objects of snapshots, and which of these make one visible.
fn stored(site: &Site) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let keys = site.place.list()?.into_iter().map(|object| object.key);
    let objects: BTreeSet<String> = keys.filter(|key| key.contains("/snapshot/")).collect();
    let labels = objects.iter().filter(|key| key.ends_with("/label")).cloned().collect();
    Ok((objects, labels))
}

#[test]
fn case_36_i7_a_dump_that_is_killed_at_any_object_is_invisible_and_the_next_one_is_whole() -> Result<()> {
    let site = site(Cluster::builder(), Store::Directory)?;
    shop(&site.cluster, ODD)?
        .rows("create table large as select i, repeat(md5(i::text), 30) as t from generate_series(1, 40000) i")?;
    take(&site, &["--database", ODD])?;
    ensure!(stored(&site)?.0.len() == OBJECTS, "{:#?}", stored(&site)?.0);

    let mut cut_off = 0;
    for number in 1..=OBJECTS {
        let (before, visible) = stored(&site)?;
        let mut dump = site.archiver.daemon(&["snapshot", "--database", ODD])?;
        let ended = eventually("an object", PATIENCE * 2, || {
            let running = dump.is_running()?;
            let reached = stored(&site)?.0.len() >= before.len() + number;
            Ok((reached || !running).then_some(!running))
        })?;
        // A busy machine may let it go on for a while: one that ended, or whose label came, is a snapshot, and no other is.
        if ended {
            dump.wait(PATIENCE)?.success()?;
        } else {
            dump.sigkill()?;
        }
        let (after, labels) = stored(&site)?;
        ensure!(before.is_subset(&after), "an object of an earlier snapshot is gone");
        let new = labels.difference(&visible).count();
        ensure!(new == 1 || !ended, "a dump that ended is visible");
        cut_off += usize::from(new == 0);
        let seen = listed(&site)?;
        ensure!(seen.len() == labels.len() && seen.iter().all(|line| line["error"].is_null()), "{seen:#?}");
    }
    ensure!(cut_off > 0, "the first object comes long before the label");
    let gone = "select count(*) from pg_stat_activity where application_name = 'walseal snapshot'";
    eventually("the connections of killed dumps to end", PATIENCE, || {
        Ok((site.cluster.value(gone)? == "0").then_some(()))
    })?;

    // Whatever is visible restores: also one whose program was killed just after its label.
    take(&site, &["--database", ODD])?;
    for (number, snapshot) in listed(&site)?.iter().enumerate() {
        site.cluster.sql(&format!("create database copy_{number}"))?;
        let into = conninfo(&site.cluster, &format!("copy_{number}"));
        let restore = ["snapshot", "restore", id(snapshot)?, "--into", &into, "--table", "large", "--json"];
        let report = site.restorer.run_long(&restore)?.success()?.json()?;
        ensure!(report["rows"] == 40_000 && report["differing"] == serde_json::json!([]), "{report:#}");
    }
    Ok(())
}
