//! The desk: does what the other verbs and the hook ask the daemon for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Act, Label, Ledger, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

use crate::aftermath::TakesBase;
use crate::base::BackupMode;
use crate::base_backup::{self, Manner, Means, TakeError};
use crate::drain::{self, DrainError};
use crate::hook::{Archivist, PushError};
use crate::keys::ArchiveKeys;
use crate::objectives::Kept;
use crate::requests::Recent;
use crate::retention::RetentionStatus;
use crate::scheduler::NextBackup;
use crate::shipment::ShipError;
use crate::socket::{Answers, Reporter, Request};
use crate::stream::ProgressWatch;
use crate::told::Told;
use crate::turns::{Occasion, Report, Turns};

/// Answers the other verbs.
pub struct Desk {
    pub(crate) conninfo: Conninfo,
    pub(crate) repository: Repository,
    pub(crate) identity: RepositoryIdentity,
    pub(crate) keys: Arc<ArchiveKeys>,
    pub(crate) progress: ProgressWatch,
    /// How base backups are taken.
    pub(crate) manner: Manner,
    /// One of them at a time.
    pub(crate) turns: Turns,
    /// When the next one is due.
    pub(crate) next: watch::Sender<Option<NextBackup>>,
    /// How many there were.
    pub(crate) taken: watch::Sender<u64>,
    /// What retention came to.
    pub(crate) retention: watch::Sender<Option<RetentionStatus>>,
    /// How far what was promised was kept.
    pub(crate) objectives: watch::Sender<Option<Kept>>,
    /// How often the store was asked.
    pub(crate) requests: Arc<Recent>,
    pub(crate) archivist: Arc<Archivist>,
    /// Held while somebody looks ahead: one is enough.
    pub(crate) ahead: Arc<Mutex<()>>,
    pub(crate) alerts: Alerts,
    pub(crate) ledger: Ledger,
}

#[async_trait::async_trait]
impl Answers for Desk {
    async fn answer(&self, request: Request, reporter: Reporter) -> Result<serde_json::Value, String> {
        match request {
            Request::Status => {
                let told = Told {
                    progress: self.progress.now(),
                    alerts: self.alerts.standing(),
                    backup: self.turns.now(),
                    next_backup: self.next.borrow().clone(),
                    retention: self.retention.borrow().clone(),
                    objectives: self.objectives.borrow().clone(),
                    requests: self.requests.last_day(),
                };
                serde_json::to_value(told).map_err(|error| error.to_string())
            }
            Request::Backup { mode } => self.backup(mode, &reporter).await.map_err(|error| error.to_string()),
            Request::Drain => self.drain(&reporter).await.map_err(|error| error.to_string()),
            Request::AwaitDurable { lsn, limit_ms } => {
                self.await_durable(lsn, Duration::from_millis(limit_ms)).await.map(|()| serde_json::Value::Null)
            }
            Request::Push { path } => self.push(&path).await.map_err(|error| error.to_string()),
        }
    }
}

impl Desk {
    async fn push(&self, path: &Path) -> Result<serde_json::Value, PushError> {
        if let Ok(alone) = self.ahead.clone().try_lock_owned() {
            let (archivist, path) = (self.archivist.clone(), path.to_owned());
            tokio::spawn(async move {
                let (_enough, told) = watch::channel(false);
                archivist.look_ahead(path, told).await;
                drop(alone);
            });
        }
        let pushed = self.archivist.push(path).await;
        self.alert_of_conflict(path, pushed.as_ref().err());
        let outcome = pushed?;
        tracing::debug!(?outcome, path = %path.display(), "pushed");
        serde_json::to_value(outcome).map_err(|error| PushError::Task(error.to_string()))
    }

    /// A file of which the repository holds other bytes is an alert until it is taken; PostgreSQL asks again and again.
    fn alert_of_conflict(&self, path: &Path, error: Option<&PushError>) {
        let subject = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match error {
            None => {
                self.alerts.clear(AlertKind::Conflict, &subject, "the file was taken now");
            }
            Some(PushError::Ship(ShipError::Repository(error @ RepositoryError::Conflict { name, writer }))) => {
                let text = format!("the server's archive_command pushed {subject}: {error}");
                if self.alerts.raise(AlertKind::Conflict, subject, Severity::Critical, text) {
                    let (name, writer) = (Some(name.clone()), writer.clone());
                    self.ledger.record(Act::Conflict { branch: None, name, writer });
                }
            }
            Some(_) => {}
        }
    }

    /// The error says why it takes so long, as far as that is known.
    async fn await_durable(&self, lsn: Lsn, limit: Duration) -> Result<(), String> {
        match tokio::time::timeout(limit, self.progress.clone().durable(lsn)).await {
            Ok(ended) => ended.map_err(|error| error.to_string()),
            Err(_) => {
                let now = self.progress.now();
                let why =
                    now.trouble.or(now.store_trouble).unwrap_or_else(|| "nothing is known to be wrong".to_owned());
                let waited = units::duration(limit);
                Err(format!("{lsn} was not durable after {waited}, the frontier being {}: {why}", now.frontier))
            }
        }
    }

    async fn drain(&self, reporter: &Reporter) -> Result<serde_json::Value, DrainError> {
        let say = reporter.clone();
        let progress = self.progress.clone();
        let report = move |text| say.report(text, None, None);
        let drained = drain::drain(&self.conninfo, &self.repository, &self.identity, progress, report).await?;
        tracing::info!(through = %drained.through, branch = %drained.branch, "drained");
        Ok(serde_json::json!(drained))
    }

    async fn backup(&self, mode: BackupMode, reporter: &Reporter) -> Result<serde_json::Value, TakeError> {
        let say = |report: Report| reporter.report(report.text, report.done, report.total);
        let taken = self.take(Occasion::ByHand, mode, say, reporter.stopped()).await;
        if let Err(error) = &taken
            && reporter.is_gone()
        {
            tracing::warn!(%error, "the base backup failed, and whoever asked for it is gone");
        }
        serde_json::to_value(&taken?).map_err(|error| TakeError::Internal(error.to_string()))
    }

    async fn take(
        &self,
        occasion: Occasion,
        mode: BackupMode,
        mut report: impl FnMut(Report) + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Label, TakeError> {
        let turn = self.turns.begin(occasion).map_err(TakeError::Busy)?;
        let means = Means {
            conninfo: self.conninfo.clone(),
            repository: self.repository.clone(),
            identity: self.identity.clone(),
            keys: self.keys.clone(),
            progress: self.progress.clone(),
            ledger: self.ledger.clone(),
            manner: self.manner.clone(),
        };
        let stop = async {
            tokio::select! {
                () = stop => {}
                () = turn.stopped() => {}
            }
        };
        let say = |told: Report| {
            turn.report(&told);
            report(told);
        };
        let label = base_backup::take(&means, occasion, mode, say, stop).await?;
        tracing::info!(id = %label.id, start = %label.start, stop = %label.stop, "base backup taken");
        self.taken.send_modify(|taken| *taken += 1);
        self.judge(&label).await;
        Ok(label)
    }

    /// Pages that the server could not read as it wrote them are an alert until they are gone (case 31).
    async fn judge(&self, label: &Label) {
        const KIND: AlertKind = AlertKind::BackupSuspect;
        if label.suspect == 0 {
            let text = format!("base backup {} met no page checksum failure", label.id);
            self.alerts.clear(KIND, "", text);
            return;
        }
        let text = format!("base backup {}: {}", label.id, base_backup::suspicion(Some(&self.conninfo), label).await);
        self.alerts.raise(KIND, "", Severity::Critical, text);
    }
}

#[async_trait::async_trait]
impl TakesBase for Desk {
    async fn take_base(&self, occasion: Occasion) -> Result<Label, TakeError> {
        let say =
            |report: Report| tracing::debug!(id = %report.id, text = report.text, done = report.done, "base backup");
        self.take(occasion, BackupMode::Auto, say, std::future::pending()).await
    }
}
