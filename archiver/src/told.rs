//! What the daemon says of itself, and how it is asked.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use walseal_common::telemetry::OpenAlert;

use crate::objectives::Kept;
use crate::requests::Requests;
use crate::retention::RetentionStatus;
use crate::scheduler::NextBackup;
use crate::socket::{self, Client, Request};
use crate::stream::Progress;
use crate::turns::UnderWay;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the daemon says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// Where the stream is.
    #[serde(flatten)]
    pub progress: Progress,
    /// What stands.
    #[serde(default)]
    pub alerts: Vec<OpenAlert>,
    /// The base backup that is being taken.
    #[serde(default)]
    pub backup: Option<UnderWay>,
    /// When the next one is due; `None` without a schedule, and before the server was asked for its time zone.
    #[serde(default)]
    pub next_backup: Option<NextBackup>,
    /// What retention came to; `None` before it was looked at.
    #[serde(default)]
    pub retention: Option<RetentionStatus>,
    /// How far what was promised was kept; `None` before that was looked at.
    #[serde(default)]
    pub objectives: Option<Kept>,
    /// How often it asked its store; `None` where that is not counted.
    #[serde(default)]
    pub requests: Option<Requests>,
}

impl Told {
    /// The process id of the daemon in this state folder, and what it says, or why it did not; `None` when none runs.
    pub async fn ask(state_dir: &Path) -> Option<(u32, Result<Told, String>)> {
        let client = Client::connect(&socket::path(state_dir)).await?;
        let pid = client.pid();
        let asked = tokio::time::timeout(PATIENCE, client.ask(&Request::Status, |_, _, _| ())).await;
        let told = match asked {
            Ok(Ok(value)) => serde_json::from_value(value)
                .map_err(|error| format!("the daemon (pid {pid}) is of another version: {error}; restart it")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                Err(format!("the daemon (pid {pid}) did not answer within {} s; see its log", PATIENCE.as_secs()))
            }
        };
        Some((pid, told))
    }
}
