//! Sealing objects and storing them, several at once, in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use walseal_common::buffer::Spares;
use walseal_common::repository::{self, BaseId, ObjectName, ObjectReference, Repository, ResumeObject};
use walseal_common::seal::{
    Assembly, Draft, FrameSealer, Kind, MAX_PLAINTEXT, SealError, SealedObject, SealedRun, Workshop,
};
use walseal_common::store::PutOutcome;

use super::error::BaseError;
use super::intake::Ready;
use super::known::{KnownObjects, PageCache};
use super::packer::{Listed, PackedRun, Packer, RUN};
use super::pages::Page;
use super::resume_pages::{ResumePage, ResumePart};
use crate::courtesy::in_the_background;
use crate::keys::ArchiveKeys;
use crate::memory::{BESIDE_FRAMES, Memory, Room};

/// Plaintext in a frame of a page, in bytes.
const PAGE_FRAME: usize = 1 << 20;

/// Runs that are sealed and wait for those before them, as a rule.
const SEALED: usize = 2;

/// Most resume pages that wait for their objects, or to be sealed and stored.
const RESUME_PAGES: usize = 3;

/// How much is under way at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Most objects that are being put at once, and most data objects that fill up or are put. No less than two.
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

/// Four puts at once, a sealer more than there are cores but at most four, so that no core waits while a run is handed over;
/// a run of plaintext for each, and five that wait, so that there is something to seal while the server has a core and the reader has
/// not; 33 MiB, level 1: on real data level 1 beats level 3 in speed and in size.
impl Default for Effort {
    fn default() -> Effort {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sealers = (cores + 1).min(4);
        Effort { puts: 4, sealers, plaintext: ((sealers + 5) * RUN) as u64, ciphertext: 33 << 20, level: 1 }
    }
}

/// Which object it was, how it is referred to, and bytes of its plaintext.
type Stored = (ObjectName, ResumeObject);

/// A run that is being sealed, and the memory that it then takes.
type Sealing = JoinHandle<Result<(SealedRun, Room), BaseError>>;

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
    /// Plaintext that waits, and buffers for it.
    waiting: Memory,
    plains: Spares,
    berth: Berth,
    open: Option<Open>,
    running: JoinSet<Result<Stored, BaseError>>,
    stored: BTreeMap<ObjectName, ResumeObject>,
    known: Arc<KnownObjects>,
    /// Resume pages whose objects are not all stored yet.
    pending: VecDeque<ResumePage>,
    /// Resume pages that are being sealed and stored.
    resuming: usize,
    /// What each resume page is part of, by number.
    parts: Vec<ResumePart>,
}

/// What the tasks of a shipper share.
#[derive(Clone)]
struct Berth {
    repository: Repository,
    keys: Arc<ArchiveKeys>,
    cache: PageCache,
    level: i32,
    workshop: Workshop,
    ciphertext: Memory,
    sealing: Arc<Semaphore>,
    putting: Arc<Semaphore>,
    /// For data objects, from their first frame until they are stored: the one that fills up is among them.
    places: Arc<Semaphore>,
}

/// Everything that a backup stored, each in order.
#[derive(Debug)]
pub struct Shipped {
    /// The data objects.
    pub objects: Vec<ObjectReference>,
    /// The pages of the list of files.
    pub pages: Vec<ObjectReference>,
    /// The pages for the next backup.
    pub resume: repository::ResumePages,
}

impl Shipper {
    /// A shipper for the backup `id`, whose pages refer to `known` objects. `cache` gets copies of the pages for the next one.
    pub fn new(
        repository: Repository,
        id: BaseId,
        keys: Arc<ArchiveKeys>,
        effort: Effort,
        known: Arc<KnownObjects>,
        cache: PageCache,
    ) -> Shipper {
        let plaintext = effort.plaintext.max(4 * RUN as u64);
        let sealers = effort.sealers.max(1);
        let berth = Berth {
            repository,
            keys,
            cache,
            level: effort.level,
            workshop: Workshop::new(sealers + SEALED, (MAX_PLAINTEXT + BESIDE_FRAMES) as usize),
            ciphertext: Memory::new(effort.ciphertext.max(2 * (MAX_PLAINTEXT + BESIDE_FRAMES))),
            sealing: Arc::new(Semaphore::new(sealers)),
            putting: Arc::new(Semaphore::new(effort.puts.max(1))),
            places: Arc::new(Semaphore::new(effort.puts.max(2))),
        };
        Shipper {
            id,
            waiting: Memory::new(plaintext),
            plains: Packer::plains((plaintext / RUN as u64) as usize + Packer::HELD),
            berth,
            open: None,
            running: JoinSet::new(),
            stored: BTreeMap::new(),
            known,
            pending: VecDeque::new(),
            resuming: 0,
            parts: Vec::new(),
        }
    }

    /// A packer for what is shipped.
    pub fn packer(&self) -> Packer {
        Packer::new(self.plains.clone())
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
            Ready::Resume(page) => self.ship_resume(page).await,
        }
    }

    async fn ship_run(&mut self, run: PackedRun) -> Result<(), BaseError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin(&run).await?,
        };
        let plain_room = self.room(self.waiting.clone(), run.plain.len() as u64).await?;
        let room = self.room(self.berth.ciphertext.clone(), most_sealed(&run)).await?;
        let plains = self.plains.clone();
        let (sealer, name, last) = (open.sealer.clone(), open.name.clone(), run.last);
        let (sealing, workshop) = (self.berth.sealing.clone(), self.berth.workshop.clone());
        let sealed = tokio::spawn(async move {
            let core = sealing.acquire_owned().await.map_err(|_| ended("the count of sealers was closed"))?;
            let sealed = in_the_background(move || {
                let sealed = workshop.seal(&sealer, run.first, run.frames(), run.last);
                plains.give(run.plain);
                drop((plain_room, core));
                sealed
            });
            let sealed = sealed.await.map_err(|error| ended(&error.to_string()))?;
            let sealed = sealed.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
            room.shrink_to(sealed.size());
            Ok((sealed, room))
        });
        // Whoever puts the object together only stops listening after an error, which is collected.
        if open.runs.send(sealed).is_ok() && !last {
            self.open = Some(open);
        }
        Ok(())
    }

    /// Begins the object that `run` is the first of. It takes memory as it grows: no other one does until it ends, so that there is
    /// always enough for it once those before it are stored.
    async fn begin(&mut self, run: &PackedRun) -> Result<Open, BaseError> {
        let place = self.place().await?;
        let room = self.room(self.berth.ciphertext.clone(), BESIDE_FRAMES).await?;
        let name = ObjectName::Data(self.id.clone(), run.object);
        let draft = self.berth.draft(Kind::Data, &name, run.frame_size);
        let opened = draft.open(&self.berth.keys.recipients, &self.berth.keys.writer);
        let (sealer, mut assembly) = opened.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
        assembly.reserve_in(&self.berth.workshop);
        let (runs, arriving) = mpsc::unbounded_channel();
        self.running.spawn(self.berth.clone().assemble(name.clone(), assembly, arriving, room, place));
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
            let sealed = in_the_background(move || {
                let mut sealer = draft.seal(&keys.recipients, &keys.writer)?;
                sealer.frames_of(&page.plain)?;
                drop((page, core));
                sealer.finish().map(ObjectReference::with)
            });
            let sealed = sealed.await.map_err(|error| ended(&error.to_string()))?;
            let made = sealed.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
            berth.store(name, made, room).await
        });
        Ok(())
    }

    /// Takes a page whose objects have all been passed on.
    async fn ship_resume(&mut self, page: ResumePage) -> Result<(), BaseError> {
        while self.pending.len() + self.resuming >= RESUME_PAGES {
            let Some(ended) = self.running.join_next().await else { break };
            self.collect(ended)?;
        }
        self.parts.push(page.part);
        self.pending.push_back(page);
        self.launch()
    }

    /// Seals and stores the next resume page once its objects are all durable, and no other: whoever finds one may refer to all that
    /// it names. One after the other: of an attempt that is interrupted the pages count up to the first that is missing.
    fn launch(&mut self) -> Result<(), BaseError> {
        if self.resuming == 0
            && let Some(page) = self.pending.pop_front()
        {
            let object = |listed: &Listed| match listed {
                Listed::Own(number) => self.stored.get(&ObjectName::Data(self.id.clone(), *number)).cloned(),
                Listed::Known(number) => self.known.get(*number).map(|known| known.listed.clone()),
            };
            let Some(objects) = page.objects.iter().map(object).collect::<Option<Vec<_>>>() else {
                self.pending.push_front(page);
                return Ok(());
            };
            let name = ObjectName::Resume(self.id.clone(), page.number);
            let plain = page.with_objects(&objects).map_err(|error| ended(&error.to_string()))?;
            self.resuming += 1;
            self.running.spawn(self.berth.clone().store_resume(name, plain));
        }
        Ok(())
    }

    /// Waits for memory.
    async fn room(&mut self, memory: Memory, bytes: u64) -> Result<Room, BaseError> {
        self.meanwhile(memory.room(bytes)).await
    }

    /// Waits until there may be one more data object.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, BaseError> {
        let place = self.berth.places.clone().acquire_owned();
        self.meanwhile(place).await?.map_err(|_| ended("the count of objects was closed"))
    }

    /// Waits for this, and takes note of what is stored meanwhile.
    async fn meanwhile<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, BaseError> {
        let mut awaited = std::pin::pin!(awaited);
        loop {
            tokio::select! {
                there = &mut awaited => return Ok(there),
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
        if let Some(page) = self.pending.front() {
            return Err(ended(&format!("resume page {} waits for an object that never came", page.number)));
        }
        let mut shipped =
            Shipped { objects: Vec::new(), pages: Vec::new(), resume: repository::ResumePages::default() };
        for (name, ResumeObject { reference, .. }) in self.stored {
            match name {
                ObjectName::Data(..) => shipped.objects.push(reference),
                ObjectName::Resume(_, number) => match self.parts.get(number as usize) {
                    Some(ResumePart::ServerManifest) => shipped.resume.server_manifest.push(reference),
                    _ => shipped.resume.list.push(reference),
                },
                _ => shipped.pages.push(reference),
            }
        }
        Ok(shipped)
    }

    fn collect_ended(&mut self) -> Result<(), BaseError> {
        while let Some(ended) = self.running.try_join_next() {
            self.collect(ended)?;
        }
        Ok(())
    }

    fn collect(&mut self, outcome: Result<Result<Stored, BaseError>, tokio::task::JoinError>) -> Result<(), BaseError> {
        let (name, object) = outcome.map_err(|error| ended(&error.to_string()))??;
        let (is_data, is_resume) = (matches!(name, ObjectName::Data(..)), matches!(name, ObjectName::Resume(..)));
        self.stored.insert(name, object);
        self.resuming -= usize::from(is_resume);
        if is_data || is_resume { self.launch() } else { Ok(()) }
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
        place: OwnedSemaphorePermit,
    ) -> Result<Stored, BaseError> {
        let failed = |source: SealError| BaseError::Seal { name: name.to_string(), source };
        while let Some(run) = runs.recv().await {
            let (run, more) = run.await.map_err(|error| ended(&error.to_string()))??;
            assembly.append(&run).map_err(failed)?;
            room.take_in(&more);
        }
        // The digest of all of it takes milliseconds.
        let made = spawn_blocking(move || assembly.finish::<()>(None).map(ObjectReference::with)).await;
        let made = made.map_err(|error| ended(&error.to_string()))?.map_err(failed)?;
        let stored = self.store(name, made, room).await;
        drop(place);
        stored
    }

    async fn store_resume(self, name: ObjectName, plain: Vec<u8>) -> Result<Stored, BaseError> {
        let size = plain.len() as u64;
        let room = self.ciphertext.room((size + BESIDE_FRAMES).min(MAX_PLAINTEXT + BESIDE_FRAMES)).await;
        let core = self.sealing.clone().acquire_owned().await;
        let core = core.map_err(|_| ended("the count of sealers was closed"))?;
        let (draft, keys) = (self.draft(Kind::Resume, &name, PAGE_FRAME as u32), self.keys.clone());
        let sealed = in_the_background(move || {
            let mut sealer = keys.writer.resume()?.seal(draft, &keys.writer)?;
            sealer.frames_of(&plain)?;
            drop((plain, core));
            sealer.finish().map(ObjectReference::with)
        });
        let sealed = sealed.await.map_err(|error| ended(&error.to_string()))?;
        let made = sealed.map_err(|source| BaseError::Seal { name: name.to_string(), source })?;
        let (cache, bytes) = (self.cache.clone(), made.0.bytes.clone());
        let stored = self.store(name, made, room).await?;
        if let ObjectName::Resume(id, number) = stored.0.clone() {
            // What cannot be kept is in the repository; only a bug ends the task.
            let kept = spawn_blocking(move || cache.put(&id, number, &bytes)).await;
            kept.map_err(|error| ended(&error.to_string()))?;
        }
        Ok(stored)
    }

    async fn store(
        self,
        name: ObjectName,
        (object, reference): (SealedObject, ObjectReference),
        room: Room,
    ) -> Result<Stored, BaseError> {
        room.shrink_to(object.bytes.len() as u64);
        let slot = self.putting.clone().acquire_owned().await.map_err(|_| ended("the count of puts was closed"))?;
        put(&self.repository, &name, &object).await?;
        let stored = ResumeObject { reference, plain_size: Some(object.plain_size) };
        drop((slot, object, room));
        Ok((name, stored))
    }
}

/// Bytes that a run has at the most once it is sealed: frames that do not shrink grow by a little.
fn most_sealed(run: &PackedRun) -> u64 {
    run.lengths.iter().map(|length| SealedRun::most(*length as usize) as u64).sum()
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
            if there == object.bytes { Ok(()) } else { Err(BaseError::Taken(name.to_string())) }
        }
    }
}

fn ended(why: &str) -> BaseError {
    BaseError::Task(why.to_owned())
}
