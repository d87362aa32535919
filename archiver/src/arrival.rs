//! A daemon that begins while its store is away: it waits, and whoever hears of alerts is told.
//!
//! Nothing is streamed before the repository was seen. What is written meanwhile the server keeps for the slot.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use walseal_common::config::Config;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Ledger, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::store::{StoreError, with_patience};
use walseal_common::telemetry::{AlertKind, Alerts, Couriers, Severity};

use crate::archive::{Archive, ArchiveError};
use crate::daemon::{DaemonError, LAST_ALERTS, couriers, notify};
use crate::lookout;

/// How long the store may take for one look: `alerts.store_after` is kept to about as exactly.
const LOOK: Duration = Duration::from_secs(10);

const KIND: AlertKind = AlertKind::StoreUnreachable;

/// The repository, as [`Archive::repository`] finds it, however long its store is away.
///
/// Errors: those that do not pass by themselves, as a store that refuses these credentials or holds no repository.
pub async fn repository(
    archive: &Archive,
    conninfo: &Conninfo,
) -> Result<(Repository, RepositoryIdentity), DaemonError> {
    let begun = Instant::now();
    let mut wait: Option<Wait> = None;
    loop {
        let found = with_patience(LOOK, archive.repository(conninfo)).await;
        if let Err(ArchiveError::Repository(RepositoryError::Store(error))) = &found
            && !error.is_permanent()
        {
            let waiting = match &mut wait {
                Some(waiting) => waiting,
                None => wait.insert(Wait::begin(&archive.config)?),
            };
            waiting.judge(&archive.config, error, begun.elapsed());
            continue;
        }
        if let Some(wait) = wait {
            wait.end(found.is_ok()).await;
        }
        return Ok(found?);
    }
}

/// Who is told while there is no ledger to write to.
struct Wait {
    couriers: Couriers,
    alerts: Alerts,
}

impl Wait {
    fn begin(config: &Config) -> Result<Wait, DaemonError> {
        tracing::warn!(
            "the store is away; nothing is streamed before it answers, and the server keeps the WAL for the replication slot meanwhile"
        );
        // For systemd it runs, as it does when the store goes away later.
        notify(&[NotifyState::Ready, NotifyState::Status("waits for the store")]);
        let couriers = couriers(config, &Ledger::none())?;
        let alerts = Alerts::to(couriers.outlets());
        Ok(Wait { couriers, alerts })
    }

    fn judge(&self, config: &Config, error: &StoreError, lasted: Duration) {
        if lasted >= config.alerts.store_after.value {
            let text = lookout::store_fails(lasted, &error.to_string(), config.wal.synchronous.value);
            self.alerts.raise(KIND, "", Severity::Critical, text);
        }
    }

    /// `is_back`: the alert is over, which whoever heard of it hears, too.
    async fn end(self, is_back: bool) {
        if is_back {
            self.alerts.clear(KIND, "", lookout::STORE_WORKS);
        }
        self.couriers.finish(LAST_ALERTS).await;
        notify(&[NotifyState::Status("")]);
    }
}
