//! What is listed, from a store of names.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use crate::seal::TrustedWriters;
use crate::store::{Decorator, DirectoryStore, ObjectStore, Page, StoreError};
use crate::timeline::{SystemIdentifier, TimelineHistory};

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

/// A store in which something arrives before each call that lists.
#[derive(Debug)]
struct Busy {
    inner: DirectoryStore,
    /// In reverse order.
    coming: Mutex<Vec<String>>,
    at_once: usize,
    /// Calls that listed.
    lists: Arc<AtomicUsize>,
}

impl Busy {
    async fn put(&self, key: &str) {
        self.inner.put_new(key, Bytes::from_static(b"a name")).await.expect("a put");
    }
}

#[async_trait::async_trait]
impl Decorator for Busy {
    fn inner(&self) -> &dyn ObjectStore {
        &self.inner
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        for _ in 0..self.at_once {
            let next = self.coming.lock().expect("no panic").pop();
            if let Some(key) = next {
                self.put(&key).await;
            }
        }
        self.inner.list(prefix, start_after, limit).await
    }
}

struct Bed {
    _folder: tempfile::TempDir,
    repository: Repository,
    branch: Branch,
    size: SegmentSize,
    lists: Arc<AtomicUsize>,
}

/// A repository of `mib` MiB segments that has `there`, and gets `coming`, so many `at_once`.
async fn bed(mib: u64, there: &[Object], coming: &[Object], at_once: usize) -> Bed {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let branch = TimelineHistory::root(TimelineId::FIRST).branch(CLUSTER);
    let size = SegmentSize::new(mib << 20).expect("a legal size");
    let keys = |objects: &[Object]| -> Vec<String> {
        objects.iter().flat_map(|object| object.names(branch, size)).map(|name| name.key(CLUSTER)).collect()
    };
    let mut later = keys(coming);
    later.reverse();
    let inner = DirectoryStore::new(folder.path().to_owned());
    let lists = Arc::new(AtomicUsize::new(0));
    let store = Busy { inner, coming: Mutex::new(later), at_once, lists: lists.clone() };
    for key in keys(there) {
        store.put(&key).await;
    }
    let repository = Repository::new(Arc::new(store), CLUSTER, TrustedWriters::new(Vec::new()));
    Bed { _folder: folder, repository, branch, size, lists }
}

#[derive(Clone, Debug)]
enum Object {
    Whole(u64),
    Part(u64, u8),
    /// From and to, in 64ths of the segment.
    Tail(u64, u64, u64),
}

impl Object {
    fn names(&self, branch: Branch, size: SegmentSize) -> Vec<ObjectName> {
        let name = |number: u64| SegmentName::new(branch.timeline, SegmentNumber(number), size);
        match *self {
            Object::Whole(number) => whole_names(branch, SegmentNumber(number), size),
            Object::Part(number, part) => vec![ObjectName::Wal(branch, name(number), Some(part))],
            Object::Tail(number, from, to) => {
                let at = |part: u64| SegmentNumber(number).start(size).advance(size.bytes() / 64 * part);
                vec![ObjectName::Tail(branch, name(number), LsnRange { start: at(from), end: at(to) })]
            }
        }
    }
}

fn object(with_parts: bool) -> impl Strategy<Value = Object> {
    let number = 0..9u64;
    let tail = (number.clone(), 0..64u64, 1..33u64)
        .prop_map(|(n, from, length)| Object::Tail(n, from, (from + length).min(64)));
    let part = (number.clone(), 0..4u8)
        .prop_map(move |(n, part)| if with_parts { Object::Part(n, part) } else { Object::Whole(n) });
    prop_oneof![3 => number.prop_map(Object::Whole), 2 => part, 4 => tail]
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// What an outline leaves out makes no difference, also when a segment turns out to be of no use.
    #[test]
    fn an_outline_says_what_the_whole_listing_says(
        (mib, objects) in any::<bool>().prop_flat_map(|large| (Just(if large { 64 } else { 1 }), vec(object(large), 0..40))),
        bounds in (0..9u64, 0..9u64),
        lost in vec(0..9u64, 0..4),
    ) {
        block_on(async {
            let bed = bed(mib, &objects, &[], 0).await;
            let (first, last) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            let ranges = [(SegmentNumber(first), SegmentNumber(last)), (SegmentNumber(last + 2), SegmentNumber(u64::MAX))];
            let mut all = bed.repository.wal_listing_of(bed.branch, bed.size, &ranges).await.expect("a listing");
            let mut outline = bed.repository.wal_outline(bed.branch, bed.size, &ranges).await.expect("an outline");
            prop_assert!(outline.tails.keys().all(|number| !outline.has_segment(*number)));
            for number in std::iter::once(None).chain(lost.into_iter().map(Some)) {
                if let Some(number) = number {
                    let name = Object::Whole(number).names(bed.branch, bed.size).remove(0);
                    let left = bed.repository.leave_out(&mut outline, &name).await.expect("a listing");
                    prop_assert_eq!(left, all.leave_out(&name));
                }
                prop_assert_eq!(&outline.runs, &all.runs);
                prop_assert_eq!(&outline.parts, &all.parts);
                for number in 0..12 {
                    let number = SegmentNumber(number);
                    let from = number.start(bed.size);
                    prop_assert_eq!(outline.contiguous_end(from), all.contiguous_end(from));
                    if !outline.has_segment(number) {
                        prop_assert_eq!(outline.objects_of(number), all.objects_of(number));
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// A synchronous archiver leaves a tail for each group of commits.
#[test]
fn many_tails_of_few_segments_are_listed_in_few_calls() {
    block_on(async {
        let tails: Vec<Object> =
            (3..8).flat_map(|number| (0..64).map(move |from| Object::Tail(number, from, from + 1))).collect();
        let bed = bed(1, &tails, &[], 0).await;
        let ranges = [(SegmentNumber(4), SegmentNumber(5)), (SegmentNumber(7), SegmentNumber(7))];
        let outline = bed.repository.wal_outline(bed.branch, bed.size, &ranges).await.expect("an outline");
        assert_eq!(outline.tails.values().map(Vec::len).collect::<Vec<_>>(), [64, 64, 64]);
        let calls = bed.lists.load(Ordering::Relaxed);
        assert!(calls <= 8, "{calls} calls");
    });
}

/// Nor is it ever asked for what a synchronous archiver stores while it is asked.
#[test]
fn a_listing_ends_beside_an_archiver_that_is_faster() {
    block_on(async {
        let tail = |number: u64| (0..64).map(move |from| Object::Tail(number, from, from + 1));
        let (there, coming): (Vec<Object>, Vec<Object>) = (tail(3).collect(), (4..20).flat_map(tail).collect());
        let bed = bed(1, &there, &coming, 1).await;
        let all = [(SegmentNumber(0), SegmentNumber(u64::MAX))];
        let outline = bed.repository.wal_outline(bed.branch, bed.size, &all).await.expect("an outline");
        assert!(outline.tails[&SegmentNumber(3)].len() == 64);
        bed.repository
            .tails(bed.branch, SegmentName::new(bed.branch.timeline, SegmentNumber(3), bed.size))
            .await
            .expect("tails");
        let calls = bed.lists.load(Ordering::Relaxed);
        assert!(calls <= 4, "{calls} calls");
    });
}

/// An archiver at work, step by step beside the calls of an outline: no step of it looks like a hole (I2).
#[test]
fn i2_segments_that_become_whole_meanwhile_are_no_holes() {
    let mut steps = Vec::new();
    for number in 3..8 {
        steps.extend([0, 16, 32].map(|from| Object::Tail(number, from, from + 16)));
        // The last bytes come with the whole segment alone.
        steps.push(Object::Whole(number));
    }
    block_on(async {
        for begun in 0..steps.len() {
            for at_once in 1..8 {
                let (there, coming) = steps.split_at(begun);
                let bed = bed(1, there, coming, at_once).await;
                let all = [(SegmentNumber(0), SegmentNumber(u64::MAX))];
                let start = SegmentNumber(3).start(bed.size);
                let before = {
                    let quiet = self::bed(1, there, &[], 0).await;
                    let listing =
                        quiet.repository.wal_listing(quiet.branch, quiet.size, None).await.expect("a listing");
                    listing.contiguous_end(start)
                };
                let outline = bed.repository.wal_outline(bed.branch, bed.size, &all).await.expect("an outline");
                let end = outline.contiguous_end(start);
                assert!(end >= before, "{end} after {begun} steps and {at_once} at a time, and {before} before");
                let beyond: Vec<Lsn> = outline.begins().into_iter().filter(|begin| *begin > end).collect();
                assert_eq!(beyond, [], "a hole at {end} after {begun} steps and {at_once} at a time");
            }
        }
    });
}

#[test]
fn many_base_backups_are_walked_over_in_stretches_of_time() {
    let first: BaseId = "20251001T000000Z-00000001".parse().expect("an id");
    let now: Timestamp = "2026-11-04T00:00:00Z".parse().expect("a time");
    let starts = stretches(Some(&first), now);
    assert_eq!(starts.len(), WALKS - 1);
    assert_eq!((starts[0].as_str(), starts[14].as_str()), ("base/20251025T223000Z", "base/20261010T013000Z"));
    assert!(starts.is_sorted());
    // A clock that was set back.
    assert_eq!(stretches(Some(&first), "2025-01-01T00:00:00Z".parse().expect("a time")), Vec::<String>::new());
    assert_eq!(stretches(None, now), Vec::<String>::new());
}
