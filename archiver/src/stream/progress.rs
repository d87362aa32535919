//! How far the stream is, for everybody who asks: status, backups that wait, the hook.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use walseal_common::lsn::Lsn;
use walseal_common::timeline::Branch;

/// A moment's view of the stream. `server_end >= received >= frontier` while connected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Whether a stream is running now.
    pub connected: bool,
    /// The branch that is streamed, or was last.
    pub branch: Option<Branch>,
    /// End of WAL on the server, as it last said.
    pub server_end: Lsn,
    /// End of what was received; may be lost with this process.
    pub received: Lsn,
    /// End of the contiguous durable WAL: what was confirmed to the server.
    pub frontier: Lsn,
    /// When the frontier last moved, by this host's clock.
    pub frontier_moved: Option<Timestamp>,
    /// Since when something received has not been durable, by this host's clock; none while all is.
    pub behind_since: Option<Timestamp>,
    /// The highest transaction time in what this process made durable.
    pub highest_time: Option<Timestamp>,
    /// Why there is no stream, in words.
    pub trouble: Option<String>,
    /// Bytes of WAL that this process made durable.
    pub shipped_bytes: u64,
}

impl Progress {
    /// How much time's worth of WAL would be lost with the server now: how long its oldest WAL that is not durable has
    /// been known here.
    pub fn behind(&self, now: Timestamp) -> std::time::Duration {
        self.behind_since
            .and_then(|since| std::time::Duration::try_from(now.duration_since(since)).ok())
            .unwrap_or_default()
    }
}

/// The side that reports.
#[derive(Clone, Debug)]
pub struct ProgressSender(watch::Sender<Progress>);

impl Default for ProgressSender {
    fn default() -> Self {
        ProgressSender(watch::Sender::new(Progress::default()))
    }
}

impl ProgressSender {
    /// Changes what is reported.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    /// The side that follows.
    pub fn watch(&self) -> ProgressWatch {
        ProgressWatch(self.0.subscribe())
    }
}

/// The side that follows.
#[derive(Clone, Debug)]
pub struct ProgressWatch(watch::Receiver<Progress>);

/// The stream ended while somebody waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the WAL stream ended")]
pub struct StreamEnded;

impl ProgressWatch {
    /// How far it is now.
    pub fn now(&self) -> Progress {
        self.0.borrow().clone()
    }

    /// Waits until the contiguous durable WAL of the stream reaches `lsn`.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn durable(&mut self, lsn: Lsn) -> Result<(), StreamEnded> {
        self.0.wait_for(|progress| progress.frontier >= lsn).await.map(|_| ()).map_err(|_| StreamEnded)
    }

    /// Waits for the next change.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn changed(&mut self) -> Result<Progress, StreamEnded> {
        self.0.changed().await.map_err(|_| StreamEnded)?;
        Ok(self.0.borrow_and_update().clone())
    }
}
