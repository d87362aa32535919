//! A stream into sealed objects, in bounded memory, without touching the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use walseal_common::buffer::Spares;
use walseal_common::repository::{ObjectName, ObjectReference, Repository, RepositoryError, SnapshotId};
use walseal_common::seal::{Assembly, Draft, Kind, MAX_PLAINTEXT, SealError, SealedObject, SealedRun, Workshop};
use walseal_common::store::PutOutcome;

use super::SnapshotError;
use crate::courtesy::in_the_background;
use crate::keys::ArchiveKeys;
use crate::memory::{BESIDE_FRAMES, Memory, Room};

/// Plaintext in a frame, in bytes. A dump is read from its beginning to its end: large frames shrink better.
const FRAME: usize = 1 << 20;

/// Most frames of plaintext of one stream in memory (I11): what is read, what waits, what is sealed. Each stream has its own: were they
/// shared, those that are read ahead could keep each other's objects from ever filling up.
const PLAINS: u64 = 4;

/// Most bytes of an object.
const OBJECT: u64 = MAX_PLAINTEXT + BESIDE_FRAMES;

/// As in base backups: on real data it beats level 3 in speed and in size.
const LEVEL: i32 = 1;

/// Plaintexts of frames, used again.
static SPARES: LazyLock<Spares> = LazyLock::new(|| Spares::new(FRAME, 2));

/// Where the objects of one snapshot go. Dropped, whatever it stored stays invisible as long as nobody writes a label (I7).
pub(super) struct Stow {
    hold: Hold,
    id: SnapshotId,
    next: u32,
    plain: Memory,
}

/// What all that is stowed at the same time shares.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    repository: Repository,
    keys: Arc<ArchiveKeys>,
    workshop: Workshop,
    sealing: Arc<Semaphore>,
    ciphertext: Memory,
}

/// What a stream became.
#[derive(Clone, Debug, Default)]
pub(super) struct Stowed {
    /// Its objects, in order.
    pub(super) objects: Vec<ObjectReference>,
    /// Bytes of the stream.
    pub(super) plain: u64,
}

impl Stowed {
    /// Bytes of the objects.
    pub(super) fn stored(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }
}

/// A frame that is being sealed.
type Sealing = JoinHandle<Result<SealedRun, SnapshotError>>;

/// An object that was stored, with its number.
type Stored = (u32, ObjectReference);

impl Stow {
    /// For the snapshot `id`.
    pub(super) fn new(hold: Hold, id: SnapshotId) -> Stow {
        Stow { hold, id, next: 0, plain: Memory::new(PLAINS * FRAME as u64) }
    }

    /// Reads `stream` to its end, and stores it in objects of at most 16 MiB. Durable on return. `told` hears how many bytes were
    /// read.
    ///
    /// Errors: the stream's; an object could not be sealed or stored.
    pub(super) async fn stow(
        &mut self,
        mut stream: impl AsyncRead + Unpin,
        mut told: impl FnMut(u64),
    ) -> Result<Stowed, SnapshotError> {
        let mut running: JoinSet<Result<Stored, SnapshotError>> = JoinSet::new();
        let mut stored = BTreeMap::new();
        let mut plain = 0;
        let mut ahead = self.frame(&mut stream).await?;
        while !ahead.0.is_empty() {
            let number = self.next;
            self.next += 1;
            let name = ObjectName::Dump(self.id.clone(), number);
            let room = wait(&mut running, &mut stored, self.hold.ciphertext.room(OBJECT)).await?;
            let draft = Draft {
                kind: Kind::Dump,
                cluster: self.hold.repository.cluster(),
                name: name.to_string(),
                wal: None,
                frame_size: FRAME as u32,
                level: LEVEL,
            };
            let opened = draft.open(&self.hold.keys.recipients, &self.hold.keys.writer);
            let (sealer, mut assembly) =
                opened.map_err(|source| SnapshotError::Seal { name: name.to_string(), source })?;
            assembly.reserve_in(&self.hold.workshop);
            let (runs, arriving) = mpsc::unbounded_channel();
            running.spawn(self.hold.clone().assemble(name.clone(), number, assembly, arriving, room));
            for frame in 0..MAX_PLAINTEXT / FRAME as u64 {
                let (bytes, held) = ahead;
                plain += bytes.len() as u64;
                told(bytes.len() as u64);
                ahead = wait(&mut running, &mut stored, self.frame(&mut stream)).await??;
                // A frame knows whether it is its object's last: so one is always read ahead.
                let last = ahead.0.is_empty() || frame + 1 == MAX_PLAINTEXT / FRAME as u64;
                let (hold, sealer, name) = (self.hold.clone(), sealer.clone(), name.to_string());
                let sealing = tokio::spawn(async move {
                    let core = hold.sealing.acquire_owned().await.map_err(|_| ended("the sealers are closed"))?;
                    let sealed = in_the_background(move || {
                        let sealed = hold.workshop.seal(&sealer, frame, [bytes.as_slice()], last);
                        SPARES.give(bytes);
                        drop((held, core));
                        sealed
                    });
                    let sealed = sealed.await.map_err(|error| ended(&error.to_string()))?;
                    sealed.map_err(|source| SnapshotError::Seal { name, source })
                });
                // Whoever puts the object together stops listening only after an error, which is collected.
                if runs.send(sealing).is_err() || last {
                    break;
                }
            }
        }
        while let Some(ended) = running.join_next().await {
            collect(ended, &mut stored)?;
        }
        Ok(Stowed { objects: stored.into_values().collect(), plain })
    }

    /// The next frame of the stream, full unless the stream ends with it; empty at its end.
    async fn frame(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, Room), SnapshotError> {
        let room = self.plain.room(FRAME as u64).await;
        let mut bytes = SPARES.take_vec();
        let mut limited = stream.take(FRAME as u64);
        loop {
            let read = limited.read_buf(&mut bytes).await;
            match read.map_err(|source| SnapshotError::Run { program: "pg_dump", source })? {
                0 => return Ok((bytes, room)),
                _ if bytes.len() >= FRAME => return Ok((bytes, room)),
                _ => {}
            }
        }
    }
}

impl Hold {
    /// For so many streams at a time. Of each an object fills up, while one more is on its way (I11).
    pub(super) fn new(repository: Repository, keys: Arc<ArchiveKeys>, streams: usize) -> Hold {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(2);
        Hold {
            repository,
            keys,
            workshop: Workshop::new(cores, OBJECT as usize),
            sealing: Arc::new(Semaphore::new(cores)),
            ciphertext: Memory::new((streams as u64 + 1) * OBJECT),
        }
    }

    /// Puts an object together from its frames, and stores it.
    async fn assemble(
        self,
        name: ObjectName,
        number: u32,
        mut assembly: Assembly,
        mut frames: mpsc::UnboundedReceiver<Sealing>,
        room: Room,
    ) -> Result<Stored, SnapshotError> {
        let failed = |source: SealError| SnapshotError::Seal { name: name.to_string(), source };
        while let Some(frame) = frames.recv().await {
            let frame = frame.await.map_err(|error| ended(&error.to_string()))??;
            assembly.append(&frame).map_err(failed)?;
        }
        let finished = spawn_blocking(move || assembly.finish::<()>(None).map(ObjectReference::with)).await;
        let (object, reference) = finished.map_err(|error| ended(&error.to_string()))?.map_err(failed)?;
        room.shrink_to(object.bytes.len() as u64);
        put(&self.repository, &name, &object).await?;
        drop((object, room));
        Ok((number, reference))
    }
}

/// Waits for `wanted`, and hears meanwhile of objects that could not be stored.
async fn wait<T>(
    running: &mut JoinSet<Result<Stored, SnapshotError>>,
    stored: &mut BTreeMap<u32, ObjectReference>,
    wanted: impl Future<Output = T>,
) -> Result<T, SnapshotError> {
    let mut wanted = std::pin::pin!(wanted);
    loop {
        tokio::select! {
            found = &mut wanted => return Ok(found),
            Some(ended) = running.join_next() => collect(ended, stored)?,
        }
    }
}

fn collect(
    outcome: Result<Result<Stored, SnapshotError>, tokio::task::JoinError>,
    stored: &mut BTreeMap<u32, ObjectReference>,
) -> Result<(), SnapshotError> {
    let (number, reference) = outcome.map_err(|error| ended(&error.to_string()))??;
    stored.insert(number, reference);
    Ok(())
}

/// Stores an object, and knows that it is there when it returns. A name that is taken is fine where an attempt before, whose answer
/// got lost, put the very same.
pub(super) async fn put(
    repository: &Repository,
    name: &ObjectName,
    object: &SealedObject,
) -> Result<(), SnapshotError> {
    if repository.put(object).await? == PutOutcome::Created {
        return Ok(());
    }
    let there = repository.store().get(&name.key(repository.cluster())).await.map_err(RepositoryError::from)?;
    if there == object.bytes { Ok(()) } else { Err(SnapshotError::Taken(name.to_string())) }
}

fn ended(why: &str) -> SnapshotError {
    SnapshotError::Task(why.to_owned())
}
