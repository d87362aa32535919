//! Catalog pages: what the headers of 256 segments say, in one object, so that nobody reads them one by one. Signed by a writer of WAL,
//! like those headers. A hint for times: whether a segment is there, and is what the page says, only the segment tells.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::wal_listing::whole_names;
use super::{ObjectName, Repository, RepositoryError};
use crate::lsn::Lsn;
use crate::seal::{CompareDigest, CompareKeyId, Kind, SealError, Transactions, WalSection, WriterKey};
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::store::PutOutcome;
use crate::timeline::Branch;

/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 8;

/// What the headers of one segment say.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// Transactions that end in it.
    #[serde(flatten)]
    pub transactions: Transactions,
    /// Whether one more may.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leading_unread: bool,
    /// The highest time of any transaction in this segment and those before it that are known without one missing: back to the last
    /// one that is `leading_unread`, or to where pages begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Timestamp>,
    /// Digest of the whole segment.
    pub digest: CompareDigest,
    /// Bytes that its objects have in the store.
    pub size: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_false(value: &bool) -> bool {
    !value
}

/// The page of 256 segments; the body of a `catalog` object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CatalogPage {
    /// The branch.
    pub branch: Branch,
    /// Size of its segments.
    pub segment_size: SegmentSize,
    /// The first of them. Its number is a multiple of 256.
    pub first: SegmentName,
    /// Which key the digests were made with.
    pub compare_key: CompareKeyId,
    /// From here on, and up to the page's end, `running` of the last entry misses no transaction. The end of the page where that one is
    /// `leading_unread` itself.
    pub begin: Lsn,
    /// All of them, in order.
    pub segments: Vec<CatalogEntry>,
}

impl CatalogPage {
    /// Segments of a page.
    pub const SEGMENTS: u64 = 256;

    /// The first segment of the page that `number` belongs to.
    pub fn first_of(number: SegmentNumber) -> SegmentNumber {
        SegmentNumber(number.0 - number.0 % CatalogPage::SEGMENTS)
    }

    /// The last segment of the page that begins with `first`.
    pub fn last_of(first: SegmentNumber) -> SegmentNumber {
        SegmentNumber(first.0 + (CatalogPage::SEGMENTS - 1))
    }

    /// The name of the page that begins with `first`.
    pub fn name(branch: Branch, first: SegmentNumber, size: SegmentSize) -> ObjectName {
        let segment = |number| SegmentName::new(branch.timeline, number, size);
        ObjectName::Catalog(branch, segment(first), segment(CatalogPage::last_of(first)))
    }

    /// What it says of `number`; `None` for a segment of another page.
    pub fn entry(&self, number: SegmentNumber) -> Option<&CatalogEntry> {
        let first = self.first.number(self.segment_size)?;
        self.segments.get(usize::try_from(number.0.checked_sub(first.0)?).ok()?)
    }

    /// As a header of all the WAL from [`CatalogPage::begin`] to the page's end would say: at least so many transactions as lie in the
    /// page, and the highest time of all. `None` where nothing lies between.
    pub fn running_transactions(&self) -> Option<Transactions> {
        let size = self.segment_size;
        let first = self.first.number(size)?;
        let within = |(at, _): &(u64, &CatalogEntry)| SegmentNumber(first.0 + at).start(size) >= self.begin;
        let mut sum = Transactions::default();
        let inside: Vec<&CatalogEntry> = (0..).zip(&self.segments).filter(within).map(|(_, entry)| entry).collect();
        inside.iter().for_each(|entry| sum.merge(&entry.transactions));
        sum.highest = sum.highest.max(self.running());
        sum.count = sum.count.max(u64::from(sum.highest.is_some()));
        (!inside.is_empty()).then_some(sum)
    }

    /// The highest time of any transaction from [`CatalogPage::begin`] to the page's end.
    pub fn running(&self) -> Option<Timestamp> {
        self.segments.last().and_then(|last| last.running)
    }

    /// Why it is not the page that begins with `first`, if so.
    fn misfit(&self, branch: Branch, first: SegmentNumber, size: SegmentSize) -> Option<String> {
        let expected = SegmentName::new(branch.timeline, first, size);
        if (self.branch, self.segment_size, self.first) != (branch, size, expected) {
            return Some(format!("it is the page of {} of branch {}", self.first, self.branch));
        }
        (self.segments.len() as u64 != CatalogPage::SEGMENTS)
            .then(|| format!("it has {} segments instead of {}", self.segments.len(), CatalogPage::SEGMENTS))
    }
}

/// What the headers of one segment say, before it has a place among others.
struct Read {
    transactions: Transactions,
    leading_unread: bool,
    compare_key: CompareKeyId,
    digest: CompareDigest,
    size: u64,
}

impl Repository {
    /// Makes the page of the 256 segments from `first` on, from their verified headers; `before` is the page before it, where there is
    /// one. `None` when not all of them are there, or not with one compare key.
    ///
    /// Errors: a header that does not verify; the store.
    pub async fn make_catalog_page(
        &self,
        branch: Branch,
        first: SegmentNumber,
        size: SegmentSize,
        before: Option<&CatalogPage>,
    ) -> Result<Option<CatalogPage>, RepositoryError> {
        let numbers: Vec<SegmentNumber> = (first.0..=CatalogPage::last_of(first).0).map(SegmentNumber).collect();
        let reads = stream::iter(numbers).map(|number| self.segment_headers(branch, number, size));
        let read: Result<Vec<Read>, RepositoryError> = reads.buffered(READS_AT_ONCE).try_collect().await;
        let read = match read {
            Ok(read) => read,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(key) =
            read.first().map(|one| one.compare_key).filter(|key| read.iter().all(|one| one.compare_key == *key))
        else {
            return Ok(None);
        };
        let (mut begin, mut running) = before.map_or((first.start(size), None), |page| (page.begin, page.running()));
        let mut segments = Vec::with_capacity(read.len());
        for (number, one) in (first.0..).map(SegmentNumber).zip(read) {
            if one.leading_unread {
                (begin, running) = (number.end(size), None);
            } else {
                running = running.max(one.transactions.highest);
            }
            let Read { transactions, leading_unread, digest, size, .. } = one;
            segments.push(CatalogEntry { transactions, leading_unread, running, digest, size });
        }
        let first = SegmentName::new(branch.timeline, first, size);
        Ok(Some(CatalogPage { branch, segment_size: size, first, compare_key: key, begin, segments }))
    }

    async fn segment_headers(
        &self,
        branch: Branch,
        number: SegmentNumber,
        size: SegmentSize,
    ) -> Result<Read, RepositoryError> {
        let mut sum: Option<Read> = None;
        let range = number.range(size);
        let mut at = range.start;
        for name in whole_names(branch, number, size) {
            let (signed, stored) = self.read_header(&name).await?;
            let section: Option<WalSection> = signed.header.wal.filter(|wal| wal.branch == branch && wal.start == at);
            let Some(section) = section else {
                let why = "its header does not say that it holds what its name tells".to_owned();
                return Err(self.refused(&name, SealError::Structure(why)));
            };
            at = section.end;
            let mut transactions = section.transactions;
            let mut read = Read {
                transactions,
                leading_unread: section.leading_unread,
                compare_key: section.compare_key,
                digest: section.digest_end,
                size: stored,
            };
            if let Some(before) = sum {
                transactions.merge(&before.transactions);
                read.transactions = transactions;
                read.leading_unread |= before.leading_unread;
                read.size += before.size;
            }
            sum = Some(read);
        }
        let name = CatalogPage::name(branch, CatalogPage::first_of(number), size);
        let short = || self.refused(&name, SealError::Structure(format!("segment {number:?} is not whole")));
        sum.filter(|_| at == range.end).ok_or_else(short)
    }

    /// Stores a page. One that was stored before stays as it is.
    ///
    /// Errors: the store's.
    pub async fn put_catalog_page(
        &self,
        page: &CatalogPage,
        writer: &WriterKey,
    ) -> Result<PutOutcome, RepositoryError> {
        let first = page.first.number(page.segment_size).unwrap_or(SegmentNumber(0));
        let name = CatalogPage::name(page.branch, first, page.segment_size);
        let object = self.signed(Kind::Catalog, &name, page, writer)?;
        self.put(&object).await
    }

    /// The page that begins with `first`.
    ///
    /// Errors: not there; not the page that its name tells, or not signed by a trusted writer; the store.
    pub async fn catalog_page(
        &self,
        branch: Branch,
        first: SegmentNumber,
        size: SegmentSize,
    ) -> Result<CatalogPage, RepositoryError> {
        let name = CatalogPage::name(branch, first, size);
        let page: CatalogPage = self.read(&name).await?.trailer.body().map_err(|source| self.refused(&name, source))?;
        match page.misfit(branch, first, size) {
            None => Ok(page),
            Some(why) => Err(self.refused(&name, SealError::Structure(why))),
        }
    }

    /// The end of the page that begins with `first`, up to where WAL was durable once, and the page's name; `None` where it is not there
    /// or cannot be used.
    ///
    /// Errors: the store.
    pub async fn cataloged(
        &self,
        branch: Branch,
        first: SegmentNumber,
        size: SegmentSize,
    ) -> Result<Option<(Lsn, ObjectName)>, RepositoryError> {
        match self.catalog_page(branch, first, size).await {
            Ok(_) => Ok(Some((CatalogPage::last_of(first).end(size), CatalogPage::name(branch, first, size)))),
            Err(error @ RepositoryError::Object { .. }) => {
                tracing::warn!(%error, "this catalog page does not count");
                Ok(None)
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The furthest end that one of these `pages` tells beyond `whole`, and its name: everything up to there was durable once, whatever the
    /// objects behind a hole say, of which each tells what was known when it was sealed. Of many pages the last one does, unless it
    /// cannot be used.
    ///
    /// Errors: the store.
    pub async fn cataloged_beyond(
        &self,
        branch: Branch,
        pages: &[SegmentNumber],
        size: SegmentSize,
        whole: Lsn,
    ) -> Result<Option<(Lsn, ObjectName)>, RepositoryError> {
        for first in pages.iter().rev().take_while(|first| CatalogPage::last_of(**first).end(size) > whole) {
            if let Some(told) = self.cataloged(branch, *first, size).await? {
                return Ok(Some(told));
            }
        }
        Ok(None)
    }

    /// The first segments of the pages that `branch` has, from the page of `from` on, by name, in order.
    ///
    /// Errors: the store's.
    pub async fn catalog_pages(
        &self,
        branch: Branch,
        size: SegmentSize,
        from: Option<SegmentNumber>,
    ) -> Result<Vec<SegmentNumber>, RepositoryError> {
        let prefix = format!("catalog/{branch}/");
        let before = from.and_then(|from| CatalogPage::first_of(from).0.checked_sub(1)).map(SegmentNumber);
        let after = before.map(|before| format!("{prefix}{}~", SegmentName::new(branch.timeline, before, size)));
        let mut pages = Vec::new();
        let mut listing = self.pages(&prefix, after, crate::store::LARGEST_PAGE);
        while let Some(page) = listing.next().await? {
            pages.extend(page.iter().filter_map(|meta| {
                let Ok(ObjectName::Catalog(_, first, _)) = meta.key.parse() else { return None };
                let number = first.number(size).filter(|number| CatalogPage::first_of(*number) == *number)?;
                (CatalogPage::name(branch, number, size).to_string() == meta.key).then_some(number)
            }));
        }
        Ok(pages)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{TrustedWriter, TrustedWriters};
    use crate::store::{DirectoryStore, ObjectStore};
    use crate::timeline::SystemIdentifier;

    #[tokio::test]
    async fn the_page_among_the_vectors_is_read_and_only_under_its_own_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = WriterKey::read_file(include_str!("../../tests/vectors/writer.key")).expect("a key");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let cluster = SystemIdentifier(7_437_123_456_789_012_345);
        let repository = Repository::new(store.clone(), cluster, trust);
        let branch: Branch = "00000001-a2dd04c7".parse().expect("a branch");
        let (first, size) = (SegmentNumber(256), SegmentSize::DEFAULT);
        let vector = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/catalog.object");
        let bytes = bytes::Bytes::from(std::fs::read(vector).expect("the vector is part of the project"));
        store.put_new(&CatalogPage::name(branch, first, size).key(cluster), bytes.clone()).await.expect("stored");
        let page = repository.catalog_page(branch, first, size).await.expect("a page");
        assert_eq!(page.segments.len() as u64, CatalogPage::SEGMENTS);
        let entry = page.entry(SegmentNumber(256 + 100)).expect("one of its own");
        assert!(entry.leading_unread && entry.running.is_none() && entry.transactions.count == 1);
        assert_eq!(page.begin, SegmentNumber(256 + 101).start(size));
        let running = page.running_transactions().expect("segments after it");
        assert_eq!((running.highest, running.highest), (page.running(), "2026-11-21T02:04:15Z".parse().ok()));
        let told = repository.cataloged(branch, first, size).await.expect("readable").map(|(end, _)| end);
        assert_eq!(told, Some(SegmentNumber(512).start(size)));
        assert_eq!(repository.catalog_pages(branch, size, None).await.expect("readable"), [first]);

        let elsewhere = SegmentNumber(512);
        store.put_new(&CatalogPage::name(branch, elsewhere, size).key(cluster), bytes).await.expect("stored");
        repository.catalog_page(branch, elsewhere, size).await.expect_err("it was signed under another name");
        assert_eq!(repository.cataloged(branch, elsewhere, size).await.expect("no error of the store"), None);
    }
}
