//! What of a stream becomes an alert, and when that is over.

use std::time::Duration;

use tokio::time::timeout;
use walseal_common::lsn::Lsn;
use walseal_common::repository::Act;
use walseal_common::telemetry::{AlertKind, Severity};

use super::start::StartPoint;
use super::{Progress, StreamError, Streamer};

/// A conflict that has not come again for so long is over.
const QUIET: Duration = Duration::from_secs(60);

impl Streamer {
    /// The repository holds other bytes than this server sends; it is over once WAL has become durable again and nothing of the
    /// kind has come for a while: the other writer's objects move the frontier, too.
    pub(super) fn alert_of_conflict(&self, error: &StreamError, words: &str) {
        self.conflicts.send_modify(|conflicts| *conflicts += 1);
        let mut progress = self.progress.watch();
        let now = progress.now();
        let subject = now.branch.map(|branch| branch.to_string()).unwrap_or_default();
        let text = format!("no stream; trying again until it works: {words}");
        if !self.alerts.raise(AlertKind::Conflict, subject.clone(), Severity::Critical, text) {
            return;
        }
        if let Some((name, writer)) = error.conflicting() {
            self.ledger.record(Act::Conflict { branch: now.branch, name, writer });
        }
        let (alerts, mut conflicts) = (self.alerts.clone(), self.conflicts.subscribe());
        tokio::spawn(async move {
            loop {
                let before = progress.now().shipped_bytes;
                if progress.once(|later| later.connected && later.shipped_bytes > before).await.is_err() {
                    return;
                }
                if timeout(QUIET, conflicts.changed()).await.is_err() {
                    alerts.clear(AlertKind::Conflict, &subject, "WAL becomes durable again");
                    return;
                }
            }
        });
    }

    /// The server has less WAL of its branch than the repository: what it writes up to there is compared with what is stored, and stored
    /// nowhere. It is over once it has written as much, and that was the same.
    pub(super) fn alert_of_less(&self, server_end: Lsn, point: &StartPoint) {
        let (branch, frontier) = (point.branch, point.frontier);
        let subject = branch.to_string();
        let text = format!(
            "the repository holds more of branch {branch} than the server, which ends at {server_end}: up to {frontier}. Another server wrote this \
             timeline, or this one lost WAL (an older copy of its disk, writes that were never flushed). What it commits is not stored until it \
             differs from what lies there, and then refused. If it is the living one: walseal-archiver adopt --writer {}",
            self.keys.writer.public()
        );
        if self.alerts.raise(AlertKind::ServerBehind, subject.clone(), Severity::Critical, text) {
            let (mut progress, alerts) = (self.progress.watch(), self.alerts.clone());
            tokio::spawn(async move {
                // Until a stream runs, what is known is of one before.
                let begun = |later: &Progress| later.connected;
                let beyond = |later: &Progress| later.branch != Some(branch) || later.proven > frontier;
                if progress.until(begun).await.is_ok() && progress.until(beyond).await.is_ok() {
                    let over = format!(
                        "what the server wrote up to {frontier} is what the repository holds, or it follows another branch"
                    );
                    alerts.clear(AlertKind::ServerBehind, &subject, over);
                }
            });
        }
    }

    /// Something is wrong with the slot; it is over once a stream runs on it.
    pub(super) fn alert_of_slot(&self, what: &str) {
        let text = format!("the replication slot {} {what}", self.slot);
        self.alerts.raise(AlertKind::SlotLost, self.slot.clone(), Severity::Warning, text);
    }

    /// More was durable once than the repository holds, or somebody says so; it is over once the repository holds it.
    pub(super) fn alert_of_missing(&self, confirmed: Lsn, witness: &str, point: &StartPoint) {
        let text = format!(
            "{witness}, and the repository holds it up to {} only, on branch {}: objects were removed, or somebody else moved the \
             slot. It is streamed again as far as the server still has it",
            point.frontier, point.branch
        );
        if self.alerts.raise(AlertKind::ConfirmedMissing, self.slot.clone(), Severity::Critical, text) {
            let (mut progress, alerts, slot) = (self.progress.watch(), self.alerts.clone(), self.slot.clone());
            tokio::spawn(async move {
                if progress.durable(confirmed).await.is_ok() {
                    let over = format!("the repository holds WAL up to {confirmed} again");
                    alerts.clear(AlertKind::ConfirmedMissing, &slot, over);
                }
            });
        }
    }
}
