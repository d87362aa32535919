//! What somebody who controls the bucket can do to the ledger: each has its name, in `ledger` and in both programs' `verify`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_common::repository::Body;
use walseal_common::seal::{Draft, Kind, WriterKey};
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Site, Store};

use super::entries;
use crate::split;

/// A repository whose daemon was killed, so that the frontier, and nobody else, has seen the end of its run.
struct Scene {
    site: Site,
    /// The entries that are tampered with, of one run, in order: the daemon's.
    run: Vec<Value>,
    /// A base backup.
    base: String,
}

impl Scene {
    /// The last run of this program.
    fn last_run_of(site: &Site, program: &str) -> Result<Vec<Value>> {
        let mut all = entries(site)?;
        let of = |entry: &Value| entry["program"].as_str().is_some_and(|name| name.starts_with(program));
        let last = all.iter().rfind(|entry| of(entry)).context("an entry")?["run"].clone();
        all.retain(|entry| entry["run"] == last);
        Ok(all)
    }

    /// Likewise, and a restore host has seen it since and written a run of its own, which is the one to tamper with.
    fn with_two_writers() -> Result<(Scene, Vec<Value>)> {
        let Scene { mut site, run, base } = Scene::new()?;
        let writer = split::public_half(&site.archiver, "writer.key")?;
        let second = site.restorer.keygen_writer(&site.archiver, "drill.key")?;
        let trusted = format!("[\"{writer}\", {{ key = \"{second}\", roles = [\"drill\"] }}]");
        site.restorer.set_text("keys.writer_key_file", &site.restorer.folder().join("drill.key").to_string_lossy());
        site.restorer.set("keys.trusted_writers", &trusted);
        site.archiver.set("keys.trusted_writers", &trusted);
        site.restorer.write_config()?;
        site.archiver.write_config()?;
        let target = site.target("restored");
        let restore = ["restore", "--to", "latest", "--target-dir", &target.to_string_lossy()];
        site.restorer.run_long(&restore)?.success()?;
        let restores = Scene::last_run_of(&site, "walseal-restorer")?;
        ensure!(restores.len() == 2 && restores[0]["writer"] != run[0]["writer"], "{restores:?}");
        Ok((Scene { site, run: restores, base }, run))
    }

    fn new() -> Result<Scene> {
        let mut site = Site::new(Cluster::builder(), Store::Directory)?;
        site.archiver.set_text("wal.frontier_interval", "1s");
        site.archiver.write_config()?;
        let mut daemon = site.archive()?;
        site.archiver.run_long(&["backup"])?.success()?;
        let last_of = |site: &Site| -> Result<Value> { entries(site)?.last().cloned().context("an entry") };
        daemon.until("a frontier that names the newest entry", PATIENCE, || {
            let entry = last_of(&site)?;
            let head = format!("\"run\":{},\"sequence\":{}", entry["run"], entry["sequence"]);
            let objects = site.place.list()?.into_iter();
            // The newest is listed first.
            let newest = objects.map(|object| object.key).find(|key| key.contains("/frontier/"));
            let Some(newest) = newest else { return Ok(None) };
            let text = site.place.read(&site.scratch, &newest)?;
            Ok(String::from_utf8_lossy(&text).contains(&head).then_some(()))
        })?;
        daemon.sigkill()?;
        let run = Scene::last_run_of(&site, "walseal-archiver")?;
        ensure!(run.len() >= 3, "{run:?}");
        let base = run.iter().find_map(|entry| entry["facts"]["id"].as_str()).context("a base backup")?.to_owned();
        Ok(Scene { site, run, base })
    }

    fn name(&self, at: usize) -> String {
        let (writer, run) = (&self.run[0]["writer"], &self.run[0]["run"]);
        format!("ledger/{}/{}/{at:08}", writer.as_str().unwrap_or_default(), run.as_str().unwrap_or_default())
    }

    fn path(&self, at: usize) -> Result<PathBuf> {
        let cluster = self.site.cluster.system_identifier()?;
        Ok(self.site.scratch.path().join("repository").join(cluster).join(self.name(at)))
    }

    fn read(&self, at: usize) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.path(at)?)?)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.path(at)?, bytes)?)
    }

    /// Every program says these words, and no other words of what is wrong.
    fn is_named(&self, words: &[String]) -> Result<()> {
        let told = self.site.restorer.run(&["ledger"])?.exits(1)?;
        let found = self.site.restorer.run(&["ledger", "--json"])?.exits(1)?.json()?;
        let findings = found["findings"].as_array().context("a list")?;
        ensure!(findings.len() == words.len(), "{words:?}, and not: {findings:?}");
        let keyless = self.site.archiver.run(&["verify", "--quick", "--json"])?.exits(1)?.json()?;
        let opened = self.site.restorer.run_long(&["verify", "--base", &self.base, "--json"])?.exits(1)?.json()?;
        for words in words {
            ensure!(told.stderr.contains(words), "{words:?} is not in {told}");
            for verified in [&keyless, &opened] {
                let flaws = verified["flaws"].as_array().context("a list")?;
                let named = |flaw: &&Value| {
                    flaw["kind"] == "ledger" && flaw["what"].as_str().is_some_and(|what| what.starts_with(words))
                };
                ensure!(flaws.iter().any(|flaw| named(&flaw)), "{words:?} is not in {flaws:?}");
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> Result<()> {
        entries(&self.site)?;
        self.site.archiver.run(&["verify", "--quick"])?.success().map(|_| ())
    }
}

/// Does to the entries `at` and `at + 1` of the run all that can be done, and puts back what was there.
fn each_is_named(scene: &Scene, at: usize) -> Result<()> {
    let after = at + 1;
    let (first, second) = (scene.read(at)?, scene.read(after)?);
    let (run, writer) = (&scene.run[0]["run"], &scene.run[0]["writer"]);
    let of_run = format!("of run {} of {}", run.as_str().context("a run")?, writer.as_str().context("a writer")?);

    std::fs::remove_file(scene.path(at)?)?;
    scene.is_named(&[format!("missing: entry {at} {of_run}")])?;

    scene.write(at, &second)?;
    scene.write(after, &first)?;
    let reordered = |at, as_at| format!("reordered: {} holds what was signed as {}", scene.name(at), scene.name(as_at));
    scene.is_named(&[reordered(at, after), reordered(after, at)])?;
    scene.write(at, &first)?;
    scene.write(after, &second)?;

    // An old entry, once more behind the newest.
    let next = scene.run.len();
    scene.write(next, &first)?;
    let (again, old) = (scene.name(next), scene.name(at));
    scene.is_named(&[format!("replayed: {again} holds once more what was signed as {old}")])?;
    std::fs::remove_file(scene.path(next)?)?;

    let stranger = WriterKey::generate()?;
    let body: Body = serde_json::from_value(scene.run[at].clone())?;
    let body = Body { actor: "somebody else".to_owned(), ..body };
    let cluster = scene.site.cluster.system_identifier()?.parse().map_err(anyhow::Error::msg)?;
    let (kind, name) = (Kind::Ledger, scene.name(at));
    let draft = Draft { kind, cluster, name, wal: None, frame_size: 1 << 16, level: 1 };
    scene.write(at, &draft.sign(&stranger, &body)?.bytes)?;
    scene.is_named(&[format!("forged: {}: written by {}", scene.name(at), stranger.public())])?;
    scene.write(at, &first)?;
    scene.is_whole()
}

#[test]
fn each_tampering_has_its_name_in_ledger_and_in_verify() -> Result<()> {
    each_is_named(&Scene::new()?, 1)
}

#[test]
fn the_chains_of_two_writers_are_checked_each_and_vouch_for_each_other() -> Result<()> {
    let (scene, daemons) = Scene::with_two_writers()?;
    each_is_named(&scene, 0)?;

    // The daemon's newest entry was seen by its own frontier, and by the restore.
    let witness = scene.name(0);
    let of_daemon = Scene { site: scene.site, run: daemons, base: scene.base };
    let last = of_daemon.run.len() - 1;
    let newest = of_daemon.read(last)?;
    std::fs::remove_file(of_daemon.path(last)?)?;
    let told = of_daemon.site.restorer.run(&["ledger"])?.exits(1)?;
    ensure!(
        told.stderr.contains("cut off: ") && told.stderr.contains(&format!("has seen entry {last} of run")),
        "{told}"
    );
    // Without the frontiers the restore alone tells.
    let frontiers = of_daemon.path(0)?.ancestors().nth(4).context("the repository")?.join("frontier");
    std::fs::remove_dir_all(&frontiers)?;
    let told = of_daemon.site.restorer.run(&["ledger"])?.exits(1)?;
    ensure!(told.stderr.contains(&format!("cut off: {witness} has seen entry {last} of run")), "{told}");
    of_daemon.write(last, &newest)?;
    of_daemon.is_whole()?;

    // Of the restore's end nobody knows until the next run has seen it; then all of it is missed.
    let restores = Scene { site: of_daemon.site, run: scene.run, base: of_daemon.base };
    let mut daemon = restores.site.start_daemon()?;
    daemon.until("an entry of the daemon's", PATIENCE, || {
        let run = Scene::last_run_of(&restores.site, "walseal-archiver")?;
        Ok((run[0]["act"] == "daemon-started").then_some(()))
    })?;
    daemon.sigterm()?.success()?;
    for at in [1, 0] {
        std::fs::remove_file(restores.path(at)?)?;
        let told = restores.site.restorer.run(&["ledger"])?.exits(1)?;
        ensure!(told.stderr.contains("cut off: ledger/") && told.stderr.contains("has seen entry 1 of run"), "{told}");
    }
    Ok(())
}

#[test]
fn an_end_that_was_cut_off_disagrees_with_the_frontier() -> Result<()> {
    let scene = Scene::new()?;
    let last = scene.run.len() - 1;
    for at in (0..=last).rev() {
        std::fs::remove_file(scene.path(at)?)?;
        let told = scene.site.restorer.run(&["ledger"])?.exits(1)?;
        let words = format!("has seen entry {last} of run");
        ensure!(told.stderr.contains("cut off: frontier/") && told.stderr.contains(&words), "{told}");
    }
    scene.is_named(&["cut off: frontier/".to_owned()])
}
