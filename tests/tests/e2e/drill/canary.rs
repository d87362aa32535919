//! The canary: a chain of rows that the daemon writes, and drills read back.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_common::canary::ADD;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Daemon, Site, Store};

use super::mutations::red;
use super::{drill, site};
use crate::flow;

const NEWEST: &str = "select coalesce(max(n), 0) from walseal.canary";

/// A site with a canary that gets a row every second, and its daemon.
fn with_canary() -> Result<(Site, Daemon)> {
    let mut site = site(Cluster::builder())?;
    site.archiver.set("wal.canary", "true");
    site.archiver.set_text("wal.canary_interval", "1s");
    site.archiver.write_config()?;
    let daemon = site.start_daemon()?;
    Ok((site, daemon))
}

/// Waits until there are so many more rows.
fn wait_rows(site: &Site, daemon: &mut Daemon, more: i64) -> Result<i64> {
    let newest = || -> Result<i64> {
        let there = site.cluster.value("select to_regclass('walseal.canary') is not null")? == "t";
        if there { Ok(site.cluster.value(NEWEST)?.parse()?) } else { Ok(0) }
    };
    let wanted = newest()? + more;
    daemon.until(&format!("row {wanted} of the canary"), PATIENCE, || Ok(Some(newest()?).filter(|n| *n >= wanted)))
}

fn canary(report: &Value) -> Result<Value> {
    let checks = report["checks"].as_array().context("checks")?;
    checks.iter().find(|check| check["name"] == "canary").cloned().context("the canary was looked at")
}

#[test]
fn case_45_i12_a_row_of_the_canary_that_is_gone_turns_it_red() -> Result<()> {
    let (site, mut daemon) = with_canary()?;
    wait_rows(&site, &mut daemon, 3)?;
    let doctor = site.archiver.run(&["doctor"])?;
    ensure!(doctor.stdout.contains("walseal.canary is there, and gets rows"), "{doctor}");
    let between = site.cluster.value("select clock_timestamp()::text")?;
    wait_rows(&site, &mut daemon, 2)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0) && canary(&report)?["outcome"] == "passed", "{report:#}");
    ensure!(canary(&report)?["found"].as_str().is_some_and(|found| found.contains("rows 1 to ")), "{report:#}");
    // What came later than the target is not there.
    let (finished, earlier) = drill(&site.restorer, &["--to", &between])?;
    ensure!(finished.code == Some(0), "{finished}");
    let reaches = |report: &Value| -> Result<i64> {
        let found = canary(report)?["found"].as_str().context("words")?.to_owned();
        let words: Vec<&str> = found.split([' ', ',']).collect();
        words.get(4).context("the newest row")?.parse().with_context(|| found.clone())
    };
    ensure!(reaches(&earlier)? < reaches(&report)?, "{earlier:#} {report:#}");

    // The newest one, while the daemon knows of it.
    let newest = wait_rows(&site, &mut daemon, 1)?;
    site.cluster.sql(&format!("delete from walseal.canary where n >= {newest}"))?;
    daemon.says("somebody changed the table", PATIENCE)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    red(&site, &site.restorer, &[], "canary", "is followed by row")?;
    // The oldest.
    site.cluster.sql("delete from walseal.canary")?;
    wait_rows(&site, &mut daemon, 1)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    red(&site, &site.restorer, &[], "canary", "must begin with 1")?;
    // All of it.
    site.cluster.sql("delete from walseal.canary")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.cluster.sql("delete from walseal.canary")?;
    let mut daemon = {
        let mut quiet = site.archiver.clone();
        quiet.set("wal.canary", "false");
        quiet.write_config()?;
        site.start_daemon()?
    };
    flow::wait_durable(&site.cluster, &mut daemon)?;
    red(&site, &site.restorer, &[], "canary", "has no row")?;
    // Not even a table, where there should be one.
    site.cluster.sql("drop schema walseal cascade")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let mut wants = site.restorer.clone();
    wants.set("wal.canary", "true");
    wants.write_config()?;
    red(&site, &wants, &[], "canary", "no database has a table")?;
    Ok(())
}

#[test]
fn a_canary_keeps_a_day_of_rows_and_its_chain_stays_whole() -> Result<()> {
    let (site, mut daemon) = with_canary()?;
    wait_rows(&site, &mut daemon, 1)?;
    daemon.sigterm()?.success()?;
    let add = ADD.replace("$1::bigint", "null::bigint").replace("$2::bytea", "null::bytea");
    site.cluster.sql(&format!("do $do$ begin for i in 1..1500 loop execute $sql${add}$sql$; end loop; end $do$"))?;
    let kept = site.cluster.value("select count(*) || ' ' || max(n) - min(n) from walseal.canary")?;
    ensure!(kept == "1440 1439", "{kept}");
    let mut daemon = site.start_daemon()?;
    wait_rows(&site, &mut daemon, 2)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0) && canary(&report)?["outcome"] == "passed", "{finished} {report:#}");
    Ok(())
}

#[test]
fn where_the_canary_is_not_granted_that_is_said_once_with_the_line_that_grants_it() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.cluster.sql("create role modest login replication")?;
    let account = format!("user={}", site.scratch.account().name);
    site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo().replace(&account, "user=modest"));
    site.archiver.set("wal.canary", "true");
    site.archiver.set_text("wal.canary_interval", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    const LINE: &str = "CREATE SCHEMA walseal AUTHORIZATION modest;";
    daemon.says(LINE, PATIENCE)?;
    let doctor = site.archiver.run(&["doctor"])?;
    ensure!(doctor.stdout.contains("may not keep walseal.canary") && doctor.stdout.contains(LINE), "{doctor}");
    site.cluster.sql(LINE)?;
    wait_rows(&site, &mut daemon, 2)?;
    ensure!(daemon.log().matches(LINE).count() == 1, "once: {}", daemon.log());
    daemon.says("is written again", PATIENCE)?;
    let doctor = site.archiver.run(&["doctor"])?;
    ensure!(doctor.stdout.contains("walseal.canary is there, and gets rows"), "{doctor}");
    Ok(())
}
