//! Whether the repository is whole: what somebody who controls the bucket does to it is found, named, and has a cure.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::process::Finished;
use walseal_tests::site::{Site, Store};
use walseal_tests::told::Told;

use crate::{flow, restored};

/// An archive with two base backups, and no daemon.
fn archived(store: Store) -> Result<Site> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), store)?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select g as a from generate_series(1, 1000) g")?;
    site.archiver.run_long(&["backup"])?.success()?;
    for _ in 0..3 {
        site.cluster.sql("insert into t select g from generate_series(1, 1000) g; select pg_switch_wal()")?;
    }
    site.archiver.run_long(&["backup"])?.success()?;
    // So that no base backup speaks of what lies in the last tails.
    site.cluster.sql("select pg_switch_wal()")?;
    site.cluster.sql("insert into t values (-1)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    Ok(site)
}

fn verify(site: &Site, more: &[&str]) -> Result<Finished> {
    site.archiver.run(&[&["verify", "--json"], more].concat())
}

fn whole(site: &Site) -> Result<Value> {
    let found = verify(site, &[])?.success()?.json()?;
    ensure!(found["schema"] == "walseal.verify/1" && found["whole"] == true, "{found}");
    Ok(found)
}

/// What is wrong: kinds and objects, in order.
fn flaws(site: &Site, more: &[&str]) -> Result<Vec<(String, String)>> {
    let found = verify(site, more)?.exits(1)?.json()?;
    let text = |flaw: &Value, field: &str| flaw[field].as_str().unwrap_or_default().to_owned();
    let flaws = found["flaws"].as_array().context("a list")?;
    ensure!(flaws.iter().all(|flaw| flaw["cure"].as_array().is_some_and(|cure| !cure.is_empty())), "{found}");
    Ok(flaws.iter().map(|flaw| (text(flaw, "kind"), text(flaw, "object"))).collect())
}

fn keys(site: &Site, part: &str) -> Result<Vec<String>> {
    let objects = site.place.list()?.into_iter().map(|object| object.key);
    Ok(objects.filter(|key| key.contains(part)).collect())
}

/// The name of an object below its cluster's folder.
fn name(key: &str) -> String {
    key.split_once('/').map_or(key, |(_, name)| name).to_owned()
}

fn attacks(store: Store) -> Result<()> {
    let site = archived(store)?;
    let sound = whole(&site)?;
    ensure!(sound["bases"] == 2 && sound["foreign"] == 0, "{sound}");
    let objects = site.place.list()?.len();
    ensure!(sound["objects"].as_u64() == Some(objects as u64), "{objects} objects, and {sound}");

    // Deleted: by its name alone.
    let data = keys(&site, "/data/")?;
    let victim = data.first().context("data objects")?;
    let bytes = site.place.read(&site.scratch, victim)?;
    site.place.remove(victim)?;
    assert_eq!(flaws(&site, &["--quick"])?, [("missing".to_owned(), name(victim))]);
    site.place.write(&site.scratch, victim, &bytes)?;
    whole(&site)?;

    // Damaged, and swapped: in what is read.
    let wal = keys(&site, "/wal/")?;
    let (one, other) = (&wal[1], &wal[2]);
    let bytes = [one, other].map(|key| site.place.read(&site.scratch, key));
    let [first, second] = bytes;
    let (first, second) = (first?, second?);
    let mut damaged = first.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (key, bytes) in [(one, &damaged), (other, &first)] {
        site.place.remove(key)?;
        site.place.write(&site.scratch, key, bytes)?;
    }
    let found = flaws(&site, &[])?;
    assert_eq!(found, [("damaged".to_owned(), name(one)), ("misplaced".to_owned(), name(other))]);
    for (key, bytes) in [(one, &first), (other, &second)] {
        site.place.remove(key)?;
        site.place.write(&site.scratch, key, bytes)?;
    }
    whole(&site)?;

    // What was cut off before verify ran for the first time shows only against somebody who says so; what it has seen it remembers.
    let seen = sound["heads"]["branches"][0].clone();
    let told = format!(
        "{}@{}",
        seen["branch"].as_str().context("a branch")?,
        seen["frontier"].as_str().context("a position")?
    );
    let newest = [keys(&site, "/tail/")?, keys(&site, "/frontier/")?].concat();
    for key in &newest {
        site.place.remove(key)?;
    }
    let remembered = flaws(&site, &["--quick"])?;
    ensure!(remembered.iter().any(|(kind, object)| kind == "cut-off" && object.starts_with("wal/")), "{remembered:?}");
    verify(&site, &["--quick", "--accept"])?.success()?;
    verify(&site, &["--quick"])?.success()?;
    let said = flaws(&site, &["--quick", "--witness", &told])?;
    ensure!(said.iter().any(|(kind, _)| kind == "cut-off"), "{said:?}");
    std::fs::remove_file(site.scratch.path().join("state/heads.json"))?;
    let without = verify(&site, &["--quick"])?.success()?.json()?;
    assert_eq!(without["witnesses"], serde_json::json!([]));
    Ok(())
}

#[test]
fn whatever_the_owner_of_a_folder_does_to_it_is_named() -> Result<()> {
    attacks(Store::Directory)
}

#[test]
fn whatever_the_owner_of_a_bucket_does_to_it_is_named() -> Result<()> {
    attacks(Store::S3)
}

#[test]
fn a_hole_is_found_and_cured_with_what_verify_says() -> Result<()> {
    let site = archived(Store::Directory)?;
    whole(&site)?;
    let wal = keys(&site, "/wal/")?;
    let victim = &wal[wal.len() - 2];
    site.place.remove(victim)?;
    let found = verify(&site, &["--quick"])?.exits(1)?.json()?;
    let flaw = &found["flaws"][0];
    ensure!(flaw["kind"] == "hole" && flaw["lost"][0]["from"].is_string(), "{found}");
    let cure = flaw["cure"][0].as_str().context("a cure")?;
    let command =
        cure.split("walseal-archiver ").nth(1).and_then(|rest| rest.split(" [").next()).context("a command")?;
    let command: Vec<&str> = command.split_whitespace().collect();
    site.archiver.run_long(&command)?.success()?;
    whole(&site)?;
    let restored = restored::restore(&site, "latest", "healed")?;
    assert_eq!(restored.value("select count(*) from t")?, "4001");
    Ok(())
}

#[test]
fn the_daemon_is_a_witness_that_nobody_needs_to_have_asked_before() -> Result<()> {
    let site = archived(Store::Directory)?;
    let mut daemon = site.start_daemon()?;
    site.cluster.sql("insert into t values (-2)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let newest = [keys(&site, "/tail/")?, keys(&site, "/frontier/")?].concat();
    ensure!(!newest.is_empty(), "nothing to cut off");
    for key in &newest {
        site.place.remove(key)?;
    }
    let found = flaws(&site, &["--quick"])?;
    // Where the daemon has shipped something since, WAL lies behind what is missing.
    ensure!(found.iter().any(|(kind, _)| kind == "cut-off" || kind == "hole"), "{found:?}");
    daemon.sigkill()
}

#[test]
fn with_keys_every_file_and_every_record_is_read() -> Result<()> {
    let mut site = archived(Store::S3)?;
    let state = site.scratch.dir("remembered")?;
    site.restorer.set_text("cluster.state_dir", &state.to_string_lossy());
    site.restorer.write_config()?;
    let sound = site.restorer.run_long(&["verify", "--json"])?.success()?.json()?;
    ensure!(sound["schema"] == "walseal.verify/1" && sound["whole"] == true, "{sound}");
    let opened = &sound["opened"];
    let figure = |name: &str| opened[name].as_u64().unwrap_or_default();
    ensure!(figure("bases") == 2 && figure("files") > 1000 && figure("wal_bytes") > 3 << 20, "{sound}");
    // All but the manifest itself.
    assert_eq!(figure("compared"), figure("files") - 2);

    let data = keys(&site, "/data/")?;
    let victim = data.last().context("data objects")?;
    let id = name(victim).split('/').nth(1).context("an id")?.to_owned();
    let mut bytes = site.place.read(&site.scratch, victim)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    site.place.write(&site.scratch, victim, &bytes)?;
    let found = site.restorer.run_long(&["verify", "--base", &id, "--json"])?.exits(1)?.json()?;
    let flaws = found["flaws"].as_array().context("a list")?;
    ensure!(flaws.iter().any(|flaw| flaw["kind"] == "damaged" && flaw["object"] == name(victim)), "{found}");

    let newest = [keys(&site, "/tail/")?, keys(&site, "/frontier/")?].concat();
    for key in &newest {
        site.place.remove(key)?;
    }
    let found = site.restorer.run_long(&["verify", "--base", &id, "--json"])?.exits(1)?.json()?;
    let flaws = found["flaws"].as_array().context("a list")?;
    ensure!(flaws.iter().any(|flaw| flaw["kind"] == "cut-off"), "{found}");
    // Who only lists, or plans, hears of it, too.
    let listed = site.restorer.run(&["list", "--usage", "--json"])?.success()?.json()?;
    ensure!(listed["cut_off"][0]["object"].as_str().is_some_and(|name| name.starts_with("wal/")), "{listed}");
    let stored: u64 = site.place.list()?.iter().map(|object| object.size).sum();
    let kinds = listed["usage"].as_object().context("kinds")?;
    assert_eq!(kinds.values().filter_map(|kind| kind["bytes"].as_u64()).sum::<u64>(), stored, "{listed}");
    ensure!(kinds["base"]["objects"].as_u64() > Some(0) && kinds["tail"]["objects"] == 0, "{listed}");
    let planned = site.restorer.run(&["plan", "--to", "immediate"])?.success()?;
    ensure!(planned.stdout.contains("Warning: CUT OFF: wal/"), "{planned}");
    site.restorer.run_long(&["verify", "--base", &id, "--accept"])?.exits(1)?;
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    assert_eq!((&listed["cut_off"], &listed["usage"]), (&serde_json::json!([]), &Value::Null));
    Ok(())
}

#[test]
pub fn the_daemon_says_by_itself_that_something_is_missing_and_that_it_is_back() -> Result<()> {
    let mut site = archived(Store::Directory)?;
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.set_text("verify.every", "1s");
    site.archiver.set_text("verify.read_every", "1d");
    site.archiver.write_config()?;
    let data = keys(&site, "/data/")?;
    let victim = data.first().context("data objects")?;
    let bytes = site.place.read(&site.scratch, victim)?;
    site.place.remove(victim)?;
    let mut daemon = site.start_daemon()?;
    daemon.says("the repository is not whole: missing", PATIENCE)?;
    told.arrives(&mut daemon, "not-whole", &["raised"])?;
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(status["alerts"][0]["kind"] == "not-whole" && status["verified"]["flaws"] == 1, "{status}");
    site.archiver.run(&["status", "--check"])?.exits(2)?;
    site.place.write(&site.scratch, victim, &bytes)?;
    daemon.says("everything is there that anything speaks of", PATIENCE)?;
    told.arrives(&mut daemon, "not-whole", &["raised", "cleared"])?;
    daemon.until("a round over every object", PATIENCE, || {
        let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
        Ok((status["verified"]["round_ended"] == true && status["verified"]["flaws"] == 0).then_some(()))
    })?;
    daemon.sigterm()?.success()?;
    Ok(())
}

#[test]
fn what_is_missing_stands_across_a_restart_until_somebody_verifies() -> Result<()> {
    let mut site = archived(Store::Directory)?;
    let told = Told::by(&mut site.archiver, &site.scratch, "told")?;
    site.archiver.set_text("verify.every", "1s");
    site.archiver.write_config()?;
    let victim = keys(&site, "/data/")?.into_iter().next().context("data objects")?;
    let bytes = site.place.read(&site.scratch, &victim)?;
    site.place.remove(&victim)?;
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "not-whole", &["raised"])?;
    daemon.sigterm()?.success()?;
    site.place.write(&site.scratch, &victim, &bytes)?;
    // The next verification of its own is far away, and what is remembered of alerts may be gone.
    site.archiver.set_text("verify.every", "1d");
    site.archiver.write_config()?;
    let stands = |site: &Site| -> Result<bool> {
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        let alerts = status["alerts"].as_array().with_context(|| status.to_string())?;
        Ok(alerts.iter().any(|alert| alert["kind"] == "not-whole"))
    };
    let daemon = site.start_daemon()?;
    ensure!(stands(&site)?, "a start proves nothing");
    daemon.sigterm()?.success()?;
    std::fs::remove_file(site.scratch.path().join("state/alerts.json"))?;
    let mut daemon = site.start_daemon()?;
    told.arrives(&mut daemon, "not-whole", &["raised", "raised"])?;
    let again = told.of("not-whole")?.pop().context("an alert")?;
    ensure!(
        again["text"].as_str().is_some_and(|text| text.contains("a verification of this host found 1 flaw")),
        "{again}"
    );
    verify(&site, &["--quick"])?.success()?;
    told.arrives(&mut daemon, "not-whole", &["raised", "raised", "cleared"])?;
    ensure!(!stands(&site)?, "it is over");
    // And the other way round.
    site.place.remove(&victim)?;
    verify(&site, &["--quick"])?.exits(1)?;
    told.arrives(&mut daemon, "not-whole", &["raised", "raised", "cleared", "raised"])?;
    daemon.sigterm()?.success()?;
    Ok(())
}
