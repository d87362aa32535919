//! Scheduled drills where there are base backups and snapshots.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::inbox::Inbox;
use walseal_tests::port;

use super::{left_behind, site};
use crate::metrics;

#[test]
fn base_backups_and_snapshots_are_both_drilled_on_schedule_and_neither_proves_the_other() -> Result<()> {
    let mut site = site(Cluster::builder())?;
    site.archiver.run_long(&["snapshot"])?.success()?;
    site.restorer.set_text("drill.schedule", "* * * * *");
    site.restorer.set_text("alerts.proven_within", "1s");
    // This one is a question to the database that was dumped, in either kind of drill.
    site.restorer.set(
        "drill.checks",
        "[{ name = \"there\", database = \"postgres\", sql = \"select count(*) from customers_of_acme\", expect = \"2001\" }]",
    );
    let told = site.scratch.path().join("told");
    site.restorer.set_text("alerts.command", &format!("cat >> {}", told.display()));
    let (inbox, beats) = (Inbox::start()?, "/beats");
    site.restorer.set_text("alerts.heartbeat_url", &inbox.url(beats));
    let port = port::free()?;
    site.restorer.set_text("http.listen", &port.to_string());
    site.restorer.write_config()?;
    let before = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(before["snapshots"]["count"] == 1 && before["snapshots"]["drills"]["last"].is_null(), "{before:#}");

    let mut running = site.restorer.daemon(&["run"])?;
    running.says("serving /metrics", PATIENCE)?;
    let overdue = |subject: &str| -> Result<bool> {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        let news: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>().unwrap_or_default();
        Ok(news.iter().any(|news| news["kind"] == "drill-overdue" && news["subject"] == subject))
    };
    running.until("both to be overdue", PATIENCE, || Ok((overdue("")? && overdue("snapshots")?).then_some(())))?;
    let beat = running.until("a heartbeat", PATIENCE * 3, || Ok(inbox.posts(beats).first().cloned()))?;
    ensure!(beat["success"] == "drill-passed", "{beat}");
    let seen = metrics::scrape(port)?;
    for of in ["base-backups", "snapshots"] {
        let count = |verdict: &str| seen.of(&format!("walseal_drills_total{{of=\"{of}\",verdict=\"{verdict}\"}}"));
        ensure!(count("passed")? >= 1.0 && count("failed")? == 0.0, "{of}: {seen:?}");
        ensure!(seen.of(&format!("walseal_drill_last_bytes{{of=\"{of}\"}}"))? > 0.0, "{of}: {seen:?}");
        ensure!(seen.of(&format!("walseal_drill_proven_time_seconds{{of=\"{of}\"}}"))? > 0.0, "{of}: {seen:?}");
    }
    running.sigterm()?.success()?;
    ensure!(left_behind(&site)?.is_empty(), "what was restored is gone");

    let ledger = site.restorer.run(&["ledger", "--json"])?.success()?.json()?;
    let entries = ledger["entries"].as_array().context("entries")?;
    for act in ["drill-passed", "snapshot-drilled"] {
        ensure!(entries.iter().any(|entry| entry["act"] == act), "no {act} in {ledger:#}");
    }
    let after = site.archiver.run(&["status", "--json"])?.json()?;
    for drills in [&after["drills"], &after["snapshots"]["drills"]] {
        ensure!(drills["passed"] == true && drills["last_passed"].is_string(), "{after:#}");
    }
    let text = site.archiver.run(&["status"])?.success()?.stdout;
    ensure!(text.contains("snapshots   1, the newest taken") && text.contains("; proven"), "{text}");
    Ok(())
}
