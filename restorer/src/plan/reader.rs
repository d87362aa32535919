//! Reading the WAL of a path, record by record.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::lsn::Lsn;
use walseal_common::repository::{CatalogPage, ObjectName, Repository, RepositoryError};
use walseal_common::seal::{Identity, MAX_PLAINTEXT, Transactions};
use walseal_common::segment::{SegmentName, SegmentNumber};
use walseal_common::terminal::Progress;
use walseal_common::timeline::Branch;
use walseal_common::wal::{Event, PAGE_SIZE, PageHeader, Record, WalkOptions, Walker};

use super::pages::{self, Pages};
use super::path::{Path, Step};
use crate::damage::{Damage, sentence};
use crate::segment_source::{SegmentBytes, SegmentError, read_segment};

/// Segments that are kept, because a record may have begun in the one before: bounds memory (I11).
const KEPT: usize = 2;

/// Headers that are read at the same time.
const HEADERS_AT_ONCE: usize = 16;

/// WAL could not be read although the repository names it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// A segment could not be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The repository did not give an object.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Objects cannot be used, and no others hold the same WAL.
    #[error("{}", sentence(.0))]
    Damaged(Vec<Damage>),
    /// A catalog page says other things of a segment than its header.
    #[error(
        "the catalog page of branch {branch} from segment number {first:?} on is contradicted by the segments themselves"
    )]
    Contradicted {
        /// The page's branch.
        branch: Branch,
        /// Its first segment.
        first: SegmentNumber,
    },
    /// No object holds the segment.
    #[error("there is no WAL for segment number {0:?} on this path")]
    Nothing(SegmentNumber),
}

impl ReadError {
    /// Whether the same call could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            ReadError::Segment(error) => error.is_permanent(),
            ReadError::Repository(error) => error.is_permanent(),
            _ => true,
        }
    }
}

/// Reads the WAL that lies on a path.
pub struct PathReader<'a> {
    repository: &'a Repository,
    identities: &'a [Identity],
    path: &'a Path<'a>,
    progress: Option<&'a Progress>,
    kept: Mutex<VecDeque<(SegmentNumber, Arc<SegmentBytes>)>>,
    pages: Pages,
}

impl<'a> PathReader<'a> {
    /// A reader of `path`; `progress` is told how many bytes of WAL were read.
    pub fn new(
        repository: &'a Repository,
        identities: &'a [Identity],
        path: &'a Path<'a>,
        progress: Option<&'a Progress>,
    ) -> PathReader<'a> {
        PathReader { repository, identities, path, progress, kept: Mutex::default(), pages: Pages::default() }
    }

    /// The path.
    pub fn path(&self) -> &'a Path<'a> {
        self.path
    }

    /// Visits every record that *ends* in the segments `first` to `last` (case 54) and starts at or after `floor`, in order, until
    /// `visit` breaks. A record that began before `first` is read whole, from where it began.
    ///
    /// Returns the end of the last whole record. Stops early at the end of a segment that is not whole.
    ///
    /// Errors: [`ReadError::Damaged`] for objects that cannot be used, or whose content is no valid WAL; a segment that is not
    /// there; the store.
    pub async fn visit(
        &self,
        first: SegmentNumber,
        last: SegmentNumber,
        floor: Lsn,
        visit: impl FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<Lsn, ReadError> {
        self.walk(first, last, floor, None, visit).await
    }

    /// As [`PathReader::visit`], with the bodies of records that have at most `limit` bytes.
    pub async fn visit_with_bodies(
        &self,
        first: SegmentNumber,
        last: SegmentNumber,
        floor: Lsn,
        limit: u32,
        visit: impl FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<Lsn, ReadError> {
        self.walk(first, last, floor, Some(limit), visit).await
    }

    async fn walk(
        &self,
        first: SegmentNumber,
        last: SegmentNumber,
        floor: Lsn,
        body_limit: Option<u32>,
        mut visit: impl FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<Lsn, ReadError> {
        let size = self.path.size();
        let from = first.start(size);
        let mut number = self.beginning(first, floor).await?;
        let options = WalkOptions { system: Some(self.repository.cluster()), body_limit, ..WalkOptions::default() };
        let mut walker =
            Walker::new(number.start(size), size, options).map_err(|source| self.not_wal(number, source))?;
        let mut flow = ControlFlow::Continue(());
        while number <= last && flow.is_continue() {
            let segment = self.segment(number).await?;
            let end = self.path.contiguous_end(number.start(size)).min(segment.valid_end);
            let held = usize::try_from(end.bytes_since(number.start(size))).unwrap_or(0);
            let bytes = segment.bytes.get(..held).unwrap_or(&segment.bytes);
            let walked = walker.push(bytes, |event| {
                if let Event::Record(record) = event
                    && flow.is_continue()
                    && record.end > from
                    && record.start >= floor
                {
                    flow = visit(&record);
                }
            });
            if flow.is_continue() {
                walked.map_err(|end| self.not_wal(number, end))?;
            }
            if end < number.end(size) {
                break;
            }
            number = number.next();
        }
        Ok(walker.position())
    }

    /// The segment in which to begin so that a record that goes on in `first` is read whole; never before `floor`'s.
    async fn beginning(&self, first: SegmentNumber, floor: Lsn) -> Result<SegmentNumber, ReadError> {
        let size = self.path.size();
        let mut number = first;
        loop {
            let previous = number.0.checked_sub(1).map(SegmentNumber);
            let Some(previous) = previous.filter(|_| number.start(size) > floor) else { return Ok(number) };
            let segment = self.segment(number).await?;
            let page = PageHeader::parse(&segment.bytes).map_err(|source| self.not_wal(number, source))?;
            // Bytes of a record that a segment holds at most; a longer rest fills it to its end.
            let room = size.bytes() - size.bytes() / u64::from(PAGE_SIZE) * 24;
            let goes_on = page.continues_record() && (number == first || u64::from(page.remaining) >= room);
            if !goes_on {
                return Ok(number);
            }
            number = previous;
        }
    }

    async fn segment(&self, number: SegmentNumber) -> Result<Arc<SegmentBytes>, ReadError> {
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, bytes)) = kept.iter().find(|(there, _)| *there == number) {
                return Ok(bytes.clone());
            }
        }
        let step = self.path.branch_of(number).ok_or(ReadError::Nothing(number))?;
        let size = self.path.size();
        let bytes = match read_segment(self.repository, step.branch, number, size, self.identities).await {
            Ok(bytes) => Arc::new(bytes),
            Err(error) => return Err(self.blame(error).await),
        };
        // Names promised more than can be had.
        let promised = self.path.contiguous_end(number.start(size)).min(number.end(size));
        if bytes.valid_end < promised && !bytes.lost.is_empty() {
            return Err(ReadError::Damaged(bytes.lost.clone()));
        }
        if let Some(progress) = self.progress {
            progress.advance(size.bytes());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((number, bytes.clone()));
        while kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(bytes)
    }

    /// The objects that an error is about, or the error itself where it says nothing about them.
    async fn blame(&self, error: SegmentError) -> ReadError {
        let damaged = error.damage(self.repository);
        if damaged.is_empty() {
            return error.into();
        }
        // A store that refuses one object refuses perhaps all by now.
        if matches!(error, SegmentError::Repository(RepositoryError::Store(_)))
            && let Err(error) = self.repository.read_header(&ObjectName::Identity).await
        {
            return error.into();
        }
        ReadError::Damaged(damaged)
    }

    /// The bytes of a segment are no WAL of this place, although its objects are as they were written: none can be used.
    fn not_wal(&self, number: SegmentNumber, why: impl std::fmt::Display) -> ReadError {
        let size = self.path.size();
        let Some(step) = self.path.branch_of(number) else { return ReadError::Nothing(number) };
        let names = self.path.facts(step).map(|facts| facts.listing.objects_of(number)).unwrap_or_default();
        let segment = SegmentName::new(step.branch.timeline, number, size);
        let why = format!("segment {segment} is not readable as WAL: {why}; recovery would stop there");
        ReadError::Damaged(names.into_iter().map(|name| Damage { name, why: why.clone() }).collect())
    }

    /// What catalog pages, or else the headers of `numbers`, say about the transactions that end in those segments, in the same order;
    /// `None` where only reading the WAL tells: tails, partials, and segments that lack their first record's beginning.
    pub async fn hints(&self, numbers: &[SegmentNumber]) -> Result<Vec<Option<Transactions>>, ReadError> {
        let mut hints = Vec::with_capacity(numbers.len());
        let mut unpaged = Vec::new();
        for (at, number) in numbers.iter().enumerate() {
            hints.push(None);
            let Some(step) = self.whole(*number) else { continue };
            match self.page_of(step, *number).await? {
                Some(page) => {
                    if let (Some(hint), Some(entry)) = (hints.last_mut(), page.entry(*number)) {
                        *hint = pages::hint(entry);
                    }
                }
                None => unpaged.push((at, *number)),
            }
        }
        let read = stream::iter(unpaged).map(|(at, number)| async move { Ok((at, self.header_hint(number).await?)) });
        let read: Vec<(usize, Option<Transactions>)> =
            read.buffered(HEADERS_AT_ONCE).try_collect().await.map_err(|error: ReadError| error)?;
        for (at, found) in read {
            if let Some(hint) = hints.get_mut(at) {
                *hint = found;
            }
        }
        Ok(hints)
    }

    /// The step whose branch has the whole segment.
    fn whole(&self, number: SegmentNumber) -> Option<&'a Step> {
        let step = self.path.branch_of(number)?;
        self.path.facts(step).is_some_and(|facts| facts.listing.has_segment(number)).then_some(step)
    }

    /// The page of the segment, where the repository names one.
    async fn page_of(&self, step: &Step, number: SegmentNumber) -> Result<Option<Arc<CatalogPage>>, ReadError> {
        let first = CatalogPage::first_of(number);
        if !self.path.facts(step).is_some_and(|facts| facts.pages.contains(&first)) {
            return Ok(None);
        }
        Ok(self.pages.page(self.repository, step.branch, first, self.path.size()).await?)
    }

    async fn header_hint(&self, number: SegmentNumber) -> Result<Option<Transactions>, ReadError> {
        let size = self.path.size();
        let Some(step) = self.whole(number) else { return Ok(None) };
        let name = SegmentName::new(step.branch.timeline, number, size);
        let parts = size.bytes().div_ceil(MAX_PLAINTEXT);
        let mut sum = Transactions::default();
        for part in 0..parts {
            let part = if parts == 1 { None } else { u8::try_from(part).ok() };
            let header = self.repository.read_header(&ObjectName::Wal(step.branch, name, part)).await;
            match header.map(|(signed, _)| signed.header.wal) {
                Ok(Some(wal)) if !wal.leading_unread => sum.merge(&wal.transactions),
                Ok(_) => return Ok(None),
                // Whether others hold the same bytes shows when they are read.
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) if Damage::of(&error, self.repository.cluster()).is_some() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(sum))
    }

    /// Where to go on looking in the segments from `next` to `last` for a transaction in the WAL from `from` on: at the first one that
    /// pages do not tell to be `dull`, with all that lie before it.
    pub(super) async fn skip_dull(
        &self,
        from: Lsn,
        next: SegmentNumber,
        last: SegmentNumber,
        dull: impl Fn(&Transactions) -> bool,
    ) -> Result<SegmentNumber, ReadError> {
        let Some(step) = self.path.branch_of(next) else { return Ok(next) };
        let Some(facts) = self.path.facts(step) else { return Ok(next) };
        // Up to where the branch is left, and to the last page that ends by `last`.
        let until = step.switch.map_or(last, |switch| last.min(self.path.size().number(switch)));
        let Some(until) = (until.0 + 1).checked_sub(CatalogPage::SEGMENTS).map(SegmentNumber) else { return Ok(next) };
        let holds = async |first| -> Result<bool, ReadError> {
            let page = self.pages.page(self.repository, step.branch, first, self.path.size()).await?;
            Ok(page.is_some_and(|page| page.begin <= from && page.running_transactions().is_some_and(|all| dull(&all))))
        };
        let found = pages::last_that(&facts.pages, CatalogPage::first_of(next), until, holds).await?;
        Ok(found.map_or(next, |first| CatalogPage::last_of(first).next().max(next)))
    }

    /// Shows that the segments `numbers` are more than names: by their headers where those tell, else by their bytes.
    ///
    /// Errors: as [`PathReader::visit`].
    pub async fn verify(&self, numbers: &[SegmentNumber]) -> Result<(), ReadError> {
        for number in numbers {
            let told = self.header_hint(*number).await?;
            if told.is_none() && self.path.branch_of(*number).is_some() {
                self.segment(*number).await?;
            }
            let Some(step) = self.whole(*number) else { continue };
            let page = self.page_of(step, *number).await?;
            let entry = page.as_ref().and_then(|page| page.entry(*number));
            if let (Some(page), Some(entry)) = (&page, entry)
                && told.is_some()
                && pages::hint(entry) != told
            {
                return Err(ReadError::Contradicted { branch: page.branch, first: CatalogPage::first_of(*number) });
            }
        }
        Ok(())
    }
}
