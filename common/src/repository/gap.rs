//! Gaps: WAL that was lost before it could be stored. Recorded where it happened, never silent (I5).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Repository, RepositoryError, Step, WalListing, lies_on};
use crate::lsn::{Lsn, LsnRange};
use crate::seal::{Kind, SealError, WriterKey};
use crate::segment::{SegmentNumber, SegmentSize};
use crate::timeline::{Branch, Leg, TimelineId};

/// WAL that the repository lacked when the stream went on without it. It may have been filled since: what is still missing,
/// the names of WAL tell ([`Repository::missing`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// The branch that breaks off.
    pub branch: Branch,
    /// The first byte that is missing.
    pub from: Lsn,
    /// Where WAL goes on.
    pub to: Lsn,
    /// The branch on which it goes on.
    pub next: Branch,
    /// When it was found, by the archiver's clock.
    pub found: Timestamp,
    /// The highest transaction time that the archiver saw before it; none where it saw none.
    pub highest_time: Option<Timestamp>,
    /// Why the WAL is gone, in words.
    pub why: String,
    /// The branches from `branch` up to `next`, which is not one of them, each with the position at which it is left. Empty
    /// where they are the same, and in records that do not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub way: Vec<Leg>,
}

/// WAL of one branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stretch {
    /// The branch.
    pub branch: Branch,
    /// Its WAL.
    #[serde(flatten)]
    pub range: LsnRange,
    /// Whether the branch ends there, for what follows.
    #[serde(skip)]
    pub is_end: bool,
}

/// A record of a gap as it lies in the repository.
#[derive(Clone, Debug)]
pub struct GapRecord {
    /// The branch, by its name.
    pub branch: Branch,
    /// The first byte that is missing, by its name.
    pub from: Lsn,
    /// What it says, or why that cannot be read.
    pub content: Result<Gap, RepositoryError>,
}

impl GapRecord {
    /// Its object's name.
    pub fn name(&self) -> ObjectName {
        ObjectName::Gap(self.branch, self.from)
    }

    /// Up to where WAL of `branch` was there once, as the record says. One that cannot be read says that something was.
    pub fn known_on(&self, branch: Branch) -> Option<Lsn> {
        match &self.content {
            Ok(gap) => gap.known_on(branch),
            Err(_) => (self.branch == branch).then(|| self.from.advance(1)),
        }
    }
}

impl Gap {
    /// What is missing.
    pub fn range(&self) -> LsnRange {
        LsnRange { start: self.from, end: self.to }
    }

    /// What is missing, branch by branch; `None` where the record does not tell the way from one branch to the next. A child's
    /// first segment holds its parent's bytes, too, so that its WAL begins with that segment.
    pub fn stretches(&self, size: SegmentSize) -> Option<Vec<Stretch>> {
        let mut begin = self.from;
        let mut stretches = Vec::new();
        for Leg { branch, end } in &self.way {
            let range = LsnRange::new(begin, (*end).min(self.to))?;
            stretches.push(Stretch { branch: *branch, range, is_end: *end <= self.to });
            begin = size.align_down(*end);
        }
        let first = self.way.first().map_or(self.next, |leg| leg.branch);
        if first != self.branch {
            return None;
        }
        if let Some(range) = LsnRange::new(begin, self.to) {
            stretches.push(Stretch { branch: self.next, range, is_end: false });
        }
        stretches.retain(|stretch| !stretch.range.is_empty());
        Some(stretches)
    }

    /// Up to where WAL of `branch` was there once: it was lost, or lies behind what was.
    pub fn known_on(&self, branch: Branch) -> Option<Lsn> {
        if branch == self.next {
            return Some(self.to);
        }
        let left = self.way.iter().find(|leg| leg.branch == branch).map(|leg| leg.end.min(self.to));
        left.or_else(|| (branch == self.branch).then(|| self.from.advance(1)))
    }

    /// Whether it breaks the way: that goes along one of the branches on which WAL is missing, beyond where it begins to be. One that left
    /// them before lacks nothing.
    pub fn breaks(&self, way: &[Step]) -> bool {
        let between = self.way.iter().map(|leg| leg.branch);
        let mut branches = between.chain([self.branch, self.next]);
        branches.any(|branch| lies_on(way, branch, self.from.advance(1)))
    }

    /// Sorts gaps by where WAL goes on behind them, the last one last.
    pub fn goes_on(&self) -> (TimelineId, Lsn) {
        (self.next.timeline, self.to)
    }
}

/// What `listing` lacks of `range`, by name; `partials` tells up to where the `.partial` reaches that goes on at a position.
pub(super) async fn missing_in(
    repository: &Repository,
    listing: &WalListing,
    range: LsnRange,
) -> Result<Vec<LsnRange>, RepositoryError> {
    let size = listing.segment_size;
    let mut missing = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let held = match repository.contiguous_end(listing, at).await {
            Ok(held) => held,
            // A `.partial` that cannot be read: what other objects hold is there all the same.
            Err(RepositoryError::Object { .. }) => listing.contiguous_end(at),
            Err(error) => return Err(error),
        };
        let start = held.max(at);
        if start >= range.end {
            break;
        }
        let next = listing.first_begun(size.number(start).next()).map(|number| number.start(size));
        let end = next.unwrap_or(range.end).min(range.end);
        missing.push(LsnRange { start, end });
        at = end;
    }
    Ok(missing)
}

impl Repository {
    /// Records a gap. One that was recorded before stays as it is.
    ///
    /// Errors: the store's.
    pub async fn put_gap(&self, gap: &Gap, writer: &WriterKey) -> Result<(), RepositoryError> {
        let name = ObjectName::Gap(gap.branch, gap.from);
        let object = self.signed(Kind::Gap, &name, gap, writer)?;
        // Whatever has the name says that WAL is missing from here on.
        self.put(&object).await.map(|_| ())
    }

    /// Every gap that a trusted writer recorded, by branch and position. What else has such a name is left out, with a
    /// warning.
    ///
    /// Errors: the store's.
    pub async fn gaps(&self) -> Result<Vec<Gap>, RepositoryError> {
        let records = self.gap_records().await?.into_iter();
        let readable = records.filter_map(|record| match record.content {
            Ok(gap) => Some(gap),
            Err(error) => {
                tracing::warn!(%error, "no record of a gap");
                None
            }
        });
        Ok(readable.collect())
    }

    /// Every record of a gap, by branch and position, also those that cannot be read.
    ///
    /// Errors: the store's.
    pub async fn gap_records(&self) -> Result<Vec<GapRecord>, RepositoryError> {
        let mut gaps = Vec::new();
        let mut pages = self.pages("gap/", None, GAPS_PER_PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                // Other names are somebody else's.
                if let Ok(name @ ObjectName::Gap(branch, from)) = meta.key.parse::<ObjectName>() {
                    let content = match self.gap(&name).await {
                        Err(error) if !matches!(error, RepositoryError::Object { .. }) => return Err(error),
                        content => content,
                    };
                    gaps.push(GapRecord { branch, from, content });
                }
            }
        }
        Ok(gaps)
    }

    /// What of a gap is still missing, by name, branch by branch and in order; empty once it has been filled. Of a gap of which
    /// the record does not tell the way between two branches, everything. `size` is that of the cluster's segments.
    ///
    /// Errors: the store's.
    pub async fn missing(&self, gap: &Gap, size: SegmentSize) -> Result<Vec<Stretch>, RepositoryError> {
        let Some(stretches) = gap.stretches(size) else {
            return Ok(vec![Stretch { branch: gap.branch, range: gap.range(), is_end: false }]);
        };
        let mut missing = Vec::new();
        for stretch in stretches {
            let listing = self.wal_listing(stretch.branch, size, Some(size.number(stretch.range.start))).await?;
            for range in missing_in(self, &listing, stretch.range).await? {
                let is_end = stretch.is_end && range.end == stretch.range.end;
                missing.push(Stretch { range, is_end, ..stretch });
            }
        }
        Ok(missing)
    }

    /// From the first to the last byte of a gap that is still missing, by name; `None` once it has been filled.
    ///
    /// Errors: the store's.
    pub async fn open_part(&self, gap: &Gap, size: SegmentSize) -> Result<Option<LsnRange>, RepositoryError> {
        let missing = self.missing(gap, size).await?;
        let (first, last) = (missing.first(), missing.last());
        Ok(first.zip(last).map(|(first, last)| LsnRange { start: first.range.start, end: last.range.end }))
    }

    /// The holes at `at` that the names of WAL show, on whatever branch, as gaps that nobody recorded: WAL lies before and behind.
    ///
    /// Errors: the store's.
    pub async fn holes_at(&self, at: Lsn, size: SegmentSize) -> Result<Vec<Gap>, RepositoryError> {
        let mut holes = Vec::new();
        for branch in self.branches().await? {
            let listing = self.wal_listing(branch, size, None).await?;
            let begin = listing.first_begun(SegmentNumber(0)).map(|number| number.start(size));
            let Some(all) = begin.zip(listing.highest()).and_then(|(begin, end)| LsnRange::new(begin, end)) else {
                continue;
            };
            let missing = missing_in(self, &listing, all).await?.into_iter().filter(|range| range.contains(at));
            holes.extend(missing.map(|range| Gap {
                branch,
                from: range.start,
                to: range.end,
                next: branch,
                found: Timestamp::now(),
                highest_time: None,
                why: "nobody recorded it".to_owned(),
                way: Vec::new(),
            }));
        }
        Ok(holes)
    }

    async fn gap(&self, name: &ObjectName) -> Result<Gap, RepositoryError> {
        let gap: Gap = self.read(name).await?.trailer.body().map_err(|source| self.refused(name, source))?;
        let (found, expected) = (ObjectName::Gap(gap.branch, gap.from).to_string(), name.to_string());
        if found == expected { Ok(gap) } else { Err(self.refused(name, SealError::WrongName { found, expected })) }
    }
}

/// Names that one call lists.
const GAPS_PER_PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{TrustedWriter, TrustedWriters};
    use crate::segment::SegmentName;
    use crate::store::DirectoryStore;
    use crate::timeline::{SystemIdentifier, TimelineHistory};

    fn gap(from: u64, to: u64) -> Gap {
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7));
        let found = "2026-11-21T02:30:00Z".parse().expect("a time");
        let why = "the slot was dropped".to_owned();
        Gap { branch, from: Lsn(from), to: Lsn(to), next: branch, found, highest_time: None, why, way: Vec::new() }
    }

    #[tokio::test]
    async fn i5_a_gap_is_found_again_with_what_was_said_of_it_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        assert_eq!(repository.gaps().await.expect("readable"), vec![]);
        for gap in [gap(0x500_0000, 0x700_0000), gap(0x100_0000, 0x200_0000), gap(0x500_0000, 0x900_0000)] {
            repository.put_gap(&gap, &writer).await.expect("stored");
        }
        let found = repository.gaps().await.expect("readable");
        assert_eq!(found, vec![gap(0x100_0000, 0x200_0000), gap(0x500_0000, 0x700_0000)]);
        // Somebody else's record is no record.
        let stranger = WriterKey::generate().expect("random bytes");
        repository.put_gap(&gap(0x900_0000, 0xA00_0000), &stranger).await.expect("the store takes it");
        assert_eq!(repository.gaps().await.expect("readable"), found);
    }

    /// As an archiver leaves it: gap, or WAL.
    struct Bed {
        folder: tempfile::TempDir,
        repository: Repository,
        writer: WriterKey,
        size: SegmentSize,
    }

    impl Bed {
        fn new() -> Bed {
            let folder = tempfile::tempdir().expect("a folder");
            let writer = WriterKey::generate().expect("random bytes");
            let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
            let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
            let repository = Repository::new(store, SystemIdentifier(7), trust);
            Bed { folder, repository, writer, size: SegmentSize::DEFAULT }
        }

        /// An object of this name; only names count here.
        fn put(&self, name: &ObjectName) {
            let path = self.folder.path().join(name.key(SystemIdentifier(7)));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("our own");
            std::fs::write(path, b"x").expect("our own");
        }

        fn put_segment(&self, branch: Branch, number: u64) {
            let segment = SegmentName::new(branch.timeline, SegmentNumber(number), self.size);
            self.put(&ObjectName::Wal(branch, segment, None));
        }

        async fn missing(&self, gap: &Gap) -> Vec<(Branch, LsnRange)> {
            let missing = self.repository.missing(gap, self.size).await.expect("readable");
            missing.into_iter().map(|stretch| (stretch.branch, stretch.range)).collect()
        }
    }

    fn segment(number: u64) -> LsnRange {
        SegmentNumber(number).range(SegmentSize::DEFAULT)
    }

    #[tokio::test]
    async fn a_gap_closes_as_it_is_filled_from_either_side() {
        let bed = Bed::new();
        let gap = gap(segment(5).start.0 + 100, segment(9).start.0);
        let branch = gap.branch;
        let name = SegmentName::new(branch.timeline, SegmentNumber(5), bed.size);
        bed.put(&ObjectName::Tail(branch, name, LsnRange { start: segment(5).start, end: gap.from }));
        bed.put_segment(branch, 9);
        assert_eq!(bed.missing(&gap).await, [(branch, gap.range())]);
        // One in the middle, and the last.
        bed.put_segment(branch, 7);
        let before = (branch, LsnRange { start: gap.from, end: segment(7).start });
        assert_eq!(bed.missing(&gap).await, [before, (branch, segment(8))]);
        bed.put_segment(branch, 8);
        assert_eq!(bed.missing(&gap).await, [before]);
        assert_eq!(bed.repository.open_part(&gap, bed.size).await.expect("readable"), Some(before.1));
        bed.put_segment(branch, 5);
        assert_eq!(bed.missing(&gap).await, [(branch, segment(6))]);
        bed.put_segment(branch, 6);
        assert_eq!(bed.repository.open_part(&gap, bed.size).await.expect("readable"), None);
    }

    #[tokio::test]
    async fn a_gap_over_a_switch_of_timelines_is_filled_when_both_branches_are() {
        let bed = Bed::new();
        let parent = TimelineHistory::root(TimelineId::FIRST);
        let switch = segment(6).start.advance(500);
        let entry = crate::timeline::HistoryEntry { timeline: parent.timeline, switch, reason: b"x".to_vec() };
        let child = TimelineHistory { timeline: TimelineId::new(2).expect("not zero"), entries: vec![entry] };
        let (old, new) = (parent.branch(SystemIdentifier(7)), child.branch(SystemIdentifier(7)));
        let way = vec![Leg { branch: old, end: switch }];
        let gap = Gap { branch: old, next: new, way, ..gap(segment(5).start.0 + 100, segment(8).start.0) };
        let of_old = (old, LsnRange { start: gap.from, end: switch });
        let of_new = (new, LsnRange { start: segment(6).start, end: gap.to });
        assert_eq!(bed.missing(&gap).await, [of_old, of_new]);
        assert_eq!((gap.known_on(old), gap.known_on(new)), (Some(switch), Some(gap.to)));
        for number in [6, 7] {
            bed.put_segment(new, number);
        }
        assert_eq!(bed.missing(&gap).await, [of_old]);
        bed.put_segment(old, 5);
        let name = SegmentName::new(old.timeline, SegmentNumber(6), bed.size);
        bed.put(&ObjectName::Tail(old, name, LsnRange { start: segment(6).start, end: switch }));
        assert_eq!(bed.missing(&gap).await, []);
        // A record that does not tell the way stays open, and claims no more than it knows.
        let silent = Gap { way: Vec::new(), ..gap.clone() };
        assert_eq!(bed.missing(&silent).await, [(old, gap.range())]);
        assert_eq!(silent.known_on(old), Some(gap.from.advance(1)));
    }

    #[tokio::test]
    async fn i5_a_record_that_cannot_be_read_still_says_that_something_was_there() {
        let bed = Bed::new();
        let own = gap(0x100_0000, 0x200_0000);
        bed.repository.put_gap(&own, &bed.writer).await.expect("stored");
        bed.put(&ObjectName::Gap(own.branch, Lsn(0x500_0000)));
        let records = bed.repository.gap_records().await.expect("readable");
        let known: Vec<_> = records.iter().map(|record| record.known_on(own.branch)).collect();
        assert_eq!(known, [Some(own.to), Some(Lsn(0x500_0001))]);
        assert!(records[1].content.is_err());
    }
}
