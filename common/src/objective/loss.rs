//! What would have been lost had the primary died: from the signed words of the archivers on how far WAL was durable.
//!
//! A stretch between two words counts as within the objective when both say so and no word in between was missed. So silence
//! counts as an outage: nobody can tell that nothing would have been lost.

use jiff::Timestamp;
use serde::Serialize;

use super::{Observed, Promises};
use crate::repository::{FrontierRecord, LedgerEntry};

/// Acts that tell of WAL that is not durable.
const TELLING: [&str; 3] = ["gap-recorded", "slot-lost", "conflict"];

/// Alerts that do. Others tell of something else: that one is raised in an outage is chance.
const TELLING_ALERTS: [&str; 9] = [
    "gap",
    "slot-lost",
    "slot-at-risk",
    "confirmed-missing",
    "store-unreachable",
    "two-primaries",
    "conflict",
    "backlog",
    "rpo-exceeded",
];

/// What an outage was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// More than the objective would have been lost.
    Late,
    /// No archiver said anything that reached the repository.
    Unheard,
}

/// A time in which more than the objective would have been lost, or nobody can tell.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outage {
    /// From the last word before it.
    pub from: Timestamp,
    /// To the first word after it, or the end of what is known.
    pub until: Timestamp,
    /// How long that is.
    pub seconds: f64,
    /// The worst of it.
    pub kind: Trouble,
    /// When the first entry of the ledger told of it; null where none did.
    pub detected: Option<Timestamp>,
    /// From its beginning to that.
    pub seconds_to_detect: Option<f64>,
}

/// What was said at a moment.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Word {
    /// When.
    pub time: Timestamp,
    /// Seconds that would have been lost then, at most; null where no commit was known.
    pub seconds: Option<f64>,
}

/// What would have been lost over a time.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Loss {
    /// From when on something is known, or should be: from the first word on that is kept; null where there is none. Retention
    /// removes older words.
    pub measured_from: Option<Timestamp>,
    /// Seconds from then to the end.
    pub measured_seconds: f64,
    /// Of them, those within the objective.
    pub within_seconds: f64,
    /// The others, brought together.
    pub outages: Vec<Outage>,
    /// Every word in that time.
    pub words: Vec<Word>,
}

impl Loss {
    /// What follows from what was observed, by the objective of `promises`.
    pub fn of(promises: &Promises, observed: &Observed<'_>) -> Loss {
        let begin = kept_from(observed);
        let (mut loss, limit) = (Loss::default(), promises.rpo_seconds);
        let (mut last, mut troubles) = (None, Vec::new());
        for record in observed.frontiers.iter().filter(|record| record.written < observed.until) {
            if begin <= record.written {
                loss.words.push(Word { time: record.written, seconds: exposure(record) });
            }
            if let Some(before) = last {
                loss.stretch(begin, record.written, before, exposure(record), limit, &mut troubles);
            }
            last = Some(record);
        }
        if let Some(record) = last {
            loss.stretch(begin, observed.until, record, exposure(record), limit, &mut troubles);
        }
        loss.outages = outages(troubles, observed.entries);
        loss
    }

    /// Judges the time between the word `before` and `until`, when `after` was said.
    fn stretch(
        &mut self,
        begin: Timestamp,
        until: Timestamp,
        before: &FrontierRecord,
        after: Option<f64>,
        limit: f64,
        troubles: &mut Vec<(Timestamp, Timestamp, Trouble)>,
    ) {
        let from = before.written.max(begin);
        let seconds = until.duration_since(from).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        self.measured_from.get_or_insert(from);
        self.measured_seconds += seconds;
        let fine = |seconds: Option<f64>| seconds.is_some_and(|seconds| seconds <= limit);
        let due = before.interval_seconds.saturating_mul(2).saturating_add(60);
        if until.duration_since(before.written).as_secs_f64() > due as f64 {
            troubles.push((from, until, Trouble::Unheard));
        } else if fine(exposure(before)) && fine(after) {
            self.within_seconds += seconds;
        } else {
            troubles.push((from, until, Trouble::Late));
        }
    }
}

/// From when on every word is there, not before the beginning of what was observed: retention removes those that are older.
pub fn kept_from(observed: &Observed<'_>) -> Timestamp {
    let prunes = observed.entries.iter().filter(|entry| entry.body.act.starts_with("prune-"));
    let last = prunes.map(|entry| entry.body.time).max();
    let kept = last.and_then(|last| last.checked_sub(FrontierRecord::KEPT).ok());
    observed.from.max(kept.unwrap_or(Timestamp::MIN))
}

/// Seconds that would have been lost when this was written, at most.
fn exposure(record: &FrontierRecord) -> Option<f64> {
    if record.server_end <= record.at.frontier {
        return Some(0.0);
    }
    record.highest_time.map(|time| record.written.duration_since(time).as_secs_f64().max(0.0))
}

fn outages(troubles: Vec<(Timestamp, Timestamp, Trouble)>, entries: &[LedgerEntry]) -> Vec<Outage> {
    let mut joined: Vec<(Timestamp, Timestamp, Trouble)> = Vec::new();
    for (from, until, kind) in troubles {
        match joined.last_mut() {
            Some((_, end, worst)) if *end >= from => (*end, *worst) = (until.max(*end), kind.max(*worst)),
            _ => joined.push((from, until, kind)),
        }
    }
    let outage = |(from, until, kind): (Timestamp, Timestamp, Trouble)| {
        let telling = |entry: &&LedgerEntry| (from..=until).contains(&entry.body.time) && tells(entry);
        let detected = entries.iter().filter(telling).map(|entry| entry.body.time).min();
        let since = |time: Timestamp| time.duration_since(from).as_secs_f64();
        Outage { from, until, seconds: since(until), kind, detected, seconds_to_detect: detected.map(since) }
    };
    joined.into_iter().map(outage).collect()
}

fn tells(entry: &LedgerEntry) -> bool {
    let kind = || entry.body.facts.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
    match entry.body.act.as_str() {
        "alert-raised" => TELLING_ALERTS.contains(&kind()),
        act => TELLING.contains(&act),
    }
}
