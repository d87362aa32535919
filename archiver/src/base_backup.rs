//! Taking a base backup while the WAL streams: the two halves of a restore, brought together.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use walseal_common::config::Config;
use walseal_common::lsn::LsnRange;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient};
use walseal_common::repository::{Act, BaseId, FailureClass, Label, Ledger, Repository, RepositoryIdentity};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use crate::base::lease::Lease;
use crate::base::pace::Probe;
use crate::base::switch;
use crate::base::{self, BackupOptions, BaseError, DurableWal, Stage, WaitDurable};
use crate::keys::ArchiveKeys;
use crate::primary;
use crate::stream::{ProgressWatch, StreamError};
use crate::turns::{Occasion, UnderWay};

/// A backup could not be taken. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The backup itself.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// It is another server.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Another one is under way, or none may begin any more.
    #[error("{}", .0.as_ref().map_or_else(|| "the daemon is about to end".to_owned(), |now| format!("a base backup is already under way ({now}); wait for it to end")))]
    Busy(Option<Box<UnderWay>>),
    /// Somebody asked for that.
    #[error("the base backup was asked to stop; nothing of it is visible")]
    Stopped,
    /// A result that could not be passed on.
    #[error("{0}")]
    Internal(String),
}

impl TakeError {
    /// What failed, for the ledger.
    fn class(&self) -> FailureClass {
        match self {
            TakeError::Base(BaseError::Server(_)) | TakeError::Postgres(_) | TakeError::Stream(_) => {
                FailureClass::Server
            }
            TakeError::Base(BaseError::Repository(_)) => FailureClass::Repository,
            TakeError::Base(BaseError::Wal { .. }) => FailureClass::Wal,
            TakeError::Stopped => FailureClass::Stopped,
            TakeError::Base(_) | TakeError::Busy(_) | TakeError::Internal(_) => FailureClass::Other,
        }
    }
}

/// How long a server may take to hear that a backup was stopped.
const CANCEL: Duration = Duration::from_secs(5);

/// How base backups are taken, by configuration.
#[derive(Clone, Debug)]
pub struct Manner {
    /// `base.max_rate`, in KiB per second.
    pub max_rate_kib: Option<u32>,
    /// `base.backoff`.
    pub backoff: bool,
}

impl Manner {
    /// As the configuration says.
    pub fn new(config: &Config) -> Manner {
        let kib = u32::try_from(config.base.max_rate.value >> 10).unwrap_or(u32::MAX);
        Manner { max_rate_kib: Some(kib).filter(|kib| *kib > 0), backoff: config.base.backoff.value }
    }
}

/// What a backup is taken with.
#[derive(Clone, Debug)]
pub struct Means {
    /// The server.
    pub conninfo: Conninfo,
    /// Where it goes.
    pub repository: Repository,
    /// What the repository is.
    pub identity: RepositoryIdentity,
    /// To whom it is sealed, and who signs it.
    pub keys: Arc<ArchiveKeys>,
    /// The stream that brings the WAL.
    pub progress: ProgressWatch,
    /// Where it is recorded.
    pub ledger: Ledger,
    /// How.
    pub manner: Manner,
}

/// How far a backup is.
#[derive(Clone, Debug)]
pub struct Report {
    /// The backup.
    pub id: BaseId,
    /// What is being done, for a person.
    pub text: String,
    /// Bytes copied, where bytes are counted.
    pub done: Option<u64>,
    /// Bytes expected.
    pub total: Option<u64>,
}

/// Takes a full base backup and returns its label, which is durable. Its beginning and its end go to the ledger.
///
/// When `stop` comes first, the server is told to end it, and nothing of it is visible.
///
/// Errors: as [`base::run`]; the server is not the repository's cluster; it was stopped.
pub async fn take(
    means: &Means,
    occasion: Occasion,
    report: impl FnMut(Report) + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<Label, TakeError> {
    let begun = Instant::now();
    let id = BaseId::generate().map_err(|error| TakeError::Internal(error.to_string()))?;
    let mut started = false;
    let taken = take_with(means, occasion, &id, &mut started, report, stop).await;
    match &taken {
        Ok(label) => means.ledger.record(Act::BaseFinished {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            suspect: label.suspect,
            seconds: begun.elapsed().as_secs_f64(),
        }),
        Err(error) => means.ledger.record(Act::BaseFailed { id: started.then_some(id), class: error.class() }),
    }
    taken
}

async fn take_with(
    means: &Means,
    occasion: Occasion,
    id: &BaseId,
    started: &mut bool,
    mut report: impl FnMut(Report) + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<Label, TakeError> {
    let Means { conninfo, repository, identity, keys, progress, ledger, manner } = means;
    let mut stop = pin!(stop);
    let connecting = async {
        let mut client = primary::connect(conninfo, "walseal base backup").await?;
        crate::stream::identify(&mut client, repository, identity, conninfo.target_session_attrs()).await?;
        let probe = if manner.backoff { probe(conninfo, &client).await } else { None };
        Ok::<_, TakeError>((client, probe))
    };
    let (mut client, probe) = tokio::select! {
        connected = connecting => connected?,
        () = &mut stop => return Err(TakeError::Stopped),
    };
    let mut lease = Lease::take(repository, &keys.writer, id.clone(), None, Vec::new()).await?;
    let options = BackupOptions {
        checkpoint: occasion.checkpoint(),
        max_rate_kib: manner.max_rate_kib,
        id: Some(id.clone()),
        ..BackupOptions::by_hand(keys.as_ref().clone())
    };
    let pace = options.pace.clone();
    let probing = async {
        match probe {
            Some(probe) => probe.keep(&pace).await,
            None => std::future::pending().await,
        }
    };
    let wal = StreamedWal { repository: repository.clone(), identity: identity.clone(), progress: progress.clone() };
    let labelling = AtomicBool::new(false);
    let (waits, waiting) = watch::channel(Duration::ZERO);
    // What came of asking the primary.
    let asked = OnceLock::new();
    let mut tell = |stage: Stage| {
        labelling.store(stage == Stage::Labelling, Ordering::Relaxed);
        if let Stage::WaitingForWal { waited, .. } = &stage {
            waits.send_replace(*waited);
        }
        if let Stage::Checkpoint { id } = &stage {
            *started = true;
            ledger.record(Act::BaseStarted { id: id.clone() });
        }
        let (mut text, done, total) = words(&stage);
        if let (Stage::WaitingForWal { .. }, Some(asked)) = (&stage, asked.get()) {
            text = format!("{text}; {asked}");
        }
        report(Report { id: id.clone(), text, done, total });
    };
    let standby = (client.parameter("in_hot_standby") == Some("on")).then(|| client.host().clone());
    let asking = async {
        if let Some(standby) = standby
            && waiting.clone().wait_for(|waited| *waited >= switch::POLITE).await.is_ok()
        {
            let said = switch::ask(conninfo, &standby).await;
            tracing::info!("the base backup of the standby {standby} waits for its WAL: {said}");
            // Once, and nobody else sets it.
            let _ = asked.set(said);
        }
        std::future::pending::<Infallible>().await
    };
    let canceller = client.canceller(conninfo);
    let stopped = async {
        stop.await;
        if labelling.load(Ordering::Relaxed) {
            // Too late: nobody could say whether it is visible.
            std::future::pending().await
        }
    };
    let taken = tokio::select! {
        label = base::run(&mut client, repository, &options, &mut tell, &wal) => label.map_err(TakeError::from),
        lapsed = lease.keep() => Err(lapsed.into()),
        never = probing => match never {},
        never = asking => match never {},
        () = stopped => {
            // A server that makes its checkpoint does not see that the connection is gone.
            match tokio::time::timeout(CANCEL, canceller.cancel()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the server could not be told to end the base backup; it will see that nobody reads it"),
                Err(_) => tracing::warn!("the server did not hear in time that the base backup was stopped; it will see that nobody reads it"),
            }
            Err(TakeError::Stopped)
        }
    };
    lease.release().await;
    if taken.is_ok() {
        client.close().await;
    }
    taken
}

/// What tells how the server takes it; none where this role may only stream.
async fn probe(conninfo: &Conninfo, client: &ReplicationClient) -> Option<Probe> {
    match Probe::before(conninfo, client.host()).await {
        Ok(probe) => Some(probe),
        Err(error) => {
            tracing::info!(%error, "the server is not asked how it takes the base backup, which does not slow down when it suffers");
            None
        }
    }
}

fn words(stage: &Stage) -> (String, Option<u64>, Option<u64>) {
    match stage {
        Stage::Checkpoint { id } => (format!("{id}: the server makes a checkpoint"), None, None),
        Stage::Copying { done, total } => ("copying".to_owned(), Some(*done), *total),
        Stage::Labelling => ("writing the label".to_owned(), None, None),
        Stage::Storing => ("storing the last objects".to_owned(), None, None),
        Stage::WaitingForWal { through, waited } => {
            let text =
                format!("waiting for WAL through {through} to be durable, for {} so far", units::duration(*waited));
            (text, None, None)
        }
        Stage::ChecksumFailure { message } => {
            (format!("the server reports a page checksum failure: {message}"), None, None)
        }
    }
}

/// WAL that a stream makes durable beside the backup.
struct StreamedWal {
    repository: Repository,
    identity: RepositoryIdentity,
    progress: ProgressWatch,
}

/// The WAL that a backup needs will not come.
#[derive(Debug, thiserror::Error)]
enum MissingWal {
    #[error("the WAL stream has moved on to branch {now}, but the backup was made on {wanted}; take another one")]
    OtherBranch { now: Branch, wanted: Branch },
    #[error("WAL from {} on is missing in the repository, where it ends at {end}: the replication slot was made too late or lost WAL; take another one", .range.start)]
    Gap { range: LsnRange, end: walseal_common::lsn::Lsn },
}

#[async_trait::async_trait]
impl WaitDurable for StreamedWal {
    async fn wait_durable(
        &self,
        branch: Branch,
        range: LsnRange,
    ) -> Result<DurableWal, Box<dyn std::error::Error + Send + Sync>> {
        let mut progress = self.progress.clone();
        loop {
            progress.durable(range.end).await?;
            let now = progress.now();
            match now.branch {
                Some(now) if now == branch => break,
                Some(now) if now.timeline > branch.timeline => {
                    return Err(MissingWal::OtherBranch { now, wanted: branch }.into());
                }
                _ => progress.changed().await.map(|_| ())?,
            }
        }
        // The frontier says that there is no hole behind it as far as this stream knows; the repository says it for all.
        let size = self.identity.segment_size;
        let listing = self.repository.wal_listing(branch, size, Some(size.number(range.start))).await?;
        let end = self.repository.contiguous_end(&listing, range.start).await?;
        if end < range.end {
            return Err(MissingWal::Gap { range, end }.into());
        }
        Ok(DurableWal { highest_time: progress.now().highest_time })
    }
}
