//! A base backup from beginning to end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::postgres::replication::{
    BackupEvent, BaseBackup, BaseBackupOptions, Checkpoint, ManifestChecksums, ReplicationClient,
};
use walseal_common::repository::{BaseId, BaseType, Label, Lineage, ObjectName, ObjectReference, Repository, Step};
use walseal_common::seal::Kind;
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

use super::checksum::ChecksumAlgorithm;
use super::decision::{BackupMode, Policy};
use super::error::BaseError;
use super::intake::{Intake, TakenIn};
use super::known::{KnownFrames, PageCache};
use super::pace::Pace;
use super::progress::{Progress, Stage};
use super::shipper::{Effort, Shipper, put};
use super::suspect::Suspect;
use super::tablespaces::Tablespaces;
use crate::keys::ArchiveKeys;

use native::Native;
use needed::Needed;

/// How often a backup says what it waits for.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Bytes between two reports of what was copied.
const REPORT_BYTES: u64 = 1 << 20;

/// The longest link that a tar header of PostgreSQL tells of, in bytes (`tarCreateHeader` in `src/port/tar.c`).
const LONGEST_LINK: usize = 99;

/// How a backup is made.
#[derive(Clone)]
pub struct BackupOptions {
    /// Kept in `backup_label` on the server's side; everybody who restores sees it.
    pub label: String,
    /// Whether the server makes its checkpoint at once, which costs it a burst of writes, or takes its time.
    pub checkpoint: Checkpoint,
    /// Most KiB per second that the server sends; `None` for no limit.
    pub max_rate_kib: Option<u32>,
    /// To whom objects are sealed, and who signs them.
    pub keys: Arc<ArchiveKeys>,
    /// How much is under way at once.
    pub effort: Effort,
    /// Whether it is to be full or incremental.
    pub mode: BackupMode,
    /// Why the server is to send everything, where it could send changed blocks only; a clause.
    pub whole: Option<String>,
    /// When a full one is due.
    pub policy: Policy,
    /// Where copies are kept of what the next one has to know.
    pub cache: PageCache,
    /// Bytes that are stored between two pages with which another attempt can go on.
    pub resume_every: u64,
    /// The backup's name, where it is known before; else it is drawn.
    pub id: Option<BaseId>,
    /// Slows reading down while the server suffers.
    pub pace: Pace,
    /// Pages that are stored already: which relation each file is.
    pub names: Vec<ObjectReference>,
    /// Likewise: configuration files outside the data directory.
    pub config: Vec<ObjectReference>,
    /// What the backup comes from, where it is taken of a drill's instance.
    pub derived: Option<Lineage>,
}

/// A page for each 16 full objects: six puts more in a hundred, and half a second's worth of work lost at the most.
const RESUME_EVERY: u64 = 256 << 20;

impl BackupOptions {
    /// A backup that somebody waits for: the checkpoint is made at once.
    pub fn by_hand(keys: ArchiveKeys) -> BackupOptions {
        BackupOptions {
            label: "walseal".to_owned(),
            checkpoint: Checkpoint::Fast,
            max_rate_kib: None,
            keys: Arc::new(keys),
            effort: Effort::default(),
            mode: BackupMode::Auto,
            whole: None,
            policy: Policy::default(),
            cache: PageCache::default(),
            resume_every: RESUME_EVERY,
            id: None,
            pace: Pace::default(),
            names: Vec::new(),
            config: Vec::new(),
            derived: None,
        }
    }
}

/// Knows when WAL has become durable in the repository: the daemon's stream, or one made for this backup.
#[async_trait::async_trait]
pub trait WaitDurable: Send + Sync {
    /// Returns once all WAL of `range` on `branch` is durable in the repository. May take long: a standby's backup
    /// waits for the primary to go on (case 33). The backup reports every second what it waits for.
    ///
    /// Errors: that can't happen any more.
    async fn wait_durable(
        &self,
        branch: Branch,
        range: LsnRange,
    ) -> Result<DurableWal, Box<dyn std::error::Error + Send + Sync>>;
}

/// What is known of WAL that has become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DurableWal {
    /// The highest transaction time that the archiver saw on the branch before the range's end; `None` where it saw
    /// none.
    pub highest_time: Option<Timestamp>,
}

/// What the server says of the cluster before the backup.
struct Source {
    timeline: TimelineId,
    branch: Branch,
    /// The branch, and those that it comes from.
    ancestry: Vec<Step>,
    segment_size: walseal_common::segment::SegmentSize,
    postgres_version: u32,
}

/// What came over the wire.
struct Received {
    start: Lsn,
    stop: Lsn,
    taken: TakenIn,
    suspect: Suspect,
    native: bool,
}

/// Where what comes goes to.
struct Sink<'a> {
    shipper: &'a mut Shipper,
    known: &'a mut KnownFrames,
    progress: &'a mut dyn Progress,
}

/// Takes a base backup over `client`, full or incremental as `options` and the repository have it, stores it in `repository`, and writes its label last (I7).
///
/// The slot must hold WAL before this is called (case 15), and somebody must be streaming it: after the files the backup
/// waits for `wal` through its stop position. `progress` is told how far it is.
///
/// Cancelling (dropping the future) leaves objects without a label, which nobody sees, and a client without use.
///
/// Errors: see [`BaseError`]; nothing that was stored is visible then.
pub async fn run(
    client: &mut ReplicationClient,
    repository: &Repository,
    options: &BackupOptions,
    progress: &mut dyn Progress,
    wal: &dyn WaitDurable,
) -> Result<Label, BaseError> {
    let label = store(client, repository, options, progress, wal).await?;
    progress.report(Stage::Labelling);
    publish(repository, options, &label).await?;
    Ok(label)
}

/// Makes a backup visible that [`store`] stored. Durable on return (I7).
///
/// Errors: the repository's; whether it is visible is then not known.
pub async fn publish(repository: &Repository, options: &BackupOptions, label: &Label) -> Result<(), BaseError> {
    store_label(repository, options, label).await?;
    options.cache.keep_only(&label.id);
    Ok(())
}

/// All of [`run`] but the label, which is returned: until [`publish`] puts it there is no backup.
///
/// Errors: as [`run`].
pub async fn store(
    client: &mut ReplicationClient,
    repository: &Repository,
    options: &BackupOptions,
    progress: &mut dyn Progress,
    wal: &dyn WaitDurable,
) -> Result<Label, BaseError> {
    let source = source(client, repository).await?;
    let start_time = Timestamp::now();
    let mut before = earlier::Earlier::look(repository, options, &source, progress).await?;
    let native = Native::prepare(client, repository, &source, &before, options.whole.as_deref()).await?;
    let drawn = || BaseId::generate().map_err(|source| BaseError::Seal { name: "base".to_owned(), source });
    let id = options.id.clone().map_or_else(drawn, Ok)?;
    progress.report(Stage::Checkpoint { id: id.clone() });

    let (objects, cache) = (before.known.objects.clone(), options.cache.clone());
    let mut shipper =
        Shipper::new(repository.clone(), id.clone(), options.keys.clone(), options.effort, objects.clone(), cache);
    let mut sink = Sink { shipper: &mut shipper, known: &mut before.known.files, progress };
    let received = receive(client, &source, options, native, &mut sink).await?;
    progress.report(Stage::Storing);
    let Received { start, stop, mut taken, suspect, native } = received;
    for ready in taken.last.drain(..) {
        shipper.ship(ready).await?;
    }
    let shipped = shipper.finish().await?;
    let stop_time = Timestamp::now();
    check_manifest(repository, &source, start, stop, &taken)?;
    let durable = wait_for_wal(&source, start, stop, progress, wal).await?;

    let needed = Needed::of(&taken.listed, &shipped.objects, &objects)?;
    needed.check(repository, &objects).await?;
    let incremental = needed.refers_to_backups(&objects, &before.known.attempts);
    let parent = before.parent.as_ref();
    Ok(Label {
        id,
        kind: if incremental { BaseType::Incremental } else { BaseType::Full },
        parent: parent.map(|parent| parent.id.clone()),
        branch: source.branch,
        start,
        stop,
        start_time,
        stop_time,
        highest_time: durable.highest_time,
        postgres_version: source.postgres_version,
        segment_size: source.segment_size,
        cluster_size: taken.cluster_size,
        stored_size: shipped.objects.iter().map(|object| object.size).sum(),
        tablespaces: taken.tablespaces,
        suspect: suspect.count(),
        suspect_files: suspect.files(),
        manifest: shipped.pages,
        objects: needed.objects,
        depth: parent.filter(|_| incremental).map_or(0, |parent| parent.depth.saturating_add(1)),
        native,
        resume: Some(shipped.resume),
        names: options.names.clone(),
        config: options.config.clone(),
        derived: options.derived.clone(),
    })
}

/// Asks the server who it is.
async fn source(client: &mut ReplicationClient, repository: &Repository) -> Result<Source, BaseError> {
    let system = client.identify_system().await?;
    if system.system_identifier != repository.cluster() {
        return Err(BaseError::WrongCluster { server: system.system_identifier, repository: repository.cluster() });
    }
    let timeline = system.timeline;
    // Timeline 1 has no history; to ask for it would leave an error in the server's log.
    let history = if timeline == TimelineId::FIRST {
        TimelineHistory::root(timeline)
    } else {
        let content = client.timeline_history(timeline).await?.ok_or(BaseError::NoHistory(timeline))?;
        TimelineHistory::parse(timeline, &content)?
    };
    let adoptions = repository.adoptions().await?;
    let way = adoptions.way(&history);
    Ok(Source {
        timeline,
        branch: adoptions.branch_of(&history),
        ancestry: way,
        segment_size: client.segment_size().await?,
        postgres_version: client.server_version_num(),
    })
}

/// Runs BASE_BACKUP and ships what arrives. A server that can't send changed blocks only after all sends everything (case 34).
async fn receive(
    client: &mut ReplicationClient,
    source: &Source,
    options: &BackupOptions,
    native: Native,
    sink: &mut Sink<'_>,
) -> Result<Received, BaseError> {
    let mut command = BaseBackupOptions {
        label: options.label.clone(),
        checkpoint: options.checkpoint,
        progress: true,
        max_rate_kib: options.max_rate_kib,
        verify_checksums: true,
        manifest: Some(ManifestChecksums::Crc32c),
        // Links instead of a map: before PostgreSQL 16 a server that sends the map leaves out in-place tablespaces,
        // and a restore to other places would have to change the map, which the server's manifest covers (case 56).
        tablespace_map: false,
        incremental: native == Native::Asked,
    };
    let mut why_not = if let Native::No { why } = native { why } else { None };
    if command.incremental {
        match client.base_backup(&command).await {
            Ok(backup) => {
                sink.progress.report(Stage::Native);
                return take(backup, source, options, true, sink).await;
            }
            Err(error) if error.sqlstate() == Some(native::NOT_POSSIBLE) => {
                why_not = Some(error.server().map_or_else(|| error.to_string(), |said| said.message.clone()));
                command.incremental = false;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(why) = why_not {
        sink.progress.report(Stage::NotNative { why });
    }
    take(client.base_backup(&command).await?, source, options, false, sink).await
}

/// Ships what arrives.
async fn take(
    mut backup: BaseBackup<'_>,
    source: &Source,
    options: &BackupOptions,
    native: bool,
    sink: &mut Sink<'_>,
) -> Result<Received, BaseError> {
    let Sink { shipper, known, progress } = sink;
    let same = |timeline| {
        let from = source.timeline;
        if timeline == from { Ok(()) } else { Err(BaseError::TimelineChanged { from, to: timeline }) }
    };
    same(backup.timeline())?;
    let start = backup.start_position();
    let listed = backup.tablespaces();
    if let Some((_, location)) = listed.iter().filter_map(|t| t.place.as_ref()).find(|(_, at)| at.len() > LONGEST_LINK)
    {
        return Err(BaseError::LongLocation { location: location.clone() });
    }
    let spaces = Tablespaces::new(listed.iter().filter_map(|t| t.place.as_ref().map(|(oid, at)| (*oid, at.as_str()))));
    let total: Option<u64> = listed.iter().map(|tablespace| tablespace.size_kib.map(|kib| kib << 10)).sum();

    let intake = Intake::new(spaces, ChecksumAlgorithm::Crc32c, options.resume_every, shipper.packer());
    let mut intake = if native { intake.native() } else { intake };
    let mut suspect = Suspect::default();
    let (mut done, mut reported) = (0, 0);
    progress.report(Stage::Copying { done, total });
    loop {
        let ready = match backup.next().await? {
            BackupEvent::ArchiveStart { tablespace, name } => {
                intake.archive_start(name, tablespace.map(|(oid, _)| oid))?;
                Vec::new()
            }
            BackupEvent::Data(bytes) => {
                options.pace.keep().await;
                done += bytes.len() as u64;
                if done - reported >= REPORT_BYTES {
                    reported = done;
                    progress.report(Stage::Copying { done, total });
                }
                intake.data(bytes, *known).await?
            }
            BackupEvent::ManifestStart => intake.manifest_start()?,
            BackupEvent::ManifestData(bytes) => intake.manifest_data(&bytes)?,
            BackupEvent::Progress(_) => Vec::new(),
            BackupEvent::Notice(notice) => {
                if suspect.note(&notice) {
                    progress.report(Stage::ChecksumFailure { message: notice.0.message });
                }
                Vec::new()
            }
            BackupEvent::End { stop, timeline } => {
                same(timeline)?;
                progress.report(Stage::Copying { done, total });
                return Ok(Received { start, stop, taken: intake.finish()?, suspect, native });
            }
        };
        for ready in ready {
            shipper.ship(ready).await?;
        }
    }
}

/// Checks that the manifest is of this backup.
fn check_manifest(
    repository: &Repository,
    source: &Source,
    start: Lsn,
    stop: Lsn,
    taken: &TakenIn,
) -> Result<(), BaseError> {
    let manifest = &taken.manifest;
    if let Some(cluster) = manifest.system_identifier
        && cluster != repository.cluster()
    {
        return Err(BaseError::OtherManifest(format!("names cluster {cluster}")));
    }
    match manifest.wal_ranges.as_slice() {
        [one] if one.timeline == source.timeline && one.range.start == start && one.range.end == stop => Ok(()),
        ranges => Err(BaseError::OtherManifest(format!("needs the WAL {ranges:?}, not {start}..{stop}"))),
    }
}

async fn wait_for_wal(
    source: &Source,
    start: Lsn,
    stop: Lsn,
    progress: &mut dyn Progress,
    wal: &dyn WaitDurable,
) -> Result<DurableWal, BaseError> {
    let backwards = || BaseError::OtherManifest(format!("runs backwards, from {start} to {stop}"));
    let range = LsnRange::new(start, stop).ok_or_else(backwards)?;
    let since = Instant::now();
    let mut durable = wal.wait_durable(source.branch, range);
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            biased;
            durable = &mut durable => return durable.map_err(|source| BaseError::Wal { stop, source }),
            _ = ticks.tick() => progress.report(Stage::WaitingForWal { through: stop, waited: since.elapsed() }),
        }
    }
}

/// Makes the backup visible.
async fn store_label(repository: &Repository, options: &BackupOptions, label: &Label) -> Result<(), BaseError> {
    let name = ObjectName::Label(label.id.clone());
    let object = repository.signed(Kind::Label, &name, label, &options.keys.writer)?;
    put(repository, &name, &object).await
}

mod earlier;
mod native;
mod needed;

#[cfg(test)]
mod bed;
#[cfg(test)]
mod changed_blocks;
#[cfg(test)]
mod clusters;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod incremental;
#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod rebuilt;
#[cfg(test)]
mod tests;
