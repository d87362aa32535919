//! The desk: does what the other verbs and the hook ask the daemon for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Act, Label, Ledger, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::telemetry::{AlertKind, Alerts, OpenAlert, Severity};
use walseal_common::terminal::units;

use crate::aftermath::TakesBase;
use crate::base::BackupMode;
use crate::base_backup::{self, BaseSettings, TakeError, Taking};
use crate::drain::{self, DrainError};
use crate::hook::{Archivist, PushError};
use crate::keys::ArchiveKeys;
use crate::shipment::ShipError;
use crate::socket::{Answers, Reporter, Request};
use crate::stream::{Progress, ProgressWatch};

/// Answers the other verbs.
pub struct Desk {
    pub(crate) conninfo: Conninfo,
    pub(crate) repository: Repository,
    pub(crate) identity: RepositoryIdentity,
    pub(crate) keys: Arc<ArchiveKeys>,
    pub(crate) base: BaseSettings,
    pub(crate) progress: ProgressWatch,
    /// One backup at a time.
    pub(crate) backup: Mutex<()>,
    /// How many there were.
    pub(crate) taken: watch::Sender<u64>,
    pub(crate) archivist: Arc<Archivist>,
    /// Held while somebody looks ahead: one is enough.
    pub(crate) ahead: Arc<Mutex<()>>,
    pub(crate) alerts: Alerts,
    pub(crate) ledger: Ledger,
}

/// What the daemon says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// Where the stream is.
    #[serde(flatten)]
    pub progress: Progress,
    /// What stands.
    #[serde(default)]
    pub alerts: Vec<OpenAlert>,
}

#[async_trait::async_trait]
impl Answers for Desk {
    async fn answer(&self, request: Request, reporter: Reporter) -> Result<serde_json::Value, String> {
        match request {
            Request::Status => {
                let told = Told { progress: self.progress.now(), alerts: self.alerts.standing() };
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
        let say = reporter.clone();
        let label = self.take(mode, move |text, done, total| say.report(text, done, total)).await?;
        serde_json::to_value(&label).map_err(|error| TakeError::Internal(error.to_string()))
    }

    async fn take(
        &self,
        mode: BackupMode,
        report: impl FnMut(String, Option<u64>, Option<u64>) + Send,
    ) -> Result<Label, TakeError> {
        let _one = self.backup.try_lock().map_err(|_| TakeError::Busy)?;
        let taking = Taking {
            conninfo: &self.conninfo,
            repository: &self.repository,
            identity: &self.identity,
            keys: &self.keys,
            settings: &self.base,
            mode,
            ledger: &self.ledger,
        };
        let label = base_backup::take(taking, self.progress.clone(), report).await?;
        tracing::info!(id = %label.id, start = %label.start, stop = %label.stop, "base backup taken");
        self.taken.send_modify(|taken| *taken += 1);
        Ok(label)
    }
}

#[async_trait::async_trait]
impl TakesBase for Desk {
    async fn take_base(&self) -> Result<Label, TakeError> {
        self.take(BackupMode::Auto, |text, done, total| tracing::debug!(text, ?done, ?total, "base backup")).await
    }
}
