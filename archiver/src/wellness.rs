//! That all is as it should be, told to somebody who raises the alarm when it is not told any more.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use walseal_common::repository::Ledger;
use walseal_common::telemetry::{Alerts, DeadManSwitch, OpenAlert, Severity};

use crate::frontier_recorder::Written;
use crate::stream::{Progress, ProgressWatch};

/// What has to be well.
#[derive(Debug)]
pub struct Wellness {
    /// What stands.
    pub alerts: Alerts,
    /// Where the stream is.
    pub progress: ProgressWatch,
    /// `alerts.rpo`; zero asks for nothing.
    pub rpo: Duration,
    /// Who knows the head.
    pub ledger: Ledger,
}

impl Wellness {
    /// Tells `switch` each time the frontier was written down in the repository, unless something is wrong: the store has taken an
    /// object just then, and the server is heard. Returns when nobody writes any more.
    pub async fn tell(self, mut switch: DeadManSwitch, mut written: watch::Receiver<Option<Written>>) {
        while written.changed().await.is_ok() {
            let Some(written) = written.borrow_and_update().clone() else { continue };
            if let Some(why) = ailing(&self.progress.now(), &self.alerts.standing(), self.rpo, Timestamp::now()) {
                tracing::debug!(why, "alerts.heartbeat_url is not told that all is well");
                continue;
            }
            let (at, record) = (written.record.at, &written.record);
            let witness = json!({
                "object": written.name, "branch": at.branch, "frontier": at.frontier, "highest_time": record.highest_time,
                "written": record.written,
            });
            switch.tell("wal-durable", witness, self.ledger.head()).await;
        }
    }
}

/// Why all is not well.
fn ailing(progress: &Progress, standing: &[OpenAlert], rpo: Duration, now: Timestamp) -> Option<String> {
    if !progress.connected {
        return Some("no stream".to_owned());
    }
    if let Some(why) = &progress.store_trouble {
        return Some(why.clone());
    }
    if let Some(alert) = standing.iter().find(|alert| alert.severity == Severity::Critical) {
        return Some(format!("{}: {}", alert.kind, alert.text));
    }
    match progress.loss(now) {
        None => Some("nothing is known of what would be lost".to_owned()),
        Some(loss) if loss.at_most => Some("the server is not heard".to_owned()),
        Some(loss) if !rpo.is_zero() && loss.time > rpo => Some("more would be lost than alerts.rpo allows".to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::lsn::Lsn;
    use walseal_common::telemetry::AlertKind;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_228_200 + seconds).expect("a time")
    }

    fn healthy() -> Progress {
        serde_json::from_value(json!({
            "connected": true, "branch": null, "server_end": Lsn(1), "received": Lsn(1), "frontier": Lsn(1),
            "frontier_moved": null, "behind_since": null, "highest_time": null, "trouble": null, "shipped_bytes": 0,
            "current_at": at(0), "heard_at": at(0),
        }))
        .expect("a progress")
    }

    fn alert(severity: Severity) -> Vec<OpenAlert> {
        let (kind, subject, text) = (AlertKind::BackupOverdue, String::new(), "overdue".to_owned());
        vec![OpenAlert { kind, subject, severity, text, since: at(0) }]
    }

    #[test]
    fn all_is_well_only_when_wal_is_durable_the_server_heard_and_nothing_critical_stands() {
        let rpo = Duration::from_secs(300);
        let well = |standing: &[OpenAlert], change: fn(&mut Progress)| {
            let mut progress = healthy();
            change(&mut progress);
            ailing(&progress, standing, rpo, at(1)).is_none()
        };
        assert!(well(&[], |_| ()) && well(&alert(Severity::Warning), |_| ()));
        assert!(!well(&alert(Severity::Critical), |_| ()));
        assert!(!well(&[], |progress| progress.connected = false));
        assert!(!well(&[], |progress| progress.store_trouble = Some("gone".to_owned())));
        assert!(!well(&[], |progress| progress.heard_at = Some(at(-60))), "silent for a minute");
        assert!(well(&[], |progress| progress.exposed_since = Some(at(-100))));
        assert!(!well(&[], |progress| progress.exposed_since = Some(at(-301))));
    }
}
