//! Brings alerts to a receiver: one after the other, tried again within bounds, and in nobody's way.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::{AlertNews, Outlet};
use crate::repository::{Head, Ledger};

/// News that wait for one receiver (I11). What comes beyond is in the log only.
const QUEUE: usize = 64;

/// Longest text that is handed on, in characters: an environment has no room for more than 128 KiB in one variable.
const LONGEST_TEXT: usize = 4000;

/// Pauses before what failed is tried again; then it is given up.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// What a receiver is told: `walseal.alert/1` in its JSON form.
#[derive(Clone, Debug, Serialize)]
pub struct Letter {
    schema: &'static str,
    /// Which cluster.
    pub cluster: String,
    /// What happened.
    #[serde(flatten)]
    pub news: AlertNews,
    /// The last entry of the ledger that this process wrote: who keeps it can tell later that it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
}

impl Letter {
    /// Texts are cut to a length that everybody takes.
    pub fn new(cluster: &str, mut news: AlertNews, head: Option<Head>) -> Letter {
        news.alert.text = news.alert.text.chars().filter(|one| *one != '\0').take(LONGEST_TEXT).collect();
        Letter { schema: "walseal.alert/1", cluster: cluster.to_owned(), news, head }
    }

    /// One line of JSON.
    ///
    /// Errors: in words; none is known.
    pub fn json(&self) -> Result<Vec<u8>, Undelivered> {
        let mut line = serde_json::to_vec(self).map_err(|error| Undelivered::for_good(error.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }

    /// What is wrong, or over, in a line.
    pub fn headline(&self) -> String {
        let (alert, state) = (&self.news.alert, self.news.state.word());
        let subject = if alert.subject.is_empty() { String::new() } else { format!(" ({})", alert.subject) };
        format!("walseal {}: {}{subject} {state}, {}", self.cluster, alert.kind, alert.severity.word())
    }
}

/// A letter did not arrive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undelivered {
    /// Why, in words without secrets.
    pub why: String,
    /// Whether it may help to try again.
    pub passing: bool,
}

impl Undelivered {
    pub(super) fn for_now(why: impl Into<String>) -> Undelivered {
        Undelivered { why: why.into(), passing: true }
    }

    pub(super) fn for_good(why: impl Into<String>) -> Undelivered {
        Undelivered { why: why.into(), passing: false }
    }
}

/// Somebody who is told of alerts.
#[async_trait]
pub trait Receiver: fmt::Debug + Send + Sync {
    /// The key of the configuration that names it, and where it is.
    fn name(&self) -> String;

    /// Tells it, once, in bounded time. Gives what it answered, in a few words.
    ///
    /// Errors: it was not told, or nobody knows.
    async fn tell(&self, letter: &Letter) -> Result<String, Undelivered>;
}

/// The way to one receiver.
#[derive(Debug)]
pub struct Courier {
    name: String,
    cluster: String,
    ledger: Ledger,
    queue: Mutex<Option<mpsc::Sender<Letter>>>,
    runner: Mutex<Option<JoinHandle<()>>>,
}

impl Courier {
    /// Starts a task for `receiver`. `cluster` names the cluster, `ledger` knows the head.
    pub fn start(receiver: Arc<dyn Receiver>, cluster: &str, ledger: Ledger) -> Arc<Courier> {
        Courier::patient(receiver, cluster, ledger, PAUSES)
    }

    pub(super) fn patient(
        receiver: Arc<dyn Receiver>,
        cluster: &str,
        ledger: Ledger,
        pauses: [Duration; 2],
    ) -> Arc<Courier> {
        let (queue, told) = mpsc::channel(QUEUE);
        let name = receiver.name();
        let runner = Mutex::new(Some(tokio::spawn(deliver(receiver, told, pauses))));
        Arc::new(Courier { name, cluster: cluster.to_owned(), ledger, queue: Mutex::new(Some(queue)), runner })
    }

    /// Takes no more news, and waits until all are told, until `end` at the latest.
    pub(super) async fn finish(&self, end: Instant) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut runner) = runner
            && timeout_at(end, &mut runner).await.is_err()
        {
            runner.abort();
            tracing::warn!("{} was not told of every alert before the end", self.name);
        }
    }
}

impl Outlet for Courier {
    fn tell(&self, news: &AlertNews) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let letter = Letter::new(&self.cluster, news.clone(), self.ledger.head());
        if let Some(queue) = queue.as_ref()
            && queue.try_send(letter).is_err()
        {
            tracing::warn!(alert = %news.alert.kind, "{} is too slow: it is not told of this one", self.name);
        }
    }
}

/// That a receiver fails is said once, until it works again.
async fn deliver(receiver: Arc<dyn Receiver>, mut told: mpsc::Receiver<Letter>, pauses: [Duration; 2]) {
    let (name, mut failing) = (receiver.name(), false);
    while let Some(letter) = told.recv().await {
        match persist(receiver.as_ref(), &letter, pauses).await {
            Ok(_) if std::mem::take(&mut failing) => tracing::info!("{name} works again"),
            Ok(_) => {}
            Err(Undelivered { why, .. }) if failing => tracing::debug!(why, "{name} still fails"),
            Err(Undelivered { why, .. }) => {
                tracing::error!("{name} failed, and does not hear of alerts: {why}");
                failing = true;
            }
        }
    }
}

async fn persist(receiver: &dyn Receiver, letter: &Letter, pauses: [Duration; 2]) -> Result<String, Undelivered> {
    for pause in pauses {
        match receiver.tell(letter).await {
            Err(Undelivered { why, passing: true }) => {
                tracing::debug!(why, "{} failed; tried again", receiver.name());
                sleep(pause).await;
            }
            other => return other,
        }
    }
    receiver.tell(letter).await
}
