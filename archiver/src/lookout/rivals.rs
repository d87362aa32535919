//! Whether another host takes writes while one is streamed (case 16): an old primary mostly comes back long after the failover.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use walseal_common::postgres::Conninfo;
use walseal_common::telemetry::Alerts;
use walseal_common::timeline::SystemIdentifier;

use crate::primary;
use crate::stream::Progress;

/// How often the other hosts are asked.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long they may take together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the hosts that are not streamed.
#[derive(Debug, Default)]
pub(super) struct RivalWatch {
    asked: Option<Instant>,
}

impl RivalWatch {
    /// Asks them, where that is due; whoever connects anew asks all of them anyway.
    pub(super) async fn look(
        &mut self,
        conninfo: &Conninfo,
        cluster: SystemIdentifier,
        alerts: &Alerts,
        now: &Progress,
        at: Instant,
    ) {
        let (Some(host), Some(branch)) = (&now.host, now.branch) else { return };
        if !now.connected || self.asked.is_some_and(|asked| at.duration_since(asked) < INTERVAL) {
            return;
        }
        self.asked = Some(at);
        let asking = primary::ask_others(conninfo, cluster, (host, branch.timeline), "walseal lookout", alerts);
        if timeout(PATIENCE, asking).await.is_err() {
            tracing::debug!("not all hosts answered whether they take writes");
        }
    }
}
