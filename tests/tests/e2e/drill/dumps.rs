//! Snapshots of a drill's instance.

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;

use super::next_base::making;
use super::{TABLE, drill, left_behind};

#[test]
fn a_drill_dumps_its_instance_and_the_dump_restores() -> Result<()> {
    let mut site = making(Cluster::builder())?;
    site.restorer.set("drill.make_base", "false");
    site.restorer.set("drill.snapshot", "[\"postgres\"]");
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0), "{finished}");
    let checks = report["checks"].as_array().context("checks")?;
    let check = checks.iter().find(|check| check["kind"] == "snapshot").context("it was dumped")?;
    ensure!(check["outcome"] == "passed", "{check:#}");
    let list = site.restorer.run(&["snapshot", "list", "--json"])?.success()?.json()?;
    let dumped = &list["snapshots"][0];
    let id = dumped["id"].as_str().context("an id")?;
    let base = report["base"]["id"].as_str().context("a base backup")?;
    ensure!(check["found"] == id && dumped["label"].as_str().is_some_and(|label| label.contains(base)), "{list:#}");
    site.cluster.sql("create database copy")?;
    let into = site.cluster.conninfo().replace("dbname=postgres", "dbname=copy");
    site.restorer.run_long(&["snapshot", "restore", id, "--into", &into])?.success()?;
    let count = format!("select count(*) from {TABLE}");
    let copy = walseal_tests::session::Session::connect(&into)?;
    ensure!(copy.value(&count)? == site.cluster.value(&count)?, "the rows of the cluster");

    // What it may not write fails the drill.
    site.restorer.set("drill.snapshot", "[\"no such database\"]");
    site.restorer.write_config()?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(1) && finished.stderr.contains("no such database"), "{finished} {report:#}");
    ensure!(left_behind(&site)?.is_empty());
    Ok(())
}
