//! Plans over a long branch: with catalog pages a few reads, without them the same plan.

use std::sync::Arc;

use walseal_common::lsn::LsnRange;
use walseal_common::repository::{CatalogPage, ObjectName};
use walseal_common::segment::SegmentNumber;
use walseal_common::store::fault::{Call, Faulty};
use walseal_common::store::{ObjectStore, Shelf};

use super::*;
use crate::sample::SYSTEM;

/// The first segment. It begins a page.
const FIRST: u64 = 256;

/// One transaction a second, and one segment for each.
fn time(segment: u64, millisecond: i64) -> Timestamp {
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().expect("a time");
    start + jiff::SignedDuration::from_millis(segment as i64 * 1000 + millisecond)
}

/// A moment between two commits of a segment.
fn moment(segment: u64) -> String {
    time(segment, 250).to_string()
}

struct Long {
    store: Arc<Faulty>,
    sample: SampleRepository,
    pages: Vec<CatalogPage>,
    /// The last whole segment; a tail follows.
    last: u64,
    end: Lsn,
}

impl Long {
    /// Whole segments from [`FIRST`] to `last`, with base backups at the start of some. Of those, of `opened` and of the last one the
    /// WAL is there, of all others a header.
    async fn new(last: u64, bases: &[u64], opened: u64) -> Long {
        let store = Arc::new(Faulty::new(Arc::new(Shelf::default())));
        let below: Arc<dyn ObjectStore> = store.clone();
        let sample = SampleRepository::on(below, tempfile::tempdir().expect("a folder"), SYSTEM, 1).await;
        let branch = sample.branch();
        let opened = [bases, &[opened, last]].concat();
        for number in (FIRST..=last).filter(|number| !opened.contains(number)) {
            sample.put_header(branch, SegmentNumber(number), time(number, 0)).await;
        }
        let mut end = Lsn::INVALID;
        for number in opened {
            let mut wal = SampleWal::from(SegmentNumber(number).start(sample.size));
            let start = wal.checkpoint(number, &time(number, 0).to_string()).start;
            wal.commit(number as u32, &time(number, 0).to_string());
            let stop = wal.filler(16).end;
            wal.commit(number as u32 + 100_000, &time(number, 500).to_string());
            wal.fill_segment();
            if number == last {
                wal.commit(99, &time(number + 1, 0).to_string());
                end = wal.end();
                sample.put_wal(branch, &wal, wal.start).await;
            } else {
                // Without the record that goes on in the next segment.
                let range = SegmentNumber(number).range(sample.size);
                sample.put_segment(branch, SegmentNumber(number), wal.slice(range)).await;
            }
            if bases.contains(&number) {
                let seen = time(number, 0).to_string();
                sample.put_label(branch, start, stop, &seen, Some(&seen)).await;
            }
        }
        let pages = sample.put_pages(branch, FIRST, last).await;
        assert_eq!(pages.len() as u64, (last + 1 - FIRST) / CatalogPage::SEGMENTS);
        Long { store, sample, pages, last, end }
    }

    /// The plan, and how many listings and gets it took.
    async fn plan(&self, target: &str) -> (Result<Plan, PlanError>, u64, u64) {
        let count = || {
            let gets = self.store.calls(Call::Get) + self.store.calls(Call::GetRange);
            (self.store.calls(Call::List), gets)
        };
        let (lists, gets) = count();
        let plan = planned(&self.sample, &Request::to(target.parse().expect("a target"))).await;
        let (lists_after, gets_after) = count();
        (plan, lists_after - lists, gets_after - gets)
    }

    async fn remove_pages(&self) {
        for page in &self.pages {
            self.sample.remove(&self.name(page)).await;
        }
    }

    fn name(&self, page: &CatalogPage) -> ObjectName {
        let first = page.first.number(self.sample.size).expect("a number");
        CatalogPage::name(self.sample.branch(), first, self.sample.size)
    }

    fn segment(&self, number: u64) -> ObjectName {
        ObjectName::Wal(self.sample.branch(), self.sample.segment(self.sample.branch(), SegmentNumber(number)), None)
    }
}

#[tokio::test]
async fn a_plan_over_20_000_segments_lists_what_it_needs_and_reads_a_few_pages() {
    let (last, bases, middle) = (FIRST + 19_999, [300, 8_000, 16_000], 12_345);
    let long = Long::new(last, &bases, middle).await;
    let position = SegmentNumber(middle).start(long.sample.size).advance(60);
    let targets = [moment(middle), "latest".to_owned(), "immediate".to_owned(), format!("lsn:{position}")];
    let mut plans = Vec::new();
    for target in &targets {
        let (plan, lists, gets) = long.plan(target).await;
        // To the latest moment the names of all WAL since the last base backup are listed, a thousand at a time: 5 listings.
        assert!(lists <= 36 && gets <= 60, "{target}: {lists} listings, {gets} gets");
        plans.push(plan.expect("a plan"));
    }
    let from = |plan: &Plan| long.sample.size.number(plan.base.start).0;
    assert_eq!(plans.iter().map(from).collect::<Vec<_>>(), [8_000, 16_000, 16_000, 8_000]);
    assert_eq!(plans.iter().map(|plan| plan.passed_over.len()).collect::<Vec<_>>(), [1, 0, 0, 1]);
    assert_eq!(plans[1].stop, long.end);
    assert_eq!(beside(&plans[0]), (Some(middle as u32), Some(middle as u32 + 100_000)));

    // Windows need every name, and no header.
    let mut inventory = Inventory::read(&long.sample.repository, &long.sample.identities).await.expect("readable");
    let before = long.store.calls(Call::Get) + long.store.calls(Call::GetRange);
    windows::windows(&long.sample.repository, &long.sample.identities, &mut inventory).await.expect("windows");
    let gets = long.store.calls(Call::Get) + long.store.calls(Call::GetRange) - before;
    assert!(gets <= 60, "{gets} gets for the windows");

    // The same without pages, and with the lies and the damage that pages can have.
    long.remove_pages().await;
    for (target, with) in targets.iter().zip(&plans) {
        let (plan, ..) = long.plan(target).await;
        assert_eq!(plan.as_ref().ok(), Some(with), "{target}");
    }
    let lies: [&dyn Fn(&mut CatalogPage); 3] = [
        // Nothing ever ended in these segments; or all of it later, or earlier, than it did.
        &|page| page.segments.iter_mut().for_each(|one| (one.transactions, one.running) = Default::default()),
        &|page| shift(page, 1_000_000),
        &|page| shift(page, -1_000_000),
    ];
    for (number, lie) in lies.iter().enumerate() {
        for page in &long.pages {
            let mut page = page.clone();
            lie(&mut page);
            long.sample.remove(&long.name(&page)).await;
            long.sample.repository.put_catalog_page(&page, &long.sample.writer).await.expect("stored");
        }
        for target in ["latest", "immediate"] {
            let (plan, ..) = long.plan(target).await;
            let with = if target == "latest" { &plans[1] } else { &plans[2] };
            assert_eq!(plan.as_ref().ok(), Some(with), "{target} with lie {number}");
        }
    }
    long.remove_pages().await;
    let stranger = walseal_common::seal::WriterKey::generate().expect("random bytes");
    for page in &long.pages {
        long.sample.repository.put_catalog_page(page, &stranger).await.expect("stored");
    }
    let (plan, ..) = long.plan(&targets[0]).await;
    assert_eq!(plan.as_ref().ok(), Some(&plans[0]), "a stranger's pages count for nothing");
}

#[tokio::test]
async fn of_many_base_backups_no_more_than_the_labels_are_read() {
    let (last, middle) = (FIRST + 2_999, 1_210);
    let bases: Vec<u64> = (0..60).map(|number| 300 + number * 45).collect();
    let long = Long::new(last, &bases, middle).await;
    let position = SegmentNumber(middle).start(long.sample.size).advance(60);
    let count = bases.len() as u64;
    for target in [moment(middle), "latest".to_owned(), "immediate".to_owned(), format!("lsn:{position}")] {
        let (plan, lists, gets) = long.plan(&target).await;
        // Each is found by a listing, and has a label; what else a plan reads does not grow with their number.
        assert!(lists <= count + 60 && gets <= count + 80, "{target}: {lists} listings, {gets} gets");
        let plan = plan.expect("a plan");
        let newer = bases.iter().filter(|base| **base > long.sample.size.number(plan.base.start).0).count();
        assert_eq!(plan.passed_over.len(), newer, "{target}");
    }
    let found = long.sample.repository.begun_bases().await.expect("readable");
    assert_eq!(found, long.sample.repository.base_ids().await.expect("readable"));
    assert_eq!(found.len(), bases.len());
}

fn shift(page: &mut CatalogPage, seconds: i64) {
    let move_by =
        |time: &mut Option<Timestamp>| *time = time.map(|time| time + jiff::SignedDuration::from_secs(seconds));
    for entry in &mut page.segments {
        move_by(&mut entry.transactions.lowest);
        move_by(&mut entry.transactions.highest);
        move_by(&mut entry.running);
    }
}

#[tokio::test]
async fn i6_a_page_is_no_proof_that_its_segments_are_there() {
    let (last, second, middle) = (FIRST + 1_099, 1_000, 800);
    let long = Long::new(last, &[300, second], middle).await;
    let lost = SegmentNumber(301);
    long.plan(&moment(middle)).await.0.expect("all is there");
    long.sample.remove(&long.segment(lost.0)).await;
    // Between base backup and moment.
    let (plan, ..) = long.plan(&moment(middle)).await;
    let Err(PlanError::Gap(gap)) = plan else { panic!("{plan:?}") };
    assert_eq!(gap.missing, lost.range(long.sample.size));
    // Beyond it, from the next base backup on, nothing is missing.
    long.plan("latest").await.0.expect("it does not need that");

    // The newest end was cut off, tail and all: the last page, which ends with segment 1279, knows of it.
    for number in second + 1..=long.last {
        long.sample.remove(&long.segment(number)).await;
    }
    let start = SegmentNumber(last + 1).start(long.sample.size);
    let segment = long.sample.segment(long.sample.branch(), SegmentNumber(last + 1));
    long.sample.remove(&ObjectName::Tail(long.sample.branch(), segment, LsnRange { start, end: long.end })).await;
    let (plan, ..) = long.plan("latest").await;
    let Err(PlanError::Gap(gap)) = plan else { panic!("{plan:?}") };
    let missing = LsnRange {
        start: SegmentNumber(second + 1).start(long.sample.size),
        end: SegmentNumber(1_279).end(long.sample.size),
    };
    assert_eq!(gap.missing, missing);
    assert!(gap.confirmed.is_some_and(|why| why.starts_with("catalog/")), "the page is named");
}

#[tokio::test]
async fn i6_a_lost_segment_is_no_end_of_wal_where_only_a_page_knows_of_it() {
    let last = FIRST + 1_023;
    // The one before the lost one has WAL in it, which tells where the last transaction before the hole is.
    let mut long = Long::new(last, &[300, 1_000], last - 2).await;
    let (branch, size) = (long.sample.branch(), long.sample.size);
    let (number, lost) = (SegmentNumber(last), SegmentNumber(last - 1));
    let start = number.end(size);
    let tail = ObjectName::Tail(
        branch,
        long.sample.segment(branch, SegmentNumber(last + 1)),
        LsnRange { start, end: long.end },
    );
    for name in [tail, long.segment(last), long.segment(lost.0)] {
        long.sample.remove(&name).await;
    }
    // The last segment was stored together with the one before, of which it knows nothing.
    let mut wal = SampleWal::from(number.start(size));
    wal.commit(7, &time(last, 0).to_string());
    wal.fill_segment();
    long.sample.durable = Some(lost.start(size));
    long.sample.put_segment(branch, number, wal.slice(number.range(size))).await;
    let (plan, ..) = long.plan("latest").await;
    let Err(PlanError::Gap(gap)) = plan else { panic!("{plan:?}") };
    assert_eq!(gap.missing, lost.range(size));
    assert!(gap.confirmed.is_some_and(|why| why.starts_with("catalog/")), "the page is named");
    // Without the page nobody knows better than that it was never confirmed.
    long.remove_pages().await;
    let (plan, ..) = long.plan("latest").await;
    let stop = plan.expect("a plan").stop;
    assert!(SegmentNumber(last - 2).range(size).start < stop && stop <= lost.start(size), "{stop}");
}
