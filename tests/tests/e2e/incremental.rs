//! Incremental base backups, as a user takes and restores them.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Site, Store};

use crate::{flow, restored};

/// What `list --json` says of the base backups, oldest first.
fn bases(site: &Site) -> Result<Vec<Value>> {
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    Ok(listed["bases"].as_array().context("base backups")?.clone())
}

fn fill(cluster: &Cluster) -> Result<()> {
    cluster.sql("create table t (n int primary key, v text) with (fillfactor = 85)")?;
    cluster.sql("insert into t select n, md5(n::text) || md5((n * 7)::text) from generate_series(1, 60000) n")?;
    cluster.sql("vacuum (freeze, analyze)")?;
    Ok(())
}

fn chain(cluster: ClusterBuilder, store: Store) -> Result<()> {
    let mut site = Site::new(cluster.setting("wal_keep_size", "1GB"), store)?;
    fill(&site.cluster)?;
    let mut daemon = site.archive()?;
    let said = site.archiver.run_long(&["backup"])?.success()?;
    ensure!(said.stdout.contains(" (full): "), "{said}");
    site.cluster.sql("update t set v = reverse(v) where n % 3000 = 0")?;
    let said = site.archiver.run_long(&["backup"])?.success()?;
    ensure!(said.stdout.contains(" (incremental to ") && said.stdout.contains(" referenced)"), "{said}");
    let between = restored::dump(&site.cluster)?;
    site.cluster.sql("delete from t where n between 500 and 900; create index on t (v)")?;
    // Neither a new daemon nor one without its state begins anew.
    daemon.sigterm()?.success()?;
    fs::remove_dir_all(site.scratch.path().join("state/resume"))?;
    daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("insert into t select n, 'later' from generate_series(70001, 70100) n")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    let bases = bases(&site)?;
    let types: Vec<&str> = bases.iter().filter_map(|base| base["type"].as_str()).collect();
    assert_eq!(types, ["full", "incremental", "incremental"]);
    assert_eq!((&bases[1]["parent"], &bases[2]["parent"]), (&bases[0]["id"], &bases[1]["id"]));
    let stored = |n: usize| bases[n]["stored_size"].as_u64().unwrap_or_default();
    ensure!(stored(1) < stored(0) / 4 && bases[1]["referenced_size"].as_u64() > Some(stored(0) / 2), "{bases:?}");
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    assert_eq!(status["bases"][2]["type"], "incremental");
    assert_eq!(status["bases"][2]["referenced_size"], bases[2]["referenced_size"]);
    let plan = site.restorer.run(&["plan", "--to", "latest", "--json"])?.success()?.json()?;
    assert_eq!((&plan["base"]["type"], &plan["base"]["parent"]), (&Value::from("incremental"), &bases[1]["id"]));

    let expected = restored::dump(&site.cluster)?;
    for (base, target) in [(1, "immediate"), (2, "latest")] {
        let id = bases[base]["id"].as_str().context("an id")?;
        let restored = restored::restore_with(&site, target, &format!("restored-{base}"), &["--base", id])?;
        restored::sound(restored, if target == "latest" { &expected } else { &between })?;
    }
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;
    Ok(())
}

#[test]
fn a_chain_of_incrementals_in_a_directory_is_restored() -> Result<()> {
    chain(Cluster::builder(), Store::Directory)
}

#[test]
fn a_chain_of_incrementals_in_a_bucket_is_restored() -> Result<()> {
    chain(Cluster::builder(), Store::S3)
}

#[test]
fn case_34_a_chain_of_incrementals_on_postgresql_14_is_restored() -> Result<()> {
    chain(Cluster::builder().major(14), Store::Directory)
}

#[test]
fn case_34_a_chain_of_incrementals_on_postgresql_16_is_restored() -> Result<()> {
    chain(Cluster::builder().major(16), Store::Directory)
}

#[test]
fn case_34_a_chain_of_incrementals_on_postgresql_17_without_summaries_is_restored() -> Result<()> {
    chain(Cluster::builder().major(17).setting("summarize_wal", "off"), Store::Directory)
}

#[test]
fn case_34_a_chain_of_incrementals_on_postgresql_18_is_restored() -> Result<()> {
    chain(Cluster::builder().major(18), Store::Directory)
}

#[test]
fn full_and_incremental_can_be_asked_for_and_a_full_one_says_why() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    site.archiver.set_text("base.full_every", "1s");
    site.archiver.set("base.max_depth", "2");
    site.archiver.write_config()?;
    site.archiver.run(&["init"])?.success()?;
    let take = |flags: &[&str]| site.archiver.run_long(&[&["backup"], flags].concat())?.success();
    let first = take(&["--incremental"])?;
    ensure!(first.stdout.contains(" (full): ") && first.stderr.contains("full: there is none before it"), "{first}");
    // A second that has passed: the last full one began before it.
    site.cluster.sql("select pg_sleep(1)")?;
    let due = take(&[])?;
    ensure!(due.stdout.contains(" (full): ") && due.stderr.contains("base.full_every"), "{due}");
    for _ in 0..2 {
        let incremental = take(&["--incremental"])?;
        ensure!(incremental.stdout.contains(" (incremental to "), "{incremental}");
    }
    let deep = take(&["--incremental"])?;
    ensure!(deep.stdout.contains(" (full): ") && deep.stderr.contains("base.max_depth"), "{deep}");
    let asked = take(&["--full"])?;
    ensure!(asked.stdout.contains(" (full): ") && asked.stderr.contains("it was asked for"), "{asked}");
    let both = site.archiver.run(&["backup", "--full", "--incremental"])?;
    ensure!(both.code == Some(2), "{both}");
    let types: Vec<String> = bases(&site)?.iter().map(|base| base["type"].to_string()).collect();
    assert_eq!(types.iter().filter(|kind| *kind == "\"incremental\"").count(), 2);
    Ok(())
}

#[test]
fn case_36_after_kill_9_nothing_is_visible_and_the_next_backup_goes_on() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    fill(&site.cluster)?;
    site.archiver.run(&["init"])?.success()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let folder = site.place.as_folder(&site.scratch)?.join(site.cluster.system_identifier()?).join("base");
    let count = || Ok::<_, anyhow::Error>(fs::read_dir(&folder)?.count());
    for round in 2..5 {
        site.cluster.sql("update t set v = reverse(v)")?;
        let mut backup = site.archiver.daemon(&["backup"])?;
        // It has stored something, and is somewhere between two steps.
        backup.until("the backup to begin", PATIENCE * 2, || Ok((count()? >= round).then_some(())))?;
        backup.sigkill()?;
    }
    assert_eq!(bases(&site)?.len(), 1);
    site.archiver.run_long(&["backup"])?.success()?;
    assert_eq!(bases(&site)?.len(), 2);
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::sound(restored, &restored::dump(&site.cluster)?)
}
