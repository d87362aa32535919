//! The index across restarts, damage, and other repositories.

use std::sync::Arc;

use proptest::prelude::*;
use walseal_common::seal::{TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::DirectoryStore;
use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

use super::*;

fn branch() -> Branch {
    TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7))
}

fn range(start: u64, end: u64) -> LsnRange {
    LsnRange { start: Lsn(start), end: Lsn(end) }
}

fn repository_at(folder: &str, writers: &[&WriterKey]) -> Repository {
    let store = Arc::new(DirectoryStore::new(folder.into()));
    let writers = writers.iter().map(|writer| TrustedWriter::archiver(writer.public())).collect();
    Repository::new(store, SystemIdentifier(7), TrustedWriters::new(writers))
}

fn repository() -> Repository {
    repository_at("/srv/walseal", &[])
}

/// What may happen to a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Zero { at: usize, length: usize },
    Truncate { at: usize },
    Repeat { from: usize, to: usize, length: usize },
    Remove,
}

fn damages() -> impl Strategy<Value = Damage> {
    let at = 0usize..600_000;
    prop_oneof![
        4 => (at.clone(), 0u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        2 => (at.clone(), 1usize..5000).prop_map(|(at, length)| Damage::Zero { at, length }),
        1 => at.clone().prop_map(|at| Damage::Truncate { at }),
        2 => (at.clone(), at, 1usize..2000).prop_map(|(from, to, length)| Damage::Repeat { from, to, length }),
        1 => Just(Damage::Remove),
    ]
}

/// Damages the file that the position falls on, positions counted through all files.
fn hurt(folder: &Path, damage: &Damage) {
    let mut files: Vec<PathBuf> = walk(folder);
    files.sort();
    for file in files {
        let mut bytes = std::fs::read(&file).expect("readable");
        let size = bytes.len().max(1);
        match *damage {
            Damage::Flip { at, bit } => {
                if let Some(byte) = bytes.get_mut(at % size) {
                    *byte ^= 1 << bit;
                }
            }
            Damage::Zero { at, length } => bytes.iter_mut().skip(at % size).take(length).for_each(|byte| *byte = 0),
            Damage::Truncate { at } => bytes.truncate(at % size),
            Damage::Repeat { from, to, length } => {
                let copied: Vec<u8> = bytes.iter().skip(from % size).take(length).copied().collect();
                bytes.iter_mut().skip(to % size).zip(copied).for_each(|(byte, other)| *byte = other);
            }
            Damage::Remove => {
                std::fs::remove_file(&file).expect("removable");
                continue;
            }
        }
        std::fs::write(&file, bytes).expect("writable");
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn i8_no_damage_makes_the_index_claim_what_was_never_verified(
        damages in prop::collection::vec(damages(), 1..4),
        records in 1u64..200,
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("index");
        let index = SledIndex::open(&path, &repository()).expect("a new index");
        // Every other segment, so that nothing merges.
        (0..records).for_each(|number| index.record(branch(), range(number * 20, number * 20 + 10)));
        drop(index);
        damages.iter().for_each(|damage| hurt(&path, damage));
        let index = SledIndex::open(&path, &repository()).expect("a usable index, whatever was there");
        for range in index.verified(branch()) {
            prop_assert!(range.start.0 % 20 == 0 && range.len() == 10 && range.end.0 <= records * 20, "{range}");
        }
        index.record(branch(), range(7_000_000, 7_000_010));
        prop_assert!(index.verified(branch()).contains(&range(7_000_000, 7_000_010)));
    }
}

/// Each opens two databases and writes half a megabyte.
const CASES: u32 = 24;

#[test]
fn i8_an_index_of_another_repository_or_of_other_writers_counts_for_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("index");
    let (one, other) = (WriterKey::generate().expect("a key"), WriterKey::generate().expect("a key"));
    let repositories = [
        repository_at("/srv/one", &[&one, &other]),
        repository_at("/srv/two", &[&one, &other]),
        repository_at("/srv/two", &[&one]),
    ];
    for repository in &repositories {
        let index = SledIndex::open(&path, repository).expect("an index");
        assert!(index.verified(branch()).is_empty(), "{}", repository.describe());
        index.record(branch(), range(10, 20));
    }
    let index = SledIndex::open(&path, &repository_at("/srv/two", &[&one])).expect("an index");
    assert_eq!(index.verified(branch()), vec![range(10, 20)]);
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
    let index = SledIndex::open(&path, &repository()).expect("a new index");
    index.record(branch(), range(10, 20));
    index.record(branch(), range(30, 40));
    index.record(branch(), range(20, 25));
    drop(index);
    let index = SledIndex::open(&path, &repository()).expect("its own files");
    assert_eq!(index.verified(branch()), vec![range(10, 25), range(30, 40)]);
}

#[test]
fn i8_a_garbled_index_is_moved_away_and_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("index");
    for damage in 0..6_u8 {
        let index = SledIndex::open(&path, &repository()).expect("a usable index, whatever was there");
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
        let index = SledIndex::open(&path, &repository()).expect("made anew");
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
    let index = SledIndex::open(&path, &repository()).expect("made anew");
    assert!(index.verified(branch()).is_empty());
}
