//! The ledger: what both programs did, in order, signed; and what is wrong with it, by name.

mod tampering;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::site::{Site, Store};

use crate::flow;

fn entries(site: &Site) -> Result<Vec<Value>> {
    let ledger = site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    ensure!(ledger["schema"] == "walseal.ledger/1" && ledger["findings"] == serde_json::json!([]), "{ledger}");
    Ok(ledger["entries"].as_array().context("a list")?.clone())
}

/// What was done, but for what the daemon tidied up after a backup, in its own time.
fn acts(entries: &[Value]) -> Vec<&str> {
    let acts = entries.iter().map(|entry| entry["act"].as_str().unwrap_or_default());
    acts.filter(|act| !act.starts_with("prune-")).collect()
}

fn of<'a>(entries: &'a [Value], act: &str) -> Result<&'a Value> {
    entries.iter().find(|entry| entry["act"] == act).with_context(|| format!("no {act} in {entries:?}"))
}

#[test]
fn what_both_programs_did_stands_in_the_ledger_and_no_name_that_a_user_gave() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::S3)?;
    site.archiver.set_text("walseal.actor", "ada");
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table t as select 1 as a")?;
    site.cluster.value("select pg_create_restore_point('merger_with_acme')")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    // Without a daemon the verb records by itself.
    site.archiver.run_long(&["backup"])?.success()?;

    let target = site.target("restored_for_the_board");
    let restore = ["restore", "--to", "name:merger_with_acme", "--target-dir", &target.to_string_lossy(), "--start"];
    let unsigned = site.restorer.run_long(&restore)?.success()?;
    ensure!(unsigned.stderr.matches("not recorded in the ledger").count() == 1, "{unsigned}");
    std::fs::remove_dir_all(&target)?;
    site.archiver.keygen("drill.key")?;
    let key = site.archiver.folder().join("drill.key");
    site.restorer.set_text("keys.writer_key_file", &key.to_string_lossy());
    site.restorer.write_config()?;
    let signed = site.restorer.run_long(&restore)?.success()?;
    ensure!(!signed.stderr.contains("not recorded"), "{signed}");

    let entries = entries(&site)?;
    assert_eq!(
        acts(&entries),
        [
            "init",
            "slot-created",
            "daemon-started",
            "base-started",
            "base-finished",
            "daemon-stopped",
            "base-started",
            "base-finished",
            "restore-started",
            "restore-finished",
        ]
    );
    ensure!(entries[..8].iter().all(|entry| entry["actor"] == "ada"), "{entries:?}");
    let program = entries[0]["program"].as_str().context("a program")?;
    ensure!(program.starts_with("walseal-archiver "), "{program}");
    assert_eq!(of(&entries, "daemon-stopped")?["facts"], serde_json::json!({ "asked": true, "bytes_left": 0 }));
    let (started, finished) = (of(&entries, "restore-started")?, of(&entries, "restore-finished")?);
    ensure!(started["facts"]["directory"] == finished["facts"]["directory"], "{started} {finished}");
    assert_eq!(finished["facts"]["recovery"], "promoted");
    ensure!(started["facts"]["target"]["name"].as_str().is_some_and(|name| name.len() == 16), "{started}");
    // Anybody who lists the bucket reads these.
    let folder = site.place.as_folder(&site.scratch)?;
    oracle::no_plaintext(&site.scratch, &folder, &["merger_with_acme", "for_the_board", "walseal_orders"])?;
    let shown = site.restorer.run(&["ledger"])?.success()?;
    let all = format!("{} entries, every signature and chain verified.", entries.len());
    ensure!(shown.stdout.contains(&all), "{shown}");
    Ok(())
}

#[test]
fn an_entry_that_is_gone_or_changed_is_named_and_the_verb_fails() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    site.archiver.run_long(&["backup"])?.success()?;
    daemon.sigterm()?.success()?;
    entries(&site)?;
    let daemons = |object: &String| object.contains("/ledger/") && object.ends_with("/00000001");
    let mut keys: Vec<String> = site.place.list()?.into_iter().map(|object| object.key).collect();
    keys.retain(daemons);
    // The second entry of init's run, and of the daemon's.
    ensure!(keys.len() == 2, "{keys:?}");
    let path = |key: &str| site.scratch.path().join("repository").join(key);
    let key = keys.iter().find(|key| path(&key.replace("/00000001", "/00000002")).exists()).context("a longer run")?;
    let whole = std::fs::read(path(key))?;
    std::fs::remove_file(path(key))?;
    let missing = site.restorer.run(&["ledger"])?.exits(1)?;
    ensure!(missing.stderr.contains("missing: entry 1 of run"), "{missing}");
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path(key), &bytes)?;
    let forged = site.restorer.run(&["ledger"])?.exits(1)?;
    ensure!(forged.stderr.contains("refused: ledger/"), "{forged}");
    std::fs::write(path(key), &whole)?;
    entries(&site).map(|_| ())
}

#[test]
fn a_failover_and_its_surplus_stand_in_the_ledger() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let standby = site.standby("standby", &site.cluster, &[])?;
    let rest = site.cluster.conninfo().replace(&format!("host={}", site.cluster.sockets().display()), "");
    let hosts = format!("{},{}", site.cluster.sockets().display(), standby.sockets().display());
    site.archiver.set_text("cluster.conninfo", &format!("host={hosts} {rest} target_session_attrs=read-write"));
    site.archiver.write_config()?;
    let mut daemon = site.archive()?;
    site.cluster.sql("create table t as select 1 as a")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    site.cluster.stop(Stop::Fast)?;
    standby.value("select pg_promote()")?;
    site.cluster = standby;
    daemon.until("the stream to follow", PATIENCE, || {
        let status = site.archiver.run(&["status", "--json"])?.json()?;
        let branch = status["stream"]["branch"].as_str().unwrap_or_default().to_owned();
        Ok((status["stream"]["connected"] == true && branch.starts_with("00000002-")).then_some(()))
    })?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    let entries = entries(&site)?;
    let followed = of(&entries, "timeline-followed")?;
    ensure!(followed["facts"]["from"].as_str().is_some_and(|branch| branch.starts_with("00000001-")), "{followed}");
    ensure!(followed["facts"]["to"].as_str().is_some_and(|branch| branch.starts_with("00000002-")), "{followed}");
    ensure!(followed["facts"]["surplus_bytes"].is_number(), "{followed}");
    // The slot was not there, which was an alert.
    let raised = of(&entries, "alert-raised")?;
    ensure!(raised["facts"]["kind"] == "slot-lost" && raised["facts"]["subject"] != "walseal_orders", "{raised}");
    of(&entries, "slot-lost").and(of(&entries, "slot-created")).map(|_| ())
}

#[test]
fn a_restore_that_may_not_write_to_the_ledger_goes_on_and_says_so() -> Result<()> {
    let mut site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    daemon.sigterm()?.success()?;
    site.archiver.keygen("drill.key")?;
    let key = site.archiver.folder().join("drill.key");
    site.restorer.set_text("keys.writer_key_file", &key.to_string_lossy());
    site.restorer.write_config()?;
    let cluster = site.cluster.system_identifier()?;
    let folder = site.scratch.path().join("repository").join(cluster).join("ledger");
    let permit = |mode| std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(mode));
    permit(0o555)?;
    let target = site.target("restored");
    let restore = ["restore", "--to", "latest", "--target-dir", &target.to_string_lossy()];
    let restored = site.restorer.run_long(&restore)?.success()?;
    permit(0o755)?;
    ensure!(restored.stderr.matches("not recorded in the ledger").count() == 1, "{restored}");
    ensure!(restored.stderr.contains("restore-started, restore-finished"), "{restored}");
    ensure!(acts(&entries(&site)?).iter().all(|act| !act.starts_with("restore")), "nothing was written");
    // A key that is not on this host, as where one configuration file serves both.
    site.restorer.set_text("keys.writer_key_file", "/nowhere/writer.key");
    site.restorer.write_config()?;
    std::fs::remove_dir_all(&target)?;
    let restored = site.restorer.run_long(&restore)?.success()?;
    ensure!(restored.stderr.matches("not recorded in the ledger").count() == 1, "{restored}");
    Ok(())
}
