//! Sealing objects and storing them, several at once, in bounded memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use walseal_common::repository::{BaseId, ObjectName, ObjectReference, Repository};
use walseal_common::seal::{
    Assembly, Draft, FrameSealer, Kind, MAX_PLAINTEXT, ObjectDigest, SealError, SealedObject, SealedRun, Workshop,
};
use walseal_common::store::PutOutcome;

use super::error::BaseError;
use super::intake::Ready;
use super::packer::{PLAINS, PackedRun, RUN};
use super::pages::Page;
use crate::keys::ArchiveKeys;
use crate::memory::{BESIDE_FRAMES, Memory, Room};

/// Plaintext in a frame of a page, in bytes.
const PAGE_FRAME: usize = 1 << 20;

/// How much is under way at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Most objects that are being put at once.
    pub puts: usize,
    /// Most runs of frames that are being sealed at once; each takes a core.
    pub sealers: usize,
    /// Most bytes of plaintext that wait to be sealed or are being sealed. No less than two runs of 1 MiB.
    pub plaintext: u64,
    /// Most bytes of ciphertext in memory. No less than two objects of 16 MiB, so that one can fill up while another one is
    /// on its way.
    pub ciphertext: u64,
    /// zstd's level.
    pub level: i32,
}

/// Four puts at once, two sealers or as many as there are cores if that is less, 4 MiB and 34 MiB, level 1: on real data
/// level 1 beats level 3 in speed and in size.
impl Default for Effort {
    fn default() -> Effort {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Effort { puts: 4, sealers: cores.min(2), plaintext: 4 << 20, ciphertext: 34 << 20, level: 1 }
    }
}

/// Which object it was, and how it is referred to.
type Stored = (ObjectName, ObjectReference);

/// A run that is being sealed.
type Sealing = JoinHandle<Result<SealedRun, BaseError>>;

/// The data object whose frames are arriving.
struct Open {
    name: ObjectName,
    sealer: FrameSealer,
    /// Where it is put together, in the order of its runs.
    runs: mpsc::UnboundedSender<Sealing>,
}

/// Seals and stores objects in tasks of its own. Dropping it ends them; what they stored by then stays invisible, as
/// long as nobody writes a label (I7).
pub struct Shipper {
    id: BaseId,
    /// Plaintext that waits.
    waiting: Memory,
    berth: Berth,
    open: Option<Open>,
    running: JoinSet<Result<Stored, BaseError>>,
    stored: BTreeMap<ObjectName, ObjectReference>,
}

/// What the tasks of a shipper share.
#[derive(Clone)]
struct Berth {
    repository: Repository,
    keys: Arc<ArchiveKeys>,
    level: i32,
    workshop: Workshop,
    ciphertext: Memory,
    sealing: Arc<Semaphore>,
    putting: Arc<Semaphore>,
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
        let berth = Berth {
            repository,
            keys,
            level: effort.level,
            workshop: Workshop::new(effort.sealers.max(1), (MAX_PLAINTEXT + BESIDE_FRAMES) as usize),
            ciphertext: Memory::new(effort.ciphertext.max(2 * (MAX_PLAINTEXT + BESIDE_FRAMES))),
            sealing: Arc::new(Semaphore::new(effort.sealers.max(1))),
            putting: Arc::new(Semaphore::new(effort.puts.max(1))),
        };
        Shipper {
            id,
            waiting: Memory::new(effort.plaintext.max(4 * RUN as u64)),
            berth,
            open: None,
            running: JoinSet::new(),
            stored: BTreeMap::new(),
        }
    }

    /// Takes what is ready, and seals and stores it in the background. Waits until there is memory for it (I11): whoever
    /// reads from the server calls this before reading on.
    ///
    /// Errors: an object before it could not be sealed or stored.
    pub async fn ship(&mut self, ready: Ready) -> Result<(), BaseError> {
        self.collect_ended()?;
        match ready {
            Ready::Run(run) => self.ship_run(run).await,
            Ready::Page(page) => self.ship_page(page).await,
        }
    }

    async fn ship_run(&mut self, run: PackedRun) -> Result<(), BaseError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin(&run).await?,
        };
        let room = self.room(self.waiting.clone(), run.plain.len() as u64).await?;
        let (sealer, name, last) = (open.sealer.clone(), open.name.clone(), run.last);
        let (sealing, workshop) = (self.berth.sealing.clone(), self.berth.workshop.clone());
        let sealed = tokio::spawn(async move {
            let core = sealing.acquire_owned().await.map_err(|_| ended("the count of sealers was closed"))?;
            let sealed = spawn_blocking(move || {
                let sealed = workshop.seal(&sealer, run.first, run.frames(), run.last);
                PLAINS.give(run.plain);
                drop((room, core));
                sealed
            });
            let sealed = sealed.await.map_err(|error| ended(&error.to_string()))?;
            sealed.map_err(|source| BaseError::Seal { name: name.to_string(), source })
        });
        // Whoever puts the object together only stops listening after an error, which is collected.
        if open.runs.send(sealed).is_ok() && !last {
            self.open = Some(open);
        }
        Ok(())
    }

    /// Begins the object that `run` is the first of, once there is memory for all of it.
    async fn begin(&mut self, run: &PackedRun) -> Result<Open, BaseError> {
        let room = self.room(self.berth.ciphertext.clone(), MAX_PLAINTEXT + BESIDE_FRAMES).await?;
        let name = ObjectName::Data(self.id.clone(), run.object);
        let draft = self.berth.draft(Kind::Data, &name, run.frame_size);
        let opened = draft.open(&self.berth.keys.recipients, &self.berth.keys.writer);
        let (sealer, mut assembly) = opened.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
        assembly.reserve_in(&self.berth.workshop);
        let (runs, arriving) = mpsc::unbounded_channel();
        self.running.spawn(self.berth.clone().assemble(name.clone(), assembly, arriving, room));
        Ok(Open { name, sealer, runs })
    }

    async fn ship_page(&mut self, page: Page) -> Result<(), BaseError> {
        let size = page.plain.len() as u64;
        let room =
            self.room(self.berth.ciphertext.clone(), (size + BESIDE_FRAMES).min(MAX_PLAINTEXT + BESIDE_FRAMES)).await?;
        let name = ObjectName::Manifest(self.id.clone(), page.number);
        let draft = self.berth.draft(Kind::Manifest, &name, PAGE_FRAME as u32);
        let berth = self.berth.clone();
        self.running.spawn(async move {
            let core = berth.sealing.clone().acquire_owned().await;
            let core = core.map_err(|_| ended("the count of sealers was closed"))?;
            let keys = berth.keys.clone();
            let sealed = spawn_blocking(move || {
                let mut sealer = draft.seal(&keys.recipients, &keys.writer)?;
                sealer.frames_of(&page.plain)?;
                drop((page, core));
                sealer.finish()
            });
            let sealed = sealed.await.map_err(|error| ended(&error.to_string()))?;
            let object = sealed.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
            berth.store(name, object, room).await
        });
        Ok(())
    }

    /// Waits for memory.
    async fn room(&mut self, memory: Memory, bytes: u64) -> Result<Room, BaseError> {
        loop {
            tokio::select! {
                room = memory.room(bytes) => return Ok(room),
                Some(ended) = self.running.join_next() => self.collect(ended)?,
            }
        }
    }

    /// Waits until all is stored.
    ///
    /// Errors: an object could not be sealed or stored.
    pub async fn finish(mut self) -> Result<Shipped, BaseError> {
        drop(self.open.take());
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

impl Berth {
    fn draft(&self, kind: Kind, name: &ObjectName, frame_size: u32) -> Draft {
        let cluster = self.repository.cluster();
        Draft { kind, cluster, name: name.to_string(), wal: None, frame_size, level: self.level }
    }

    /// Puts a data object together from its runs, and stores it.
    async fn assemble(
        self,
        name: ObjectName,
        mut assembly: Assembly,
        mut runs: mpsc::UnboundedReceiver<Sealing>,
        room: Room,
    ) -> Result<Stored, BaseError> {
        let failed = |source: SealError| BaseError::Seal { name: name.to_string(), source };
        while let Some(run) = runs.recv().await {
            let run = run.await.map_err(|error| ended(&error.to_string()))??;
            assembly.append(&run).map_err(failed)?;
        }
        // The digest of all of it takes milliseconds.
        let object = spawn_blocking(move || assembly.finish::<()>(None)).await;
        let object = object.map_err(|error| ended(&error.to_string()))?.map_err(failed)?;
        self.store(name, object, room).await
    }

    async fn store(self, name: ObjectName, object: SealedObject, room: Room) -> Result<Stored, BaseError> {
        room.shrink_to(object.bytes.len() as u64);
        let slot = self.putting.clone().acquire_owned().await.map_err(|_| ended("the count of puts was closed"))?;
        put(&self.repository, &name, &object).await?;
        let reference = ObjectReference::from(&object);
        drop((slot, object, room));
        Ok((name, reference))
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

fn ended(why: &str) -> BaseError {
    BaseError::Task(why.to_owned())
}
