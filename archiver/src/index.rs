//! The local index: which WAL was seen to be durable, with its signature verified. A cache (I8): it saves reading headers
//! again, and losing, garbling or ageing it costs those reads and nothing else. Whether an object is still there, the
//! repository's own listing says every time.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use walseal_common::lsn::{Lsn, LsnRange};
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

/// An index in a sled database. One process opens it: the daemon.
pub struct SledIndex {
    database: sled::Db,
    ranges: Mutex<BTreeMap<Branch, Ranges>>,
}

impl fmt::Debug for SledIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledIndex")
    }
}

/// Bytes of memory that sled may use for its cache; its own default is 1 GiB.
const CACHE: u64 = 8 << 20;

/// How often sled makes its changes durable, in milliseconds. A kill loses what came after; it is verified again.
const FLUSH: u64 = 1000;

/// The first thing in the database: what the rest means.
const VERSION: (&[u8], &[u8]) = (b"version", b"1");

impl SledIndex {
    /// Opens the index in `folder`, or begins a new one there. One that cannot be read is moved out of the way, to
    /// `<folder>.broken`, for whoever wants to look.
    ///
    /// Errors: not even a new one can be made there; the caller goes on with a [`MemoryIndex`].
    pub fn open(folder: &Path) -> Result<SledIndex, String> {
        match SledIndex::read(folder) {
            Ok(index) => Ok(index),
            Err(why) => {
                tracing::warn!(folder = %folder.display(), why, "the local index is not readable; it is made anew from the repository");
                move_away(folder).map_err(|error| error.to_string())?;
                SledIndex::read(folder)
            }
        }
    }

    fn read(folder: &Path) -> Result<SledIndex, String> {
        // sled panics on some kinds of damage; that must not take the daemon with it.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let config = sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(Some(FLUSH));
            let database = config.open().map_err(|error| error.to_string())?;
            let mut ranges: BTreeMap<Branch, Ranges> = BTreeMap::new();
            match database.get(VERSION.0).map_err(|error| error.to_string())? {
                Some(version) if version == VERSION.1 => {
                    for entry in database.scan_prefix(b"wal/") {
                        let (key, value) = entry.map_err(|error| error.to_string())?;
                        let (branch, range) = decode(&key, &value).ok_or("an entry that this version did not write")?;
                        ranges.entry(branch).or_default().add(range);
                    }
                }
                Some(_) => return Err("it was written by another version".to_owned()),
                None if database.is_empty() => {
                    database.insert(VERSION.0, VERSION.1).map_err(|error| error.to_string())?;
                }
                None => return Err("it has no version".to_owned()),
            }
            Ok(SledIndex { database, ranges: Mutex::new(ranges) })
        }));
        opened.unwrap_or_else(|_| Err("its database is damaged".to_owned()))
    }

    fn write(&self, branch: Branch, merged: LsnRange, replaced: &[Lsn]) -> Result<(), String> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            let mut batch = sled::Batch::default();
            for start in replaced {
                batch.remove(key(branch, *start));
            }
            batch.insert(key(branch, merged.start), &merged.end.0.to_be_bytes());
            self.database.apply_batch(batch)
        }));
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("its database is damaged".to_owned()),
        }
    }
}

impl Index for SledIndex {
    fn record(&self, branch: Branch, range: LsnRange) {
        let (merged, replaced) = {
            let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
            ranges.entry(branch).or_default().add(range)
        };
        if let Err(why) = self.write(branch, merged, &replaced) {
            tracing::debug!(why, "the local index was not written; the range is verified again after a restart");
        }
    }

    fn verified(&self, branch: Branch) -> Vec<LsnRange> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).get(&branch).map(Ranges::list).unwrap_or_default()
    }
}

fn key(branch: Branch, start: Lsn) -> Vec<u8> {
    format!("wal/{branch}/{:016X}", start.0).into_bytes()
}

fn decode(key: &[u8], value: &[u8]) -> Option<(Branch, LsnRange)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix("wal/")?;
    let (branch, start) = text.split_once('/')?;
    let start = Lsn(u64::from_str_radix(start, 16).ok()?);
    let end = Lsn(u64::from_be_bytes(value.try_into().ok()?));
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
mod tests {
    use proptest::prelude::*;
    use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn branch() -> Branch {
        TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7))
    }

    fn range(start: u64, end: u64) -> LsnRange {
        LsnRange { start: Lsn(start), end: Lsn(end) }
    }

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_added(raw in prop::collection::vec((0u64..100, 1u64..20), 0..30)) {
            let index = MemoryIndex::default();
            let mut held = [false; 130];
            for (start, length) in raw {
                index.record(branch(), range(start, start + length));
                held[start as usize..(start + length) as usize].fill(true);
            }
            let verified = index.verified(branch());
            for (at, held) in held.iter().enumerate() {
                prop_assert_eq!(verified.iter().any(|range| range.contains(Lsn(at as u64))), *held);
            }
            prop_assert!(verified.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }

    #[test]
    fn an_index_remembers_across_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("index");
        let index = SledIndex::open(&path).expect("a new index");
        index.record(branch(), range(10, 20));
        index.record(branch(), range(30, 40));
        index.record(branch(), range(20, 25));
        drop(index);
        let index = SledIndex::open(&path).expect("its own files");
        assert_eq!(index.verified(branch()), vec![range(10, 25), range(30, 40)]);
    }

    #[test]
    fn i8_a_garbled_index_is_moved_away_and_made_anew() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("index");
        for damage in 0..6_u8 {
            let index = SledIndex::open(&path).expect("a usable index, whatever was there");
            index.record(branch(), range(10, 20));
            drop(index);
            for entry in std::fs::read_dir(&path).expect("the index's folder") {
                let file = entry.expect("an entry").path();
                if !file.is_file() {
                    continue;
                }
                let mut bytes = std::fs::read(&file).expect("readable");
                match damage {
                    0 => bytes.clear(),
                    1 => bytes.truncate(bytes.len() / 2),
                    2 => bytes.iter_mut().for_each(|byte| *byte ^= 0xFF),
                    3 => bytes.fill(0),
                    4 => bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 1),
                    _ => bytes = b"not a database".to_vec(),
                }
                std::fs::write(&file, bytes).expect("writable");
            }
            let index = SledIndex::open(&path).expect("made anew");
            // What it still says may be nothing or what was true, never anything else.
            let verified = index.verified(branch());
            assert!(verified.is_empty() || verified == vec![range(10, 20)], "damage {damage}: {verified:?}");
        }
    }

    #[test]
    fn i8_a_file_in_the_place_of_the_index_is_no_obstacle() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("index");
        std::fs::write(&path, "not a folder").expect("writable");
        let index = SledIndex::open(&path).expect("made anew");
        assert!(index.verified(branch()).is_empty());
    }
}
