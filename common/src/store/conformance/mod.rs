//! What every store must do: one suite, run on each backend and through each decorator.

mod s3;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::fault::Faulty;
use super::*;

type Store = Arc<dyn ObjectStore>;

/// A store to test, with what must live as long.
struct Subject {
    store: Store,
    _folder: Option<tempfile::TempDir>,
}

impl Subject {
    fn directory() -> Subject {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Subject { store: Arc::new(DirectoryStore::new(folder.path().to_owned())), _folder: Some(folder) }
    }

    fn wrap<S: ObjectStore + 'static>(self, decorator: impl FnOnce(Store) -> S) -> Subject {
        Subject { store: Arc::new(decorator(self.store)), _folder: self._folder }
    }
}

async fn put(store: &Store, key: &str, body: impl Into<Bytes>) -> PutOutcome {
    store.put_new(key, body.into()).await.expect("a put")
}

async fn all_keys(store: &Store, prefix: &str, limit: usize) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = store.list(prefix, keys.last().map(String::as_str), limit).await.expect("a listing");
        assert!(page.objects.len() <= limit.min(LONGEST_PAGE));
        let is_last = !page.more || page.objects.is_empty();
        keys.extend(page.objects.into_iter().map(|meta| meta.key));
        if is_last {
            let rest = store.list(prefix, keys.last().map(String::as_str), limit).await.expect("a listing");
            assert_eq!(rest, Page::default(), "{prefix} after {:?}", keys.last());
            return keys;
        }
    }
}

/// Bytes that do not repeat soon, so that a piece in the wrong place shows.
fn bytes_of(length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length);
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill({
        bytes.resize(length, 0);
        &mut bytes
    });
    bytes.into()
}

async fn an_object_is_written_once_and_read_back(store: Store) {
    assert_eq!(put(&store, "a/one", "first").await, PutOutcome::Created);
    assert_eq!(store.get("a/one").await.expect("get"), "first");
    assert_eq!(put(&store, "a/one", "other").await, PutOutcome::AlreadyExists);
    assert_eq!(put(&store, "a/one", "first").await, PutOutcome::AlreadyExists);
    assert_eq!(store.get("a/one").await.expect("get"), "first");
}

async fn ranges_are_cut_at_the_end(store: Store) {
    put(&store, "r", "0123456789").await;
    for (range, wanted) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (5..1000, "56789"),
        (5..u64::MAX, "56789"),
        (0..u64::MAX, "0123456789"),
        (10..11, ""),
        (10..u64::MAX, ""),
        (1000..2000, ""),
        (u64::MAX - 1..u64::MAX, ""),
        (4..4, ""),
    ] {
        let body = store.get_range("r", range.clone()).await.expect("a range");
        assert_eq!((body.bytes, body.object_size), (Bytes::from_static(wanted.as_bytes()), 10), "{range:?}");
    }
    put(&store, "empty", "").await;
    for range in [0..0, 0..1, 0..u64::MAX, 5..6] {
        let body = store.get_range("empty", range.clone()).await.expect("a range");
        assert_eq!((body.bytes, body.object_size), (Bytes::new(), 0), "{range:?}");
    }
}

async fn more_than_a_thousand_keys_are_listed_in_byte_order(store: Store) {
    let keys: BTreeSet<String> = (0..1030).map(|n| format!("many/{}/{n:05}", n % 3)).collect();
    let puts = keys.iter().map(|key| {
        let store = store.clone();
        async move { store.put_new(key, Bytes::from(key.clone())).await }
    });
    let outcomes: Vec<_> = stream::iter(puts).buffer_unordered(16).collect().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(PutOutcome::Created))), "{outcomes:?}");
    put(&store, "man", "before").await;
    put(&store, "many.x", "beside").await;
    put(&store, "n", "after").await;

    let below: Vec<String> = keys.iter().cloned().collect();
    assert_eq!(all_keys(&store, "many/", 1000).await, below);
    assert_eq!(all_keys(&store, "many/", 999_999).await, below);
    assert_eq!(all_keys(&store, "many/", 7).await.len(), below.len());
    let beside = all_keys(&store, "many", 400).await;
    assert_eq!(beside.len(), below.len() + 1);
    assert_eq!(beside[0], "many.x");
    let everything = all_keys(&store, "", 1000).await;
    assert_eq!((everything.len(), everything[0].as_str()), (below.len() + 3, "man"));
    assert!(everything.is_sorted());

    // The prefix is a plain string, and the place to start need not exist nor lie below it.
    let page = |prefix: &'static str, after: &'static str| {
        let store = store.clone();
        async move {
            let page = store.list(prefix, Some(after), 2).await.expect("a listing");
            page.objects.into_iter().map(|meta| meta.key).collect::<Vec<_>>()
        }
    };
    assert_eq!(page("many/1/0102", "").await, ["many/1/01021", "many/1/01024"].map(str::to_owned).to_vec());
    assert_eq!(page("many/1", "many/1/00500x").await, ["many/1/00502", "many/1/00505"].map(str::to_owned).to_vec());
    assert_eq!(page("many/2", "a").await, ["many/2/00002", "many/2/00005"].map(str::to_owned).to_vec());
    assert_eq!(page("many/1", "many/1/01027").await, Vec::<String>::new());
    assert_eq!(page("many/1", "z").await, Vec::<String>::new());
    assert_eq!(page("nothing/", "").await, Vec::<String>::new());

    let page = store.list("many/0/00003", None, 5).await.expect("a listing");
    assert!(!page.more);
    let page = page.objects;
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].size, "many/0/00003".len() as u64);
    assert!(page[0].modified.is_some_and(|at| at > 1_700_000_000), "{page:?}");
}

async fn a_deleted_object_is_gone_and_its_name_free(store: Store) {
    put(&store, "d/1", "x").await;
    put(&store, "d/2", "y").await;
    store.delete("d/1").await.expect("delete");
    store.delete("d/1").await.expect("delete again");
    store.delete("d/never/was").await.expect("delete what never was");
    assert_eq!(store.get("d/1").await.expect_err("gone").kind, StoreErrorKind::NotFound);
    assert_eq!(all_keys(&store, "d/", 10).await, ["d/2"]);
    assert_eq!(put(&store, "d/1", "z").await, PutOutcome::Created);
    assert_eq!(store.get("d/1").await.expect("get"), "z");
    store.delete("d/1").await.expect("delete");
    store.delete("d/2").await.expect("delete");
    assert_eq!(all_keys(&store, "", 10).await, Vec::<String>::new());
}

async fn what_is_not_there_is_not_found(store: Store) {
    put(&store, "folder/object", "x").await;
    for key in ["missing", "folder", "folder/missing", "folder/object2"] {
        let errors = [
            store.get(key).await.expect_err("absent"),
            store.get_range(key, 0..1).await.expect_err("absent"),
            store.get_range(key, 0..0).await.expect_err("absent"),
        ];
        for error in errors {
            assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
            assert_eq!((error.operation, error.key.as_str()), ("get", key));
            assert!(error.is_permanent());
        }
    }
}

async fn of_twenty_writers_of_a_name_one_wins(store: Store) {
    for round in 0..5 {
        let key = format!("race/{round}");
        let writers: Vec<_> = (0..20)
            .map(|n| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move { store.put_new(&key, bytes_of(10_000 + n)).await })
            })
            .collect();
        let mut winners = Vec::new();
        for (n, writer) in writers.into_iter().enumerate() {
            if writer.await.expect("no panic").expect("a put") == PutOutcome::Created {
                winners.push(n);
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(store.get(&key).await.expect("get"), bytes_of(10_000 + winners[0]));
    }
}

async fn objects_may_be_empty_or_large(store: Store) {
    put(&store, "size/0", "").await;
    assert_eq!(store.get("size/0").await.expect("get"), Bytes::new());
    let large = bytes_of(100 * 1000 * 1000);
    assert_eq!(put(&store, "size/large", large.clone()).await, PutOutcome::Created);
    assert!(store.get("size/large").await.expect("get") == large);
    let range = store.get_range("size/large", 64_000_001..64_000_011).await.expect("a range");
    assert_eq!((range.bytes, range.object_size), (large.slice(64_000_001..64_000_011), 100_000_000));
    let sizes: Vec<u64> =
        store.list("size/", None, 10).await.expect("list").objects.iter().map(|meta| meta.size).collect();
    assert_eq!(sizes, [0, 100_000_000]);
    store.delete("size/large").await.expect("delete");
}

async fn odd_keys_are_kept_as_they_are(store: Store) {
    let long = format!("long/{}", "x".repeat(200));
    let mut keys = vec![
        "a b",
        "plus+plus",
        "per%20cent",
        "am&p=er?sand#",
        "quo'te\"s",
        "ümlaut/日本/🦀",
        "..a",
        "a..",
        ".hidden",
        "~tilde",
        "(1)",
        "<x>",
        "semi;colon:",
        "star*",
        "dol$lar",
        "x,y",
        "@",
        "[1]{2}|3^`",
        " lead",
        long.as_str(),
    ];
    for key in &keys {
        assert_eq!(put(&store, key, key.to_string()).await, PutOutcome::Created, "{key}");
    }
    for key in &keys {
        assert_eq!(store.get(key).await.expect("get"), *key);
        assert_eq!(all_keys(&store, key, 10).await, [*key], "the key as a prefix");
    }
    keys.sort_unstable();
    assert_eq!(all_keys(&store, "", 4).await, keys);
    for key in ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\0b", "line\nend"] {
        let error = store.put_new(key, Bytes::new()).await.expect_err("not a key");
        assert_eq!(error.kind, StoreErrorKind::Protocol, "{key:?}: {error}");
        assert_eq!(store.get(key).await.expect_err("not a key").kind, StoreErrorKind::Protocol);
        assert_eq!(store.delete(key).await.expect_err("not a key").kind, StoreErrorKind::Protocol);
    }
    assert_eq!(store.list("a/../", None, 1).await.expect_err("not a prefix").kind, StoreErrorKind::Protocol);
}

async fn names_that_sort_around_a_slash_are_listed_in_byte_order(store: Store) {
    // As a repository has them: parts of a segment, and its valid part beside them.
    let mut keys = ["w/a-b", "w/a.b", "w/a/x", "w/a/y.z", "w/a/y/z", "w/a0", "w/aa", "w/b"];
    for key in keys {
        put(&store, key, key).await;
    }
    keys.sort_unstable();
    for limit in [1, 2, 3, 1000] {
        assert_eq!(all_keys(&store, "w/", limit).await, keys, "limit {limit}");
        assert_eq!(all_keys(&store, "w/a", limit).await, keys[..7], "limit {limit}");
    }
}

macro_rules! suite {
    ($($subject:ident: $make:expr;)*) => { $(
        mod $subject {
            use super::*;
            suite!(@ $make =>
                an_object_is_written_once_and_read_back
                ranges_are_cut_at_the_end
                more_than_a_thousand_keys_are_listed_in_byte_order
                a_deleted_object_is_gone_and_its_name_free
                what_is_not_there_is_not_found
                of_twenty_writers_of_a_name_one_wins
                objects_may_be_empty_or_large
                odd_keys_are_kept_as_they_are
                names_that_sort_around_a_slash_are_listed_in_byte_order
            );
        }
    )* };
    (@ $make:expr => $($test:ident)*) => { $(
        #[tokio::test]
        async fn $test() {
            let subject: Subject = $make.await;
            super::$test(subject.store.clone()).await;
        }
    )* };
}

suite! {
    on_directory: async { Subject::directory() };
    through_retry: async { Subject::directory().wrap(|store| Retry::new(store, RetryPolicy::default())) };
    through_throttle: async {
        let limits = ThrottleLimits { latency: Duration::from_micros(1), bytes_per_second: Some(10 << 30) };
        Subject::directory().wrap(|store| Throttle::new(store, limits))
    };
    through_fault: async { Subject::directory().wrap(Faulty::new) };
    on_s3: s3::subject("conformance");
    everything_on_s3: async {
        let limits = ThrottleLimits { latency: Duration::from_micros(1), bytes_per_second: Some(10 << 30) };
        let subject = s3::subject("everything").await;
        subject.wrap(Faulty::new).wrap(|store| Throttle::new(store, limits)).wrap(|store| Retry::new(store, RetryPolicy::default()))
    };
}
