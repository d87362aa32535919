//! What the daemon shows of snapshots: `docs/METRICS.md` has every name.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use walseal_common::repository::SnapshotLabel;
use walseal_common::telemetry::{AlertKind, Alerts, EXPOSITION_TYPE, Exposition, Page, Pages};

use super::Taken;

/// Everything that is shown.
#[derive(Debug)]
pub struct Figures {
    alerts: Alerts,
    started: Timestamp,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    snapshots: Option<usize>,
    stored: u64,
    last: Option<Timestamp>,
    next: Option<Timestamp>,
    seconds: Option<f64>,
    dump: Option<u64>,
    taken: u64,
    failures: u64,
}

impl Figures {
    /// Nothing is known yet.
    pub fn new(alerts: Alerts) -> Figures {
        Figures { alerts, started: Timestamp::now(), seen: Mutex::default() }
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the repository holds.
    pub(super) fn holds(&self, labels: &[SnapshotLabel]) {
        self.note(|seen| {
            seen.snapshots = Some(labels.len());
            seen.stored = labels.iter().map(|label| label.stored_size).sum();
            seen.last = labels.iter().map(|label| label.stop_time).max();
        });
    }

    /// When the next one is.
    pub(super) fn next(&self, at: Timestamp) {
        self.note(|seen| seen.next = Some(at));
    }

    /// One was taken.
    pub(super) fn took(&self, taken: &Taken) {
        self.note(|seen| {
            seen.taken += 1;
            seen.last = Some(taken.label.stop_time);
            seen.seconds = Some(taken.took.as_secs_f64());
            seen.dump = Some(taken.label.dump_size);
        });
    }

    /// One could not be taken.
    pub(super) fn failed(&self) {
        self.note(|seen| seen.failures += 1);
    }

    /// The page of `/metrics`, without what every daemon shows.
    fn metrics(&self) -> String {
        let mut page = Exposition::of_daemon(env!("CARGO_PKG_VERSION"), self.started);
        page.memory();
        self.expose(&mut page);
        page.alerts(&self.alerts, AlertKind::ALL);
        page.finish()
    }

    /// What is known of snapshots.
    pub(crate) fn expose(&self, page: &mut Exposition) {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1e3;
        page.gauge("walseal_snapshots", "Snapshots in the repository.", seen.snapshots.map(|count| count as f64));
        page.gauge("walseal_snapshots_stored_bytes", "Their objects.", seen.snapshots.map(|_| seen.stored as f64));
        page.gauge(
            "walseal_snapshot_last_time_seconds",
            "When the newest was whole, since 1970.",
            seen.last.map(seconds),
        );
        page.gauge("walseal_snapshot_next_time_seconds", "When the next is due, since 1970.", seen.next.map(seconds));
        page.gauge("walseal_snapshot_last_seconds", "How long the last one of this daemon took.", seen.seconds);
        page.gauge("walseal_snapshot_last_dump_bytes", "Its archive.", seen.dump.map(|bytes| bytes as f64));
        page.counter("walseal_snapshots_taken_total", "Snapshots that this daemon took.", seen.taken);
        page.counter("walseal_snapshot_failures_total", "Attempts that came to nothing.", seen.failures);
    }

    /// Whether snapshots are taken, in words.
    fn health(&self) -> Page {
        let standing = self.alerts.standing();
        let failed = standing.iter().filter(|alert| alert.kind == AlertKind::SnapshotFailed);
        let lines: Vec<String> = failed.map(|alert| alert.text.replace('\n', " ")).collect();
        if lines.is_empty() { Page::text(200, "ok\n") } else { Page::text(503, format!("{}\n", lines.join("\n"))) }
    }
}

/// The pages of a daemon that takes snapshots only.
#[derive(Debug)]
pub(super) struct FigurePages(pub(super) std::sync::Arc<Figures>);

#[async_trait::async_trait]
impl Pages for FigurePages {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page { status: 200, content_type: EXPOSITION_TYPE, body: self.0.metrics() }),
            "/healthz" => Some(self.0.health()),
            _ => None,
        }
    }
}
