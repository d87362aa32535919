//! Twenty backups over three timelines: whatever a dry run of `prune` promises is tried by a real restore after the prune.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::site::{Daemon, Site};

use super::{labels, mark, promise_since, prune, rows, site, texts};
use crate::{flow, restored};

const BACKUPS: usize = 20;

/// After this one there is a quiet time in which the window begins.
const QUIET: usize = 10;

/// A site with its history: mark `n` was made after backup `n`, and before the next one.
struct History {
    site: Site,
    /// When each mark was committed, and how many rows there were.
    marks: Vec<(Timestamp, String)>,
    /// The backups, oldest first.
    ids: Vec<String>,
    _daemon: Daemon,
}

/// Production is replaced by its own restore, on the next timeline.
fn replace(site: &mut Site, daemon: Daemon, name: &str) -> Result<Daemon> {
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;
    let next = restored::restore_with(site, "latest", name, &["--keep-archiving"])?;
    drop(std::mem::replace(&mut site.cluster, next));
    site.archiver.set_text("cluster.conninfo", &site.cluster.conninfo());
    site.archiver.write_config()?;
    site.archive()
}

impl History {
    fn make() -> Result<History> {
        let mut site = site(1)?;
        let mut daemon = site.archive()?;
        let mut marks = Vec::new();
        for number in 0..BACKUPS {
            if number == 7 || number == 14 {
                flow::wait_durable(&site.cluster, &mut daemon)?;
                daemon = replace(&mut site, daemon, &format!("timeline{}", number / 7 + 1))?;
            }
            if number == QUIET + 1 {
                // Windows are in whole seconds, and the dry run's is to begin between the same backups as that of the prune.
                site.cluster.sql("select pg_sleep(8)")?;
            }
            site.archiver.run_long(&["backup"])?.success()?;
            marks.push((mark(&site.cluster)?, rows(&site.cluster)?));
        }
        mark(&site.cluster)?;
        flow::wait_durable(&site.cluster, &mut daemon)?;
        assert_eq!(site.cluster.value("select timeline_id from pg_control_checkpoint()")?, "3");
        let ids: Vec<String> = labels(&site)?.into_iter().collect();
        ensure!(ids.len() == BACKUPS, "there are twenty backups");
        Ok(History { site, marks, ids, _daemon: daemon })
    }

    /// Promises any second since a little after the mark before the quiet time: the window begins up to two seconds before that.
    fn promise(&mut self) -> Result<()> {
        let begin = self.marks[QUIET].0 + jiff::SignedDuration::from_millis(2100);
        promise_since(&mut self.site, begin)
    }

    /// The rows when a base backup was complete: those of the mark before it.
    fn rows_of(&self, id: &str) -> Result<&str> {
        let number = self.ids.iter().position(|known| known == id).context("one of the twenty")?;
        let before = number.checked_sub(1).context("the first backup is of an empty cluster")?;
        Ok(&self.marks[before].1)
    }

    /// Restores to a time on the last timeline, and says which base backup that took.
    fn restores_to(&self, time: Timestamp, name: &str, expected: &str) -> Result<String> {
        let time = time.to_string();
        let way = ["--timeline", "3"];
        let plan =
            self.site.restorer.run(&[&["plan", "--to", &time, "--json"], &way[..]].concat())?.success()?.json()?;
        let copy = restored::restore_with(&self.site, &time, name, &way)?;
        self.holds(copy, name, expected)?;
        Ok(plan["base"]["id"].as_str().context("a base backup")?.to_owned())
    }

    /// The restored cluster has these rows; it is gone afterwards.
    fn holds(&self, copy: Cluster, name: &str, expected: &str) -> Result<()> {
        assert_eq!(rows(&copy)?, expected, "{name}");
        drop(copy);
        let folder = self.site.target(name);
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    }
}

/// What is promised in a document of `prune`, but for how far the newest WAL reaches and when it was asked.
fn promised(document: &Value) -> Value {
    let windows: Vec<Value> = document["after"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| serde_json::json!([one["branch"], one["from"], one["from_time"], one["bases"]]))
        .collect();
    serde_json::json!({ "keep": document["keep"], "go": document["go"], "after": windows })
}

#[test]
fn i10_every_promise_of_a_dry_run_is_kept_on_twenty_backups_over_three_timelines() -> Result<()> {
    let mut history = History::make()?;
    history.promise()?;
    let dry = prune(&history.site, &["--dry-run"])?;
    let printed = history.site.archiver.run_long(&["prune", "--dry-run"])?.success()?.stdout;
    assert_eq!(labels(&history.site)?.len(), BACKUPS, "a dry run changes nothing");
    history.promise()?;
    let done = prune(&history.site, &["--grace", "0"])?;
    assert_eq!(done["done"]["waiting"]["objects"], 0, "{done:#}");
    assert_eq!(done["held_back"], serde_json::json!([]), "every way is known");
    assert_eq!(promised(&dry), promised(&done), "the window began in the quiet time of either run");
    let History { site, marks, .. } = &history;
    let stay = texts(&dry["keep"], "id");
    assert_eq!(labels(site)?, stay, "what it said");
    // People are told the same.
    for id in &history.ids {
        let line = printed.lines().find(|line| line.contains(id.as_str())).context("a line for each backup")?;
        ensure!(line.contains(if stay.contains(id) { "stays" } else { "GOES" }), "{line}");
    }

    // The restorer sees the same windows.
    let list = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let seen = |windows: &Value| {
        let ends = windows.as_array().into_iter().flatten().map(|one| (one["branch"].clone(), one["from"].clone()));
        ends.map(|(branch, from)| format!("{branch} {from}")).collect::<BTreeSet<_>>()
    };
    assert_eq!(seen(&list["windows"]), seen(&dry["after"]), "{list:#}\n{dry:#}");

    // Nothing of what is gone is taken for lost, not even beside the backup that stays beyond the window.
    let gaps = list["gaps"].as_array().context("a list")?;
    ensure!(gaps.iter().all(|gap| gap["pruned"] == true), "{list:#}");
    let said = site.restorer.run(&["list"])?.success()?;
    ensure!(said.stdout.contains("no gap.") && !said.stdout.contains("walseal-archiver heal"), "{said}");
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    let bases = status["bases"].as_array().context("base backups")?;
    ensure!(status["stream"]["connected"] == true && bases.iter().all(|base| base["cut_off"] == false), "{status:#}");
    ensure!(bases.iter().any(|base| base["alone"] == true), "one is kept beyond the window: {status:#}");
    site.archiver.run(&["verify", "--quick"])?.success()?;
    // What was not promised is gone.
    site.restorer.run(&["plan", "--to", &marks[0].0.to_string(), "--timeline", "3"])?.exits(1)?;

    // Every second of the window: its first, and each state from there on, on either side of a switch of timelines.
    let begin: Timestamp = dry["window_begin"].as_str().context("a time")?.parse()?;
    ensure!(marks[QUIET].0 < begin && begin < marks[QUIET + 1].0, "{begin}: {marks:?}");
    let mut tried = BTreeSet::from([history.restores_to(begin, "begin", &marks[QUIET].1)?]);
    for (number, (time, expected)) in marks.iter().enumerate().skip(QUIET + 1) {
        tried.insert(history.restores_to(*time, &format!("mark{number}"), expected)?);
    }
    // The windows: the time from which on each can be asked for, and the last moment of the newest.
    for window in dry["after"].as_array().into_iter().flatten() {
        let bases = window["bases"].as_array().context("base backups")?;
        if bases.len() > 1 {
            let from: Timestamp = window["from_time"].as_str().context("a time")?.parse()?;
            let first = bases[0].as_str().context("an id")?;
            tried.insert(history.restores_to(from, "from", history.rows_of(first)?)?);
        }
    }
    history.holds(restored::restore(site, "latest", "latest")?, "latest", &rows(&site.cluster)?)?;
    // The backups that no time led to, of which one stays beyond the window with nothing but its own WAL.
    let alone: Vec<&Value> = dry["keep"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["reasons"] == serde_json::json!(["daily"]))
        .collect();
    ensure!(alone.len() == 1 && !tried.contains(alone[0]["id"].as_str().unwrap_or_default()), "{dry:#}");
    for id in stay.difference(&tried) {
        let copy = restored::restore_with(site, "immediate", "alone", &["--base", id])?;
        history.holds(copy, "alone", history.rows_of(id)?)?;
    }
    // The archiver goes on where it was.
    site.archiver.run_long(&["backup"])?.success()?;
    let status = site.archiver.run(&["status"])?.success()?;
    ensure!(status.stdout.starts_with("Any second from"), "{status}");
    Ok(())
}
