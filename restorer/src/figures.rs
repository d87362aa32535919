//! What the daemon shows over HTTP: figures about drills for Prometheus, and whether they pass, for monitors.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use walseal_common::repository::Provable;
use walseal_common::telemetry::{AlertKind, Alerts, EXPOSITION_TYPE, Exposition, Labels, Page, Pages};

use crate::drill::report::{Outcome, Report, Stage, Verdict};

/// The last drill.
#[derive(Clone, Debug)]
struct LastDrill {
    time: Timestamp,
    passed: bool,
    /// Why there is no record of it, where there is none.
    unrecorded: Option<String>,
    /// What it found; only of one that this process held.
    measured: Option<Measured>,
}

/// What a drill found, or several of the same occasion.
#[derive(Clone, Debug)]
pub struct Measured {
    passed: bool,
    seconds: f64,
    first_query_seconds: Option<f64>,
    bytes: u64,
    stages: Vec<Stage>,
    outcomes: Vec<Outcome>,
}

impl Default for Measured {
    /// Of none.
    fn default() -> Measured {
        let (stages, outcomes) = (Vec::new(), Vec::new());
        Measured { passed: true, seconds: 0.0, first_query_seconds: None, bytes: 0, stages, outcomes }
    }
}

impl Measured {
    /// By a drill of the cluster.
    pub fn of(report: &Report) -> Measured {
        Measured {
            passed: report.verdict == Verdict::Passed,
            seconds: report.seconds,
            first_query_seconds: report.first_query_seconds,
            bytes: report.bytes,
            stages: report.stages.clone(),
            outcomes: report.checks.iter().map(|check| check.outcome).collect(),
        }
    }

    /// By a drill of a snapshot.
    pub fn of_snapshot(report: &crate::snapshot::drill::Report) -> Measured {
        Measured {
            passed: report.verdict == Verdict::Passed,
            seconds: report.seconds,
            first_query_seconds: None,
            bytes: report.bytes,
            stages: report.stages.clone(),
            outcomes: report.checks.iter().map(|check| check.outcome).collect(),
        }
    }

    /// With another one: passed only if both are, and all else together.
    pub fn add(&mut self, other: Measured) {
        self.passed &= other.passed;
        self.seconds += other.seconds;
        self.bytes += other.bytes;
        for stage in other.stages {
            match self.stages.iter_mut().find(|known| known.name == stage.name) {
                Some(known) => known.seconds += stage.seconds,
                None => self.stages.push(stage),
            }
        }
        self.outcomes.extend(other.outcomes);
    }
}

/// What is known of drills of a kind of backup.
#[derive(Clone, Debug, Default)]
struct Known {
    running: bool,
    last: Option<LastDrill>,
    /// When one last passed, as the ledger says, whoever held it.
    proven: Option<Timestamp>,
    passed: u64,
    failed: u64,
}

/// The figures of one daemon.
#[derive(Debug)]
pub struct Figures {
    started: Timestamp,
    alerts: Alerts,
    next: Mutex<Option<Timestamp>>,
    known: Mutex<BTreeMap<Provable, Known>>,
}

impl Figures {
    /// Of a daemon that starts now.
    pub fn new(alerts: Alerts) -> Figures {
        Figures { started: Timestamp::now(), alerts, next: Mutex::default(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Provable, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to be drilled, and what the ledger says of each: when a drill last passed, and how the last one ended.
    pub fn read(&self, kinds: impl IntoIterator<Item = (Provable, Option<Timestamp>, Option<(Timestamp, bool)>)>) {
        let mut known = self.known();
        let mut before = std::mem::take(&mut *known);
        for (what, proven, last) in kinds {
            let mut this = before.remove(&what).unwrap_or_default();
            this.proven = proven.max(this.proven);
            // Of what this process held it knows more.
            if let (None, Some((time, passed))) = (&this.last, last) {
                this.last = Some(LastDrill { time, passed, unrecorded: None, measured: None });
            }
            known.insert(what, this);
        }
    }

    /// When the next drill is.
    pub fn next(&self, next: Timestamp) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// A drill begins.
    pub fn begun(&self, what: Provable) {
        self.known().entry(what).or_default().running = true;
    }

    /// It was judged, and is recorded unless `unrecorded` says why not.
    pub fn judged(&self, what: Provable, measured: Measured, unrecorded: Option<String>) {
        let (time, passed) = (Timestamp::now(), measured.passed);
        let mut known = self.known();
        let known = known.entry(what).or_default();
        known.running = false;
        let count = if passed { &mut known.passed } else { &mut known.failed };
        *count += 1;
        if passed && unrecorded.is_none() {
            known.proven = Some(time);
        }
        known.last = Some(LastDrill { time, passed, unrecorded, measured: Some(measured) });
    }

    fn health(&self) -> Page {
        let known = self.known();
        let trouble = known.iter().find_map(|(what, known)| {
            let (of, last) = (what.word(), known.last.as_ref()?);
            match &last.unrecorded {
                _ if !last.passed => Some(format!("the drill of {of} of {:.0} failed", last.time)),
                Some(why) => {
                    let why = why.replace('\n', " ");
                    Some(format!("the drill of {of} of {:.0} passed, not recorded: {why}", last.time))
                }
                None => None,
            }
        });
        match trouble {
            Some(why) => Page::text(503, format!("{why}\n")),
            None => Page::text(200, "ok\n"),
        }
    }

    fn metrics(&self) -> String {
        let known = self.known().clone();
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = Exposition::of_daemon(env!("CARGO_PKG_VERSION"), self.started);
        each(&mut page, &known, "walseal_drill_running", "1 while a drill is held.", |known| Some(yes(known.running)));
        let of_next = |_: &Known| next.map(seconds);
        each(&mut page, &known, "walseal_drill_next_time_seconds", "When the next drill is due, since 1970.", of_next);
        each(
            &mut page,
            &known,
            "walseal_drill_proven_time_seconds",
            "When a drill of this repository last passed, by the ledger, since 1970.",
            |known| known.proven.map(seconds),
        );
        let counts = known.iter().flat_map(|(what, known)| {
            [("passed", known.passed), ("failed", known.failed)]
                .map(|(verdict, count)| ([("of", what.word()), ("verdict", verdict)], count))
        });
        let counts: Vec<_> = counts.collect();
        page.counters(
            "walseal_drills_total",
            "Drills that this daemon held, by verdict.",
            counts.iter().map(|(labels, count)| (labels as Labels<'_>, *count)),
        );
        of_last(&mut page, &known);
        page.alerts(&self.alerts, &[AlertKind::DrillFailed, AlertKind::DrillOverdue]);
        page.finish()
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}

fn yes(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// A gauge of each kind of backup, of what is known of it.
fn each(
    page: &mut Exposition,
    known: &BTreeMap<Provable, Known>,
    name: &str,
    help: &str,
    of: impl Fn(&Known) -> Option<f64>,
) {
    let samples: Vec<_> = known.iter().filter_map(|(what, known)| Some(([("of", what.word())], of(known)?))).collect();
    page.gauges(name, help, samples.iter().map(|(labels, value)| (labels as Labels<'_>, *value)));
}

/// The last drill of each kind: how it ended, and what only the process knows that held it.
fn of_last(page: &mut Exposition, known: &BTreeMap<Provable, Known>) {
    let last = |of: fn(&LastDrill) -> f64| move |known: &Known| known.last.as_ref().map(of);
    let time = last(|last| seconds(last.time));
    each(page, known, "walseal_drill_last_time_seconds", "When the last drill was judged, since 1970.", time);
    each(page, known, "walseal_drill_last_passed", "1 if it passed.", last(|last| yes(last.passed)));
    let recorded = last(|last| yes(last.unrecorded.is_none()));
    each(page, known, "walseal_drill_last_recorded", "1 if it is in the ledger.", recorded);
    let measured =
        |of: fn(&Measured) -> Option<f64>| move |known: &Known| known.last.as_ref()?.measured.as_ref().and_then(of);
    each(
        page,
        known,
        "walseal_drill_last_duration_seconds",
        "How long it took to the verdict.",
        measured(|measured| Some(measured.seconds)),
    );
    each(
        page,
        known,
        "walseal_drill_last_first_query_seconds",
        "From the beginning of the restore to the answer to a first query.",
        measured(|measured| measured.first_query_seconds),
    );
    each(
        page,
        known,
        "walseal_drill_last_bytes",
        "Bytes of files that it restored.",
        measured(|measured| Some(measured.bytes as f64)),
    );
    let all: Vec<(&str, &Measured)> =
        known.iter().filter_map(|(what, known)| Some((what.word(), known.last.as_ref()?.measured.as_ref()?))).collect();
    let stages: Vec<_> = all
        .iter()
        .flat_map(|(of, measured)| measured.stages.iter().map(|stage| (*of, stage)))
        .map(|(of, stage)| ([("of", of), ("stage", stage.name.as_str())], stage.seconds))
        .collect();
    page.gauges(
        "walseal_drill_last_stage_seconds",
        "How long each part of it took.",
        stages.iter().map(|(labels, seconds)| (labels as Labels<'_>, *seconds)),
    );
    let outcomes = [
        (Outcome::Passed, "passed"),
        (Outcome::Warned, "warned"),
        (Outcome::Failed, "failed"),
        (Outcome::NotRun, "not-run"),
    ];
    let counts: Vec<_> = all
        .iter()
        .flat_map(|(of, measured)| {
            outcomes.map(|(outcome, word)| {
                let count = measured.outcomes.iter().filter(|found| **found == outcome).count();
                ([("of", *of), ("outcome", word)], count as f64)
            })
        })
        .collect();
    let counts = counts.iter().map(|(labels, count)| (labels as Labels<'_>, *count));
    page.gauges("walseal_drill_last_checks", "Its checks, by outcome.", counts);
}

#[async_trait::async_trait]
impl Pages for Figures {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page { status: 200, content_type: EXPOSITION_TYPE, body: self.metrics() }),
            "/healthz" => Some(self.health()),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    /// The names in a text that look like metrics.
    fn metrics(text: &str) -> Vec<&str> {
        let names = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        names.filter(|name| name.starts_with("walseal_")).map(|name| name.trim_end_matches("_bucket")).collect()
    }

    #[test]
    fn rules_and_dashboard_speak_of_metrics_that_are_documented() {
        let documented = include_str!("../../docs/METRICS.md");
        let rules = include_str!("../../scripts/monitoring/prometheus-rules.yaml");
        let dashboard = include_str!("../../scripts/monitoring/grafana-dashboard.json");
        let used: Vec<&str> = metrics(rules).into_iter().chain(metrics(dashboard)).collect();
        assert!(used.len() > 30, "{used:?}");
        let unknown: Vec<_> = used.iter().filter(|name| !documented.contains(&format!("`{name}`"))).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
        assert!(dashboard["panels"].is_array());
    }
}
