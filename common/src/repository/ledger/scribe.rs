//! Who writes the ledger while others work: in order, again and again while the store is away, and never in anybody's way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Act, Chain, Head};
use crate::repository::{Repository, RepositoryError};
use crate::seal::{Role, TrustedWriter, WriterKey};

/// Entries that wait for the store (I11).
const QUEUE: usize = 256;

/// First and longest pause after an entry that could not be written.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Who signs, and as whom.
#[derive(Clone, Debug)]
pub struct LedgerSigner {
    /// The key.
    pub writer: WriterKey,
    /// Who acts.
    pub actor: String,
    /// The program and its version.
    pub program: String,
}

/// The ledger of this process, to be written. Clones share its run.
#[derive(Clone, Debug)]
pub struct Ledger(Option<Arc<Scribe>>);

#[derive(Debug)]
struct Scribe {
    queue: Mutex<Option<mpsc::Sender<(Timestamp, Act)>>>,
    /// Entries that found the queue full.
    lost: Arc<AtomicU64>,
    unwritten: Arc<Mutex<VecDeque<String>>>,
    /// Changes when there is less of it.
    done: watch::Receiver<()>,
    /// The last entry that is stored.
    head: watch::Receiver<Option<Head>>,
    /// Why the last attempt failed, where it cannot help to try again now.
    hopeless: watch::Receiver<Option<String>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Nobody writes: what is recorded is forgotten.
    pub fn none() -> Ledger {
        Ledger(None)
    }

    /// Begins a run. Nothing is written before something is recorded.
    pub fn start(repository: &Repository, signer: LedgerSigner) -> Ledger {
        let mut trust = repository.trust().clone();
        // Heads of its own earlier runs count, whoever else trusts this writer.
        trust.add(TrustedWriter { key: signer.writer.public(), roles: vec![Role::Drill] });
        let repository = Repository::new(repository.store().clone(), repository.cluster(), trust);
        let (queue, told) = mpsc::channel(QUEUE);
        let (lost, unwritten) = (Arc::new(AtomicU64::new(0)), Arc::default());
        let (gave_up, hopeless) = watch::channel(None);
        let (stored, head) = watch::channel(None);
        let (less, done) = watch::channel(());
        let reporting = Reporting { gave_up, stored, less };
        let writing = write_all(repository, signer, told, Arc::clone(&lost), Arc::clone(&unwritten), reporting);
        let task = Mutex::new(Some(tokio::spawn(writing)));
        Ledger(Some(Arc::new(Scribe { queue: Mutex::new(Some(queue)), lost, unwritten, done, head, hopeless, task })))
    }

    /// The last entry that this process stored; none before the first.
    pub fn head(&self) -> Option<Head> {
        self.0.as_ref().and_then(|scribe| scribe.head.borrow().clone())
    }

    /// Changes with each entry that this process stores; `None` where nobody writes.
    pub fn watch_head(&self) -> Option<watch::Receiver<Option<Head>>> {
        self.0.as_ref().map(|scribe| scribe.head.clone())
    }

    /// Records something that has happened just now. Returns at once.
    pub fn record(&self, act: Act) {
        self.take(act);
    }

    /// Records what is about to happen, and waits until that is stored, for at most `limit`. Says whether it is: what must be on record
    /// must not be done before.
    pub async fn record_first(&self, act: Act, limit: Duration) -> bool {
        self.take(act) && self.written(limit).await
    }

    /// Whether there was room for it.
    fn take(&self, act: Act) -> bool {
        let Some(scribe) = &self.0 else { return true };
        let queue = scribe.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let word = act.word();
        // In the list before it is in the queue, which hands it on at once.
        scribe.unwritten.lock().unwrap_or_else(PoisonError::into_inner).push_back(word.clone());
        let taken = queue.as_ref().is_some_and(|queue| queue.try_send((Timestamp::now(), act)).is_ok());
        if !taken {
            scribe.unwritten.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
            scribe.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(act = word, "not in the ledger: too many entries wait for the store");
        }
        taken
    }

    /// Waits until all that was recorded is stored.
    async fn written(&self, limit: Duration) -> bool {
        let Some(scribe) = &self.0 else { return true };
        let mut done = scribe.done.clone();
        let all = async {
            while !scribe.unwritten.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                if done.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(limit, all).await.unwrap_or(false)
    }

    /// Takes no more, and waits until all is written, for at most `limit`, and no longer where it is hopeless (the store does
    /// not permit it). What is not written is said in the log.
    pub async fn finish(&self, limit: Duration) {
        let Some(scribe) = &self.0 else { return };
        drop(scribe.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = scribe.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut hopeless = scribe.hopeless.clone();
        let mut why = "the store did not take it in time".to_owned();
        if let Some(mut task) = task {
            tokio::select! {
                // All is written, or nothing can be.
                _ = &mut task => {}
                Ok(gave_up) = hopeless.wait_for(Option::is_some) => {
                    why = gave_up.clone().unwrap_or_default();
                }
                () = sleep(limit) => {}
            }
            task.abort();
        }
        let unwritten = std::mem::take(&mut *scribe.unwritten.lock().unwrap_or_else(PoisonError::into_inner));
        if !unwritten.is_empty() {
            let acts = unwritten.into_iter().collect::<Vec<_>>().join(", ");
            tracing::warn!(acts, "not recorded in the ledger: {why}");
        }
    }
}

/// What the task tells of its work.
struct Reporting {
    gave_up: watch::Sender<Option<String>>,
    stored: watch::Sender<Option<Head>>,
    less: watch::Sender<()>,
}

async fn write_all(
    repository: Repository,
    signer: LedgerSigner,
    mut told: mpsc::Receiver<(Timestamp, Act)>,
    lost: Arc<AtomicU64>,
    unwritten: Arc<Mutex<VecDeque<String>>>,
    reporting: Reporting,
) {
    let mut chain = match Chain::new(repository, signer) {
        Ok(chain) => chain,
        Err(error) => return tracing::error!(%error, "there is no ledger of this run"),
    };
    let mut said = false;
    while let Some((time, act)) = told.recv().await {
        write(&mut chain, time, &act, &mut said, &reporting).await;
        unwritten.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        reporting.less.send_replace(());
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            write(&mut chain, Timestamp::now(), &Act::EntriesLost { count }, &mut said, &reporting).await;
        }
    }
}

/// Writes until it is written; why not is said once.
async fn write(chain: &mut Chain, time: Timestamp, act: &Act, said: &mut bool, reporting: &Reporting) {
    let mut pause = PAUSES.0;
    while let Err(error) = chain.write(time, act).await {
        if matches!(error, RepositoryError::Conflict { .. }) {
            // A run of this id is not ours alone: go on as another.
            tracing::error!(%error, "the ledger begins a new run");
            if chain.begin_anew().is_ok() {
                continue;
            }
        }
        reporting.gave_up.send_replace(error.is_permanent().then(|| error.to_string()));
        if !*said {
            tracing::warn!(%error, act = act.word(), "not in the ledger yet; tried again");
            *said = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
    reporting.stored.send_replace(chain.head());
    reporting.gave_up.send_replace(None);
    if std::mem::take(said) {
        tracing::info!("the ledger is written again");
    }
}
