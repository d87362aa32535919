//! What the daemon shows over HTTP: figures about drills for Prometheus, and whether they pass, for monitors.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use walseal_common::repository::Proof;
use walseal_common::telemetry::{AlertKind, Alerts, EXPOSITION_TYPE, Exposition, Labels, Page, Pages};

use crate::drill::report::{Outcome, Report, Verdict};

/// The last drill.
#[derive(Clone, Debug)]
struct LastDrill {
    time: Timestamp,
    passed: bool,
    /// Why there is no record of it, where there is none.
    unrecorded: Option<String>,
    /// What it found; only of one that this process held.
    report: Option<Box<Report>>,
}

/// What is known of drills.
#[derive(Clone, Debug, Default)]
struct Known {
    running_since: Option<Timestamp>,
    next: Option<Timestamp>,
    last: Option<LastDrill>,
    /// When a drill of this repository last passed, as the ledger says, whoever held it.
    proven: Option<Timestamp>,
    passed: u64,
    failed: u64,
}

/// The figures of one daemon.
#[derive(Debug)]
pub struct Figures {
    started: Timestamp,
    alerts: Alerts,
    known: Mutex<Known>,
}

impl Figures {
    /// Of a daemon that starts now.
    pub fn new(alerts: Alerts) -> Figures {
        Figures { started: Timestamp::now(), alerts, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the ledger says.
    pub fn read(&self, proof: &Proof) {
        let mut known = self.known();
        known.proven = proof.last_passed().max(known.proven);
        // Of what this process held it knows more.
        if let (None, Some((time, passed))) = (&known.last, proof.last) {
            known.last = Some(LastDrill { time, passed, unrecorded: None, report: None });
        }
    }

    /// When the next drill is.
    pub fn next(&self, next: Timestamp) {
        self.known().next = Some(next);
    }

    /// A drill begins.
    pub fn begun(&self) {
        self.known().running_since = Some(Timestamp::now());
    }

    /// It was judged, and is recorded unless `unrecorded` says why not.
    pub fn judged(&self, report: &Report, unrecorded: Option<String>) {
        let (time, passed) = (Timestamp::now(), report.verdict == Verdict::Passed);
        let mut known = self.known();
        known.running_since = None;
        let count = if passed { &mut known.passed } else { &mut known.failed };
        *count += 1;
        if passed && unrecorded.is_none() {
            known.proven = Some(time);
        }
        known.last = Some(LastDrill { time, passed, unrecorded, report: Some(Box::new(report.clone())) });
    }

    fn health(&self) -> Page {
        let why = match &self.known().last {
            Some(LastDrill { passed: false, time, .. }) => Some(format!("the drill of {time:.0} failed")),
            Some(LastDrill { unrecorded: Some(why), time, .. }) => {
                Some(format!("the drill of {time:.0} passed, not recorded: {}", why.replace('\n', " ")))
            }
            _ => None,
        };
        match why {
            Some(why) => Page::text(503, format!("{why}\n")),
            None => Page::text(200, "ok\n"),
        }
    }

    fn metrics(&self) -> String {
        let known = self.known().clone();
        let mut page = Exposition::default();
        let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1e3;
        let yes = |yes: bool| if yes { 1.0 } else { 0.0 };
        let version = env!("CARGO_PKG_VERSION");
        page.gauges(
            "walseal_build_info",
            "Always 1; the version is a label.",
            [(&[("version", version)] as Labels<'_>, 1.0)],
        );
        page.gauge("walseal_start_time_seconds", "When the daemon started, since 1970.", seconds(self.started));
        page.gauge("walseal_drill_running", "1 while a drill is held.", yes(known.running_since.is_some()));
        page.gauge(
            "walseal_drill_next_time_seconds",
            "When the next drill is due, since 1970.",
            known.next.map(seconds),
        );
        page.gauge(
            "walseal_drill_proven_time_seconds",
            "When a drill of this repository last passed, by the ledger, since 1970.",
            known.proven.map(seconds),
        );
        page.counters(
            "walseal_drills_total",
            "Drills that this daemon held, by verdict.",
            [
                (&[("verdict", "passed")] as Labels<'_>, known.passed),
                (&[("verdict", "failed")] as Labels<'_>, known.failed),
            ],
        );
        let last = known.last.as_ref();
        page.gauge(
            "walseal_drill_last_time_seconds",
            "When the last drill was judged, since 1970.",
            last.map(|last| seconds(last.time)),
        );
        page.gauge("walseal_drill_last_passed", "1 if it passed.", last.map(|last| yes(last.passed)));
        page.gauge(
            "walseal_drill_last_recorded",
            "1 if it is in the ledger.",
            last.map(|last| yes(last.unrecorded.is_none())),
        );
        last_report(&mut page, last.and_then(|last| last.report.as_deref()));
        let standing = self.alerts.standing();
        let count = |kind: AlertKind| standing.iter().filter(|alert| alert.kind == kind).count();
        page.gauges(
            "walseal_alerts",
            "Alerts that stand, by kind.",
            [(&[("kind", AlertKind::DrillFailed.word())] as Labels<'_>, count(AlertKind::DrillFailed) as f64)],
        );
        page.finish()
    }
}

/// What only the process knows that held the drill.
fn last_report(page: &mut Exposition, report: Option<&Report>) {
    page.gauge(
        "walseal_drill_last_duration_seconds",
        "How long it took to the verdict.",
        report.map(|report| report.seconds),
    );
    page.gauge(
        "walseal_drill_last_first_query_seconds",
        "From the beginning of the restore to the answer to a first query.",
        report.and_then(|report| report.first_query_seconds),
    );
    page.gauge(
        "walseal_drill_last_bytes",
        "Bytes of files that it restored.",
        report.map(|report| report.bytes as f64),
    );
    let stages: Vec<_> = report.iter().flat_map(|report| &report.stages).collect();
    let labels: Vec<_> = stages.iter().map(|stage| ([("stage", stage.name.as_str())], stage.seconds)).collect();
    page.gauges(
        "walseal_drill_last_stage_seconds",
        "How long each part of it took.",
        labels.iter().map(|(labels, seconds)| (labels as Labels<'_>, *seconds)),
    );
    let outcomes = [
        (Outcome::Passed, [("outcome", "passed")]),
        (Outcome::Warned, [("outcome", "warned")]),
        (Outcome::Failed, [("outcome", "failed")]),
        (Outcome::NotRun, [("outcome", "not-run")]),
    ];
    let of =
        |outcome: Outcome| report.map(|report| report.checks.iter().filter(|check| check.outcome == outcome).count());
    let counts = outcomes.iter().filter_map(|(outcome, labels)| Some((labels as Labels<'_>, of(*outcome)? as f64)));
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
