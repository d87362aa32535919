//! Pages of a toy's WAL.
#![allow(clippy::expect_used)]

use std::sync::Arc;

use walseal_common::repository::{CatalogEntry, ObjectName};
use walseal_common::seal::{Draft, Identity, Kind, Recipient, Transactions, WalSection};
use walseal_common::segment::SegmentName;
use walseal_common::store::fault::{Call, Faulty};
use walseal_common::store::{DirectoryStore, ObjectStore};
use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

use super::*;
use crate::keys::ArchiveKeys;

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

struct Bed {
    store: Arc<Faulty>,
    repository: Repository,
    writer: WriterKey,
    recipients: Vec<Recipient>,
    size: SegmentSize,
    branch: Branch,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new(mib: u64) -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let recipients = vec![Identity::generate().expect("random bytes").recipient().clone()];
        let keys = ArchiveKeys { recipients: recipients.clone(), writer: WriterKey::generate().expect("random bytes") };
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder.path().to_owned()))));
        let below: Arc<dyn ObjectStore> = store.clone();
        let repository = Repository::new(below, CLUSTER, keys.trust(Vec::new()));
        let size = SegmentSize::new(mib << 20).expect("a legal size");
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(CLUSTER);
        Bed { store, repository, writer: keys.writer, recipients, size, branch, _folder: folder }
    }

    /// Objects of whole segments whose headers speak of WAL that is not there: nobody here opens them.
    async fn put(&self, numbers: std::ops::RangeInclusive<u64>, unread: &[u64]) {
        for number in numbers.map(SegmentNumber) {
            let mut at = number.start(self.size);
            let parts = (self.size.bytes() >> 24).max(1);
            for part in 0..parts {
                let segment = SegmentName::new(self.branch.timeline, number, self.size);
                let name = ObjectName::Wal(self.branch, segment, (parts > 1).then_some(part as u8));
                let end = at.advance(self.size.bytes() / parts);
                let mut transactions = Transactions::default();
                transactions.add(time(number.0 as i64));
                let digest = self.writer.compare().hasher().digest();
                let section = WalSection {
                    branch: self.branch,
                    segment,
                    segment_size: self.size,
                    start: at,
                    end,
                    compare_key: self.writer.compare().id(),
                    digest_start: digest,
                    digest_end: digest,
                    transactions,
                    leading_unread: unread.contains(&number.0),
                    durable: None,
                };
                let draft = Draft {
                    kind: Kind::Wal,
                    cluster: CLUSTER,
                    name: name.to_string(),
                    wal: Some(section),
                    frame_size: 64 << 10,
                    level: 1,
                };
                let mut sealer = draft.seal(&self.recipients, &self.writer).expect("sealable");
                sealer.frame(&[]).expect("small");
                self.repository.put(&sealer.finish().expect("sealable")).await.expect("a folder of our own");
                at = end;
            }
        }
    }

    fn cataloguer(&self) -> Cataloguer {
        Cataloguer {
            repository: self.repository.clone(),
            size: self.size,
            writer: self.writer.clone(),
            looked_at: BTreeMap::new(),
        }
    }

    async fn pages(&self) -> Vec<u64> {
        let pages = self.repository.catalog_pages(self.branch, self.size, None).await.expect("readable");
        pages.into_iter().map(|first| first.0).collect()
    }

    async fn page(&self, first: u64) -> CatalogPage {
        self.repository.catalog_page(self.branch, SegmentNumber(first), self.size).await.expect("a page")
    }

    fn start(&self, number: u64) -> Lsn {
        SegmentNumber(number).start(self.size)
    }
}

fn time(seconds: i64) -> jiff::Timestamp {
    // Higher and higher, but for one.
    jiff::Timestamp::from_second(1_795_228_200 + if seconds == 300 { 0 } else { seconds }).expect("a time")
}

#[tokio::test]
async fn a_page_is_written_once_its_segments_are_all_durable_and_tells_what_their_headers_say() {
    let bed = Bed::new(1);
    // The stream began in the middle of a run, and some segment was begun anew.
    bed.put(200..=767, &[512, 600]).await;
    let mut cataloguer = bed.cataloguer();
    let durable_to = |number: u64| Some((bed.branch, bed.start(number)));
    cataloguer.catch_up(durable_to(511)).await.expect("readable");
    assert_eq!(bed.pages().await, [] as [u64; 0], "the frontier has not passed it");
    cataloguer.catch_up(durable_to(512)).await.expect("readable");
    assert_eq!(bed.pages().await, [256]);
    let page = bed.page(256).await;
    assert_eq!((page.begin, page.running()), (bed.start(256), Some(time(511))));
    let entry = |page: &CatalogPage, number: u64| page.entry(SegmentNumber(number)).expect("one of its own").clone();
    let odd: CatalogEntry = entry(&page, 300);
    assert_eq!((odd.transactions.highest, odd.running), (Some(time(300)), Some(time(299))));
    assert!(odd.size > 0 && !odd.leading_unread);
    assert!(page.entry(SegmentNumber(255)).is_none() && page.entry(SegmentNumber(512)).is_none());

    // Only what is new is looked at, and each page is written once.
    let puts = bed.store.calls(Call::Put);
    cataloguer.catch_up(durable_to(768)).await.expect("readable");
    assert_eq!((bed.pages().await, bed.store.calls(Call::Put)), (vec![256, 512], puts + 1));
    let page = bed.page(512).await;
    assert_eq!((page.begin, page.running()), (bed.start(601), Some(time(767))));
    assert_eq!((entry(&page, 599).running, entry(&page, 600).running), (Some(time(599)), None));
    assert!(entry(&page, 600).leading_unread);
    cataloguer.catch_up(durable_to(768)).await.expect("readable");
    bed.cataloguer().catch_up(durable_to(768)).await.expect("readable");
    assert_eq!(bed.store.calls(Call::Put), puts + 1);
}

#[tokio::test]
async fn pages_that_are_missing_are_made_at_the_start_and_never_over_a_hole() {
    let bed = Bed::new(1);
    bed.put(0..=255, &[]).await;
    bed.put(257..=1030, &[]).await;
    // Nothing of this branch is streamed any more.
    let mut cataloguer = bed.cataloguer();
    cataloguer.catch_up(None).await.expect("readable");
    assert_eq!(bed.pages().await, [0, 512, 768]);
    assert_eq!(bed.page(512).await.begin, bed.start(512), "nothing is known of what lies before");
    assert_eq!(bed.page(768).await.begin, bed.start(512), "the page before is the one to go on from");
    // A kill between two pages: the missing one is made, the others are not made again.
    let name = CatalogPage::name(bed.branch, SegmentNumber(512), bed.size).key(CLUSTER);
    bed.repository.store().delete(&name).await.expect("a folder of our own");
    let puts = bed.store.calls(Call::Put);
    bed.cataloguer().catch_up(None).await.expect("readable");
    assert_eq!((bed.pages().await, bed.store.calls(Call::Put)), (vec![0, 512, 768], puts + 1));
}

#[tokio::test]
async fn case_18_a_segment_in_parts_is_one_entry() {
    let bed = Bed::new(32);
    bed.put(256..=511, &[]).await;
    let second = SegmentName::new(bed.branch.timeline, SegmentNumber(400), bed.size);
    let key = ObjectName::Wal(bed.branch, second, Some(1)).key(CLUSTER);
    let part = bed.store.get(&key).await.expect("a part");
    bed.store.delete(&key).await.expect("a folder of our own");
    bed.cataloguer().catch_up(None).await.expect("readable");
    assert_eq!(bed.pages().await, [] as [u64; 0], "a segment without its second part is not whole");
    bed.store.put_new(&key, part).await.expect("stored");
    bed.cataloguer().catch_up(None).await.expect("readable");
    let page = bed.page(256).await;
    let entry = page.entry(SegmentNumber(400)).expect("one of its own");
    assert_eq!((entry.transactions.count, entry.transactions.highest), (2, Some(time(400))));
}

#[tokio::test]
async fn what_no_trusted_writer_signed_makes_no_page() {
    let mut bed = Bed::new(1);
    bed.put(256..=400, &[]).await;
    let own = std::mem::replace(&mut bed.writer, WriterKey::generate().expect("random bytes"));
    bed.put(401..=401, &[]).await;
    bed.writer = own;
    bed.put(402..=511, &[]).await;
    bed.cataloguer().catch_up(None).await.expect("it is no reason to stop");
    assert_eq!(bed.pages().await, [] as [u64; 0]);
}
