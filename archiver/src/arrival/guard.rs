//! What is done for the server while the store is waited for: it keeps WAL for the slot, and must not keep it until its disk is full
//! (case 26).

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use walseal_common::postgres::{Conninfo, ReplicationClient};
use walseal_common::telemetry::{AlertMemory, Alerts};
use walseal_common::timeline::SystemIdentifier;

use crate::lookout::{INTERVAL, KeptWatch};
use crate::primary;
use crate::stream::{self, Limit, Progress, StreamError};

/// How often it is asked which host is the primary.
const AGAIN: Duration = Duration::from_secs(30);

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);

const NAME: &str = "walseal lookout";

/// Looks at the server before there is a repository.
pub(super) struct Guard {
    pub(super) conninfo: Conninfo,
    pub(super) slot: String,
    /// Which cluster the daemon before this one archived, where one did: no slot of another one is dropped (I4).
    pub(super) cluster: Option<SystemIdentifier>,
    /// The store, for a person.
    pub(super) place: String,
    /// `alerts.backlog`, in bytes.
    pub(super) backlog: u64,
    pub(super) limit: Option<Limit>,
    pub(super) alerts: Alerts,
    /// Keeps what stands.
    pub(super) memory: AlertMemory,
    /// What the store said last.
    pub(super) trouble: watch::Receiver<String>,
}

impl Guard {
    /// Tells how much the server keeps for the slot, and drops the slot where that is more than `wal.give_up_at`. Never ends.
    pub(super) async fn keep(self) -> Infallible {
        let limit = self.limit.clone().filter(|_| self.cluster.is_some());
        let (alerts, conninfo, slot) = (self.alerts.clone(), self.conninfo.clone(), self.slot.clone());
        let mut kept = KeptWatch::new(alerts, conninfo, slot, self.backlog, limit.clone());
        let mut known: Option<(Option<String>, Instant)> = None;
        let mut ailing = false;
        loop {
            let host = match known.take().filter(|(_, asked)| asked.elapsed() < AGAIN) {
                Some(known) => known,
                None => (self.host().await, Instant::now()),
            };
            let trouble = self.trouble.borrow().clone();
            let mut now = Progress::default();
            (now.host, now.store_trouble) = (host.0.clone(), Some(trouble));
            known = Some(host);
            let before = self.alerts.standing();
            kept.look(&now).await;
            if let Some(limit) = &limit {
                match &now.host {
                    Some(host) => self.keep_to(limit, host, &mut ailing).await,
                    // What another host kept is no reason to drop a slot of the next one.
                    None => limit.look(0),
                }
            }
            if self.alerts.standing() != before {
                self.memory.save(&self.alerts);
            }
            sleep(INTERVAL).await;
        }
    }

    /// The primary, as messages name it; `None` where none of this cluster answers.
    async fn host(&self) -> Option<String> {
        match timeout(PATIENCE, self.connect()).await {
            Ok(Ok(client)) => {
                let host = client.host().to_string();
                client.close().await;
                Some(host)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "what the server keeps for the slot is not known");
                None
            }
            Err(_) => None,
        }
    }

    async fn connect(&self) -> Result<ReplicationClient, StreamError> {
        let Some(cluster) = self.cluster else { return Ok(primary::connect(&self.conninfo, NAME).await?) };
        let mut client = primary::connect_within(&self.conninfo, NAME, cluster).await?;
        stream::admit(&mut client, cluster, &self.place, self.conninfo.target_session_attrs()).await?;
        Ok(client)
    }

    /// Drops the slot where it keeps too much on `host`, which was just looked at, and on no other. What is missing then is recorded as soon as there is a repository (I5): the stream finds
    /// no slot. That it cannot be dropped is said once.
    async fn keep_to(&self, limit: &Limit, host: &str, ailing: &mut bool) {
        let Some(kept) = limit.excess() else { return };
        let dropping = async {
            let mut client = self.connect().await?;
            let dropped = client.host().to_string() == host && client.drop_slot(&self.slot).await?;
            client.close().await;
            Ok::<_, StreamError>(dropped)
        };
        match dropping.await {
            Ok(true) => {
                let why = self.trouble.borrow().clone();
                limit.given_up(&self.alerts, &self.slot, kept, &why);
                *ailing = false;
            }
            // Another host is the primary now, or the slot is gone already.
            Ok(false) => limit.look(0),
            Err(error) if !std::mem::replace(ailing, true) => {
                let slot = &self.slot;
                tracing::warn!(%error, "the slot {slot} keeps more than wal.give_up_at, and cannot be dropped; trying again until it works");
            }
            Err(error) => tracing::debug!(%error, "the slot still cannot be dropped"),
        }
    }
}
