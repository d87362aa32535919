//! What was promised and kept: report, `status` and metrics say the same of the same history.

use anyhow::{Context, Result, ensure};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use walseal_common::seal::{Draft, Kind, ObjectDigest, WriterKey};
use walseal_tests::clock::Clock;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::port;
use walseal_tests::site::{Daemon, Site};

use crate::{drill, metrics, split};

/// Another archiver, of which only what it signed is left.
struct Witness {
    key: WriterKey,
    /// The entry that was written last, and its number.
    last: Option<(u32, ObjectDigest)>,
    frontiers: u64,
}

impl Witness {
    fn put(&self, site: &Site, kind: Kind, name: String, body: &Value) -> Result<ObjectDigest> {
        let cluster = site.cluster.system_identifier()?;
        let key = format!("{cluster}/{name}");
        let draft = Draft {
            kind,
            cluster: cluster.parse().map_err(anyhow::Error::msg)?,
            name,
            wal: None,
            frame_size: 1 << 16,
            level: 1,
        };
        let bytes = draft.sign(&self.key, body)?.bytes;
        site.place.write(&site.scratch, &key, &bytes)?;
        Ok(ObjectDigest::of(&bytes))
    }

    /// All of the branch is durable, or a minute of it and more is not.
    fn says(&mut self, site: &Site, branch: &str, at: Timestamp, late: bool) -> Result<()> {
        let name = format!("frontier/{}/{:010}", self.key.public(), 9_999_999_999 - self.frontiers);
        self.frontiers += 1;
        let end = if late { "0/1000100" } else { "0/1000028" };
        let body = json!({
            "branch": branch, "frontier": "0/1000028", "server_end": end, "highest_time": null, "written": at,
            "interval_seconds": 300,
        });
        self.put(site, Kind::Frontier, name, &body).map(|_| ())
    }

    fn records(&mut self, site: &Site, at: Timestamp, act: &str, facts: Value) -> Result<()> {
        let (run, next) = ("00112233aabbccdd", self.last.as_ref().map_or(0, |(number, _)| number + 1));
        let name = format!("ledger/{}/{run}/{next:08}", self.key.public());
        let mut body = json!({
            "run": run, "sequence": next, "previous": self.last.as_ref().map(|(_, digest)| digest), "time": at,
            "actor": "ada@db2", "program": "walseal-archiver 0.1.0", "act": act, "facts": facts,
        });
        if next == 0 {
            body["heads"] = json!([]);
        }
        self.last = Some((next, self.put(site, Kind::Ledger, name, &body)?));
        Ok(())
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

/// Seconds in which more would have been lost.
fn late(objectives: &Value) -> Result<f64> {
    Ok((1.0 - number(&objectives["within_rpo"])?) * number(&objectives["measured_seconds"])?)
}

#[test]
fn report_status_and_metrics_say_the_same_of_the_same_history() -> Result<()> {
    let mut site = drill::site(Cluster::builder())?;
    site.restorer.run_long(&["drill"])?.success()?;
    site.restorer.set("drill.checks", &drill::checks(&[("impossible", "select 1", "2")]));
    site.restorer.write_config()?;
    site.restorer.run_long(&["drill"])?.exits(1)?;

    // Three quarters of an hour ago: two words, silence, a word that is late, and one that is fine. All of it in one month.
    let now = Timestamp::now();
    let month = now.to_zoned(TimeZone::UTC).first_of_month()?.start_of_day()?;
    let moment = now.max(month.timestamp() + SignedDuration::from_hours(1));
    let clock = Clock::new(&site.scratch)?;
    clock.set(moment.duration_since(now).as_secs())?;
    let ago = |minutes: i64| moment - SignedDuration::from_mins(minutes);
    let objects = site.place.list()?;
    let mut branches = objects.iter().filter_map(|object| object.key.split("/tail/").nth(1)?.split('/').next());
    let branch = branches.next().context("a tail")?;
    let mut witness = Witness { key: WriterKey::generate()?, last: None, frontiers: 0 };
    for (minutes, late) in [(50, false), (45, false), (25, true), (20, false), (15, false), (10, false), (5, false)] {
        witness.says(&site, branch, ago(minutes), late)?;
    }
    let stale = json!({ "kind": "one-recipient", "subject": "", "severity": "warning" });
    witness.records(&site, ago(40), "alert-raised", stale)?;
    let told = json!({ "kind": "store-unreachable", "subject": "", "severity": "critical" });
    witness.records(&site, ago(35), "alert-raised", told)?;
    witness.records(&site, ago(22), "base-failed", json!({ "id": null, "class": "server" }))?;

    let (own, drills) =
        (split::public_half(&site.archiver, "writer.key")?, split::public_half(&site.restorer, "drill.key")?);
    let second = witness.key.public();
    let trusted = format!("[\"{own}\", \"{second}\", {{ key = \"{drills}\", roles = [\"drill\"] }}]");
    let port = port::free()?;
    site.archiver.set_text("http.listen", &port.to_string());
    for side in [&mut site.archiver, &mut site.restorer] {
        side.set("keys.trusted_writers", &trusted);
        side.set_text("drill.max_rpo", "30s");
        side.write_config()?;
    }
    let mut daemon = Daemon::start(clock.ticks_for(site.archiver.call(&["run"])))?;
    let month = month.strftime("%Y-%m").to_string();
    daemon.until("the same to be said by all", PATIENCE, || {
        let status = clock.ticks_for(site.archiver.call(&["status", "--json"])).run()?.json()?;
        let kept = status["objectives"].clone();
        if kept.is_null() {
            return Ok(None);
        }
        let report =
            clock.ticks_for(site.restorer.call(&["report", "--month", &month, "--json"])).run()?.success()?.json()?;
        let (said, promises) = (&report["objectives"], &report["promises"]);
        ensure!(said["backups"] == json!({ "good": 1, "all": 2, "share": 0.5 }), "{said}");
        ensure!(said["drills"] == json!({ "good": 1, "all": 2, "share": 0.5 }), "{said}");
        // From the last word before the silence to the first alert that tells of it.
        ensure!(said["mean_seconds_to_detect"] == 600.0 && said["outages"].as_u64() >= Some(1), "{said}");
        ensure!(promises["rpo_seconds"] == 30.0 && kept["rpo_seconds"] == 30.0, "{promises} {kept}");
        for member in ["backups", "drills", "outages", "undetected", "mean_seconds_to_detect"] {
            ensure!(said[member] == kept[member], "{member}: {said} {kept}");
        }
        // The one that was asked later has measured for longer, and what it measured since may all be late.
        let longer = number(&said["measured_seconds"])? - number(&kept["measured_seconds"])?;
        let later = late(said)? - late(&kept)?;
        ensure!(later.abs() <= longer.abs() + 0.001 && late(said)? >= 25.0 * 60.0, "{said} {kept}");
        let shown = metrics::scrape(port)?;
        let of_status = [
            ("walseal_objective_loss_ratio", &kept["within_rpo"]),
            ("walseal_objective_loss_limit_seconds", &kept["rpo_seconds"]),
            ("walseal_objective_measured_seconds", &kept["measured_seconds"]),
            ("walseal_objective_backups_ratio", &kept["backups"]["share"]),
            ("walseal_objective_drills_ratio", &kept["drills"]["share"]),
            ("walseal_objective_detection_seconds", &kept["mean_seconds_to_detect"]),
        ];
        for (metric, value) in of_status {
            // An entry of the daemon's may have come between the two.
            if (shown.of(metric)? - number(value)?).abs() > f64::EPSILON {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let words = clock.ticks_for(site.archiver.call(&["status"])).run()?;
    ensure!(words.stdout.contains("1 of 2 base backups, 1 of 2 drills"), "{words}");
    Ok(())
}
