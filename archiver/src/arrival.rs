//! A daemon that begins while its store is away: it waits, and whoever hears of alerts is told.
//!
//! Nothing is streamed before the repository was seen. What is written meanwhile the server keeps for the slot: how much that is, and that
//! it does not become too much, `guard` looks after.

mod guard;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use walseal_common::config::OpenError;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Ledger, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::store::{StoreError, with_patience};
use walseal_common::telemetry::{
    self, AlertKind, AlertMemory, Alerts, Couriers, EXPOSITION_TYPE, Exposition, OpenAlert, Page, Pages, Severity,
};

use crate::archive::{Archive, ArchiveError};
use crate::daemon::{DaemonError, LAST_ALERTS, STANDING, Signals, couriers, notify};
use crate::stream::Limit;
use crate::{figures, lookout};
use guard::Guard;

/// How long the calls of one look are tried anew. An attempt has a deadline of its own, and is not cut.
const LOOK: Duration = Duration::from_secs(10);

/// How long what was told last may take, once the daemon streams. Receivers are tried anew for less.
const LAST_LETTERS: Duration = Duration::from_secs(120);

/// From when on pages tell that the store is waited for.
const AT_ONCE: Duration = Duration::from_secs(3);

const KIND: AlertKind = AlertKind::StoreUnreachable;

/// What is told while the daemon waits.
const KINDS: [AlertKind; 4] = [KIND, AlertKind::Backlog, AlertKind::SlotAtRisk, AlertKind::SlotLost];

/// What stands while the daemon waits, in `cluster.state_dir`, until the daemon's own board has it.
const REMEMBERED: &str = "arrival-alerts.json";

/// The repository, as [`Archive::repository`] finds it, however long its store does not answer; `None` when a signal came first. What
/// an earlier daemon has told already, by what it left in `state_dir`, is not told again. Whoever asks at `listener` meanwhile hears
/// what is waited for. Where the slot keeps more than `limit` it is dropped, also while there is no repository.
///
/// Errors: those that do not pass by themselves, as a store that refuses these credentials or holds no repository.
pub(crate) async fn repository(
    archive: &Archive,
    conninfo: &Conninfo,
    state_dir: &Path,
    listener: Option<&Arc<TcpListener>>,
    started: Timestamp,
    signals: &mut Signals,
    limit: Option<&Limit>,
) -> Result<Option<(Repository, RepositoryIdentity)>, DaemonError> {
    let begun = Instant::now();
    let mut wait: Option<Wait> = None;
    let pages = Arc::new(WaitPages { started, ..WaitPages::default() });
    let mut serving = JoinSet::new();
    if let Some(listener) = listener.cloned() {
        let pages = pages.clone();
        serving.spawn(async move {
            // A store that answers at once is not waited for: whoever asks meanwhile is answered by the daemon.
            tokio::time::sleep(AT_ONCE).await;
            telemetry::serve(&listener, pages).await;
        });
    }
    loop {
        let found = tokio::select! {
            found = with_patience(LOOK, archive.repository(conninfo)) => found,
            name = signals.next() => {
                tracing::info!("{name}: stopping; the store has not answered since the start");
                notify(&[NotifyState::Stopping]);
                if let Some(mut wait) = wait {
                    // Nothing is done to the server any more.
                    wait.beside.shutdown().await;
                    wait.couriers.finish(LAST_ALERTS).await;
                }
                return Ok(None);
            }
        };
        if let Err(ArchiveError::Repository(RepositoryError::Store(error))) = &found
            && !error.is_permanent()
        {
            let waiting = match &wait {
                Some(waiting) => waiting,
                None => wait.insert(Wait::begin(archive, conninfo, state_dir, error, limit)?),
            };
            waiting.heard.send_replace(error.to_string());
            pages.hear(error, &waiting.alerts);
            if begun.elapsed() >= archive.config.alerts.store_after.value {
                waiting.tell(lookout::store_fails(
                    begun.elapsed(),
                    &error.to_string(),
                    archive.config.wal.synchronous.value,
                ));
            }
            continue;
        }
        if let Some(wait) = wait {
            wait.end(begun, found.is_ok()).await;
        }
        return Ok(Some(found?));
    }
}

/// Gives the daemon's own board what stands; `memory` is that board's. Its end is told from there.
pub(crate) fn hand_over(state_dir: &Path, alerts: &Alerts, memory: &AlertMemory) {
    let remembered = remembered(state_dir);
    if remembered.recall(alerts) {
        memory.save(alerts);
    }
    remembered.forget();
}

/// What a daemon that waits has told, and stands.
pub(crate) fn told(state_dir: &Path) -> Vec<OpenAlert> {
    remembered(state_dir).standing()
}

fn remembered(state_dir: &Path) -> AlertMemory {
    // Of the store, whichever cluster is found in it.
    AlertMemory::new(state_dir.join(REMEMBERED), "")
}

/// Who is told while there is no ledger to write to.
struct Wait {
    couriers: Couriers,
    alerts: Alerts,
    memory: AlertMemory,
    /// What the store said last.
    heard: watch::Sender<String>,
    /// Tells again what has stood for long; looks after the server.
    beside: JoinSet<()>,
}

impl Wait {
    fn begin(
        archive: &Archive,
        conninfo: &Conninfo,
        state_dir: &Path,
        error: &StoreError,
        limit: Option<&Limit>,
    ) -> Result<Wait, DaemonError> {
        tracing::warn!(
            "the store does not answer: {error}; nothing is streamed before it does, and the server keeps the WAL for the \
             replication slot meanwhile"
        );
        // For systemd it runs, as it does when the store goes away later.
        notify(&[NotifyState::Ready, NotifyState::Status("waits for the store")]);
        let couriers = couriers(&archive.config, &Ledger::none())?;
        let alerts = Alerts::to(couriers.outlets());
        let memory = remembered(state_dir);
        memory.recall(&alerts);
        let (standing, place) = (state_dir.join(STANDING), archive.store.describe());
        AlertMemory::recall_kinds(&standing, &place, &KINDS, &alerts);
        let heard = watch::Sender::new(error.to_string());
        let guard = Guard {
            conninfo: conninfo.clone(),
            slot: archive.config.need_slot().map_err(OpenError::from)?,
            cluster: AlertMemory::owner(&standing, &place).and_then(|cluster| cluster.parse().ok()),
            place,
            backlog: archive.config.alerts.backlog.value,
            limit: limit.cloned(),
            alerts: alerts.clone(),
            memory: memory.clone(),
            trouble: heard.subscribe(),
        };
        let (stands, after) = (alerts.clone(), archive.config.alerts.remind_after.value);
        let mut beside = JoinSet::new();
        beside.spawn(async move { match stands.remind(after).await {} });
        beside.spawn(async move { match guard.keep().await {} });
        Ok(Wait { couriers, alerts, memory, heard, beside })
    }

    fn tell(&self, text: String) {
        self.alerts.raise(KIND, "", Severity::Critical, text);
        self.memory.save(&self.alerts);
    }

    /// What stands is handed over to who is told of its end. What was told may still be on its way.
    async fn end(mut self, begun: Instant, answered: bool) {
        // From here on nothing is written down but by who it is handed to.
        self.beside.shutdown().await;
        notify(&[NotifyState::Status("")]);
        if answered {
            tracing::info!("the store answers, after {:.1} s", begun.elapsed().as_secs_f32());
            tokio::spawn(async move { self.couriers.finish(LAST_LETTERS).await });
        } else {
            self.couriers.finish(LAST_ALERTS).await;
        }
    }
}

/// What a daemon that waits shows of itself.
#[derive(Default)]
struct WaitPages {
    started: Timestamp,
    /// What the store said last, and the board of who waits; nothing before its first answer was missed.
    missed: Mutex<Option<(String, Alerts)>>,
}

impl WaitPages {
    fn hear(&self, error: &StoreError, alerts: &Alerts) {
        *self.missed() = Some((error.to_string().replace('\n', " "), alerts.clone()));
    }

    fn missed(&self) -> MutexGuard<'_, Option<(String, Alerts)>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics(&self) -> String {
        let mut page = Exposition::of_daemon(env!("CARGO_PKG_VERSION"), self.started);
        page.memory();
        figures::streaming(&mut page, false);
        if let Some((_, alerts)) = &*self.missed() {
            figures::store_failing(&mut page, true);
            // Of the others it does not know whether they stand.
            page.alerts(alerts, &KINDS);
        }
        page.finish()
    }

    fn health(&self) -> String {
        let missed = self.missed();
        let store = missed.as_ref().map_or("it is asked for the first time", |(trouble, _)| trouble.as_str());
        format!("not streaming: the store has not answered since the start\nstore: {store}\n")
    }
}

#[async_trait::async_trait]
impl Pages for WaitPages {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page { status: 200, content_type: EXPOSITION_TYPE, body: self.metrics() }),
            "/healthz" => Some(Page::text(503, self.health())),
            _ => None,
        }
    }
}
