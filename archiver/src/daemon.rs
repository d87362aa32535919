//! The daemon: owns the stream and the socket, and shuts them down in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use walseal_common::config::{Config, OpenError};
use walseal_common::postgres::conninfo::system_user;
use walseal_common::repository::{Act, Repository};
use walseal_common::schedule::{Schedule, UnknownZone};
use walseal_common::telemetry::{self, AlertCommand, Alerts, Outlet};

use crate::aftermath;
use crate::archive::{Archive, ArchiveError, LAST_ENTRIES};
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
use crate::lookout::Lookout;
use crate::scheduler::{NamedZone, Scheduler};
use crate::socket::{self, SocketError};
use crate::stream::{Limit, ProgressWatch, SessionEnd, StreamError, Streamer, Timing};
use crate::turns::Turns;

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
    let config = archive.config.clone();
    let conninfo = config.open_conninfo()?;
    let slot = config.need_slot().map_err(OpenError::from)?;
    let zone = config.base.timezone.as_ref().map(|name| NamedZone::of(&name.value)).transpose()?;
    let state_dir = config.need_state_dir().map_err(OpenError::from)?;
    make_private(&state_dir)?;
    // Before the index and the socket are touched, and before the store, which may keep this waiting.
    let _alone = StateLock::take(&state_dir)?;
    let (repository, identity) = archive.repository(&conninfo).await?;
    let command = alert_command(&config)?;
    // Taken before anything begins: an address that is taken is no reason to end later.
    let listener = listen(&config).await?;
    let ledger = archive.ledger(&repository);
    let told = command.iter().map(|command| command.clone() as Arc<dyn Outlet>);
    let alerts = Alerts::to(told.chain([Arc::new(ledger.clone()) as Arc<dyn Outlet>]).collect());
    let limit = config.wal.give_up_at.as_ref().map(|bytes| Limit::new(bytes.value));
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
    .giving_up_at(limit.clone());
    let archivist =
        Archivist::new(repository.clone(), identity.clone(), archive.keys.clone(), Some(streamer.progress()))
            .sharing(streamer.memory.clone())
            .knowing(streamer.landed.clone());
    let desk = Arc::new(Desk {
        conninfo,
        repository,
        identity,
        keys: archive.keys.clone(),
        progress: streamer.progress(),
        manner: Manner::of(&config).map_err(OpenError::from)?,
        turns: Turns::default(),
        next: watch::Sender::new(None),
        taken: watch::Sender::new(0),
        archivist: Arc::new(archivist),
        ahead: Arc::default(),
        alerts: alerts.clone(),
        ledger: ledger.clone(),
    });
    let socket = socket::path(&state_dir);
    let serving = tokio::spawn(socket::serve(&socket, desk.clone()).await?);
    ledger.record(Act::DaemonStarted {});
    let lookout = Lookout::new(
        &config,
        alerts.clone(),
        desk.progress.clone(),
        desk.repository.clone(),
        desk.conninfo.clone(),
        slot,
    )
    .limiting(limit);
    let mut beside = beside(&config, &desk, &streamer, lookout, listener);
    if let Some(schedule) = &config.base.schedule.value {
        beside.spawn(scheduler(schedule.clone(), zone, &config, &desk).keep());
    }
    let (stop, stopped) = watch::channel(false);
    let streaming = tokio::spawn(async move { streamer.run(stopped).await });
    notify(&[sd_notify::NotifyState::Ready]);
    let outcome = supervise(streaming, serving, &stop, &desk.turns).await;
    // Who asked twice waits for nothing.
    let patience = |limit| if matches!(outcome, Err(DaemonError::Aborted)) { Duration::ZERO } else { limit };
    // So that the server and the ledger hear of it.
    desk.turns.close();
    if tokio::time::timeout(patience(LAST_BACKUP), desk.turns.free()).await.is_err() {
        tracing::debug!("a base backup was broken off");
    }
    // Nothing of it leaves anything half done: a backup without a label does not exist (I7).
    drop(beside);
    ledger.record(ended(&outcome, &desk.progress));
    let alerts_told = async {
        if let Some(command) = &command {
            command.finish(patience(LAST_ALERTS)).await;
        }
    };
    tokio::join!(alerts_told, ledger.finish(patience(LAST_ENTRIES)));
    // The next daemon finds a clean place; one that was killed leaves the socket, and the next removes it.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(%error, "the socket was gone already");
    }
    outcome
}

/// What goes on beside the stream, and ends with it.
fn beside(
    config: &Config,
    desk: &Arc<Desk>,
    streamer: &Streamer,
    lookout: Lookout,
    listener: Option<TcpListener>,
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
    beside.spawn(frontier_recorder::run(repository(), desk.keys.clone(), interval, progress()));
    let (size, writer) = (desk.identity.segment_size, desk.keys.writer.clone());
    beside.spawn(cataloguer::run(repository(), size, writer, progress()));
    if let Some(listener) = listener {
        let (alerts, identity, memory) = (desk.alerts.clone(), desk.identity.clone(), streamer.memory.clone());
        let figures = Figures::new(progress(), alerts, repository(), identity, memory, lookout.kept.subscribe());
        beside.spawn(show(listener, Arc::new(figures), desk.taken.subscribe()));
    }
    beside.spawn(async move { match lookout.keep().await {} });
    beside.spawn(aftermath::mend(repository(), desk.identity.clone(), progress(), desk.clone(), desk.alerts.clone()));
    let (alerts, after) = (desk.alerts.clone(), config.alerts.remind_after.value);
    beside.spawn(async move { match alerts.remind(after).await {} });
    beside
}

async fn listen(config: &Config) -> Result<Option<TcpListener>, DaemonError> {
    let Some(address) = config.listen.as_ref().map(|setting| setting.value) else { return Ok(None) };
    let listener = telemetry::listen(address).await.map_err(|source| DaemonError::Http { address, source })?;
    tracing::info!(%address, "serving /metrics and /healthz");
    Ok(Some(listener))
}

/// Serves the figures, and follows what they are made of.
async fn show(listener: TcpListener, figures: Arc<Figures>, taken: watch::Receiver<u64>) {
    tokio::join!(telemetry::serve(listener, Arc::new(FigurePages(figures.clone()))), figures.follow(taken));
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
    }
}

/// How long the end of the daemon may wait for a base backup to be stopped.
const LAST_BACKUP: Duration = Duration::from_secs(8);

/// How long the end of the daemon may wait for alerts to be told.
const LAST_ALERTS: Duration = Duration::from_secs(5);

/// The command that hears of alerts, where there is one.
fn alert_command(config: &Config) -> Result<Option<Arc<AlertCommand>>, DaemonError> {
    let Some(command) = &config.alerts.command else { return Ok(None) };
    let name = config.need_name().map_err(OpenError::from)?.value.clone();
    Ok(Some(AlertCommand::start(command.value.clone(), name, config.alerts.command_limit.value)))
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

async fn supervise(
    mut streaming: tokio::task::JoinHandle<Result<SessionEnd, StreamError>>,
    mut serving: tokio::task::JoinHandle<std::io::Error>,
    stop: &watch::Sender<bool>,
    turns: &Turns,
) -> Result<SessionEnd, DaemonError> {
    let handler = |kind| signal(kind).map_err(|error| DaemonError::Task(error.to_string()));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
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
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
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

fn notify(states: &[sd_notify::NotifyState<'_>]) {
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
