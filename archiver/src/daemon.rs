//! The daemon: owns the stream and the socket, and shuts them down in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use walseal_common::config::{Config, OpenError};
use walseal_common::objective::Promises;
use walseal_common::postgres::conninfo::system_user;
use walseal_common::repository::{Act, BranchFrontier, Ledger, Repository};
use walseal_common::schedule::{Schedule, UnknownZone};
use walseal_common::telemetry::{self, AlertMemory, Alerts, Couriers, DeadManSwitch};

use crate::aftermath;
use crate::archive::{Archive, ArchiveError, LAST_ENTRIES};
use crate::arrival;
use crate::base_backup::Manner;
use crate::canary;
use crate::cataloguer;
use crate::desk::Desk;
use crate::figures::{FigurePages, Figures};
use crate::frontier_recorder;
use crate::heartbeat;
use crate::hook::Archivist;
use crate::index::{Index, MemoryIndex, SledIndex};
use crate::lock::{LockError, StateLock};
use crate::lookout::{self, Lookout};
use crate::objectives;
use crate::requests::Recent;
use crate::retention::{self, Pruner};
use crate::scheduler::{NamedZone, Scheduler};
use crate::snapshot;
use crate::snapshot::keeper::Keeper;
use crate::socket::{self, SocketError};
use crate::stream::{Limit, ProgressWatch, SessionEnd, StreamError, Streamer, Timing};
use crate::summarist;
use crate::turns::Turns;
use crate::verify;
use crate::wellness::Wellness;

/// The daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The repository.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The state folder.
    #[error(
        "the folder {} (cluster.state_dir) cannot be made or used: {source}; name another one, or as root: install -d -o {} -m \
         700 {}",
        path.display(),
        system_user().as_deref().unwrap_or("USER"),
        path.display()
    )]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon is there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The address of the HTTP side.
    #[error("http.listen: {address} cannot be used: {source}; name another address or port, or leave it out")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The schedule's time zone.
    #[error("base.timezone: {0}")]
    Zone(#[from] UnknownZone),
    /// The time zone of snapshots.
    #[error("snapshot.timezone: {0}")]
    SnapshotZone(UnknownZone),
    /// Neither WAL nor snapshots.
    #[error(
        "wal.enabled is false, and neither snapshot.schedule nor snapshot.interval says when to dump: set one of them, or take one now with: \
         walseal-archiver snapshot"
    )]
    NothingToDo,
    /// The stream ended for good.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A task of the daemon ended early; this is a bug.
    #[error("a part of the daemon ended early: {0}")]
    Task(String),
    /// A second signal came before everything was shipped.
    #[error("asked twice to stop: stopped at once; what was not shipped is kept by the replication slot")]
    Aborted,
}

/// How a stream behaves by configuration.
pub fn timing(archive: &Archive) -> Timing {
    let wal = &archive.config.wal;
    Timing {
        ship_interval: wal.ship_interval.value,
        synchronous: wal.synchronous.value,
        stall_limit: wal.stall_limit.value,
        shutdown_wait: wal.shutdown_wait.value,
        status_interval: Duration::from_secs(1),
        // As PostgreSQL's own wal_receiver_timeout.
        silence_limit: Duration::from_secs(60),
        // Longer than the slowest put of a store that is alive, which has deadlines of its own.
        put_limit: Duration::from_secs(300),
        // One listing, of what is nearly always empty.
        adoptions_every: Duration::from_secs(60),
    }
}

/// Runs until SIGTERM or SIGINT: then ships the tail, confirms it, and returns. A second signal returns at once.
pub async fn run(archive: Archive) -> Result<SessionEnd, DaemonError> {
    let started = Timestamp::now();
    let config = archive.config.clone();
    let conninfo = config.open_conninfo()?;
    let slot = config.need_slot().map_err(OpenError::from)?;
    let zone = config.base.timezone.as_ref().map(|name| NamedZone::of(&name.value)).transpose()?;
    let state_dir = config.need_state_dir().map_err(OpenError::from)?;
    make_private(&state_dir)?;
    // Before the index and the socket are touched, and before the store, which may keep this waiting.
    let _alone = StateLock::take(&state_dir)?;
    // Taken before anything begins: an address that is taken is no reason to end later.
    let listener = listen(&config).await?;
    let dead_man = dead_man_switch(&config)?;
    let mut signals = Signals::new()?;
    let limit = config.wal.give_up_at.as_ref().map(|bytes| Limit::new(bytes.value));
    let arrived =
        arrival::repository(&archive, &conninfo, &state_dir, listener.as_ref(), started, &mut signals, limit.as_ref());
    let found = arrived.await?;
    let Some((repository, identity)) = found else { return Ok(SessionEnd::Asked) };
    let ledger = archive.ledger(&repository);
    let couriers = couriers(&config, &ledger)?;
    let mut outlets = couriers.outlets();
    outlets.push(Arc::new(ledger.clone()));
    let alerts = Alerts::to(outlets);
    let of = format!("{} in {}", repository.cluster(), repository.describe());
    let memory = AlertMemory::new(state_dir.join(STANDING), of);
    memory.recall(&alerts);
    arrival::hand_over(&state_dir, &alerts, &memory);
    lookout::judge_recipients(&alerts, &archive.keys.recipients);
    let keeper = Keeper::of(&archive, conninfo.clone(), alerts.clone(), Some(ledger.clone()));
    let keeper = keeper.map_err(DaemonError::SnapshotZone)?;
    lookout::dismiss_unwatched(&config, &alerts, keeper.is_some());
    if limit.as_ref().is_some_and(Limit::is_without_slot) {
        // While there was no ledger to write to.
        ledger.record(Act::SlotDropped {});
    }
    let (summaries, runs) = mpsc::channel(summarist::WAITING);
    let streamer = Streamer::new(
        conninfo.clone(),
        slot.clone(),
        repository.clone(),
        identity.clone(),
        archive.keys.clone(),
        index(&state_dir, &repository),
        timing(&archive),
    )
    .alerting(alerts.clone())
    .recording(ledger.clone())
    .giving_up_at(limit.clone())
    .summarising(summaries);
    let archivist =
        Archivist::new(repository.clone(), identity.clone(), archive.keys.clone(), Some(streamer.progress()))
            .sharing(streamer.memory.clone())
            .knowing(streamer.landed.clone());
    let desk = Arc::new(Desk {
        requests: Arc::new(Recent::of(repository.store().tally())),
        conninfo,
        repository,
        identity,
        keys: archive.keys.clone(),
        progress: streamer.progress(),
        manner: Manner::of(&config).map_err(OpenError::from)?,
        turns: Turns::default(),
        next: watch::Sender::new(None),
        retention: watch::Sender::new(None),
        objectives: watch::Sender::new(None),
        taken: watch::Sender::new(0),
        archivist: Arc::new(archivist),
        ahead: Arc::default(),
        alerts: alerts.clone(),
        ledger: ledger.clone(),
    });
    let socket = socket::path(&state_dir);
    let position = desk.progress.clone();
    alerts.carry(move || {
        let now = position.now();
        let branch = now.branch.filter(|_| !now.frontier.is_invalid())?;
        Some(BranchFrontier { branch, frontier: now.frontier })
    });
    let serving = tokio::spawn(socket::serve(&socket, desk.clone()).await?);
    ledger.record(Act::DaemonStarted {});
    let lookout = Lookout::new(
        &config,
        alerts.clone(),
        desk.progress.clone(),
        (desk.repository.clone(), desk.identity.segment_size),
        desk.conninfo.clone(),
        slot,
    )
    .limiting(limit);
    let verifier =
        verify::Keeper::new(&config, &desk.repository, state_dir.clone(), desk.progress.clone(), alerts.clone());
    let shown = listener.map(|listener| Shown {
        listener,
        started,
        snapshots: keeper.as_ref().map(|keeper| keeper.figures.clone()),
    });
    let mut beside = beside(&config, &desk, &streamer, lookout, verifier, shown, dead_man);
    let remembering = memory.clone().keep(alerts.clone());
    beside.spawn(async move { match remembering.await {} });
    beside.spawn(lookout::settle(alerts.clone(), desk.progress.clone()));
    beside.spawn(summarist::run(desk.repository.clone(), desk.keys.clone(), runs, desk.progress.clone()));
    if let Some(keeper) = keeper {
        beside.spawn(keeper.keep());
    }
    beside.spawn(promises(&archive, &desk).keep());
    beside.spawn(desk.requests.clone().keep());
    if let Some(schedule) = &config.base.schedule.value {
        beside.spawn(scheduler(schedule.clone(), zone, &config, &desk).keep());
    }
    let (stop, stopped) = watch::channel(false);
    let streaming = tokio::spawn(async move { streamer.run(stopped).await });
    notify(&[sd_notify::NotifyState::Ready]);
    let outcome = supervise(streaming, serving, &mut beside, signals, &stop, &desk.turns).await;
    // Who asked twice waits for nothing.
    let patience = |limit| if matches!(outcome, Err(DaemonError::Aborted)) { Duration::ZERO } else { limit };
    // So that the server and the ledger hear of it.
    desk.turns.close();
    if tokio::time::timeout(patience(LAST_BACKUP), desk.turns.free()).await.is_err() {
        tracing::debug!("a base backup was broken off");
    }
    // Nothing of it leaves anything half done: a backup without a label does not exist (I7).
    drop(beside);
    memory.save(&alerts);
    ledger.record(ended(&outcome, &desk.progress));
    tokio::join!(couriers.finish(patience(LAST_ALERTS)), ledger.finish(patience(LAST_ENTRIES)));
    // The next daemon finds a clean place; one that was killed leaves the socket, and the next removes it.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(%error, "the socket was gone already");
    }
    outcome
}

/// Where figures are served, and what they are that others than the stream know.
struct Shown {
    listener: Arc<TcpListener>,
    /// When this daemon began.
    started: Timestamp,
    snapshots: Option<Arc<snapshot::figures::Figures>>,
}

/// What goes on beside the stream, and ends with it.
fn beside(
    config: &Config,
    desk: &Arc<Desk>,
    streamer: &Streamer,
    lookout: Lookout,
    verifier: verify::Keeper,
    shown: Option<Shown>,
    dead_man: Option<DeadManSwitch>,
) -> JoinSet<()> {
    let mut beside = JoinSet::new();
    let (progress, repository) = (|| desk.progress.clone(), || desk.repository.clone());
    if let Some(interval) = &config.wal.heartbeat {
        let (conninfo, name) = (desk.conninfo.clone(), streamer.application_name.clone());
        beside.spawn(heartbeat::beat(conninfo, name, interval.value, progress()));
    }
    if config.wal.canary.value {
        let (conninfo, name) = (desk.conninfo.clone(), streamer.application_name.clone());
        beside.spawn(canary::keep(conninfo, name, config.wal.canary_interval.value, progress()));
    }
    let interval = config.wal.frontier_interval.value;
    let written = watch::Sender::new(None);
    if let Some(switch) = dead_man {
        let (alerts, ledger) = (desk.alerts.clone(), desk.ledger.clone());
        let wellness = Wellness { alerts, progress: progress(), rpo: config.alerts.rpo.value, ledger };
        beside.spawn(wellness.tell(switch, written.subscribe()));
    }
    let (keys, ledger) = (desk.keys.clone(), desk.ledger.clone());
    beside.spawn(frontier_recorder::run(repository(), keys, ledger, interval, progress(), written));
    let within = config.alerts.proven_within.value;
    let (of, told) = (repository(), desk.alerts.clone());
    beside.spawn(async move { match telemetry::watch_proof(of, told, within).await {} });
    let promises = Promises::of(config);
    let objectives = objectives::Keeper::new(repository(), promises, interval, desk.objectives.clone());
    beside.spawn(objectives.keep(desk.ledger.clone()));
    let (size, writer) = (desk.identity.segment_size, desk.keys.writer.clone());
    beside.spawn(cataloguer::run(repository(), size, writer, progress()));
    if let Some(Shown { listener, started, snapshots }) = shown {
        let (alerts, identity, memory) = (desk.alerts.clone(), desk.identity.clone(), streamer.memory.clone());
        let (kept, verified) = (lookout.kept.subscribe(), verifier.verified.subscribe());
        let figures = Figures::new(progress(), alerts, repository(), identity, memory, kept, verified)
            .keeping(desk.retention.subscribe())
            .measuring(desk.objectives.subscribe())
            .since(started)
            .beside(snapshots);
        beside.spawn(show(listener, Arc::new(figures), desk.taken.subscribe()));
    }
    beside.spawn(async move { match lookout.keep().await {} });
    beside.spawn(verifier.keep());
    beside.spawn(aftermath::mend(repository(), desk.identity.clone(), progress(), desk.clone(), desk.alerts.clone()));
    let (alerts, after) = (desk.alerts.clone(), config.alerts.remind_after.value);
    beside.spawn(async move { match alerts.remind(after).await {} });
    beside
}

pub(crate) async fn listen(config: &Config) -> Result<Option<Arc<TcpListener>>, DaemonError> {
    let Some(address) = config.listen.as_ref().map(|setting| setting.value) else { return Ok(None) };
    let listener = telemetry::listen(address).await.map_err(|source| DaemonError::Http { address, source })?;
    tracing::info!(%address, "serving /metrics and /healthz");
    Ok(Some(Arc::new(listener)))
}

/// Serves the figures, and follows what they are made of.
async fn show(listener: Arc<TcpListener>, figures: Arc<Figures>, taken: watch::Receiver<u64>) {
    tokio::join!(telemetry::serve(&listener, Arc::new(FigurePages(figures.clone()))), figures.follow(taken));
}

/// How it ended, for the ledger.
fn ended(outcome: &Result<SessionEnd, DaemonError>, last: &ProgressWatch) -> Act {
    let bytes_left = match outcome {
        Ok(SessionEnd::AskedWithRest(rest)) => *rest,
        Ok(_) => 0,
        Err(_) => last.now().not_durable(),
    };
    Act::DaemonStopped { bytes_left, asked: outcome.is_ok() || matches!(outcome, Err(DaemonError::Aborted)) }
}

/// Who keeps to what retention promises.
fn promises(archive: &Archive, desk: &Arc<Desk>) -> retention::Keeper {
    let (repository, identity) = (desk.repository.clone(), desk.identity.clone());
    let grace = archive.config.retention.grace.value;
    retention::Keeper {
        pruner: Pruner::of(archive, repository, identity, grace, desk.ledger.clone()),
        enabled: archive.config.retention.prune.value,
        taken: desk.taken.subscribe(),
        progress: desk.progress.clone(),
        told: desk.retention.clone(),
        alerts: desk.alerts.clone(),
    }
}

/// The base backups of `schedule`.
fn scheduler(schedule: Schedule, zone: Option<NamedZone>, config: &Config, desk: &Arc<Desk>) -> Scheduler {
    Scheduler {
        schedule,
        zone,
        jitter: config.base.jitter.value,
        conninfo: desk.conninfo.clone(),
        repository: desk.repository.clone(),
        progress: desk.progress.clone(),
        turns: desk.turns.clone(),
        taken: desk.taken.subscribe(),
        taker: desk.clone(),
        alerts: desk.alerts.clone(),
        next: desk.next.clone(),
        only_wrong: None,
    }
}

/// What stands, in `cluster.state_dir`.
pub(crate) const STANDING: &str = "alerts.json";

/// How long the end of the daemon may wait for a base backup to be stopped.
const LAST_BACKUP: Duration = Duration::from_secs(8);

/// How long the end of the daemon may wait for alerts to be told.
pub(crate) const LAST_ALERTS: Duration = Duration::from_secs(5);

/// Everybody who hears of alerts.
pub(crate) fn couriers(config: &Config, ledger: &Ledger) -> Result<Couriers, DaemonError> {
    Couriers::start(config, &cluster_name(config), ledger).map_err(|error| OpenError::from(error).into())
}

/// Who misses this daemon, where somebody does.
pub(crate) fn dead_man_switch(config: &Config) -> Result<Option<DeadManSwitch>, DaemonError> {
    let address = config.heartbeat_url().map_err(OpenError::from)?;
    Ok(address.map(|address| DeadManSwitch::new(address, cluster_name(config))))
}

/// What others know the cluster by; nothing where only dumps are taken and it has no name.
fn cluster_name(config: &Config) -> String {
    config.cluster.name.as_ref().map(|name| name.value.clone()).unwrap_or_default()
}

/// The index in the state folder; one in memory where none can be made, which costs reads and nothing else (I8).
fn index(state_dir: &std::path::Path, repository: &Repository) -> Arc<dyn Index> {
    match SledIndex::open(&state_dir.join("index"), repository) {
        Ok(index) => Arc::new(index),
        Err(why) => {
            tracing::warn!(why, "no local index can be kept; what is in the repository is verified anew at each start");
            Arc::new(MemoryIndex::default())
        }
    }
}

/// What asks a daemon to stop, from its beginning on: as the first process of a container it would hear nothing otherwise.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, DaemonError> {
        let handler = |kind| signal(kind).map_err(|error| DaemonError::Task(error.to_string()));
        Ok(Signals { terminate: handler(SignalKind::terminate())?, interrupt: handler(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn supervise(
    mut streaming: tokio::task::JoinHandle<Result<SessionEnd, StreamError>>,
    mut serving: tokio::task::JoinHandle<std::io::Error>,
    beside: &mut JoinSet<()>,
    mut signals: Signals,
    stop: &watch::Sender<bool>,
    turns: &Turns,
) -> Result<SessionEnd, DaemonError> {
    let mut asked = false;
    loop {
        let signalled = tokio::select! {
            ended = &mut streaming => {
                serving.abort();
                return Ok(ended.map_err(|error| DaemonError::Task(error.to_string()))??);
            }
            failed = &mut serving => {
                let why = failed.map_or_else(|error| error.to_string(), |error| error.to_string());
                stop.send_replace(true);
                return Err(DaemonError::Task(format!("the socket: {why}")));
            }
            // Who looks after base backups and alerts must not be missing unnoticed: the next daemon has all of its parts.
            why = first_panic(beside) => {
                serving.abort();
                stop.send_replace(true);
                return Err(DaemonError::Task(why));
            }
            name = signals.next() => name,
        };
        if asked {
            return Err(DaemonError::Aborted);
        }
        asked = true;
        tracing::info!("{signalled}: shipping what is left, then stopping; a second signal stops at once");
        notify(&[sd_notify::NotifyState::Stopping]);
        turns.close();
        stop.send_replace(true);
    }
}

/// Waits for a task that ends by a panic; one that has nothing more to do is no news.
async fn first_panic(tasks: &mut JoinSet<()>) -> String {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => return error.to_string(),
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}

pub(crate) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Makes the state folder, for this user only.
pub fn make_private(folder: &std::path::Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| DaemonError::StateDir { path: folder.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_a_panic_ends_the_daemon_and_one_that_is_done_does_not() {
        let mut parts = JoinSet::new();
        parts.spawn(async {});
        let (stop, stopped) = watch::channel(false);
        let (streaming, serving) = (tokio::spawn(std::future::pending()), tokio::spawn(std::future::pending()));
        let handlers = Signals::new().expect("handlers");
        parts.spawn(async { panic!("on purpose") });
        let ended = supervise(streaming, serving, &mut parts, handlers, &stop, &Turns::default()).await;
        let Err(DaemonError::Task(why)) = ended else { panic!("{ended:?}") };
        assert!(why.contains("on purpose") && *stopped.borrow(), "{why}");
    }
}
