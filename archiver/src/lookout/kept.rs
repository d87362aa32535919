//! What the server keeps for the slot: how much, whether it goes on to, and whether that is more than it may (case 26). Looked at also
//! while there is no repository to stream into.

use std::time::Instant;

use walseal_common::postgres::Conninfo;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

use super::INTERVAL;
use super::backlog::{Backlog, Sight};
use super::server::{ServerWatch, SlotView, View};
use crate::stream::{Limit, Progress};

/// Looks at the slot.
pub(crate) struct KeptWatch {
    alerts: Alerts,
    slot: String,
    server: ServerWatch,
    backlog: Backlog,
    limit: Option<Limit>,
}

impl KeptWatch {
    /// More than `backlog` bytes are told. Whoever drops the slot hears from `limit` that it is time.
    pub(crate) fn new(
        alerts: Alerts,
        conninfo: Conninfo,
        slot: String,
        backlog: u64,
        limit: Option<Limit>,
    ) -> KeptWatch {
        let server = ServerWatch::new(conninfo, slot.clone(), limit.is_some().then_some(INTERVAL));
        KeptWatch { alerts, slot, server, backlog: Backlog::new(backlog), limit }
    }

    /// Looks, where that is due, at the server that is streamed, or was last. Returns what was seen of it.
    pub(crate) async fn look(&mut self, now: &Progress) -> &View {
        let view = self.server.look(now).await;
        if let Some(slot) = &view.slot {
            judge_slot(&self.alerts, &self.slot, slot);
        }
        let seen = view.kept();
        let kept = seen.unwrap_or_else(|| now.not_durable());
        // What was seen before may be of a slot that was given up since.
        if let Some(limit) = self.limit.as_ref().filter(|_| view.fresh || view.slot.is_none()) {
            // A slot that is not there keeps nothing.
            limit.look(if view.slot.is_none() && view.saw_slots { 0 } else { kept });
        }
        let sight = Sight {
            kept,
            free: view.room.map(|room| room.free),
            allowed: view.slot.as_ref().and_then(|slot| slot.allowed),
            why: now.store_trouble.as_deref().or(now.trouble.as_deref()),
        };
        // Before anything was seen, nothing is known to be kept, and nothing to be over.
        if seen.is_some() || !now.server_end.is_invalid() {
            self.backlog.look(&self.alerts, &self.slot, &sight, Instant::now());
        }
        view
    }
}

/// Whether the server will go on to keep what the slot `name` needs.
fn judge_slot(alerts: &Alerts, name: &str, slot: &SlotView) {
    let status = slot.wal_status.as_deref().unwrap_or_default();
    let kept = units::size(slot.kept.unwrap_or_default());
    match status {
        "unreserved" => {
            let text = format!(
                "the slot {name} keeps {kept} of WAL, more than max_slot_wal_keep_size: the server's next checkpoint removes WAL \
                 that is not in the repository; raise that setting at once, or let the daemon catch up"
            );
            alerts.raise(AlertKind::SlotAtRisk, name, Severity::Critical, text);
        }
        "lost" => {
            let text = format!(
                "the server has given up the slot {name} (wal_status = lost), and removed WAL that was not in the repository; it is \
                 made anew as soon as the server can be streamed, and what is missing is recorded"
            );
            alerts.raise(AlertKind::SlotLost, name, Severity::Critical, text);
            alerts.clear(AlertKind::SlotAtRisk, name, "the slot is lost");
        }
        _ => {
            let over = format!("the server keeps what the slot needs (wal_status = {status})");
            alerts.clear(AlertKind::SlotAtRisk, name, over);
        }
    }
}
