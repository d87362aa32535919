//! Makes one file of `pg_wal` durable.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;
use walseal_common::lsn::LsnRange;
use walseal_common::repository::{Adoptions, ObjectName, Repository, RepositoryIdentity};
use walseal_common::seal::MAX_PLAINTEXT;
use walseal_common::segment::{SegmentName, WalFileName};
use walseal_common::store::with_patience;
use walseal_common::timeline::{Branch, TimelineId};
use walseal_common::wal::Finish;

use super::freight::Freight;
use super::lineage::{Lineage, read_history};
use super::verified::Verified;
use super::{PushError, Pushed};
use crate::chunks;
use crate::keys::ArchiveKeys;
use crate::landed::Landed;
use crate::memory::{BESIDE_FRAMES, Memory, Room};
use crate::shipment::Piece;
use crate::stream::{Cutter, ProgressWatch, WAL_MEMORY, store_histories};

/// How long a store that does not take a call is tried again. PostgreSQL asks again by itself, and until the hook has
/// returned, its shutdown waits: three times, for a store that is away (`pgarch.c`).
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long it is believed that nobody adopted WAL since that was last looked at.
const ADOPTIONS_LAST: Duration = Duration::from_secs(10);

/// Makes files of one cluster's `pg_wal` durable in its repository.
#[derive(Debug)]
pub struct Archivist {
    pub(super) repository: Repository,
    pub(super) identity: RepositoryIdentity,
    pub(super) keys: Arc<ArchiveKeys>,
    /// The stream of the same process, when there is one.
    pub(super) stream: Option<ProgressWatch>,
    /// What that stream has made durable.
    pub(super) landed: Landed,
    /// For parts of segments, shared with the stream (I11).
    memory: Memory,
    /// Files that are being shipped, so that the same one is never shipped twice at once.
    berths: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Files that are known to be durable before PostgreSQL asks for them.
    pub(super) verified: Verified,
    /// The number of the segment that was asked for last; whoever looks ahead goes on from there.
    pub(super) asked: AtomicU64,
    /// Branches whose histories are known to be stored.
    histories: Mutex<HashSet<Branch>>,
    /// On which branches WAL lies, and when that was read.
    adoptions: tokio::sync::Mutex<Option<(Instant, Arc<Adoptions>)>>,
}

/// On whose behalf a file is made durable.
#[derive(Clone, Copy)]
pub(super) enum Errand<'a> {
    /// PostgreSQL waits for it. Told as soon as it is found that the file is a segment that was not durable before.
    Asked(&'a Notify),
    /// Nobody waits yet. What has the segment's name is left to the call for it, which compares the bytes.
    Ahead,
}

impl Errand<'_> {
    /// Tells that the segment was not durable before.
    pub(super) fn tell(self) {
        if let Errand::Asked(missing) = self {
            missing.notify_one();
        }
    }
}

impl Archivist {
    /// For this repository. `stream` is that of the same process: what it is about to bring is not shipped twice.
    pub fn new(
        repository: Repository,
        identity: RepositoryIdentity,
        keys: Arc<ArchiveKeys>,
        stream: Option<ProgressWatch>,
    ) -> Archivist {
        Archivist {
            repository,
            identity,
            keys,
            stream,
            landed: Landed::default(),
            memory: Memory::new(WAL_MEMORY).followed_by(chunks::keep_within),
            berths: Mutex::default(),
            verified: Verified::default(),
            asked: AtomicU64::default(),
            histories: Mutex::default(),
            adoptions: tokio::sync::Mutex::default(),
        }
    }

    /// Takes the memory for what it ships from `memory`.
    #[must_use]
    pub fn sharing(self, memory: Memory) -> Archivist {
        Archivist { memory, ..self }
    }

    /// What the stream of this process makes durable stands in `landed`.
    #[must_use]
    pub fn knowing(self, landed: Landed) -> Archivist {
        Archivist { landed, ..self }
    }

    /// Makes the file `path` durable. When this returns, it is, with exactly these bytes (I1); equal bytes that were there
    /// before are success (I3).
    ///
    /// Errors: everything else; nothing is claimed about the file then.
    pub async fn push(&self, path: &Path) -> Result<Pushed, PushError> {
        self.push_on(path, Errand::Asked(&Notify::new())).await
    }

    pub(super) async fn push_on(&self, path: &Path, errand: Errand<'_>) -> Result<Pushed, PushError> {
        with_patience(PATIENCE, self.push_file(path, errand)).await
    }

    async fn push_file(&self, path: &Path, errand: Errand<'_>) -> Result<Pushed, PushError> {
        let name = wal_name(path)?;
        let folder = folder_of(path);
        match name {
            WalFileName::Segment(segment) => self.push_segment(path, &folder, segment, errand).await,
            WalFileName::Partial(segment) => self.push_partial(path, &folder, segment).await,
            WalFileName::History(timeline) => self.push_history(path, timeline).await,
            WalFileName::BackupHistory(..) => {
                let there = tokio::fs::metadata(path).await;
                there.map(|_| Pushed::NotNeeded).map_err(|source| PushError::Read { path: path.to_owned(), source })
            }
        }
    }

    async fn push_history(&self, path: &Path, timeline: TimelineId) -> Result<Pushed, PushError> {
        let missing = || PushError::Read { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() };
        let own = read_history(&folder_of(path), timeline)?.ok_or_else(missing)?;
        let there = self.has_history(own.branch(self.repository.cluster())).await?;
        store_histories(&self.repository, &self.keys, &own).await.map_err(Box::new)?;
        Ok(if there { Pushed::AlreadyThere } else { Pushed::Shipped })
    }

    /// On which branches WAL lies, read anew now and then.
    pub(super) async fn adoptions(&self) -> Result<Arc<Adoptions>, PushError> {
        let mut known = self.adoptions.lock().await;
        if let Some((_, adoptions)) = known.as_ref().filter(|(read, _)| read.elapsed() < ADOPTIONS_LAST) {
            return Ok(adoptions.clone());
        }
        let adoptions = Arc::new(self.repository.adoptions().await?);
        *known = Some((Instant::now(), adoptions.clone()));
        Ok(adoptions)
    }

    /// Whether a trusted writer has stored the history of this branch; those of its ancestors were stored before it.
    async fn has_history(&self, branch: Branch) -> Result<bool, PushError> {
        match self.repository.read_header(&ObjectName::History(branch)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The lineage of a segment's timeline; its history is durable when this returns (case 2).
    pub(super) async fn lineage(&self, folder: &Path, segment: SegmentName) -> Result<Lineage, PushError> {
        let adoptions = self.adoptions().await?;
        let size = self.identity.segment_size;
        let lineage = Lineage::of(folder, segment, size, &self.repository, &adoptions).await?;
        let branch = lineage.origin;
        let known = |set: &HashSet<Branch>| branch.timeline == TimelineId::FIRST || set.contains(&branch);
        let stored = known(&self.histories.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(own) = lineage.history.as_ref().filter(|_| !stored) {
            if !self.has_history(branch).await? {
                store_histories(&self.repository, &self.keys, own).await.map_err(Box::new)?;
            }
            self.histories.lock().unwrap_or_else(PoisonError::into_inner).insert(branch);
        }
        Ok(lineage)
    }

    pub(super) async fn open(
        &self,
        path: &Path,
        name: WalFileName,
        segment: SegmentName,
        lineage: Lineage,
    ) -> Result<Freight, PushError> {
        let (path, system, size) = (path.to_owned(), self.repository.cluster(), self.identity.segment_size);
        blocking(move || Freight::open(&path, name, segment, system, size, &lineage)).await
    }

    /// Whether the stream of this process is about to bring `range` of `branch`.
    pub(super) fn is_streaming(&self, branch: Branch, range: LsnRange) -> bool {
        let Some(stream) = &self.stream else { return false };
        let now = stream.now();
        now.connected && now.branch == Some(branch) && now.frontier < range.end
    }

    /// Waits until nobody else ships the file `name`, and keeps others away from it.
    pub(super) async fn berth(&self, name: &str) -> OwnedMutexGuard<()> {
        let berth = {
            let mut berths = self.berths.lock().unwrap_or_else(PoisonError::into_inner);
            berths.retain(|_, berth| berth.strong_count() > 0);
            let known = berths.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let berth = Arc::default();
                berths.insert(name.to_owned(), Arc::downgrade(&berth));
                berth
            })
        };
        berth.lock_owned().await
    }

    /// Reads the next part of a load, once there is room for it (I11); the room is taken until it is dropped.
    pub(super) async fn next_part(&self, load: Load) -> Result<(Room, Load, Vec<Piece>), PushError> {
        let (room, unfilled) = self.memory.room_to_fill(MAX_PLAINTEXT + BESIDE_FRAMES).await;
        let (load, pieces) = blocking(move || load.next()).await?;
        drop(unfilled);
        Ok((room, load, pieces))
    }
}

/// A file of WAL and how far it was read.
pub(super) struct Load {
    pub(super) freight: Arc<Freight>,
    cutter: Cutter,
    /// Offset in the segment where the part that counts ends.
    end: u64,
    partial: bool,
}

impl Load {
    /// All of a segment that has to be finished; see [`Load::finish`].
    pub(super) fn whole(
        freight: Arc<Freight>,
        branch: Branch,
        identity: &RepositoryIdentity,
        keys: &ArchiveKeys,
    ) -> Load {
        let cutter = Cutter::of_file(branch, identity, keys.writer.compare(), freight.number());
        Load { freight, cutter, end: identity.segment_size.bytes(), partial: false }
    }

    /// The first `end` bytes of a segment whose timeline ended.
    pub(super) fn partial(
        freight: Arc<Freight>,
        branch: Branch,
        identity: &RepositoryIdentity,
        keys: &ArchiveKeys,
        end: u64,
    ) -> Load {
        let cutter = Cutter::new(branch, identity.segment_size, keys.writer.compare(), freight.start(), None);
        Load { freight, cutter, end, partial: true }
    }

    fn shipped(&self) -> u64 {
        self.cutter.received().bytes_since(self.freight.start())
    }

    /// Whether all of it was read.
    pub(super) fn is_done(&self) -> bool {
        self.shipped() >= self.end
    }

    /// What the walk through all that was read until now says; `None` for the part of a segment that was not finished.
    pub(super) fn finish(&self) -> Option<Finish> {
        self.cutter.finish()
    }

    fn next(mut self) -> Result<(Load, Vec<Piece>), PushError> {
        let mut pieces = self.freight.next_part(&mut self.cutter, self.end)?;
        if self.partial && self.is_done() {
            pieces.extend(self.cutter.partial());
        }
        Ok((self, pieces))
    }
}

/// The file's name, as PostgreSQL names WAL. Errors: any other (case 24).
pub(super) fn wal_name(path: &Path) -> Result<WalFileName, PushError> {
    let name = path.file_name().ok_or_else(|| PushError::NoFile(path.to_owned()))?;
    Ok(name.to_string_lossy().parse()?)
}

/// The folder that the file lies in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Runs what reads files away from the tasks that talk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PushError> + Send + 'static,
) -> Result<T, PushError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PushError::Task(error.to_string()))?
}
