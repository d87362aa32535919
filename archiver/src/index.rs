//! The local index: which WAL was seen to be durable, with its signature verified. A cache (I8): it saves reading headers
//! again, and losing, garbling or ageing it costs those reads and nothing else. Whether an object is still there, the
//! repository's own listing says every time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::Repository;
use walseal_common::timeline::Branch;

/// Remembers verified ranges of WAL by branch.
pub trait Index: Send + Sync + fmt::Debug {
    /// Notes that all objects of `range` were verified. Never fails: what cannot be kept is verified again.
    fn record(&self, branch: Branch, range: LsnRange);

    /// What was verified, in order, adjoining ranges merged.
    fn verified(&self, branch: Branch) -> Vec<LsnRange>;
}

/// Ranges in memory, merged as they come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(BTreeMap<Lsn, Lsn>);

impl Ranges {
    /// Adds a range; returns the merged one and the starts that it replaces.
    fn add(&mut self, range: LsnRange) -> (LsnRange, Vec<Lsn>) {
        let mut merged = range;
        let touching: Vec<Lsn> =
            self.0.range(..=range.end).filter(|(_, end)| **end >= range.start).map(|(start, _)| *start).collect();
        for start in &touching {
            if let Some(end) = self.0.remove(start) {
                merged = LsnRange { start: merged.start.min(*start), end: merged.end.max(end) };
            }
        }
        self.0.insert(merged.start, merged.end);
        (merged, touching)
    }

    fn list(&self) -> Vec<LsnRange> {
        self.0.iter().map(|(start, end)| LsnRange { start: *start, end: *end }).collect()
    }
}

/// An index that ends with its process: for verbs that run beside no daemon.
#[derive(Debug, Default)]
pub struct MemoryIndex(Mutex<BTreeMap<Branch, Ranges>>);

impl Index for MemoryIndex {
    fn record(&self, branch: Branch, range: LsnRange) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(branch).or_default().add(range);
    }

    fn verified(&self, branch: Branch) -> Vec<LsnRange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&branch).map(Ranges::list).unwrap_or_default()
    }
}

/// An index in a sled database. One process opens it: the daemon. Where its disk takes no more writes it goes on in memory, and is
/// written again, all of it, once the disk takes some.
pub struct SledIndex(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    ground: [u8; 32],
    ranges: Mutex<BTreeMap<Branch, Ranges>>,
    /// Locked after `ranges` was given free, or before it is locked: never the other way round.
    database: Mutex<Database>,
}

/// What is written to.
enum Database {
    Open(sled::Db),
    /// It failed, and was last looked at then. sled takes no more writes after the first that failed.
    Failed(Instant, Option<sled::Db>),
    /// A thread is about to open a new one.
    Opening,
}

/// How long a disk that took no write is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// So much has to fit on it then, in bytes: more than sled writes at once to begin with.
const ROOM: usize = 1 << 20;

impl fmt::Debug for SledIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledIndex")
    }
}

/// Bytes of memory that sled may use for its cache; its own default is 1 GiB.
const CACHE: u64 = 8 << 20;

/// How often sled makes its changes durable, in milliseconds. A kill loses what came after; it is verified again.
const FLUSH: u64 = 1000;

/// Where the database says what its entries stand on.
const GROUND: &[u8] = b"ground";

/// What "verified" stands on: this repository, and these writers. Under another URL lie other objects, and what a writer
/// signed who is no longer trusted counts no more. Also the version of the entries' format.
fn ground(repository: &Repository) -> [u8; 32] {
    let mut writers: Vec<String> =
        repository.trust().iter().map(|writer| format!("{} {:?}", writer.key, writer.roles)).collect();
    writers.sort();
    let mut hasher = blake3::Hasher::new_derive_key("walseal 2026-11 index");
    for part in [repository.describe(), repository.cluster().to_string(), writers.join("\n")] {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Opens a database that this process may have closed just now: sled's own threads hold its lock for a moment longer, and what is
/// only locked must not be taken for damaged.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..LOCKED.0 {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") => std::thread::sleep(LOCKED.1),
            opened => return opened,
        }
    }
    config.open()
}

/// How often a locked database is tried again, and after which pause.
const LOCKED: (u32, Duration) = (100, Duration::from_millis(20));

/// Tells an entry that was written from one that damage made: sled's own checksums end at its pages.
fn seal(ground: &[u8; 32], key: &[u8], end: Lsn) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(ground);
    hasher.update(&end.0.to_be_bytes()).update(key);
    let digest = hasher.finalize();
    let mut seal = [0; 8];
    seal.copy_from_slice(&digest.as_bytes()[..8]);
    seal
}

impl SledIndex {
    /// Opens the index of `repository` in `folder`, or begins a new one there. One that cannot be read is moved out of the
    /// way, to `<folder>.broken`, for whoever wants to look; one of another repository, or that stands on other trusted
    /// writers, is emptied.
    ///
    /// Errors: not even a new one can be made there; the caller goes on with a [`MemoryIndex`].
    pub fn open(folder: &Path, repository: &Repository) -> Result<SledIndex, String> {
        let ground = ground(repository);
        let (database, ranges) = match read(folder, ground) {
            Ok(read) => read,
            Err(why) => {
                tracing::warn!(folder = %folder.display(), why, "the local index is not readable; it is made anew from the repository");
                move_away(folder).map_err(|error| error.to_string())?;
                read(folder, ground)?
            }
        };
        let (ranges, database) = (Mutex::new(ranges), Mutex::new(Database::Open(database)));
        Ok(SledIndex(Arc::new(Inner { folder: folder.to_owned(), ground, ranges, database })))
    }
}

/// Opens a database, and reads what it holds of what stands on `ground`.
fn read(folder: &Path, ground: [u8; 32]) -> Result<(sled::Db, BTreeMap<Branch, Ranges>), String> {
    careful(|| {
        let config = sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(Some(FLUSH));
        let database = open_unlocked(&config).map_err(|error| error.to_string())?;
        let mut ranges: BTreeMap<Branch, Ranges> = BTreeMap::new();
        let said = database.get(GROUND).map_err(|error| error.to_string())?;
        if said.as_ref().is_some_and(|said| said == &ground) {
            for entry in database.scan_prefix(b"wal/") {
                let (key, value) = entry.map_err(|error| error.to_string())?;
                let (branch, range) =
                    decode(&ground, &key, &value).ok_or("an entry that this version did not write")?;
                ranges.entry(branch).or_default().add(range);
            }
        } else {
            if said.is_some() {
                tracing::info!(
                    "the local index stands on another repository or other trusted writers, and begins anew"
                );
            }
            database.clear().map_err(|error| error.to_string())?;
            database.insert(GROUND, &ground).map_err(|error| error.to_string())?;
        }
        Ok((database, ranges))
    })
}

/// sled panics on some kinds of damage; that must not take the daemon with it.
fn careful<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("its database is damaged".to_owned()))
}

impl Inner {
    fn write(&self, database: &sled::Db, branch: Branch, merged: LsnRange, replaced: &[Lsn]) -> Result<(), String> {
        careful(|| {
            let mut batch = sled::Batch::default();
            for start in replaced {
                batch.remove(key(branch, *start));
            }
            let (key, end) = (key(branch, merged.start), merged.end);
            let value = [&end.0.to_be_bytes()[..], &seal(&self.ground, &key, end)].concat();
            batch.insert(key, value);
            database.apply_batch(batch).map_err(|error| error.to_string())
        })
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, database: &sled::Db) -> Result<(), String> {
        let known = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (branch, ranges) in known {
            for range in ranges.list() {
                self.write(database, branch, range, &[])?;
            }
        }
        Ok(())
    }

    /// Puts a new database, with all that is known, in the place of the one that failed.
    fn begin_anew(&self, failed: Option<sled::Db>) {
        let opened = careful(|| {
            drop(failed);
            has_room(&self.folder).map_err(|error| error.to_string())?;
            // Everything in it is in memory.
            match std::fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.to_string()),
                _ => {}
            }
            let (database, _) = read(&self.folder, self.ground)?;
            self.write_all(&database)?;
            database.flush().map_err(|error| error.to_string())?;
            Ok(database)
        });
        // Whoever records something from here on writes it behind what is known by now.
        let mut place = self.database();
        let written = opened.and_then(|database| self.write_all(&database).map(|()| database));
        *place = match written {
            Ok(database) => {
                tracing::info!("the local index is written again");
                Database::Open(database)
            }
            Err(why) => {
                tracing::debug!(why, "the local index still cannot be written");
                Database::Failed(Instant::now(), None)
            }
        };
    }
}

impl Index for SledIndex {
    fn record(&self, branch: Branch, range: LsnRange) {
        let (merged, replaced) = {
            let mut ranges = self.0.ranges.lock().unwrap_or_else(PoisonError::into_inner);
            ranges.entry(branch).or_default().add(range)
        };
        let mut place = self.0.database();
        match std::mem::replace(&mut *place, Database::Opening) {
            Database::Open(database) => {
                *place = match self.0.write(&database, branch, merged, &replaced) {
                    Ok(()) => Database::Open(database),
                    Err(why) => {
                        tracing::warn!(
                            folder = %self.0.folder.display(), why,
                            "the local index cannot be written; it goes on in memory. Nothing is lost, but what is in the repository is \
                             verified anew after a restart: look whether the disk is full"
                        );
                        Database::Failed(Instant::now(), Some(database))
                    }
                };
            }
            Database::Failed(since, failed) if since.elapsed() >= PAUSE => {
                let inner = self.0.clone();
                // Disks that fail may take their time; whoever ships WAL must not wait for them.
                std::thread::spawn(move || inner.begin_anew(failed));
            }
            other => *place = other,
        }
    }

    fn verified(&self, branch: Branch) -> Vec<LsnRange> {
        self.0.ranges.lock().unwrap_or_else(PoisonError::into_inner).get(&branch).map(Ranges::list).unwrap_or_default()
    }
}

/// Whether a new database fits beside `folder`.
fn has_room(folder: &Path) -> std::io::Result<()> {
    let probe = folder.with_extension("probe");
    let written = std::fs::write(&probe, vec![0; ROOM]);
    let removed = std::fs::remove_file(&probe);
    written.and(removed)
}

fn key(branch: Branch, start: Lsn) -> Vec<u8> {
    format!("wal/{branch}/{:016X}", start.0).into_bytes()
}

fn decode(ground: &[u8; 32], key: &[u8], value: &[u8]) -> Option<(Branch, LsnRange)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix("wal/")?;
    let (branch, start) = text.split_once('/')?;
    let start = Lsn(u64::from_str_radix(start, 16).ok()?);
    let (end, sealed) = value.split_first_chunk::<8>()?;
    let end = Lsn(u64::from_be_bytes(*end));
    if sealed != seal(ground, key, end) {
        return None;
    }
    Some((branch.parse().ok()?, LsnRange::new(start, end)?))
}

fn move_away(folder: &Path) -> std::io::Result<()> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".broken");
    let aside: PathBuf = folder.with_file_name(name);
    // The one before was looked at, or never will be.
    match std::fs::remove_dir_all(&aside).or_else(|_| std::fs::remove_file(&aside)) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::rename(folder, aside)
}

#[cfg(test)]
mod tests;
