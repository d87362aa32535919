//! Sealing objects and storing them, several at once, in bounded memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use walseal_common::repository::{BaseId, ObjectName, ObjectReference, Repository};
use walseal_common::seal::{Draft, Kind, MAX_PLAINTEXT, ObjectDigest, SealError, SealedObject};
use walseal_common::store::PutOutcome;

use super::error::BaseError;
use super::intake::Ready;
use crate::keys::ArchiveKeys;

/// The unit in which memory is counted, in bytes.
const UNIT: u64 = 1 << 10;

/// Memory of an object beside its frames, in bytes: header, trailer, and what a frame that does not shrink grows by.
const OVERHEAD: u64 = 256 << 10;

/// Address space for the ciphertext of one object, in bytes. glibc gives memory of this size back to the system as soon as
/// it is freed (mallopt(3), M_MMAP_THRESHOLD: at most 32 MiB), where smaller pieces stay with the process for as long as
/// anything lies above them: that doubled the memory of a backup. Only what is written counts, no more than 17 MiB.
const ADDRESS_SPACE: usize = 33 << 20;

/// Plaintext in a frame of a page, in bytes.
const PAGE_FRAME: usize = 1 << 20;

/// How much is under way at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Most objects that are being put at once.
    pub puts: usize,
    /// Most objects that are being sealed at once; each takes a core.
    pub sealers: usize,
    /// Most bytes of plaintext and ciphertext in memory. No less than two objects of 16 MiB, so that one can fill up
    /// while another one is on its way.
    pub memory: u64,
    /// zstd's level.
    pub level: i32,
}

/// Four puts at once, two sealers or as many as there are cores if that is less, 48 MiB, level 1: on real data level 1
/// beats level 3 in speed and in size.
impl Default for Effort {
    fn default() -> Effort {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Effort { puts: 4, sealers: cores.min(2), memory: 48 << 20, level: 1 }
    }
}

/// Memory set aside for one object.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

/// Which object it was, and how it is referred to.
type Stored = (ObjectName, ObjectReference);

/// Seals and stores objects in tasks of its own. Dropping it ends them; what they stored by then stays invisible, as
/// long as nobody writes a label (I7).
pub struct Shipper {
    repository: Repository,
    id: BaseId,
    keys: Arc<ArchiveKeys>,
    level: i32,
    memory: Arc<Semaphore>,
    sealing: Arc<Semaphore>,
    putting: Arc<Semaphore>,
    running: JoinSet<Result<Stored, BaseError>>,
    stored: BTreeMap<ObjectName, ObjectReference>,
}

/// Everything that a backup stored, each in order.
#[derive(Debug)]
pub struct Shipped {
    /// The data objects.
    pub objects: Vec<ObjectReference>,
    /// The pages of the list of files.
    pub pages: Vec<ObjectReference>,
}

impl Shipper {
    /// A shipper for the backup `id`.
    pub fn new(repository: Repository, id: BaseId, keys: Arc<ArchiveKeys>, effort: Effort) -> Shipper {
        let units = (effort.memory / UNIT).clamp(2 * (MAX_PLAINTEXT + OVERHEAD) / UNIT, u64::from(u32::MAX)) as usize;
        Shipper {
            repository,
            id,
            keys,
            level: effort.level,
            memory: Arc::new(Semaphore::new(units)),
            sealing: Arc::new(Semaphore::new(effort.sealers.max(1))),
            putting: Arc::new(Semaphore::new(effort.puts.max(1))),
            running: JoinSet::new(),
            stored: BTreeMap::new(),
        }
    }

    /// Waits until there is memory for one more object with that much plaintext, at most [`MAX_PLAINTEXT`]. Its ciphertext
    /// needs no more: the plaintext is freed frame by frame.
    ///
    /// Errors: an object before it could not be sealed or stored.
    pub async fn room(&mut self, plain: u64) -> Result<Room, BaseError> {
        self.collect_ended()?;
        let units = ((plain.min(MAX_PLAINTEXT) + OVERHEAD) / UNIT) as u32;
        loop {
            let memory = self.memory.clone().acquire_many_owned(units);
            tokio::select! {
                permit = memory => return permit.map(Room).map_err(|_| ended("the count of memory was closed")),
                Some(ended) = self.running.join_next() => self.collect(ended)?,
            }
        }
    }

    /// Seals and stores an object in the background.
    pub fn ship(&mut self, ready: Ready, room: Room) {
        let (name, kind, frame_size, frames) = match ready {
            Ready::Object(object) => {
                let frame_size = object.frame_size();
                (ObjectName::Data(self.id.clone(), object.number), Kind::Data, frame_size, object.frames)
            }
            Ready::Page(page) => {
                let frames = page.plain.chunks(PAGE_FRAME).map(<[u8]>::to_vec).collect();
                (ObjectName::Manifest(self.id.clone(), page.number), Kind::Manifest, PAGE_FRAME as u32, frames)
            }
        };
        let cluster = self.repository.cluster();
        let draft = Draft { kind, cluster, name: name.to_string(), wal: None, frame_size, level: self.level };
        let (sealing, putting) = (self.sealing.clone(), self.putting.clone());
        let (repository, keys) = (self.repository.clone(), self.keys.clone());
        self.running.spawn(async move {
            let core = sealing.acquire_owned().await.map_err(|_| ended("the count of sealers was closed"))?;
            let seal = move || {
                let sealed = seal(draft, frames, &keys);
                drop(core);
                sealed
            };
            let sealed = tokio::task::spawn_blocking(seal).await.map_err(|error| ended(&error.to_string()))?;
            let object = sealed.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
            let kept = keep(room, object.bytes.len() as u64);
            let slot = putting.acquire_owned().await.map_err(|_| ended("the count of puts was closed"))?;
            put(&repository, &name, &object).await?;
            drop((slot, kept));
            Ok((name, ObjectReference::from(&object)))
        });
    }

    /// Waits until all is stored.
    ///
    /// Errors: an object could not be sealed or stored.
    pub async fn finish(mut self) -> Result<Shipped, BaseError> {
        while let Some(ended) = self.running.join_next().await {
            self.collect(ended)?;
        }
        let (data, pages): (Vec<_>, Vec<_>) =
            self.stored.into_iter().partition(|(name, _)| matches!(name, ObjectName::Data(..)));
        let references = |list: Vec<Stored>| list.into_iter().map(|(_, reference)| reference).collect();
        Ok(Shipped { objects: references(data), pages: references(pages) })
    }

    fn collect_ended(&mut self) -> Result<(), BaseError> {
        while let Some(ended) = self.running.try_join_next() {
            self.collect(ended)?;
        }
        Ok(())
    }

    fn collect(&mut self, outcome: Result<Result<Stored, BaseError>, tokio::task::JoinError>) -> Result<(), BaseError> {
        let (name, reference) = outcome.map_err(|error| ended(&error.to_string()))??;
        self.stored.insert(name, reference);
        Ok(())
    }
}

/// Stores an object, and knows that it is there when it returns. A name that is taken is fine when the object was put
/// before by an attempt whose answer got lost.
///
/// Errors: the store's; other bytes have this name.
pub(super) async fn put(repository: &Repository, name: &ObjectName, object: &SealedObject) -> Result<(), BaseError> {
    match repository.put(object).await? {
        PutOutcome::Created => Ok(()),
        PutOutcome::AlreadyExists => {
            let there = repository.store().get(&name.key(repository.cluster())).await;
            let there = there.map_err(walseal_common::repository::RepositoryError::from)?;
            let same = ObjectDigest::of(&there) == object.digest;
            if same { Ok(()) } else { Err(BaseError::Taken(name.to_string())) }
        }
    }
}

/// Seals frames, each of which is freed as soon as its ciphertext is there.
fn seal(draft: Draft, frames: Vec<Vec<u8>>, keys: &ArchiveKeys) -> Result<SealedObject, SealError> {
    let mut sealer = draft.seal(&keys.recipients, &keys.writer)?;
    sealer.reserve(ADDRESS_SPACE);
    for frame in frames {
        sealer.frame(&frame)?;
    }
    sealer.finish()
}

/// Gives back the memory that a sealed object of this size does not need.
fn keep(mut room: Room, bytes: u64) -> Room {
    let held = room.0.num_permits();
    let needed = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX).min(held);
    drop(room.0.split(held - needed));
    room
}

fn ended(why: &str) -> BaseError {
    BaseError::Task(why.to_owned())
}
