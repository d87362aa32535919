//! Whether snapshots are all there: what is deleted of one is named, with what it costs, and the others are of use all the same.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::site::{Site, Store};

use super::{conninfo, id, shop, site, take};

/// What both programs say is wrong; they must agree.
fn flaws(site: &Site) -> Result<Vec<Value>> {
    let mut said = Vec::new();
    for found in [
        site.archiver.run(&["verify", "--quick", "--json"])?,
        site.archiver.run(&["verify", "--json"])?,
        site.restorer.run(&["verify", "--json"])?,
    ] {
        let found = found.exits(1)?.json()?;
        ensure!(found["whole"] == false, "{found:#}");
        said.push(found["flaws"].as_array().context("a list")?.clone());
    }
    said.dedup();
    ensure!(said.len() == 1, "{said:#?}");
    said.pop().context("flaws")
}

fn whole(site: &Site) -> Result<()> {
    for program in [&site.archiver, &site.restorer] {
        let found = program.run(&["verify", "--json"])?.success()?.json()?;
        ensure!(found["whole"] == true && found["snapshots"] == 2, "{found:#}");
    }
    let found = site.archiver.run(&["verify", "--quick"])?.success()?;
    ensure!(found.stdout.contains("2 snapshots: nothing is wrong"), "{found}");
    Ok(())
}

#[test]
fn what_is_deleted_of_a_snapshot_is_missed_and_another_one_is_restored() -> Result<()> {
    let site = site(Cluster::builder(), Store::Directory)?;
    shop(&site.cluster, "postgres")?.rows("create table t as select generate_series(1, 1000) as i")?;
    let (older, newer) = (take(&site, &[])?, take(&site, &[])?);
    whole(&site)?;

    for part in ["data/00000000", "label"] {
        let name = format!("snapshot/{}/{part}", id(&older)?);
        let objects = site.place.list()?.into_iter().map(|object| object.key);
        let key = objects.into_iter().find(|key| key.ends_with(&name)).with_context(|| name.clone())?;
        let bytes = site.place.read(&site.scratch, &key)?;
        site.place.remove(&key)?;
        let found = flaws(&site)?;
        ensure!(found.len() == 1 && found[0]["kind"] == "missing" && found[0]["object"] == name, "{found:#?}");
        ensure!(found[0]["snapshots"] == serde_json::json!([id(&older)?]), "{found:#?}");
        let said = site.archiver.run(&["verify", "--quick"])?.exits(1)?;
        ensure!(said.stdout.contains(&format!("cannot be restored: snapshot {}", id(&older)?)), "{said}");
        ensure!(said.stdout.contains("take another snapshot"), "{said}");

        let copy = format!("copy_{}", part.len());
        site.cluster.sql(&format!("create database {copy}"))?;
        let into = conninfo(&site.cluster, &copy);
        let restore = ["snapshot", "restore", id(&newer)?, "--into", &into, "--json"];
        let report = site.restorer.run_long(&restore)?.success()?.json()?;
        ensure!(report["rows"] == 1000 && report["differing"] == serde_json::json!([]), "{report:#}");

        // Put back as it was it is one again.
        site.place.write(&site.scratch, &key, &bytes)?;
        whole(&site)?;
    }
    Ok(())
}
