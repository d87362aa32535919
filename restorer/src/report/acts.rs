//! Who did what: the entries of the ledger in words, the people, the alerts, and the restores.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use walseal_common::repository::{LedgerEntry, ObjectName};
use walseal_common::terminal::units;

use super::Facts;

/// Something that was done, or happened.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// Who acted.
    pub actor: String,
    /// The program and its version.
    pub program: String,
    /// The word of the format.
    pub act: String,
    /// What that means, in words.
    pub words: String,
    /// Whether something went wrong.
    pub bad: bool,
    /// The entry's name.
    pub entry: String,
}

/// Somebody who acted.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Actor {
    /// Who, by the own word.
    pub actor: String,
    /// Through which program.
    pub program: String,
    /// The key that signed.
    pub writer: String,
    /// How often, by act.
    pub acts: BTreeMap<String, usize>,
}

/// An alert.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Alert {
    /// Its kind.
    pub kind: String,
    /// How bad it was.
    pub severity: String,
    /// When it was raised.
    pub raised: Timestamp,
    /// When it was over; null where it still stood.
    pub cleared: Option<Timestamp>,
}

/// A restore.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Restore {
    /// When it began to write.
    pub started: Timestamp,
    /// Who restored.
    pub actor: String,
    /// Where it led, in words.
    pub target: String,
    /// The base backup.
    pub base: String,
    /// The data directory, obscured.
    pub directory: String,
    /// `finished`, `failed`, or null where no end was recorded.
    pub outcome: Option<&'static str>,
    /// How long it took, where it was finished.
    pub seconds: Option<f64>,
}

/// Everything that was done in a month.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Acts {
    /// By time.
    pub events: Vec<Event>,
    /// By name.
    pub actors: Vec<Actor>,
    /// By time, those that were raised before and stood in the month among them.
    pub alerts: Vec<Alert>,
    /// By time.
    pub restores: Vec<Restore>,
}

#[derive(Deserialize)]
struct AlertFacts {
    kind: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    severity: String,
}

#[derive(Deserialize)]
struct RestoreFacts {
    directory: String,
    base: String,
    target: Value,
}

#[derive(Deserialize)]
struct EndFacts {
    directory: String,
    seconds: Option<f64>,
}

impl Acts {
    pub(super) fn of(facts: &Facts) -> Acts {
        let mut acts = Acts::default();
        let mut actors: BTreeMap<(String, String, String), BTreeMap<String, usize>> = BTreeMap::new();
        // Alerts that stand, and restores that go on, by what their end names.
        let mut standing: BTreeMap<(String, String, String), Alert> = BTreeMap::new();
        let mut running: BTreeMap<(String, String), Restore> = BTreeMap::new();
        for entry in facts.ledger.entries.iter().filter(|entry| entry.body.time < facts.until()) {
            let (writer, body) = (entry.writer.to_string(), &entry.body);
            match body.act.as_str() {
                "alert-raised" => {
                    if let Some(AlertFacts { kind, subject, severity }) = entry.facts() {
                        let alert = Alert { kind: kind.clone(), severity, raised: body.time, cleared: None };
                        standing.entry((writer.clone(), kind, subject)).or_insert(alert);
                    }
                }
                "alert-cleared" => {
                    let told = entry.facts::<AlertFacts>();
                    let alert = told.and_then(|told| standing.remove(&(writer.clone(), told.kind, told.subject)));
                    acts.alerts.extend(alert.map(|alert| Alert { cleared: Some(body.time), ..alert }));
                }
                "restore-started" => {
                    if let Some(RestoreFacts { directory, base, target }) = entry.facts() {
                        let (actor, target, key) =
                            (body.actor.clone(), target_words(&target), (body.run.to_string(), directory.clone()));
                        let restore = Restore {
                            started: body.time,
                            actor,
                            target,
                            base,
                            directory,
                            outcome: None,
                            seconds: None,
                        };
                        acts.restores.extend(running.insert(key, restore));
                    }
                }
                "restore-finished" | "restore-failed" => {
                    let outcome = if body.act == "restore-finished" { "finished" } else { "failed" };
                    let told = entry.facts::<EndFacts>();
                    let ended = told.and_then(|told| {
                        let restore = running.remove(&(body.run.to_string(), told.directory))?;
                        Some(Restore { outcome: Some(outcome), seconds: told.seconds, ..restore })
                    });
                    acts.restores.extend(ended);
                }
                _ => {}
            }
            if facts.period.contains(body.time) {
                let key = (body.actor.clone(), body.program.clone(), writer);
                *actors.entry(key).or_default().entry(body.act.clone()).or_default() += 1;
                acts.events.push(event(entry));
            }
        }
        acts.alerts.extend(standing.into_values());
        acts.alerts.retain(|alert| alert.cleared.is_none_or(|cleared| cleared >= facts.period.from));
        acts.alerts.sort_by_key(|alert| alert.raised);
        acts.restores.extend(running.into_values());
        acts.restores.retain(|restore| facts.period.contains(restore.started));
        acts.restores.sort_by_key(|restore| restore.started);
        let actor = |((actor, program, writer), acts)| Actor { actor, program, writer, acts };
        acts.actors = actors.into_iter().map(actor).collect();
        acts
    }
}

fn event(entry: &LedgerEntry) -> Event {
    let body = &entry.body;
    Event {
        time: body.time,
        actor: body.actor.clone(),
        program: body.program.clone(),
        act: body.act.clone(),
        words: words(entry),
        bad: is_bad(&body.act),
        entry: ObjectName::Ledger(Box::new(entry.writer), body.run, body.sequence).to_string(),
    }
}

fn is_bad(act: &str) -> bool {
    ["-failed", "-lost", "-raised", "gap-recorded", "conflict"].iter().any(|end| act.ends_with(end))
}

/// What an entry says. Acts that this version does not know are shown as they are.
fn words(entry: &LedgerEntry) -> String {
    let facts = &entry.body.facts;
    let text = |name: &str| match facts.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "unknown".to_owned(),
        Some(other) => other.to_string(),
    };
    let size = |name: &str| facts.get(name).and_then(Value::as_u64).map_or_else(|| text(name), units::size);
    let took = |name: &str| facts.get(name).and_then(Value::as_f64).map_or_else(|| text(name), length);
    match entry.body.act.as_str() {
        "init" => format!("made the repository, for PostgreSQL {}", text("postgres_major")),
        "daemon-started" => "the daemon began".to_owned(),
        "daemon-stopped" if facts.get("asked") == Some(&Value::Bool(false)) => {
            format!("the daemon ended by itself; {} of WAL were not in the repository", size("bytes_left"))
        }
        "daemon-stopped" => format!("the daemon was stopped; {} of WAL were not in the repository", size("bytes_left")),
        "base-started" => format!("began base backup {}", text("id")),
        "base-finished" => {
            let (cluster, stored, took) = (size("cluster_size"), size("stored_size"), took("seconds"));
            format!("finished base backup {}: {cluster}, {stored} of it stored, in {took}", text("id"))
        }
        "base-failed" => format!("base backup {} failed: {}", text("id"), text("class")),
        "timeline-followed" => format!("followed from branch {} to {} at {}", text("from"), text("to"), text("fork")),
        "gap-recorded" => format!("WAL is lost from {} to {} on branch {}", text("from"), text("to"), text("branch")),
        "gap-healed" => format!("WAL from {} to {} on branch {} was found", text("from"), text("to"), text("branch")),
        "conflict" => format!("the repository held other bytes, of writer {}", text("writer")),
        "slot-created" => "made the replication slot".to_owned(),
        "slot-dropped" => "dropped the replication slot".to_owned(),
        "slot-lost" => "the replication slot was gone, or kept no WAL any more".to_owned(),
        "adopted" => format!("named the living writer of branch {}: {}", text("branch"), text("writer")),
        "alert-raised" => format!("alert ({}): {}", text("severity"), text("kind")),
        "alert-cleared" => format!("alert over: {}", text("kind")),
        "restore-started" => {
            let target = facts.get("target").map(target_words).unwrap_or_default();
            format!("began to restore base backup {} to {target}, into directory {}", text("base"), text("directory"))
        }
        "restore-finished" => {
            let (bytes, seconds) = (size("bytes"), took("seconds"));
            format!("restored directory {}: {bytes} in {seconds}", text("directory"))
        }
        "restore-failed" => format!("the restore into directory {} failed: {}", text("directory"), text("class")),
        "drill-passed" => format!("a drill proved base backup {}", text("base")),
        "drill-failed" => {
            let failed = facts.get("failed").and_then(Value::as_array);
            let failed: Vec<&str> = failed.into_iter().flatten().filter_map(Value::as_str).collect();
            format!("a drill of base backup {} failed: {}", text("base"), failed.join(", "))
        }
        "snapshot-finished" => format!("finished snapshot {} in {}", text("id"), took("seconds")),
        "snapshot-failed" => format!("a snapshot failed: {}", text("class")),
        "snapshot-removed" => format!("removed snapshot {}, which had its time", text("id")),
        "snapshot-restored" => format!("restored snapshot {} to a server, with {} errors", text("id"), text("errors")),
        "snapshot-drilled" if facts.get("passed") == Some(&Value::Bool(true)) => {
            format!("a drill proved snapshot {}", text("id"))
        }
        "snapshot-drilled" => format!("a drill of snapshot {} failed", text("id")),
        "prune-started" => format!("began to remove {} objects that retention does not keep", text("objects")),
        "prune-finished" => format!(
            "removed {} objects with {}; the store refused to let {} go",
            text("objects"),
            size("bytes"),
            text("refused")
        ),
        "held" if facts.get("until").is_some_and(|until| !until.is_null()) => {
            format!("has base backup {} kept until {}", text("base"), text("until"))
        }
        "held" => format!("no longer has base backup {} kept", text("base")),
        "entries-lost" => format!("{} entries were never written", text("count")),
        act => {
            let facts = facts.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{act}{}", facts.collect::<String>())
        }
    }
}

/// Where a restore leads.
fn target_words(target: &Value) -> String {
    match target {
        Value::String(word) => word.clone(),
        Value::Object(one) => one
            .iter()
            .map(|(kind, value)| format!("{kind} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect(),
        other => other.to_string(),
    }
}

/// A length of time in words; what is no length has none.
pub(super) fn length(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "an unknown time".to_owned(), units::duration)
}
