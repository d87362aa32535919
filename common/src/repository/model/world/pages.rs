//! Catalog pages are made, as an archiver does, or come from elsewhere.

use super::{World, seconds, transactions};
use crate::repository::model::truth::{Page, UNITS};
use crate::repository::{CatalogEntry, CatalogPage};
use crate::segment::{SegmentName, SegmentNumber};
use crate::store::PutOutcome;

impl World {
    /// Makes the page before what is written, as an archiver does, and looks whether it says what the headers do.
    pub(super) async fn page(&mut self) {
        let (branch, size) = (self.server.branch, self.truth.size);
        let Some(first) = (self.server.position / UNITS / CatalogPage::SEGMENTS).checked_sub(1) else { return };
        let first = first * CatalogPage::SEGMENTS;
        let before = SegmentNumber(first.saturating_sub(CatalogPage::SEGMENTS));
        let before = self.repository.catalog_page(branch, before, size).await.ok();
        let before = before.filter(|_| first > 0);
        let made = self.repository.make_catalog_page(branch, SegmentNumber(first), size, before.as_ref()).await;
        let (made, told) = (made.expect("a store of our own"), self.truth.page(branch, first));
        assert_eq!(made.is_some(), told.is_some(), "the page from {first} on");
        let (Some(made), Some((page, begin, highest))) = (made, told) else { return };
        assert_eq!(made.begin, self.truth.lsn(begin * UNITS));
        assert_eq!(made.running(), highest.map(seconds));
        for number in first..first + CatalogPage::SEGMENTS {
            let entry = made.entry(SegmentNumber(number)).expect("one of 256");
            let (time, unread) = self.truth.times[&(branch, number)];
            assert_eq!((entry.transactions, entry.leading_unread), (transactions(time), unread));
            assert_eq!(entry.digest, World::digest(&self.writer, (number + 1) * UNITS));
        }
        let done = self.repository.put_catalog_page(&made, &self.writer).await.expect("a store of our own");
        self.note_page(first, page, done);
    }

    /// Puts a page of which nobody asked whether its segments are there.
    pub(super) async fn put_page(&mut self, first: u64, page: Page) {
        let (branch, segment_size) = (self.server.branch, self.truth.size);
        let numbers = first..first + CatalogPage::SEGMENTS;
        let entry = |number: u64| {
            let (time, leading_unread) = World::times(number);
            let (begin, highest) = self.truth.running(branch, page.chain, number + 1);
            let of = if page.wrong == Some(number) { number } else { (number + 1) * UNITS };
            CatalogEntry {
                transactions: transactions(time),
                leading_unread,
                running: highest.filter(|_| begin <= number).map(seconds),
                digest: World::digest(&self.writer, of),
                size: 1,
            }
        };
        let mut segments: Vec<CatalogEntry> = numbers.clone().map(entry).collect();
        if !page.fits {
            segments.pop();
        }
        let body = CatalogPage {
            branch,
            segment_size,
            first: SegmentName::new(branch.timeline, SegmentNumber(first), segment_size),
            compare_key: self.writer.compare().id(),
            begin: self.truth.lsn(self.truth.running(branch, page.chain, numbers.end).0 * UNITS),
            segments,
        };
        let done = self.repository.put_catalog_page(&body, &self.writer).await.expect("a store of our own");
        self.note_page(first, page, done);
    }

    /// A page that was stored before stays as it is.
    fn note_page(&mut self, first: u64, page: Page, done: PutOutcome) {
        let at = (self.server.branch, first);
        assert_eq!(done == PutOutcome::Created, !self.truth.pages.contains_key(&at));
        self.truth.pages.entry(at).or_insert(page);
    }
}
