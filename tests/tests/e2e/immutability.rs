//! Objects that nobody removes: object lock in a bucket that has it, and credentials that allow no more than their work needs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::s3_server::OwnServer;
use walseal_tests::site::{Side, Site, Store};
use walseal_tests::store::{Place, S3Server};

use crate::{flow, restored};

/// A site whose repository lies elsewhere than sites' do.
fn moved(site: &mut Site, place: Place) -> Result<()> {
    site.place = place;
    for side in [&mut site.archiver, &mut site.restorer] {
        side.use_place(&site.place);
        side.write_config()?;
    }
    Ok(())
}

/// A bucket of its own, with object lock.
fn locked_bucket(site: &Site, name: &str) -> Result<Place> {
    let Place::S3 { server, prefix } = &site.place else { anyhow::bail!("not a bucket") };
    let bucket = format!("locked-{name}-{}", std::process::id());
    let place = Place::S3 { server: S3Server { bucket, ..server.clone() }, prefix: prefix.clone() };
    place.oracle(&["make-locked-bucket"])?;
    Ok(place)
}

/// `mode` as in the configuration; what becomes of a version that somebody removes who may bypass governance.
fn locks(mode: &str, bypassed: &str) -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1), Store::S3)?;
    site.archiver.set_text("repository.s3.object_lock", mode);
    site.archiver.set_text("retention.window", "1d");
    site.archiver.write_config()?;
    // The run's bucket has none.
    let refused = site.archiver.run(&["init"])?.exits(1)?;
    ensure!(refused.stderr.contains("needs a bucket that was made with object lock"), "{refused}");
    let place = locked_bucket(&site, mode)?;
    moved(&mut site, place)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select g as a from generate_series(1, 1000) g")?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("select pg_switch_wal()")?;
    site.cluster.sql("insert into t values (-1)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;

    let Place::S3 { prefix, .. } = &site.place else { anyhow::bail!("not a bucket") };
    let mut modes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in site.place.oracle(&["locks", &format!("{prefix}/")])?.lines() {
        let (mode, key) = line.split_once(' ').context("a mode and a key")?;
        let kind = key.trim_start_matches(prefix.as_str()).split('/').nth(2).context("a name")?;
        modes.entry(kind.to_owned()).or_default().push(mode.to_owned());
    }
    for (kind, modes) in &modes {
        let expected =
            if ["tail", "lease", "frontier", "intent"].contains(&kind.as_str()) { "-" } else { &*mode.to_uppercase() };
        ensure!(modes.iter().all(|mode| mode == expected), "{kind}: {modes:?}");
    }
    for kind in ["identity", "wal", "base", "ledger", "tail"] {
        ensure!(modes.contains_key(kind), "no {kind} in {modes:?}");
    }
    let data = site.place.list()?.into_iter().map(|object| object.key).find(|key| key.contains("/data/"));
    let data = data.context("a data object")?;
    let said = site.place.oracle(&["try-to-delete-version", &format!("{prefix}/{data}")])?;
    ensure!(said.trim() == "AccessDenied", "{said}");
    let restored = restored::restore(&site, "latest", "locked")?;
    assert_eq!(restored.value("select count(*) from t")?, "1001");
    let said = site.place.oracle(&["try-to-bypass-governance", &format!("{prefix}/{data}")])?;
    ensure!(said.trim() == bypassed, "{said}");
    Ok(())
}

#[test]
fn case_41_objects_are_locked_and_tails_are_not() -> Result<()> {
    locks("governance", "deleted")
}

#[test]
fn case_41_in_compliance_mode_nobody_removes_what_is_locked() -> Result<()> {
    locks("compliance", "AccessDenied")
}

/// What `prune` says, in a bucket with object lock of which the configuration says nothing.
fn prune(site: &Site, more: &[&str]) -> Result<serde_json::Value> {
    site.archiver.run_long(&[&["prune", "--json"], more].concat())?.success()?.json()
}

#[test]
fn case_41_prune_leaves_what_is_locked_and_says_until_when() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "64MB"), Store::S3)?;
    let place = locked_bucket(&site, "prune")?;
    moved(&mut site, place)?;
    for key in ["daily", "weekly", "min_proven"] {
        site.archiver.set(&format!("retention.{key}"), "0");
    }
    site.archiver.set("retention.prune", "false");
    site.archiver.set_text("retention.window", "1s");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select g as a from generate_series(1, 1000) g")?;
    for _ in 0..4 {
        site.archiver.run_long(&["backup"])?.success()?;
        site.cluster.sql("insert into t select g from generate_series(1, 1000) g; select pg_switch_wal()")?;
    }
    // Not one of them lies in the window of a second any more, whose begin is rounded down to a whole one.
    site.cluster.sql("select pg_sleep(2.1); insert into t values (0)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;

    let Place::S3 { prefix, .. } = site.place.clone() else { anyhow::bail!("not a bucket") };
    let full = |key: &str| format!("{prefix}/{key}");
    let oracle = |args: &[&str]| site.place.oracle(args);
    let keys = |part: &str| -> Result<Vec<String>> {
        let objects = site.place.list()?.into_iter().map(|object| object.key);
        Ok(objects.filter(|key| key.contains(part)).collect())
    };
    let free = prune(&site, &["--dry-run"])?;
    ensure!(free["locked"]["objects"] == 0 && free["go"].as_array().is_some_and(|go| go.len() >= 2), "{free:#}");
    // The first segment has a retention, the label of the second backup a legal hold.
    let (wal, label) = (keys("/wal/")?.swap_remove(0), keys("/label")?.swap_remove(1));
    oracle(&["retain", &full(&wal), "864000"])?;
    oracle(&["legal-hold", &full(&label), "ON"])?;
    let dry = prune(&site, &["--dry-run"])?;
    let locked = &dry["locked"];
    ensure!(locked["held"] == 1 && locked["until"].is_string() && locked["next"] == locked["until"], "{dry:#}");
    // What the backup needs whose label stays is kept with it.
    ensure!(locked["objects"].as_u64() > Some(2), "{dry:#}");
    let kept = |plan: &serde_json::Value, why: &str| plan["keep"].to_string().contains(why);
    ensure!(kept(&dry, "\"locked\""), "{dry:#}");
    let said = site.archiver.run_long(&["prune", "--dry-run"])?.success()?.stdout;
    ensure!(said.contains("1 under a legal hold until somebody lifts it"), "{said}");

    let done = prune(&site, &["--grace", "0"])?;
    ensure!(done["done"]["removed"]["objects"].as_u64() > Some(0), "{done:#}");
    assert_eq!(done["done"]["refused"], serde_json::json!([]));
    ensure!(keys("/wal/")?.contains(&wal) && keys("/label")?.contains(&label), "they are there");
    let hidden = oracle(&["markers", &full("")])?;
    ensure!(!hidden.contains(&wal) && !hidden.contains(&label) && hidden.contains("/label"), "{hidden}");
    let id = label.split('/').rev().nth(1).context("an id")?;
    let held = restored::restore_with(&site, "immediate", "held", &["--base", id])?;
    ensure!(held.value("select count(*) from t")?.parse::<u32>()? >= 1000, "it holds what it held");
    site.archiver.run(&["verify", "--quick"])?.success()?;

    oracle(&["legal-hold", &full(&label), "OFF"])?;
    oracle(&["retain", &full(&wal), "1"])?;
    eventually("its time to be over", PATIENCE, || {
        prune(&site, &["--grace", "0"])?;
        Ok((!keys("/wal/")?.contains(&wal)).then_some(()))
    })?;
    let nothing = prune(&site, &["--dry-run"])?;
    ensure!(nothing["locked"]["objects"] == 0 && !kept(&nothing, "\"locked\""), "{nothing:#}");
    Ok(())
}

/// A server of this test, with an identity for each worker that has the policy which `init` prints, and nothing else.
struct Limited(OwnServer);

fn secret_of(worker: &str) -> (String, String) {
    (format!("KEYOF{}", worker.to_uppercase()), format!("the-secret-of-the-{worker}"))
}

impl Limited {
    /// Its bucket is `walseal`, the prefix that the policies are for `orders`.
    fn start(site: &Site) -> Result<Limited> {
        let mut identities = Vec::new();
        let mut policies = Vec::new();
        for worker in ["archiver", "pruner", "restorer", "drill"] {
            let policy = site.archiver.run(&["init", "--print-policy", worker])?.success()?.json()?;
            let (key, secret) = secret_of(worker);
            policies.push(serde_json::json!({ "name": worker, "content": policy.to_string() }));
            identities.push(serde_json::json!({
                "name": worker, "credentials": [{ "accessKey": key, "secretKey": secret }], "policyNames": [worker]
            }));
        }
        identities.push(serde_json::json!({
            "name": "admin", "credentials": [{ "accessKey": "@KEY@", "secretKey": "@SECRET@" }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]
        }));
        let config = serde_json::json!({ "identities": identities, "policies": policies }).to_string();
        let config = site.scratch.file("identities.json", &config)?;
        Ok(Limited(OwnServer::start(&site.scratch, Some(&config))?))
    }

    fn place(&self, worker: &str) -> Place {
        let (access_key_id, secret_access_key) = secret_of(worker);
        let server = S3Server { access_key_id, secret_access_key, ..self.0.server().clone() };
        Place::S3 { server, prefix: "orders".to_owned() }
    }

    fn limits(&self, side: &mut Side, worker: &str) -> Result<()> {
        side.use_place(&self.place(worker));
        side.write_config()
    }
}

#[test]
fn everybody_does_his_work_with_the_policy_that_is_printed_and_no_more() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1), Store::S3)?;
    site.archiver.set_text("repository.url", "s3://walseal/orders");
    site.archiver.write_config()?;
    let limited = Limited::start(&site)?;
    limited.limits(&mut site.archiver, "archiver")?;
    site.archiver.keygen("drill.key")?;
    let key = site.archiver.folder().join("drill.key");
    site.restorer.set_text("keys.writer_key_file", &key.to_string_lossy());
    limited.limits(&mut site.restorer, "restorer")?;
    site.place = limited.place("archiver");

    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select g as a from generate_series(1, 1000) g")?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.archiver.run(&["verify"])?.success()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select count(*) from t")?, "1000");
    // It could write down that it did.
    let ledger = site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let acts: Vec<_> =
        ledger["entries"].as_array().context("a list")?.iter().map(|entry| entry["act"].clone()).collect();
    ensure!(acts.iter().any(|act| act == "restore-finished"), "{acts:?}");

    let victim = site.place.list()?.into_iter().map(|object| object.key).find(|key| key.contains("/data/"));
    let victim = victim.context("a data object")?;
    for worker in ["archiver", "restorer", "drill"] {
        ensure!(limited.place(worker).remove(&victim).is_err(), "the {worker} may delete");
    }
    for worker in ["pruner", "restorer", "drill"] {
        let written = limited.place(worker).write(&site.scratch, &victim, b"other bytes");
        ensure!(written.is_err(), "the {worker} may write below base/");
    }
    site.archiver.run(&["verify"])?.success()?;
    limited.place("pruner").remove(&victim)
}
