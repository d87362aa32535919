//! Summaries that lie on the way, read ahead. One that cannot be used is left out: then the WAL is read.

use std::collections::BTreeSet;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use walseal_common::lsn::LsnRange;
use walseal_common::repository::RepositoryError;
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;
use walseal_common::wal::TimeRange;
use walseal_common::wal::change::RunSummary;

use super::question::Question;
use crate::access::Access;
use crate::plan::Path;

/// Summaries that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// A course over time must not be a flat line where it is not: of a run that takes more than this part of the time that is asked about,
/// the WAL is read, since its summary only counts. So at most as many runs are read, and those at the edges.
const MOST_READ: u64 = 8;

/// What a summary has to tell to be of use.
enum Needs {
    /// Everything that was done in the time that is asked about. What is only counted must lie within so many microseconds.
    All { since: PgTimestamp, until: Option<PgTimestamp>, longest: u64 },
    /// Everything that made or removed relations.
    Structure,
}

/// The summaries of a path, by name.
pub(super) struct Shelf {
    size: SegmentSize,
    needs: Needs,
    /// In the order of their segments.
    runs: Vec<(SegmentNumber, Branch)>,
}

impl Shelf {
    /// Those that answer `question` and lie wholly in one of `ranges`, all of their segments on one branch. None where single records
    /// or every commit is asked for, or rows that were inserted: those are not listed.
    ///
    /// Errors: the store.
    pub(super) async fn of(
        access: &Access,
        path: &Path<'_>,
        question: &Question,
        ranges: &[LsnRange],
    ) -> Result<Shelf, RepositoryError> {
        let size = path.size();
        let needs = match question {
            Question::Worst { wanted, since, until, .. } if !wanted.kinds.contains(&super::Kind::Insert) => {
                Needs::All { since: *since, until: *until, longest: u64::MAX }
            }
            Question::Activity { since, until, .. } => {
                let end = until.unwrap_or_else(|| PgTimestamp::from_jiff(jiff::Timestamp::now()));
                Needs::All { since: *since, until: *until, longest: end.0.abs_diff(since.0) / MOST_READ }
            }
            _ => return Ok(Shelf { size, needs: Needs::Structure, runs: Vec::new() }),
        };
        let Some(begin) = ranges.first().map(|range| size.number(range.start)) else {
            return Ok(Shelf { size, needs, runs: Vec::new() });
        };
        let inside = |whole: LsnRange| ranges.iter().any(|range| range.start <= whole.start && whole.end <= range.end);
        Ok(Shelf { size, needs, runs: runs(access, path, begin, inside).await? })
    }

    /// Those that tell which relations were made in `span`, or in a part of it.
    ///
    /// Errors: the store.
    pub(super) async fn of_structure(
        access: &Access,
        path: &Path<'_>,
        span: LsnRange,
    ) -> Result<Shelf, RepositoryError> {
        let size = path.size();
        let touches = |whole: LsnRange| whole.start < span.end && span.start < whole.end;
        let begin = RunSummary::first_of(size.number(span.start));
        Ok(Shelf { size, needs: Needs::Structure, runs: runs(access, path, begin, touches).await? })
    }

    /// Whether a summary tells of the segment, by name.
    pub(super) fn has(&self, number: SegmentNumber) -> bool {
        let first = RunSummary::first_of(number);
        self.runs.binary_search_by_key(&first, |(run, _)| *run).is_ok()
    }

    /// Those of `range`, in order, without those that cannot be used.
    ///
    /// Errors, item by item: the store.
    pub(super) fn read<'a>(
        &'a self,
        access: &'a Access,
        range: LsnRange,
    ) -> impl Stream<Item = Result<(SegmentNumber, RunSummary), RepositoryError>> + 'a {
        let size = self.size;
        let last = move |first: &SegmentNumber| RunSummary::last_of(*first).end(size);
        let within =
            self.runs.iter().filter(move |(first, _)| first.start(size) < range.end && range.start < last(first));
        let read = stream::iter(within).map(move |(first, branch)| async move {
            match access.repository.summary((*branch, *first, size), &access.identities).await {
                // What it only counts cannot be told apart by time.
                Ok(summary) if !self.is_told_whole(&summary) => Ok(None),
                Ok(summary) => Ok(Some((*first, summary))),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) if error.is_permanent() => {
                    tracing::warn!("{error}; the WAL is read instead");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        });
        read.buffered(READS_AT_ONCE).filter_map(|read| async move { read.transpose() })
    }

    /// Whether everything that is needed is listed, or lies in the time that is asked about, near enough to one another.
    fn is_told_whole(&self, summary: &RunSummary) -> bool {
        let Needs::All { since, until, longest } = self.needs else { return summary.unlisted.structural == 0 };
        let within = |times: TimeRange| since <= times.lowest && until.is_none_or(|until| times.highest <= until);
        let is_short = |times: TimeRange| times.highest.0.abs_diff(times.lowest.0) <= longest;
        summary.unlisted.transactions == 0 || summary.times.is_some_and(|times| within(times) && is_short(times))
    }
}

/// The summaries on a path from segment `begin` on of which the segments are wanted.
async fn runs(
    access: &Access,
    path: &Path<'_>,
    begin: SegmentNumber,
    wanted: impl Fn(LsnRange) -> bool,
) -> Result<Vec<(SegmentNumber, Branch)>, RepositoryError> {
    let size = path.size();
    let mut runs = BTreeSet::new();
    for step in &path.steps {
        for first in access.repository.summaries(step.branch, size, begin).await? {
            let last = RunSummary::last_of(first);
            // A run that is told of as a whole lies on one branch as a whole; its bounds tell, since a way leaves a branch once.
            let holds = |number| path.branch_of(number).is_some_and(|holder| holder.branch == step.branch);
            if wanted(LsnRange { start: first.start(size), end: last.end(size) }) && holds(first) && holds(last) {
                runs.insert((first, step.branch));
            }
        }
    }
    Ok(runs.into_iter().collect())
}
