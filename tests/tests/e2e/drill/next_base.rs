//! The next base backup, made of a drill's instance (case 55).

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_common::seal::WriterKey;
use walseal_tests::cluster::Cluster;
use walseal_tests::oracle;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Side, Site};

use super::mutations::{green, red};
use super::{TABLE, drill, left_behind, site};
use crate::flow;
use crate::restored;

/// A site whose drills make base backups, with the drill host's key trusted everywhere.
pub(super) fn making(cluster: ClusterBuilder) -> Result<Site> {
    let mut site = site(cluster)?;
    site.restorer.set("drill.make_base", "true");
    trust(&mut site, "[\"drill\", \"base\"]")?;
    Ok(site)
}

/// Trusts the drill host's key with these roles, on both sides.
fn trust(site: &mut Site, roles: &str) -> Result<()> {
    let public = |side: &Side, name: &str| -> Result<String> {
        let key = WriterKey::read_file(&std::fs::read_to_string(side.folder().join(name))?)?;
        Ok(key.public().to_string())
    };
    let (archiver, host) = (public(&site.archiver, "writer.key")?, public(&site.restorer, "drill.key")?);
    let host = format!("{{ key = \"{host}\", roles = {roles} }}");
    site.restorer.set("keys.trusted_writers", &format!("[\"{archiver}\", {host}]"));
    site.archiver.set("keys.trusted_writers", &format!("[{host}]"));
    site.restorer.write_config()?;
    site.archiver.write_config()
}

/// Base backups with a label, oldest first.
fn bases(site: &Site) -> Result<Vec<Value>> {
    let list = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    list["bases"].as_array().cloned().context("base backups")
}

/// Their ids.
fn ids(site: &Site) -> Result<Vec<String>> {
    Ok(bases(site)?.iter().map(|base| base["id"].as_str().unwrap_or_default().to_owned()).collect())
}

#[test]
fn case_55_ten_base_backups_in_a_row_are_made_by_drills_and_restore_exactly() -> Result<()> {
    let site = making(Cluster::builder())?;
    // Of the cluster's own configuration, as ALTER SYSTEM writes it: in a backup by now, and in all that come of it.
    site.cluster.sql("alter system set work_mem = '7MB'")?;
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let mut newest = ids(&site)?.pop().context("a backup")?;
    for step in 0..10 {
        site.cluster.sql(&format!(
            "insert into {TABLE} select i, 'step {step}' from generate_series({0}, {0} + 99) i",
            10_000 + step * 100
        ))?;
        site.cluster.sql("update later set id = id + 1; checkpoint")?;
        site.cluster.sql(&format!("update {TABLE} set note = note || '.' where id % 7 = {}", step % 7))?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        let (finished, report) = drill(&site.restorer, &[])?;
        ensure!(finished.code == Some(0), "{step}: {finished}");
        ensure!(report["base"]["id"] == newest, "the newest one is drilled: {report:#}");
        let made = report["made"].as_str().context("one was made")?.to_owned();
        let listed = bases(&site)?;
        let of = |id: &str| listed.iter().find(|base| base["id"] == id).cloned().context("it is listed");
        ensure!(of(&newest)?["proven"] == true, "its own drill proves it: {listed:#?}");
        let last = of(&made)?;
        ensure!(
            last["derived"]["base"] == newest && last["derived_from_proven"] == true && last["proven"].is_null(),
            "{last:#}"
        );
        newest = made;
    }
    let shown = site.restorer.run(&["list"])?.success()?;
    ensure!(shown.stdout.contains("derived from proven"), "{shown}");
    ensure!(bases(&site)?.iter().filter(|base| base["type"] == "incremental").count() >= 9, "they refer to each other");
    // Behind the last one, too.
    site.cluster.sql(&format!("insert into {TABLE} values (20000, 'the end')"))?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let plan = site.restorer.run(&["plan", "--to", "latest", "--json"])?.success()?.json()?;
    ensure!(plan["base"]["id"] == newest, "{plan:#}");
    let restored = restored::restore(&site, "latest", "restored")?;
    let content = format!("select md5(string_agg(t::text, ',' order by id)) from {TABLE} t");
    assert_eq!(restored.value(&content)?, site.cluster.value(&content)?);
    assert_eq!(restored.value("select sum(id) from later")?, site.cluster.value("select sum(id) from later")?);
    // The cluster's own settings, and nothing of a drill's.
    assert_eq!(restored.value("show work_mem")?, "7MB");
    assert_eq!(restored.value("show autovacuum")?, "on");
    oracle::amcheck(&restored)?;
    assert_eq!(left_behind(&site)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn i12_a_drill_that_fails_or_may_not_publishes_no_base_backup() -> Result<()> {
    let mut site = making(Cluster::builder())?;
    site.cluster.sql("checkpoint")?;
    let before = ids(&site)?;
    site.restorer.set("drill.checks", &super::checks(&[("impossible", "select 1", "2")]));
    site.restorer.write_config()?;
    let report = red(&site, &site.restorer, &[], "assertions", "1")?;
    ensure!(report["made"].is_null() && report["stages"].to_string().contains("next base backup"), "{report:#}");
    assert_eq!(ids(&site)?, before);
    site.restorer.unset("drill.checks");
    // Nobody trusts the host with base backups: that is said, and no pass.
    trust(&mut site, "[\"drill\"]")?;
    red(&site, &site.restorer, &[], "base", "may not sign base backups")?;
    assert_eq!(ids(&site)?, before);
    // A drill that leads elsewhere makes none, and need not.
    let (finished, report) = drill(&site.restorer, &["--to", "random"])?;
    ensure!(finished.code == Some(0) && report["made"].is_null(), "{finished}");
    trust(&mut site, "[\"drill\", \"base\"]")?;
    green(&site.restorer, &[])?;
    assert_eq!(ids(&site)?.len(), before.len() + 1);
    // Nothing was committed since: the next one would be the same again.
    let (finished, report) = drill(&site.restorer, &[])?;
    ensure!(finished.code == Some(0) && report["made"].is_null(), "{finished}");
    Ok(())
}
