//! How requests end for PostgreSQL: exit codes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use walseal_common::repository::Repository;
use walseal_common::seal::{Identity, TrustedWriters};
use walseal_common::segment::WalFileName;
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_common::store::{DirectoryStore, Retry, RetryPolicy, StoreErrorKind};
use walseal_common::terminal::FetchExit;
use walseal_common::timeline::{SystemIdentifier, TimelineId};

use super::bed::Bed;
use crate::fetch::*;
use crate::sample::SYSTEM;

const AT_ONCE: Patience = Patience { retry: Duration::ZERO, standby: None };

async fn end(bed: &Bed, fetcher: &Fetcher, file: &str, patience: Patience) -> Reply {
    let file: WalFileName = file.parse().expect("a name");
    let target = bed.target();
    patiently(patience, Instant::now(), |_| fetcher.fetch(file, &target)).await.into()
}

#[tokio::test]
async fn case_01_exit_codes_are_0_for_a_file_1_for_the_end_and_200_for_a_hole() {
    let bed = Bed::new(3, 5000).await;
    bed.remove_segment(4).await;
    for (file, exit) in [
        ("000000010000000000000003", FetchExit::Delivered),
        ("000000010000000000000006", FetchExit::NotThere),
        ("000000010000000000000004", FetchExit::Failed),
    ] {
        assert_eq!(end(&bed, bed.fetcher(), file, AT_ONCE).await.exit(), exit, "{file}");
    }
}

#[tokio::test]
async fn case_01_a_wrong_key_or_a_strange_writer_ends_recovery_on_a_standby_too() {
    let bed = Bed::new(3, 5000).await;
    let standby = Patience { retry: Duration::from_millis(1), standby: Some(Duration::ZERO) };
    let stranger = Fetcher { identities: vec![Identity::generate().expect("random bytes")], ..bed.fetcher().clone() };
    let distrust = Repository::new(bed.sample.repository.store().clone(), SYSTEM, TrustedWriters::new(Vec::new()));
    let distrustful = Fetcher { repository: distrust, ..bed.fetcher().clone() };
    for fetcher in [stranger, distrustful] {
        for file in ["000000010000000000000003", "000000010000000000000006"] {
            let ending = end(&bed, &fetcher, file, standby).await;
            // A wrong key is not needed to see that nothing is there.
            let proven = file.ends_with('6') && !fetcher.repository.trust().is_empty();
            let exit = if proven { FetchExit::NotThere } else { FetchExit::Failed };
            assert_eq!(ending.exit(), exit, "{file}: {ending:?}");
        }
    }
}

#[tokio::test]
async fn case_01_damage_is_never_the_end() {
    let bed = Bed::new(3, 5000).await;
    let name = format!("{SYSTEM}/wal/{}/000000010000000000000003", bed.branch());
    let path = bed.sample.folder.path().join(name);
    let mut bytes = fs::read(&path).expect("a file of the store");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("ours");
    let ending = end(&bed, bed.fetcher(), "000000010000000000000003", AT_ONCE).await;
    assert_eq!(ending.exit(), FetchExit::Failed);
    assert!(!bed.target().exists());
}

/// The same repository through a store that fails as it is told to.
fn faulty(bed: &Bed) -> (Fetcher, Arc<Faulty>) {
    let inner = Arc::new(DirectoryStore::new(bed.sample.folder.path().to_owned()));
    let store = Arc::new(Faulty::new(inner));
    let repository = Repository::new(store.clone(), SYSTEM, bed.sample.repository.trust().clone());
    (Fetcher { repository, ..bed.fetcher().clone() }, store)
}

#[tokio::test]
async fn a_whole_segment_costs_one_get_and_no_listing() {
    let bed = Bed::new(3, 5000).await;
    let (mut fetcher, store) = faulty(&bed);
    fetcher.route = bed.planned(vec![(bed.root(), bed.wal.end(), bed.wal.end())]).fetcher.route.clone();
    assert_eq!(end(&bed, &fetcher, "000000010000000000000003", AT_ONCE).await.exit(), FetchExit::Delivered);
    assert_eq!(store.history().len(), 1, "{:?}", store.history());
}

#[tokio::test]
async fn case_02_probing_for_timelines_costs_no_more_the_more_there_are() {
    let bed = Bed::new(3, 5000).await;
    let two = bed.sample.put_history(&bed.root(), 2, walseal_common::lsn::Lsn(4 << 20)).await;
    let three = bed.sample.put_history(&two, 3, walseal_common::lsn::Lsn(5 << 20)).await;
    let (fetcher, store) = faulty(&bed);
    // Adoptions, the identity, and three places where somebody could have left something of it: all at once.
    assert_eq!(end(&bed, &fetcher, "00000004.history", AT_ONCE).await.exit(), FetchExit::NotThere);
    assert_eq!(store.history().len(), 5, "{:?}", store.history());
    let (fetcher, store) = faulty(&bed);
    let found = fetcher.later_histories(TimelineId::FIRST).await.expect("they are there");
    assert_eq!(found.into_values().collect::<Vec<_>>(), [two.render(), three.render()]);
    let lists = store.history().into_iter().filter(|(call, _)| *call == Call::List);
    let histories = lists.filter(|(_, prefix)| prefix.ends_with("history/")).count();
    // One page tells that it is the last.
    assert_eq!(histories, 1, "{:?}", store.history());
}

#[tokio::test]
async fn case_01_a_store_that_does_not_answer_is_200_and_on_a_standby_1() {
    let bed = Bed::new(3, 5000).await;
    let (fetcher, store) = faulty(&bed);
    store.set_down(Some(StoreErrorKind::Unreachable));
    for file in ["000000010000000000000003", "000000010000000000000006", "00000002.history"] {
        let ending = end(&bed, &fetcher, file, AT_ONCE).await;
        assert_eq!(ending.exit(), FetchExit::Failed, "{file}: {ending:?}");
        let standby = Patience { retry: Duration::from_secs(600), standby: Some(Duration::ZERO) };
        let ending = end(&bed, &fetcher, file, standby).await;
        assert!(matches!(ending, Reply::StandbyWaits(_)), "{file}: {ending:?}");
        assert_eq!(ending.exit(), FetchExit::NotThere);
    }
    // Refused credentials are no silence.
    store.set_down(Some(StoreErrorKind::Denied));
    let standby = Patience { retry: Duration::ZERO, standby: Some(Duration::ZERO) };
    assert_eq!(end(&bed, &fetcher, "000000010000000000000006", standby).await.exit(), FetchExit::Failed);
}

/// A store that is down and is asked as the program asks: with retries of its own, which know when to give up.
#[tokio::test]
async fn case_01_the_stores_own_retries_end_when_the_request_must() {
    let bed = Bed::new(3, 5000).await;
    for (standby, exit) in [(Some(Duration::ZERO), FetchExit::NotThere), (None, FetchExit::Failed)] {
        let (fetcher, store) = faulty(&bed);
        store.set_down(Some(StoreErrorKind::Unreachable));
        // On a standby it is not the other limit that counts.
        let retry = if standby.is_some() { Duration::from_secs(600) } else { Duration::ZERO };
        let file: WalFileName = "000000010000000000000003".parse().expect("a name");
        let ending = patiently(Patience { retry, standby }, Instant::now(), |patience| {
            let policy = RetryPolicy { deadline: patience.deadline, ..RetryPolicy::default() };
            let retrying = Arc::new(Retry::new(store.clone(), policy));
            let repository = Repository::new(retrying, SYSTEM, bed.sample.repository.trust().clone());
            let (fetcher, target) = (Fetcher { repository, ..fetcher.clone() }, bed.target());
            async move { fetcher.fetch(file, &target).await }
        })
        .await;
        let ending = Reply::from(ending);
        assert_eq!(ending.exit(), exit, "{ending:?}");
        assert_eq!(store.history().len(), 1, "{:?}", store.history());
    }
}

#[tokio::test]
async fn case_01_bytes_damaged_on_the_way_are_read_again() {
    let bed = Bed::new(3, 5000).await;
    let (fetcher, store) = faulty(&bed);
    store.plan_below(&format!("{SYSTEM}/wal/"), Call::Get, 1..=1, Effect::WrongBytes);
    let patience = Patience { retry: Duration::from_secs(60), standby: None };
    let ending = end(&bed, &fetcher, "000000010000000000000003", patience).await;
    assert_eq!(ending.exit(), FetchExit::Delivered, "{ending:?}");
}

#[tokio::test]
async fn case_01_what_comes_while_it_is_waited_for_is_delivered() {
    let bed = Bed::new(3, 5000).await;
    let whole = bed.wal.slice(walseal_common::lsn::LsnRange {
        start: walseal_common::lsn::Lsn(4 << 20),
        end: walseal_common::lsn::Lsn(5 << 20),
    });
    bed.remove_segment(4).await;
    let patience = Patience { retry: Duration::from_secs(60), standby: None };
    let waiting = end(&bed, bed.fetcher(), "000000010000000000000004", patience);
    let arriving = bed.sample.put_segment(bed.branch(), walseal_common::segment::SegmentNumber(4), whole);
    // Polled in order: the first attempt begins before the segment arrives.
    let (ending, ()) = futures_util::future::join(waiting, arriving).await;
    assert_eq!(ending.exit(), FetchExit::Delivered);
}

#[test]
fn i4_a_data_directory_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = WorkingDirectory::at(folder.path());
    assert_eq!(place.agree(None, "x").expect("no data directory"), None);
    fs::create_dir(folder.path().join("global")).expect("ours");
    fs::write(folder.path().join("global/pg_control"), SYSTEM.0.to_ne_bytes()).expect("ours");
    assert_eq!(place.agree(None, "x").expect("its own"), Some(SYSTEM));
    assert_eq!(place.agree(Some(SYSTEM), "x").expect("the same"), Some(SYSTEM));
    let error = place.agree(Some(SystemIdentifier(1)), "the plan").expect_err("another one");
    assert!(error.to_string().contains("the plan") && error.is_permanent(), "{error}");
    assert!(!place.is_standby());
    fs::write(folder.path().join("standby.signal"), "").expect("ours");
    assert!(place.is_standby());
}
