//! Alerts: what a person has to know, told once while it stands, and once more when it is over.
//!
//! Whoever notices something holds an [`Alerts`] and says [`Alerts::raise`] and [`Alerts::clear`] as often as it looks: only a
//! change is told. Each goes to the log, and to every [`Outlet`]; none of them makes a caller wait.

mod child;
mod command;
mod courier;
mod couriers;
mod kind;
mod mail;
mod memory;
mod webhook;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::repository::{Act, BranchFrontier, Ledger, obscured};

pub use couriers::{Couriers, Trial, try_alerts};
pub use kind::{AlertKind, Severity};
pub use memory::AlertMemory;

/// An alert that stands, as `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenAlert {
    /// What it is about.
    pub kind: AlertKind,
    /// Which one: a slot, a host, a branch. Empty where there is only one.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong and what to do, in words, as last said.
    pub text: String,
    /// Since when it stands, by this host's clock.
    pub since: Timestamp,
}

/// What became of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    /// It was not there before, or is worse than it was.
    Raised,
    /// It was told before, and is still there.
    Standing,
    /// It is over.
    Cleared,
}

impl AlertState {
    /// As in the environment of the command.
    pub fn word(self) -> &'static str {
        match self {
            AlertState::Raised => "raised",
            AlertState::Standing => "standing",
            AlertState::Cleared => "cleared",
        }
    }
}

/// What is told of an alert.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AlertNews {
    /// What became of it.
    pub state: AlertState,
    /// The alert; when it is over, `text` says why.
    #[serde(flatten)]
    pub alert: OpenAlert,
    /// When this is told, by this host's clock.
    pub at: Timestamp,
    /// Up to where WAL was durable by then, where whoever tells knows that: a witness outside the repository, for whoever keeps it.
    pub frontier: Option<BranchFrontier>,
}

/// Who is told. Called with the board locked: must return at once and never call back.
pub trait Outlet: fmt::Debug + Send + Sync {
    /// Takes the news.
    fn tell(&self, news: &AlertNews);
}

/// The ledger hears of alerts and of their end, of their subjects only in a form that shows nothing.
impl Outlet for Ledger {
    fn tell(&self, news: &AlertNews) {
        let (kind, subject) = (news.alert.kind.word(), obscured(&news.alert.subject));
        match news.state {
            AlertState::Raised => {
                self.record(Act::AlertRaised { kind, subject, severity: news.alert.severity.word() });
            }
            AlertState::Standing => {}
            AlertState::Cleared => self.record(Act::AlertCleared { kind, subject }),
        }
    }
}

/// Up to where WAL is durable now.
type Position = Box<dyn Fn() -> Option<BranchFrontier> + Send + Sync>;

/// The alerts of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Alerts(Arc<Board>);

struct Board {
    open: Mutex<BTreeMap<(AlertKind, String), Standing>>,
    outlets: Vec<Arc<dyn Outlet>>,
    position: OnceLock<Position>,
    /// Counts changes of what stands.
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("open", &self.open).field("outlets", &self.outlets).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Standing {
    alert: OpenAlert,
    /// When it was last told.
    told: Instant,
    /// Whether this process has found it, too; else it only stood when the one before ended.
    found: bool,
}

impl Alerts {
    /// Told to the log and to nobody else.
    pub fn to_log() -> Alerts {
        Alerts::to(Vec::new())
    }

    /// Told to the log and to `outlets`.
    pub fn to(outlets: Vec<Arc<dyn Outlet>>) -> Alerts {
        let changes = watch::Sender::new(0);
        Alerts(Arc::new(Board { open: Mutex::default(), outlets, position: OnceLock::new(), changes }))
    }

    /// From now on all that is told carries this position. The first one counts. It is asked with the board locked: must return at
    /// once and never call back.
    pub fn carry(&self, position: impl Fn() -> Option<BranchFrontier> + Send + Sync + 'static) {
        // A second one changes nothing.
        drop(self.0.position.set(Box::new(position)));
    }

    /// What stood when the process before this one ended. None of it is told; what is raised stands on, and what is cleared is told.
    fn recall(&self, alerts: Vec<OpenAlert>) {
        let mut open = self.open_alerts();
        for alert in alerts {
            let standing = Standing { alert: alert.clone(), told: Instant::now(), found: false };
            open.entry((alert.kind, alert.subject)).or_insert(standing);
        }
    }

    /// Changes with what stands.
    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Alerts of these kinds that stood when the process before this one ended, and that this one has not found in the time that it
    /// needs for that, are over.
    pub fn clear_unfound(&self, kinds: &[AlertKind], text: impl fmt::Display) {
        self.clear_where(text, |kind, _, standing| kinds.contains(&kind) && !standing.found);
    }

    /// Something is wrong. Told when it was not before, or is worse now; else only its text is kept. Says whether that is new to this
    /// process: it was told, or stood when the one before ended.
    pub fn raise(
        &self,
        kind: AlertKind,
        subject: impl Into<String>,
        severity: Severity,
        text: impl Into<String>,
    ) -> bool {
        let (subject, text, now) = (subject.into(), text.into(), Timestamp::now());
        let mut open = self.open_alerts();
        let key = (kind, subject.clone());
        let before = open.get_mut(&key);
        let since = before.as_ref().map_or(now, |before| before.alert.since);
        let alert = OpenAlert { kind, subject, severity, text, since };
        if let Some(before) = before
            && before.alert.severity >= severity
        {
            before.alert = alert;
            return !std::mem::replace(&mut before.found, true);
        }
        match severity {
            Severity::Critical => tracing::error!(alert = %kind, subject = alert.subject, "{}", alert.text),
            Severity::Warning => tracing::warn!(alert = %kind, subject = alert.subject, "{}", alert.text),
        }
        self.tell(AlertState::Raised, &alert, now);
        open.insert(key, Standing { alert, told: Instant::now(), found: true });
        self.0.changes.send_modify(|count| *count += 1);
        true
    }

    /// It is over, if it was there; `text` says how. Says whether that was told.
    pub fn clear(&self, kind: AlertKind, subject: &str, text: impl fmt::Display) -> bool {
        self.clear_where(text, |known, of, _| known == kind && of == subject)
    }

    /// All of a kind are over, except for these subjects.
    pub fn clear_all_but(&self, kind: AlertKind, subjects: &[String], text: impl fmt::Display) {
        self.clear_where(text, |known, of, _| known == kind && !subjects.iter().any(|subject| subject == of));
    }

    fn clear_where(&self, text: impl fmt::Display, over: impl Fn(AlertKind, &str, &Standing) -> bool) -> bool {
        let mut open = self.open_alerts();
        let now = Timestamp::now();
        let mut any = false;
        open.retain(|(kind, subject), standing| {
            if !over(*kind, subject, standing) {
                return true;
            }
            any = true;
            let stood = Duration::try_from(now.duration_since(standing.alert.since)).unwrap_or_default();
            standing.alert.text = text.to_string();
            tracing::info!(alert = %kind, %subject, stood_s = stood.as_secs(), "over: {text}");
            self.tell(AlertState::Cleared, &standing.alert, now);
            false
        });
        if any {
            self.0.changes.send_modify(|count| *count += 1);
        }
        any
    }

    /// What stands, by kind and subject.
    pub fn standing(&self) -> Vec<OpenAlert> {
        self.open_alerts().values().map(|standing| standing.alert.clone()).collect()
    }

    /// Tells again what has stood for `after` since it was last told. Never ends; zero: never tells.
    pub async fn remind(&self, after: Duration) -> Infallible {
        if after.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let told = self.open_alerts().values().map(|standing| standing.told).min();
            tokio::time::sleep_until(told.unwrap_or_else(Instant::now) + after).await;
            self.remind_of(Instant::now(), after);
        }
    }

    fn remind_of(&self, now: Instant, after: Duration) {
        let at = Timestamp::now();
        for standing in self.open_alerts().values_mut().filter(|one| now.duration_since(one.told) >= after) {
            let alert = &standing.alert;
            tracing::warn!(alert = %alert.kind, subject = alert.subject, since = %alert.since, "still: {}", alert.text);
            standing.told = now;
            self.tell(AlertState::Standing, &standing.alert, at);
        }
    }

    fn tell(&self, state: AlertState, alert: &OpenAlert, at: Timestamp) {
        let frontier = self.0.position.get().and_then(|position| position());
        for outlet in &self.0.outlets {
            outlet.tell(&AlertNews { state, alert: alert.clone(), at, frontier });
        }
    }

    fn open_alerts(&self) -> MutexGuard<'_, BTreeMap<(AlertKind, String), Standing>> {
        // Whole between any two calls, so a panic elsewhere does not spoil it.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
