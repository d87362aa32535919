//! `doctor`: every precondition, one line each, with its fix.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::Cluster;
use walseal_tests::process::Finished;
use walseal_tests::settings::ClusterBuilder;
use walseal_tests::site::{Daemon, Site, Store};
use walseal_tests::store::Place;

use crate::flow::{self, SLOT};

/// A site that streams and has a base backup.
fn healthy(cluster: ClusterBuilder, store: Store) -> Result<(Site, Daemon)> {
    let site = Site::new(cluster, store)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    Ok((site, daemon))
}

/// The line of a check, with what stands below it.
fn told<'a>(shown: &'a Finished, verdict: &str, check: &str) -> Result<&'a str> {
    let head = format!("{verdict:<8} {check:<15} ");
    let at = shown.stdout.find(&head).with_context(|| format!("{head:?} is not told: {shown}"))?;
    let line = &shown.stdout[at..];
    // Its fixes are indented.
    let end =
        line.match_indices('\n').find(|(at, _)| !line[at + 1..].starts_with(' ')).map_or(line.len(), |(at, _)| at);
    Ok(&line[..end])
}

/// "wrote a message at 0/5000060, durable after 0.8 s", as the last line; where it was.
fn message(shown: &Finished) -> Result<Lsn> {
    let last = shown.text().lines().last().unwrap_or_default();
    let words: Vec<&str> = last.split(' ').collect();
    let ["wrote", "a", "message", "at", lsn, "durable", "after", time, unit] = words[..] else {
        anyhow::bail!("{last:?} is not the end: {shown}")
    };
    ensure!(time.parse::<f64>().is_ok() && matches!(unit, "ms" | "s"), "{last:?} has no time");
    Ok(lsn.trim_end_matches(',').parse()?)
}

#[test]
fn case_09_doctor_ends_with_a_message_that_became_durable_and_needs_no_grant() -> Result<()> {
    for (major, store) in [(14, Store::Directory), (15, Store::S3), (18, Store::Directory)] {
        let (mut site, _daemon) = healthy(Cluster::builder().major(major), store)?;
        site.cluster.sql("create role modest login replication")?;
        let account = format!("user={}", site.scratch.account().name);
        site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo().replace(&account, "user=modest"));
        site.archiver.write_config()?;
        let before = site.cluster.flush_lsn()?;
        let shown = site.archiver.run(&["doctor"])?.success()?;
        ensure!(message(&shown)? > before, "the message lies after {before}: {shown}");
        ensure!(flow::confirmed(&site.cluster)? > Some(before), "it was confirmed to the server, too");
        for check in
            ["writer key", "state folder", "daemon", "store", "clock", "server", "version", "replication", "wal_level"]
        {
            told(&shown, "ok", check)?;
        }
        for check in [
            "slot",
            "synchronous",
            "checksums",
            "archive_command",
            "retention",
            "repository",
            "confirmed WAL",
            "base backup",
        ] {
            told(&shown, "ok", check)?;
        }
        ensure!(told(&shown, "ok", "recipients")?.contains("sealed to 2 recipients"), "{shown}");
        // Case 26: with a value, where the disk can be seen.
        ensure!(told(&shown, "WARNING", "kept WAL")?.contains("max_slot_wal_keep_size = '"), "{shown}");
    }
    Ok(())
}

#[test]
fn doctor_tells_machines_the_same() -> Result<()> {
    let (site, daemon) = healthy(Cluster::builder(), Store::Directory)?;
    let json = site.archiver.run(&["doctor", "--json"])?.success()?.json()?;
    assert_eq!((&json["schema"], &json["healthy"]), (&"walseal.doctor/1".into(), &true.into()));
    let after = json["message"]["durable_after_seconds"].as_f64().context("a time")?;
    ensure!(after > 0.0 && json["message"]["lsn"].is_string(), "{json}");
    let findings = |json: &Value| json["findings"].as_array().cloned().context("findings");
    for finding in findings(&json)? {
        ensure!(
            finding["verdict"] == "fine" || finding["fix"].as_array().is_some_and(|fix| !fix.is_empty()),
            "{finding}"
        );
    }
    daemon.sigterm()?.success()?;
    let json = site.archiver.run(&["doctor", "--json"])?.exits(1)?.json()?;
    assert_eq!((&json["healthy"], &json["message"]), (&false.into(), &Value::Null));
    let failed: Vec<Value> = findings(&json)?.into_iter().filter(|finding| finding["verdict"] == "failed").collect();
    let names: Vec<&str> = failed.iter().filter_map(|finding| finding["check"].as_str()).collect();
    assert_eq!(names, ["daemon", "message"]);
    Ok(())
}

#[test]
fn case_13_doctor_names_the_star_that_makes_us_synchronous_and_is_not_held_up_by_it() -> Result<()> {
    let (site, _daemon) = healthy(Cluster::builder(), Store::Directory)?;
    // Nobody of this name will ever come: every commit waits, but not the message's.
    site.cluster.sql("alter system set synchronous_standby_names = 'FIRST 2 (nobody, \"*\")'")?;
    site.cluster.sql("select pg_reload_conf()")?;
    let shown = site.archiver.run(&["doctor"])?.success()?;
    ensure!(told(&shown, "WARNING", "synchronous")?.contains("to fix: name the standbys"), "{shown}");
    message(&shown)?;
    Ok(())
}

#[test]
fn doctor_says_what_is_missing_before_anything_was_made() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    ensure!(told(&shown, "FAILED", "daemon")?.contains("systemctl start walseal-archiver"), "{shown}");
    ensure!(told(&shown, "FAILED", "slot")?.contains("walseal-archiver init"), "{shown}");
    ensure!(told(&shown, "FAILED", "repository")?.contains("walseal-archiver init"), "{shown}");
    ensure!(told(&shown, "FAILED", "message")?.contains("no daemon runs"), "{shown}");
    ensure!(shown.stderr.contains("not everything works: daemon, slot, repository, message"), "{shown}");
    site.archiver.run(&["init"])?.success()?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    ensure!(told(&shown, "FAILED", "base backup")?.contains("to fix: walseal-archiver backup"), "{shown}");
    Ok(())
}

#[test]
fn doctor_goes_on_past_what_is_broken() -> Result<()> {
    let (mut site, daemon) = healthy(Cluster::builder(), Store::Directory)?;
    let known = site.archiver.clone();
    site.archiver.set_text("keys.writer_key_file", "/nowhere/writer.key");
    site.archiver.write_config()?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    ensure!(told(&shown, "FAILED", "writer key")?.contains("/nowhere/writer.key"), "{shown}");
    message(&shown)?;

    site.archiver = known.clone();
    site.archiver.set_text("cluster.conninfo", "host=/nowhere user=walseal");
    site.archiver.write_config()?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    ensure!(told(&shown, "FAILED", "server")?.contains("is the server running there"), "{shown}");
    told(&shown, "ok", "base backup")?;

    // A stranger's server, and nobody who could be taken for its archiver.
    daemon.sigterm()?.success()?;
    let stranger = Cluster::builder().inside(&site.scratch).stranger().start()?;
    site.archiver = known;
    site.archiver.set_text("cluster.conninfo", &stranger.conninfo());
    site.archiver.write_config()?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    let line = told(&shown, "FAILED", "repository")?;
    for id in [site.cluster.system_identifier()?, stranger.system_identifier()?] {
        ensure!(line.contains(&id), "{id} is not named: {shown}");
    }
    Ok(())
}

#[test]
fn doctor_sees_by_the_slot_that_the_newest_end_of_the_repository_was_cut_off() -> Result<()> {
    let (site, daemon) = healthy(Cluster::builder(), Store::Directory)?;
    site.cluster.sql("create table t as select 1 as a")?;
    let mut daemon = daemon;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let Place::Directory(folder) = &site.place else { anyhow::bail!("a folder was asked for") };
    std::fs::remove_dir_all(folder.join(site.cluster.system_identifier()?).join("tail"))?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    let line = told(&shown, "FAILED", "confirmed WAL")?;
    ensure!(line.contains("WAL that was there is gone") && line.contains("to fix"), "{shown}");
    Ok(())
}

#[test]
fn case_14_doctor_names_a_slot_that_was_dropped_behind_the_daemon() -> Result<()> {
    let (site, daemon) = healthy(Cluster::builder(), Store::Directory)?;
    daemon.sigterm()?.success()?;
    site.cluster.sql(&format!("select pg_drop_replication_slot('{SLOT}')"))?;
    let shown = site.archiver.run(&["doctor"])?.exits(1)?;
    ensure!(told(&shown, "FAILED", "slot")?.contains("is not there"), "{shown}");
    Ok(())
}
