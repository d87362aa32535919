//! Taking a base backup while the WAL streams: the two halves of a restore, brought together.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use walseal_common::config::{Config, ConfigError};
use walseal_common::lsn::LsnRange;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, ReplicationClient};
use walseal_common::repository::{
    Act, BaseId, FailureClass, Label, Ledger, ObjectReference, Repository, RepositoryIdentity,
};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use crate::base::attachment::Attachment;
use crate::base::lease::Lease;
use crate::base::pace::Probe;
use crate::base::{
    self, BackupMode, BackupOptions, BaseError, DurableWal, Effort, PageCache, Policy, Stage, WaitDurable,
};
use crate::base::{config_files, names, suspect_names, switch};
use crate::keys::ArchiveKeys;
use crate::primary;
use crate::stream::{ProgressWatch, StreamError};
use crate::turns::{Occasion, Report, UnderWay};

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

/// Pauses of a backup that are worth a word, in all.
const PAUSES: Duration = Duration::from_secs(1);

/// How base backups are taken, by configuration.
#[derive(Clone, Debug)]
pub struct Manner {
    /// `base.max_rate`, in KiB per second.
    pub max_rate_kib: Option<u32>,
    /// `base.backoff`.
    pub backoff: bool,
    /// When a full one is due.
    pub policy: Policy,
    /// Where copies are kept of what the next one has to know.
    pub cache: PageCache,
}

impl Manner {
    /// As the configuration says.
    ///
    /// Errors: `cluster.state_dir` is not known.
    pub fn of(config: &Config) -> Result<Manner, ConfigError> {
        let kib = u32::try_from(config.base.max_rate.value >> 10).unwrap_or(u32::MAX);
        Ok(Manner {
            max_rate_kib: Some(kib).filter(|kib| *kib > 0),
            backoff: config.base.backoff.value,
            policy: Policy { full_every: config.base.full_every.value, max_depth: config.base.max_depth.value },
            cache: PageCache::below(&config.need_state_dir()?),
        })
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

/// Takes a base backup and returns its label, which is durable. Its beginning and its end go to the ledger.
///
/// When `stop` comes first, the server is told to end it, and nothing of it is visible. One of changed blocks that proves to be
/// impossible only when these come is begun again, with another id, and the server sends everything (case 34).
///
/// Errors: as [`base::run`]; the server is not the repository's cluster; it was stopped.
pub async fn take(
    means: &Means,
    occasion: Occasion,
    mode: BackupMode,
    mut report: impl FnMut(Report) + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<Label, TakeError> {
    let mut stop = pin!(stop);
    let mut wish = Wish { occasion, mode, whole: None };
    loop {
        let taken = attempt(means, &wish, &mut report, stop.as_mut()).await;
        match &taken {
            Err(TakeError::Base(error)) if wish.whole.is_none() => match error.calls_for_everything() {
                Some(why) => {
                    tracing::warn!(%error, "the base backup is begun again, and the server sends everything");
                    wish.whole = Some(why);
                }
                None => return taken,
            },
            _ => return taken,
        }
    }
}

/// What is wanted.
struct Wish {
    occasion: Occasion,
    mode: BackupMode,
    /// Why the server is to send everything.
    whole: Option<String>,
}

/// Tries once.
async fn attempt(
    means: &Means,
    wish: &Wish,
    report: &mut (impl FnMut(Report) + Send),
    stop: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<Label, TakeError> {
    let begun = Instant::now();
    let id = BaseId::generate().map_err(|error| TakeError::Internal(error.to_string()))?;
    let mut started = false;
    let taken = take_with(means, wish, &id, &mut started, report, stop).await;
    match &taken {
        Ok(label) => means.ledger.record(Act::BaseFinished {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            suspect: label.suspect,
            suspect_files: label.suspect_files.clone(),
            seconds: begun.elapsed().as_secs_f64(),
        }),
        Err(error) => means.ledger.record(Act::BaseFailed { id: started.then_some(id), class: error.class() }),
    }
    taken
}

async fn take_with(
    means: &Means,
    wish: &Wish,
    id: &BaseId,
    started: &mut bool,
    report: &mut (impl FnMut(Report) + Send),
    mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<Label, TakeError> {
    let Means { conninfo, repository, identity, keys, progress, ledger, manner } = means;
    let connecting = async {
        let mut client = primary::connect_within(conninfo, "walseal base backup", repository.cluster()).await?;
        crate::stream::identify(&mut client, repository, identity, conninfo.target_session_attrs()).await?;
        let probe = if manner.backoff { probe(conninfo, &client).await } else { None };
        Ok::<_, TakeError>((client, probe))
    };
    let (mut client, probe) = tokio::select! {
        connected = connecting => connected?,
        () = &mut stop => return Err(TakeError::Stopped),
    };
    // What it will refer to is not known yet, and any frame may be where it was stored first.
    let all = vec!["base/".to_owned()];
    let mut lease = Lease::take(repository, &keys.writer, id.clone(), None, all).await?;
    let text = "reading the names of relations, and configuration files".to_owned();
    report(Report { id: id.clone(), text, done: None, total: None });
    let beside = tokio::select! {
        beside = beside(means, client.host(), id) => beside,
        () = &mut stop => Err(TakeError::Stopped),
    };
    let (names, config) = match beside {
        Ok(beside) => beside,
        Err(error) => {
            lease.release().await;
            return Err(error);
        }
    };
    let options = BackupOptions {
        names,
        config,
        checkpoint: wish.occasion.checkpoint(),
        max_rate_kib: manner.max_rate_kib,
        id: Some(id.clone()),
        mode: wish.mode,
        whole: wish.whole.clone(),
        policy: manner.policy,
        cache: manner.cache.clone(),
        ..BackupOptions::by_hand(keys.as_ref().clone())
    };
    let pace = options.pace.clone();
    let probing = async {
        match probe {
            Some(probe) => probe.keep(&options.pace).await,
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
    if pace.paused() >= PAUSES {
        let paused = units::duration(pace.paused());
        tracing::info!(
            paused,
            "the base backup paused again and again, for so long in all, because the server answered slowly"
        );
    }
    lease.release().await;
    if taken.is_ok() {
        client.close().await;
    }
    taken
}

/// What the backup carries beside its files: the pages of names, and those of configuration files.
///
/// Errors: the repository's; what cannot be read is said in the pages.
async fn beside(
    means: &Means,
    host: &Host,
    id: &BaseId,
) -> Result<(Vec<ObjectReference>, Vec<ObjectReference>), TakeError> {
    let Means { conninfo, repository, keys, .. } = means;
    let level = Effort::default().level;
    let mut names = Attachment::names(repository, keys, id, level);
    let unread = names::read(conninfo, host, &mut names).await?;
    if unread > 0 {
        tracing::info!(
            databases = unread,
            "the names of relations were not read everywhere; the backup says where and why, and is whole without"
        );
    }
    let mut config = Attachment::config(repository, keys, id, level);
    let (files, unread) = config_files::read(conninfo, host, &mut config).await?;
    if unread > 0 {
        tracing::info!(
            files,
            unread,
            "configuration files outside the data directory were not all read; the backup says which and why, and is whole without"
        );
    }
    Ok((names.finish().await?, config.finish().await?))
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
        Stage::Comparing { parent } => (format!("incremental: compared with {parent}"), None, None),
        Stage::Full { why } => (format!("full: {why}"), None, None),
        Stage::Native => ("incremental: the server sends changed blocks only".to_owned(), None, None),
        Stage::NotNative { why } => (format!("incremental: the server sends everything, because {why}"), None, None),
        Stage::GoingOn { attempts } => {
            let ids = attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            (format!("what interrupted backups had stored is not stored again: {ids}"), None, None)
        }
        Stage::ObjectsMissing { count } => {
            let text = format!(
                "{count} data objects of earlier backups are GONE from the repository; what they held is stored anew"
            );
            (text, None, None)
        }
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

/// Most files that are named to people.
const FILES_TOLD: usize = 5;

/// What is wrong with a suspect backup, with the relations as the server names them where it can be asked, and what to do.
pub async fn suspicion(conninfo: Option<&Conninfo>, label: &Label) -> String {
    let (told, rest) = label.suspect_files.split_at(label.suspect_files.len().min(FILES_TOLD));
    let named = match conninfo {
        Some(conninfo) => suspect_names::named(conninfo, told).await,
        None => told.to_vec(),
    };
    let mut places = named.join("; ");
    if !rest.is_empty() {
        places = format!("{places}; and {} more files", rest.len());
    }
    let place = if places.is_empty() { String::new() } else { format!(", in {places}") };
    let pages = label.suspect;
    format!(
        "it is SUSPECT: the server reported {pages} page checksum failure(s){place}. Look at the server's log, and at its disks \
         and memory. Base backups before it may have these pages whole: keep the last one (walseal-archiver hold ID --until 90d)"
    )
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
            match progress.now().reach().filter(|(_, end)| *end >= range.end) {
                Some((now, _)) if now == branch => break,
                Some((now, _)) if now.timeline > branch.timeline => {
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
