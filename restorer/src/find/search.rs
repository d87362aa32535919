//! What is asked, answered from the WAL that may know.

use std::collections::VecDeque;

use futures_util::{StreamExt, stream};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{CatalogPage, Label, RepositoryError};
use walseal_common::seal::Transactions;
use walseal_common::segment::SegmentNumber;
use walseal_common::terminal::Progress;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::WalVersion;
use walseal_common::wal::change::{ChangeWalk, RunSummary};

use super::activity::Activity;
use super::answer::Answer;
use super::course::{BEFORE, Course};
use super::finding::Finding;
use super::lineage;
use super::names::Names;
use super::question::{Question, RecordLine};
use super::shelf::Shelf;
use crate::access::Access;
use crate::plan::reader::{PathReader, ReadError};
use crate::plan::{Inventory, InventoryError, Path, PlanError, Planner, Request, Target, TimelineChoice};

/// Catalog pages that are read at the same time.
const PAGES_AT_ONCE: usize = 4;

/// Segments that are read before the one in which a transaction ended that is asked for.
const BEFORE_TRANSACTION: u64 = 16;

/// Base backups after the range that are asked for names.
const LATER_BASES: usize = 2;

/// What happened could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The way could not be chosen, or the repository could not be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The repository holds no WAL with a base backup.
    #[error("{store} holds no WAL from {since} on")]
    Nothing {
        /// The repository.
        store: String,
        /// Since when.
        since: PgTimestamp,
    },
    /// No such transaction.
    #[error("no transaction {xid} ended in the WAL that {store} holds")]
    NoSuchTransaction {
        /// The repository.
        store: String,
        /// Its id.
        xid: u64,
    },
    /// The cluster's PostgreSQL is not one whose WAL is read.
    #[error("WAL of PostgreSQL {0} is not read by this version, which knows 14 to 18")]
    UnknownMajor(u32),
}

impl From<ReadError> for FindError {
    fn from(error: ReadError) -> FindError {
        FindError::Plan(error.into())
    }
}

impl From<InventoryError> for FindError {
    fn from(error: InventoryError) -> FindError {
        FindError::Plan(error.into())
    }
}

/// What of a range was found.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// The worst first, or in order where moments are looked at.
    pub findings: Vec<Finding>,
    /// How many there are that are wanted, those that are not listed among them.
    pub found: u64,
    /// Transactions that summaries count and do not list: none of them is worse than what is listed.
    pub counted: u64,
    /// Transactions that committed in the range.
    pub commits: u64,
    /// WAL that was read, itself or by summaries.
    pub read: Option<LsnRange>,
    /// WAL in the range that the repository does not hold.
    pub gaps: Vec<LsnRange>,
    /// Of one transaction that was asked for: its records, those of its subtransactions not among them.
    pub records: Vec<RecordLine>,
    /// What was done to tables over time, where that is asked.
    pub activity: Option<Activity>,
}

/// Searches the WAL that leads to the newest end, or to that of `timeline`.
///
/// Cost: a summary for 16 segments; where there is none, every segment of the range that may hold transactions of that time is fetched
/// and opened. Memory: two segments, some summaries, what open transactions did, the names of the base backups around it, and what is listed.
///
/// Errors: see [`FindError`].
pub async fn search(
    access: &Access,
    question: &Question,
    timeline: Option<TimelineChoice>,
    progress: &Progress,
) -> Result<Searched, FindError> {
    let (repository, identities) = (&access.repository, access.identities.as_slice());
    let mut inventory = Inventory::read(repository, identities).await?;
    loop {
        match search_in(access, &inventory, question, timeline, progress).await {
            Err(FindError::Plan(PlanError::Read(ReadError::Damaged(found))))
                if inventory.leave_out(repository, &found).await? => {}
            done => return done,
        }
    }
}

async fn search_in(
    access: &Access,
    inventory: &Inventory,
    question: &Question,
    timeline: Option<TimelineChoice>,
    progress: &Progress,
) -> Result<Searched, FindError> {
    let (repository, identities) = (&access.repository, access.identities.as_slice());
    let major = inventory.identity.postgres_major;
    let version = WalVersion::ALL.into_iter().find(|version| u32::from(version.major()) == major);
    let version = version.ok_or(FindError::UnknownMajor(major))?;
    let request = Request { timeline, ..Request::to(Target::Latest) };
    let planner = Planner { repository, identities, inventory, request: &request, progress: None };
    let path = Path::new(&planner.end().await?, inventory);
    let reader = PathReader::new(repository, identities, &path, Some(progress));
    let store = inventory.store.clone();
    let ranges = match *question {
        Question::Transaction { xid, .. } => {
            around_transaction(&reader, xid).await?.ok_or(FindError::NoSuchTransaction { store, xid })?
        }
        Question::Worst { since, until, .. } | Question::Activity { since, until, .. } => {
            interesting(&reader, since, until, 0).await?.ok_or(FindError::Nothing { store, since })?
        }
        Question::Around { time, each } => {
            interesting(&reader, time, None, each).await?.ok_or(FindError::Nothing { store, since: time })?
        }
    };
    let bases: Vec<&Label> = inventory.bases.iter().filter(|base| path.excludes(base).is_none()).collect();
    let mut names = names(access, &bases, &ranges).await?;
    if let Some(start) = ranges.first().map(|range| range.start)
        && let Some(base) = bases.iter().filter(|base| base.stop <= start).max_by_key(|base| base.stop)
    {
        let span = LsnRange { start: base.start, end: start };
        lineage::learn(access, &reader, version, span, &mut names).await?;
    }
    let restorable = |lsn: Lsn| {
        let fits = |base: &&&Label| base.stop <= lsn && path.extent_at(base.start).is_some_and(|wal| lsn < wal.end);
        bases.iter().any(|base| fits(&base))
    };
    let size = path.size();
    let shelf = Shelf::of(access, &path, question, &ranges).await?;
    let (answer, unread) = (Answer::new(question), Vec::new());
    let mut course = Course { reader: &reader, version, names: &mut names, restorable: &restorable, answer, unread };
    let mut read: Option<LsnRange> = None;
    let mut gaps = Vec::new();
    for range in &ranges {
        if let Some(before) = read.filter(|before| before.end < range.start) {
            gaps.push(LsnRange { start: before.end, end: range.start });
        }
        let mut walk = ChangeWalk::default();
        let mut next = size.number(range.start);
        let last = size.number(Lsn(range.end.0 - 1));
        let mut summaries = std::pin::pin!(shelf.read(access, *range));
        let mut end = range.start;
        while next <= last && !course.answer.is_full() {
            let summary = summaries.as_mut().next().await.transpose()?;
            // WAL up to the summary, or to the end of the range.
            let stop = summary.as_ref().map_or(SegmentNumber(last.0 + 1), |(first, _)| *first);
            if next < stop {
                end = course.walk(&mut walk, (next, SegmentNumber(stop.0 - 1)), range.start).await?;
            }
            let Some((first, summary)) = summary else { break };
            next = RunSummary::last_of(first).next();
            end = next.start(size);
            walk = course.tell(first, summary);
        }
        let start = read.map_or(range.start, |read| read.start);
        read = Some(LsnRange { start, end: end.max(start) });
    }
    course.look_again().await?;
    let activity = course.answer.activity();
    let Answer { kept, commits, records, counted, .. } = course.answer;
    let (findings, found) = kept.finish(question);
    Ok(Searched { findings, found, counted, commits, read, gaps, records, activity })
}

/// The WAL in which the newest transaction with this id ended, with some before; `None` where there is none.
async fn around_transaction(reader: &PathReader<'_>, xid: u64) -> Result<Option<Vec<LsnRange>>, FindError> {
    let (path, size) = (reader.path(), reader.path().size());
    for extent in path.extents.iter().rev() {
        if let Some(point) = reader.transaction_end(xid, *extent).await? {
            let first = SegmentNumber(size.number(point.lsn).0.saturating_sub(BEFORE_TRANSACTION));
            let last = size.number(Lsn(point.end.0.saturating_sub(1)));
            let range = LsnRange { start: first.start(size).max(extent.start), end: last.end(size).min(extent.end) };
            return Ok(Some(vec![range]));
        }
    }
    Ok(None)
}

/// The ranges of WAL that may hold transactions of the time, with some before; `None` where there is none. `earlier`: so many segments
/// with transactions from before the time are among them, however far back they lie.
async fn interesting(
    reader: &PathReader<'_>,
    since: PgTimestamp,
    until: Option<PgTimestamp>,
    earlier: usize,
) -> Result<Option<Vec<LsnRange>>, FindError> {
    let (path, size) = (reader.path(), reader.path().size());
    let (since, until) = (since.to_jiff_saturating(), until.map(PgTimestamp::to_jiff_saturating));
    // What a header does not tell is read.
    let late =
        |hint: &Option<Transactions>| hint.is_none_or(|hint| hint.highest.is_some_and(|highest| highest >= since));
    let early = |hint: &Option<Transactions>| {
        hint.is_none_or(|hint| until.is_none_or(|until| hint.lowest.is_some_and(|lowest| lowest <= until)))
    };
    let mut ranges = Vec::new();
    for extent in path.extents.iter().filter(|extent| !extent.is_empty()) {
        let (first, last) = (size.number(extent.start), size.number(Lsn(extent.end.0 - 1)));
        let numbers: Vec<SegmentNumber> = (first.0..=last.0).map(SegmentNumber).collect();
        let (mut begin, mut end) = (None, None);
        let mut before = VecDeque::new();
        // Those of a page together, so that it is read once.
        let of_a_page = numbers.chunk_by(|one, next| CatalogPage::first_of(*one) == CatalogPage::first_of(*next));
        let read = stream::iter(of_a_page).map(|numbers| async move { Ok((numbers, reader.hints(numbers).await?)) });
        let mut read = std::pin::pin!(read.buffered(PAGES_AT_ONCE));
        while let Some(told) = read.next().await {
            let (numbers, hints) = told.map_err(|error: ReadError| error)?;
            for (number, hint) in numbers.iter().zip(&hints) {
                if late(hint) {
                    begin = begin.or(Some(*number));
                } else if begin.is_none() && earlier > 0 && hint.is_some_and(|hint| hint.highest.is_some()) {
                    before.push_back(*number);
                    if before.len() > earlier {
                        before.pop_front();
                    }
                }
                if early(hint) {
                    end = Some(*number);
                }
            }
        }
        let of_the_time = begin.zip(end).filter(|(begin, end)| begin <= end);
        let mut spans: Vec<(SegmentNumber, SegmentNumber)> = Vec::new();
        for (begin, end) in before.into_iter().map(|number| (number, number)).chain(of_the_time) {
            let begin = SegmentNumber(begin.0.saturating_sub(BEFORE)).max(first);
            match spans.last_mut().filter(|(_, last)| last.next() >= begin) {
                Some((_, last)) => *last = end.max(*last),
                None => spans.push((begin, end)),
            }
        }
        ranges.extend(spans.into_iter().map(|(begin, end)| LsnRange {
            start: begin.start(size).max(extent.start),
            end: end.end(size).min(extent.end),
        }));
    }
    Ok((!ranges.is_empty()).then_some(ranges))
}

/// The names of the base backup before the WAL, of those within it, and of the next ones: the nearest before counts first.
async fn names(access: &Access, bases: &[&Label], ranges: &[LsnRange]) -> Result<Names, FindError> {
    let (Some(start), Some(end)) = (ranges.first().map(|range| range.start), ranges.last().map(|range| range.end))
    else {
        return Ok(Names::default());
    };
    let mut sorted = bases.to_vec();
    sorted.sort_by_key(|base| base.stop);
    let before = sorted.partition_point(|base| base.stop <= start).saturating_sub(1);
    let within = sorted.partition_point(|base| base.stop <= end);
    let mut names = Names::default();
    for base in sorted.iter().take(within + LATER_BASES).skip(before) {
        // The inventory's labels come without their pages.
        match access.repository.label(&base.id).await {
            Ok(label) => names.add_base(access, &label).await?,
            Err(error) if error.is_permanent() => tracing::warn!("{error}; its names are not known"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(names)
}
