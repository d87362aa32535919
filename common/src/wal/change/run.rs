//! What the transactions of a run of segments did, in bounded size: those that matter one by one, the others in sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::event::Event;
use super::super::page::WalVersion;
use super::super::record::RelationFile;
use super::super::summary::TimeRange;
use super::rows::RowCounts;
use super::walk::{ChangeWalk, WalkState};
use super::work::Work;
use crate::lsn::Lsn;
use crate::segment::{SegmentNumber, SegmentSize};

/// Segments of a run. The number of its first one is a multiple of it.
const SEGMENTS: u64 = 16;

/// Transactions that only change rows, of which the largest are listed one by one.
const MOST_OF_ROWS: usize = 200;

/// Transactions that make or remove files or relations, or change catalogs, listed one by one.
const MOST_STRUCTURAL: usize = 1_000;

/// Entries that open transactions keep together while WAL is streamed: a few MiB (I11).
const MOST_OPEN: usize = 50_000;

/// Entries that the transactions keep together that are listed one by one: a few MiB for those that only change rows, and as many for
/// the others (I11). One is always listed.
const MOST_LISTED: usize = 50_000;

/// Files that the sums are kept of; of the others one sum.
const MOST_FILES: usize = 5_000;

/// Transactions that are counted in sums only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    /// How many did anything to it.
    pub transactions: u64,
    /// Rows.
    #[serde(flatten)]
    pub rows: RowCounts,
    /// Bytes of WAL.
    pub bytes: u64,
}

/// What is not listed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Unlisted {
    /// Transactions.
    pub transactions: u64,
    /// Of them, those that are more than rows: only where there were too many to list.
    #[serde(default)]
    pub structural: u64,
    /// The most rows that one of them deleted or updated.
    pub largest: u64,
    /// By file. Where there are too many, what is beyond stands under `0/0/0`.
    pub relations: BTreeMap<RelationFile, Sum>,
}

impl Unlisted {
    /// The name of the sum of those files that are too many.
    pub const REST: RelationFile = RelationFile { tablespace: 0, database: 0, number: 0 };

    fn add(&mut self, work: &Work) {
        self.transactions += 1;
        self.structural += u64::from(work.is_structural());
        self.largest = self.largest.max(work.lost_rows());
        for (file, done) in &work.relations {
            let known = self.relations.contains_key(file) || self.relations.len() < MOST_FILES;
            let sum = self.relations.entry(if known { *file } else { Unlisted::REST }).or_default();
            sum.transactions += 1;
            sum.rows.merge(done.rows);
            sum.bytes = sum.bytes.saturating_add(done.bytes);
        }
    }
}

/// What the transactions did that committed in a run of segments.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RunSummary {
    /// Transactions that committed.
    pub commits: u64,
    /// When, the lowest and the highest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<TimeRange>,
    /// Those that matter, in the order of their commits.
    pub transactions: Vec<Work>,
    /// The others.
    pub unlisted: Unlisted,
    /// What transactions did up to the run's end that were open there.
    pub after: WalkState,
}

impl RunSummary {
    /// Segments of a run.
    pub const SEGMENTS: u64 = SEGMENTS;

    /// The first segment of the run that `number` belongs to.
    pub const fn first_of(number: SegmentNumber) -> SegmentNumber {
        SegmentNumber(number.0 - number.0 % SEGMENTS)
    }

    /// The last segment of the run that begins with `first`.
    pub const fn last_of(first: SegmentNumber) -> SegmentNumber {
        SegmentNumber(first.0 + (SEGMENTS - 1))
    }

    pub(super) fn add(&mut self, work: Work, listed: &mut Listed) {
        self.commits += 1;
        let time = TimeRange::at(work.end.time);
        self.times = Some(self.times.map_or(time, |times| times.union(time)));
        let weight = work.weight();
        if !work.is_structural() {
            listed.rows.push(work);
            listed.rows_weight += weight;
            if listed.rows.len() >= 4 * MOST_OF_ROWS || listed.rows_weight > 2 * MOST_LISTED {
                self.keep_largest(listed);
            }
        } else if self.transactions.is_empty()
            || (self.transactions.len() < MOST_STRUCTURAL && listed.structural_weight + weight <= MOST_LISTED)
        {
            self.transactions.push(work);
            listed.structural_weight += weight;
        } else {
            self.unlisted.add(&work);
        }
    }

    fn keep_largest(&mut self, listed: &mut Listed) {
        let mut rows = std::mem::take(&mut listed.rows);
        // Of those that are equal the newest.
        rows.sort_by_cached_key(|work| std::cmp::Reverse((work.lost_rows(), work.commit)));
        listed.rows_weight = 0;
        for work in rows {
            let weight = listed.rows_weight + work.weight();
            if listed.rows.is_empty() || (listed.rows.len() < MOST_OF_ROWS && weight <= MOST_LISTED) {
                listed.rows.push(work);
                listed.rows_weight = weight;
            } else {
                self.unlisted.add(&work);
            }
        }
    }

    fn finish(mut self, mut listed: Listed, after: WalkState) -> RunSummary {
        self.keep_largest(&mut listed);
        self.transactions.append(&mut listed.rows);
        self.transactions.sort_by_key(|work| work.commit);
        self.after = after;
        self
    }
}

/// A run under way.
#[derive(Debug)]
struct Run {
    first: SegmentNumber,
    summary: RunSummary,
    listed: Listed,
}

/// What will be listed one by one, as it stands.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Those that only change rows.
    pub(super) rows: Vec<Work>,
    rows_weight: usize,
    /// Of the others, which are in the summary.
    structural_weight: usize,
}

/// Makes summaries of runs from a walk that hands out bodies. Memory: a few MiB.
#[derive(Debug)]
pub struct RunWalk {
    size: SegmentSize,
    walk: ChangeWalk,
    /// None until the start of a run: only what was seen from its beginning is told.
    run: Option<Run>,
}

impl RunWalk {
    /// The longest body that it takes in; of a record that has a longer one it is said that it was left out.
    pub const BODY_LIMIT: u32 = 1 << 20;

    /// A walk that begins at `start`.
    pub fn new(start: Lsn, size: SegmentSize) -> RunWalk {
        let mut walk = RunWalk { size, walk: ChangeWalk::keeping(MOST_OPEN), run: None };
        walk.begin(start);
        walk
    }

    fn begin(&mut self, at: Lsn) {
        let first = self.size.number(at);
        let begins = self.size.offset(at) == 0 && RunSummary::first_of(first) == first;
        self.run = begins.then(|| Run { first, summary: RunSummary::default(), listed: Listed::default() });
    }

    /// Takes the next event.
    pub fn add(&mut self, version: WalVersion, event: &Event<'_>) {
        if let Event::LeadingSkipped { .. } = event {
            // One record was not read: perhaps a commit.
            self.run = None;
        }
        let work = self.walk.add(version, event);
        if let (Some(work), Some(run)) = (work, &mut self.run) {
            run.summary.add(work, &mut run.listed);
        }
    }

    /// The walk lost its way: what is open is not known any more.
    pub fn lose(&mut self) {
        self.walk = ChangeWalk::keeping(MOST_OPEN);
        self.run = None;
    }

    /// All records that end up to `end`, the end of a segment, were added. Returns the run that is complete by that.
    pub fn reached(&mut self, end: Lsn) -> Option<(SegmentNumber, RunSummary)> {
        let next = self.size.number(end);
        if RunSummary::first_of(next) != next {
            return None;
        }
        let done = self.run.take().filter(|run| RunSummary::last_of(run.first).next() == next);
        let done = done.map(|run| (run.first, run.summary.finish(run.listed, self.walk.state())));
        self.begin(end);
        done
    }
}
