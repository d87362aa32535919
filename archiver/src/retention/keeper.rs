//! Keeps to the promises while the daemon runs: prunes after each base backup where it may, and tells how much is past retention where
//! it may not.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use walseal_common::repository::Usage;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::{printable, units};
use walseal_common::time::PgTimestamp;

use super::holdings::Sum;
use super::locks::Locked;
use super::{Plan, PruneError, Pruned, Pruner};
use crate::stream::ProgressWatch;

/// What was announced comes of age between two base backups, too.
const AT_LEAST_EVERY: Duration = Duration::from_secs(24 * 3600);

/// How soon where a lease kept base backups from being looked at.
const AFTER_A_LEASE: Duration = Duration::from_secs(3600);

/// What retention came to, when it was last looked at.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RetentionStatus {
    /// When that was.
    pub at: Timestamp,
    /// What nothing promises any more, and is still there, but for what is locked.
    pub past: Sum,
    /// What object lock keeps of what nothing promises any more.
    #[serde(default)]
    pub locked: Locked,
    /// What lies in the repository.
    #[serde(default)]
    pub stored: Usage,
    /// When the next of it may go, where it was announced.
    pub next: Option<Timestamp>,
    /// No state of the cluster is older that can be restored.
    pub oldest: Option<Timestamp>,
    /// Why it stays, where it was not because of the grace.
    pub why: Option<String>,
}

impl RetentionStatus {
    fn of(plan: &Plan, past: Sum, why: Option<String>) -> RetentionStatus {
        let (at, stored) = (Timestamp::now(), plan.stored());
        RetentionStatus { at, past, locked: plan.locked, stored, next: None, oldest: plan.oldest_before, why }
    }

    /// In a clause.
    pub fn words(&self, now: Timestamp) -> String {
        let ago = |time| units::ago(PgTimestamp::from_jiff(now), PgTimestamp::from_jiff(time));
        let past = match self.past.objects {
            0 => "nothing past it".to_owned(),
            _ => format!("{} past retention", units::size(self.past.bytes)),
        };
        let next = self.next.map_or_else(String::new, |next| format!(", the next of it goes {}", ago(next)));
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(", {}", printable(why)));
        let locked = self.locked.words().map_or_else(String::new, |words| format!("; {words}"));
        format!("{past}{why}{next}{locked}; looked at {}", ago(self.at))
    }

    /// What was planned, and not done.
    fn planned(plan: &Plan, why: &str) -> RetentionStatus {
        RetentionStatus::of(plan, plan.total, (plan.total.objects > 0).then(|| why.to_owned()))
    }

    /// What was done.
    fn pruned(pruned: &Pruned) -> RetentionStatus {
        let forbidden = pruned.is_forbidden().then(|| NO_PERMISSION.to_owned());
        let vetoed = || pruned.vetoed.as_ref().map(|why| format!("retention.before_window_moves said no: {why}"));
        let held_back = || pruned.plan.held_back.first().cloned();
        let why = forbidden.or_else(vetoed).or_else(held_back);
        let mut status = RetentionStatus::of(&pruned.plan, pruned.waiting, why);
        status.oldest = if pruned.removed.objects > 0 { pruned.plan.oldest_after } else { status.oldest };
        status.next = pruned.next.and_then(|seconds| Timestamp::from_second(seconds).ok());
        status
    }
}

/// What is said where credentials do not allow it.
const NO_PERMISSION: &str = "no permission to delete";

/// Does it in the daemon.
pub struct Keeper {
    /// Who prunes.
    pub pruner: Pruner,
    /// Whether it is asked to (`retention.prune`).
    pub enabled: bool,
    /// How many base backups were taken.
    pub taken: watch::Receiver<u64>,
    /// The stream: without one nothing comes of age.
    pub progress: ProgressWatch,
    /// What it came to.
    pub told: watch::Sender<Option<RetentionStatus>>,
    /// Who hears that it is refused.
    pub alerts: Alerts,
}

impl Keeper {
    /// Looks once, and prunes after each base backup, at least once a day. Returns when there are none to come.
    pub async fn keep(mut self) {
        if self.progress.connected().await.is_err() {
            return;
        }
        // A start is no reason to remove anything: only to know what there is.
        self.turn(false).await;
        let mut pause = AT_LEAST_EVERY;
        loop {
            tokio::select! {
                changed = self.taken.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
            // What somebody's lease holds now, a drill's every night perhaps, is not put off until the next time that there may be one.
            pause = if self.turn(true).await { AFTER_A_LEASE } else { AT_LEAST_EVERY };
        }
    }

    /// Whether a lease kept anything from being looked at.
    pub(super) async fn turn(&self, act: bool) -> bool {
        match self.look(act).await {
            Ok((status, leased)) => {
                self.told.send_replace(Some(status));
                leased
            }
            Err(error) => {
                tracing::warn!(%error, "retention was not kept to; it is tried again after the next base backup");
                if self.enabled && !error.may_pass() {
                    self.judge(Some(&error.to_string()));
                }
                false
            }
        }
    }

    /// What has had its time stays, and nobody asked for that.
    fn judge(&self, refused: Option<&str>) {
        const KIND: AlertKind = AlertKind::RetentionRefused;
        match refused {
            Some(why) => {
                let text = format!(
                    "what is past retention stays: {}; look with: walseal-archiver prune --dry-run",
                    printable(why)
                );
                self.alerts.raise(KIND, "", Severity::Warning, text);
            }
            None => {
                self.alerts.clear(KIND, "", "retention is kept to again");
            }
        }
    }

    async fn look(&self, act: bool) -> Result<(RetentionStatus, bool), PruneError> {
        let may = self.pruner.identity.capabilities.delete;
        if !may || !self.enabled || !act {
            let plan = self.pruner.plan().await?;
            let why = match (may, self.enabled) {
                (false, _) => NO_PERMISSION,
                (_, false) => "retention.prune is false: run `walseal-archiver prune`",
                _ => "pruned after the next base backup",
            };
            // Where it may be done, only doing it shows whether anything is refused.
            if self.enabled && !may {
                self.judge((plan.total.objects > 0).then_some(NO_PERMISSION));
            }
            return Ok((RetentionStatus::planned(&plan, why), false));
        }
        let pruned = self.pruner.prune().await?;
        let vetoed = pruned.vetoed.as_ref().map(|why| format!("retention.before_window_moves said no: {why}"));
        self.judge(if pruned.is_forbidden() { Some(NO_PERMISSION) } else { vetoed.as_deref() });
        let removed = pruned.removed;
        if removed.objects > 0 {
            tracing::info!(objects = removed.objects, bytes = removed.bytes, "removed what is past retention");
        }
        Ok((RetentionStatus::pruned(&pruned), pruned.plan.leased))
    }
}
