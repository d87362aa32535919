//! A dead man's switch: somebody outside is told that all is well, and raises the alarm when that stops.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::sleep;

use super::client::{RequestError, post};
use crate::config::WebAddress;
use crate::repository::Head;

/// Pauses before a message that was not taken is sent again; then it is left out.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// Tells that all is well. Only real success may call it.
#[derive(Debug)]
pub struct DeadManSwitch {
    address: WebAddress,
    cluster: String,
    /// Whether it failed the last time, which was said.
    failing: bool,
}

/// `walseal.heartbeat/1`.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    cluster: &'a str,
    at: jiff::Timestamp,
    success: &'a str,
    witness: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<Head>,
}

impl DeadManSwitch {
    /// Nothing is sent yet. `cluster` names the cluster.
    pub fn new(address: WebAddress, cluster: impl Into<String>) -> DeadManSwitch {
        DeadManSwitch { address, cluster: cluster.into(), failing: false }
    }

    /// Tells of a success: a word for it, what was stored last, and the newest entry of the ledger. Returns within a minute; that
    /// nobody takes it is in the log, once until it is taken again.
    pub async fn tell(&mut self, success: &str, witness: Value, head: Option<Head>) {
        let at = jiff::Timestamp::now();
        let document = Document { schema: "walseal.heartbeat/1", cluster: &self.cluster, at, success, witness, head };
        let sent = match serde_json::to_vec(&document) {
            Ok(body) => self.send(&body).await,
            Err(error) => Err(error.to_string()),
        };
        let place = self.address.place();
        match sent {
            Ok(()) if std::mem::take(&mut self.failing) => tracing::info!("alerts.heartbeat_url ({place}) works again"),
            Ok(()) => {}
            Err(why) if self.failing => tracing::debug!(why, "alerts.heartbeat_url ({place}) still fails"),
            Err(why) => {
                tracing::warn!("alerts.heartbeat_url ({place}) is not told that all is well: {why}");
                self.failing = true;
            }
        }
    }

    async fn send(&self, body: &[u8]) -> Result<(), String> {
        for pause in PAUSES {
            match post(&self.address, body.to_vec()).await {
                Ok(_) => return Ok(()),
                Err(RequestError { why, passing: false }) => return Err(why),
                Err(_) => sleep(pause).await,
            }
        }
        post(&self.address, body.to_vec()).await.map(|_| ()).map_err(|error| error.why)
    }
}
