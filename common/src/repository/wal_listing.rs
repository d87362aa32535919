//! What the names of one branch's WAL say.

use std::collections::{BTreeMap, BTreeSet};

use crate::lsn::{Lsn, LsnRange};
use crate::seal::MAX_PLAINTEXT;
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::timeline::Branch;

use super::{Cover, ObjectName};

/// The WAL of one branch, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalListing {
    /// The branch.
    pub branch: Branch,
    /// Size of its segments.
    pub segment_size: SegmentSize,
    /// Whole segments, as runs without a hole, in order.
    pub runs: Vec<LsnRange>,
    /// Segments of which a `.partial` is there.
    pub partials: Vec<SegmentName>,
    /// Tails by segment, in order.
    pub tails: BTreeMap<SegmentNumber, Vec<LsnRange>>,
    /// Parts of segments over 16 MiB that are not whole yet, in order.
    pub parts: BTreeMap<SegmentNumber, Vec<u8>>,
}

impl WalListing {
    /// What names of objects show, those of WAL in their order.
    pub fn of(branch: Branch, segment_size: SegmentSize, names: impl IntoIterator<Item = ObjectName>) -> WalListing {
        let mut runs = Runs::default();
        let (mut partials, mut tails) = (Vec::new(), BTreeMap::<SegmentNumber, Vec<LsnRange>>::new());
        for name in names {
            match name {
                ObjectName::Tail(_, segment, range) => {
                    if let Some(number) = segment.number(segment_size) {
                        tails.entry(number).or_default().push(range);
                    }
                }
                ObjectName::Partial(_, segment) => partials.push(segment),
                ObjectName::Wal(_, segment, part) => runs.add(segment, part, segment_size),
                _ => {}
            }
        }
        WalListing { branch, segment_size, runs: runs.runs, partials, tails, parts: runs.parts }
    }

    /// Where ranges of WAL without a hole may begin, in order.
    pub fn begins(&self) -> BTreeSet<Lsn> {
        let size = self.segment_size;
        let mut begins: BTreeSet<Lsn> = self.runs.iter().map(|run| run.start).collect();
        begins.extend(self.tails.keys().chain(self.parts.keys()).map(|number| number.start(size)));
        begins.extend(self.partials.iter().filter_map(|name| name.number(size)).map(|number| number.start(size)));
        begins
    }

    /// Whether the whole segment is there.
    pub fn has_segment(&self, number: SegmentNumber) -> bool {
        let start = number.start(self.segment_size);
        self.runs.iter().any(|run| run.contains(start))
    }

    /// The tails of a segment.
    pub fn tails_of(&self, number: SegmentNumber) -> &[LsnRange] {
        self.tails.get(&number).map_or(&[], Vec::as_slice)
    }

    /// The parts that are there of a segment that is not whole.
    pub fn parts_of(&self, number: SegmentNumber) -> &[u8] {
        self.parts.get(&number).map_or(&[], Vec::as_slice)
    }

    /// All pieces of a segment that is not whole: tails, and parts of one over 16 MiB.
    pub fn pieces_of(&self, number: SegmentNumber) -> Vec<LsnRange> {
        let part = |part: &u8| part_range(number, *part, self.segment_size);
        self.tails_of(number).iter().copied().chain(self.parts_of(number).iter().map(part)).collect()
    }

    /// Where the WAL that begins at or before `from` and has no hole ends: whole segments, and others as far as their pieces go.
    /// `from` itself, aligned down to its segment, when not even that is there. A `.partial` is counted as reaching to
    /// the end that its segment's tails or its own header say; see [`Repository::contiguous_end`].
    pub fn contiguous_end(&self, from: Lsn) -> Lsn {
        self.end_from(self.segment_size.align_down(from))
    }

    /// The same from within a segment of which everything before `at` is held.
    pub(super) fn end_from(&self, at: Lsn) -> Lsn {
        let mut end = at;
        loop {
            let whole = self.runs.iter().find(|run| run.contains(end)).map_or(end, |run| run.end);
            let reached = Cover::of(whole, &self.pieces_of(self.segment_size.number(whole))).end;
            // Pieces may make up a segment that never became whole: what follows counts as well.
            if reached == end || self.segment_size.offset(reached) != 0 {
                return reached;
            }
            end = reached;
        }
    }

    /// The last segment, `until` at most, whose first bytes are there, whole or in pieces.
    pub fn last_begun(&self, until: SegmentNumber) -> Option<SegmentNumber> {
        let size = self.segment_size;
        let begun =
            |number: &SegmentNumber| self.pieces_of(*number).iter().any(|piece| piece.start == number.start(size));
        let run = self.runs.iter().rev().find(|run| run.start <= until.start(size));
        let whole = run.map(|run| until.min(size.number(Lsn(run.end.0 - 1))));
        let tails = self.tails.range(..=until).rev().map(|(number, _)| *number).find(begun);
        let parts = self.parts.range(..=until).rev().map(|(number, _)| *number).find(begun);
        let partials = self.partials.iter().filter_map(|segment| segment.number(size)).filter(|n| *n <= until).max();
        [whole, tails, parts, partials].into_iter().flatten().max()
    }

    /// The first segment, `from` at least, whose first bytes are there, whole or in pieces.
    pub fn first_begun(&self, from: SegmentNumber) -> Option<SegmentNumber> {
        let size = self.segment_size;
        let begun =
            |number: &SegmentNumber| self.pieces_of(*number).iter().any(|piece| piece.start == number.start(size));
        let run = self.runs.iter().find(|run| run.end > from.start(size));
        let whole = run.map(|run| from.max(size.number(run.start)));
        let tails = self.tails.range(from..).map(|(number, _)| *number).find(begun);
        let parts = self.parts.range(from..).map(|(number, _)| *number).find(begun);
        let partials = self.partials.iter().filter_map(|segment| segment.number(size)).filter(|n| *n >= from).min();
        [whole, tails, parts, partials].into_iter().flatten().min()
    }

    /// The highest LSN that any name speaks of.
    pub fn highest(&self) -> Option<Lsn> {
        let runs = self.runs.last().map(|run| run.end);
        let tails = self.tails.values().flatten().map(|tail| tail.end).max();
        let parts =
            self.parts.last_key_value().and_then(|(number, _)| self.pieces_of(*number).last().map(|part| part.end));
        let partials = self
            .partials
            .iter()
            .filter_map(|segment| segment.number(self.segment_size))
            .map(|number| number.start(self.segment_size))
            .max();
        [runs, tails, parts, partials].into_iter().flatten().max()
    }

    /// All objects of a segment, whole or in pieces.
    pub fn objects_of(&self, number: SegmentNumber) -> Vec<ObjectName> {
        let (branch, size) = (self.branch, self.segment_size);
        let segment = SegmentName::new(branch.timeline, number, size);
        let part = |part: &u8| ObjectName::Wal(branch, segment, Some(*part));
        let mut names: Vec<ObjectName> = match self.has_segment(number) {
            true => whole_names(branch, number, size),
            false => self.parts_of(number).iter().map(part).collect(),
        };
        names.extend(self.partials.contains(&segment).then_some(ObjectName::Partial(branch, segment)));
        names.extend(self.tails_of(number).iter().map(|tail| ObjectName::Tail(branch, segment, *tail)));
        names
    }

    /// Forgets an object that cannot be used. Returns the bytes that it was there for (of a `.partial`, which only its header
    /// tells, the whole segment); `None` when this listing does not know it.
    pub fn leave_out(&mut self, name: &ObjectName) -> Option<LsnRange> {
        let size = self.segment_size;
        match name {
            ObjectName::Wal(branch, segment, part) if *branch == self.branch => {
                let (number, range) = (segment.number(size)?, range_of(name, size)?);
                if self.has_segment(number) {
                    self.cut_run(number.range(size));
                    if let Some(lost) = part {
                        // At most 64 parts: 1 GiB in 16 MiB.
                        let others = (0..parts(size) as u8).filter(|other| other != lost).collect();
                        self.parts.insert(number, others);
                    }
                    return Some(range);
                }
                let seen = self.parts.get_mut(&number)?;
                let before = seen.len();
                seen.retain(|other| Some(*other) != *part);
                (seen.len() < before).then_some(range)
            }
            ObjectName::Tail(branch, segment, range) if *branch == self.branch => {
                let tails = self.tails.get_mut(&segment.number(size)?)?;
                let before = tails.len();
                tails.retain(|tail| tail != range);
                (tails.len() < before).then_some(*range)
            }
            ObjectName::Partial(branch, segment) if *branch == self.branch => {
                let before = self.partials.len();
                self.partials.retain(|partial| partial != segment);
                (self.partials.len() < before).then_some(segment.number(size)?.range(size))
            }
            _ => None,
        }
    }

    fn cut_run(&mut self, out: LsnRange) {
        let runs = std::mem::take(&mut self.runs);
        self.runs = runs
            .into_iter()
            .flat_map(|run| {
                let before = LsnRange { start: run.start, end: run.end.min(out.start) };
                let after = LsnRange { start: run.start.max(out.end), end: run.end };
                [before, after].into_iter().filter(|rest| rest.start < rest.end)
            })
            .collect();
    }

    /// The stretches of `ranges` in which segments are not whole, first and last of each, in order; where there are many, one from
    /// the first to the last.
    pub(super) fn not_whole(&self, ranges: &[(SegmentNumber, SegmentNumber)]) -> Vec<(SegmentNumber, SegmentNumber)> {
        let size = self.segment_size;
        let mut open = Vec::new();
        for (first, last) in ranges {
            let mut from = *first;
            for run in &self.runs {
                let (begin, end) = (size.number(run.start), size.number(run.end));
                if end <= from || begin > *last {
                    continue;
                }
                if begin > from {
                    open.push((from, SegmentNumber(begin.0 - 1)));
                }
                from = end;
            }
            if from <= *last {
                open.push((from, *last));
            }
        }
        match (open.first(), open.last()) {
            (Some((first, _)), Some((_, last))) if open.len() > MOST_STRETCHES => vec![(*first, *last)],
            _ => open,
        }
    }

    /// With what was seen later of its segments that were not whole.
    pub(super) fn with(mut self, later: WalListing) -> WalListing {
        self.runs.extend(later.runs);
        self.runs.sort();
        self.runs.dedup_by(|next, last| {
            let follows = next.start <= last.end;
            if follows {
                last.end = last.end.max(next.end);
            }
            follows
        });
        self.partials.extend(later.partials);
        self.partials.sort();
        self.partials.dedup();
        // Of the segments that were not whole everything was read again.
        WalListing { tails: later.tails, parts: later.parts, ..self }
    }

    /// Whether the branch holds nothing.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.partials.is_empty() && self.tails.is_empty() && self.parts.is_empty()
    }
}

/// Stretches of segments that are not whole, and are listed each for itself.
const MOST_STRETCHES: usize = 8;

/// How many parts a whole segment has: none of its own when it fits one object.
pub(super) fn parts(size: SegmentSize) -> u64 {
    size.bytes().div_ceil(MAX_PLAINTEXT)
}

/// The objects of a whole segment, in order.
pub(super) fn whole_names(branch: Branch, number: SegmentNumber, size: SegmentSize) -> Vec<ObjectName> {
    let segment = SegmentName::new(branch.timeline, number, size);
    match parts(size) {
        1 => vec![ObjectName::Wal(branch, segment, None)],
        // At most 64 parts: 1 GiB in 16 MiB.
        parts => (0..parts as u8).map(|part| ObjectName::Wal(branch, segment, Some(part))).collect(),
    }
}

/// The bytes that the name of an object of WAL speaks of; `None` for a `.partial`, and for what is no WAL.
pub(super) fn range_of(name: &ObjectName, size: SegmentSize) -> Option<LsnRange> {
    match name {
        ObjectName::Wal(_, segment, None) => segment.number(size).map(|number| number.range(size)),
        ObjectName::Wal(_, segment, Some(part)) => segment.number(size).map(|number| part_range(number, *part, size)),
        ObjectName::Tail(_, _, range) => Some(*range),
        _ => None,
    }
}

/// The bytes of a part of a segment over 16 MiB.
fn part_range(number: SegmentNumber, part: u8, size: SegmentSize) -> LsnRange {
    let start = number.start(size).advance(u64::from(part) * MAX_PLAINTEXT);
    LsnRange { start, end: start.advance(MAX_PLAINTEXT) }
}

/// Folds names, in order, into runs.
#[derive(Default)]
pub(super) struct Runs {
    pub(super) runs: Vec<LsnRange>,
    /// Parts of segments that are not whole.
    pub(super) parts: BTreeMap<SegmentNumber, Vec<u8>>,
}

impl Runs {
    pub(super) fn add(&mut self, segment: SegmentName, part: Option<u8>, size: SegmentSize) {
        let Some(number) = segment.number(size) else { return };
        match part {
            None if parts(size) == 1 => self.whole(number, size),
            Some(part) if u64::from(part) < parts(size) && parts(size) > 1 => self.part(number, part, size),
            _ => {}
        }
    }

    fn whole(&mut self, number: SegmentNumber, size: SegmentSize) {
        let range = number.range(size);
        match self.runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.runs.push(range),
        }
    }

    fn part(&mut self, number: SegmentNumber, part: u8, size: SegmentSize) {
        let seen = self.parts.entry(number).or_default();
        seen.push(part);
        if seen.len() as u64 == parts(size) {
            self.parts.remove(&number);
            self.whole(number, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    fn listing(mib: u64) -> WalListing {
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7));
        let segment_size = SegmentSize::new(mib << 20).expect("a legal size");
        let run = LsnRange { start: SegmentNumber(3).start(segment_size), end: SegmentNumber(6).end(segment_size) };
        let (partials, tails, parts) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        WalListing { branch, segment_size, runs: vec![run], partials, tails, parts }
    }

    fn whole_name(listing: &WalListing, number: u64) -> SegmentName {
        SegmentName::new(TimelineId::FIRST, SegmentNumber(number), listing.segment_size)
    }

    fn whole(listing: &WalListing, number: u64, part: Option<u8>) -> ObjectName {
        ObjectName::Wal(listing.branch, whole_name(listing, number), part)
    }

    #[test]
    fn i2_a_segment_that_is_left_out_is_a_hole() {
        let mut listing = listing(1);
        let five = whole(&listing, 5, None);
        assert_eq!(listing.leave_out(&five), Some(SegmentNumber(5).range(listing.segment_size)));
        assert_eq!(listing.leave_out(&five), None, "it is not known any more");
        assert_eq!(listing.contiguous_end(Lsn(0x30_0000)), Lsn(0x50_0000));
        assert_eq!(listing.highest(), Some(Lsn(0x70_0000)));
        assert!(listing.has_segment(SegmentNumber(6)) && !listing.has_segment(SegmentNumber(5)));
    }

    #[test]
    fn i2_a_segment_that_only_its_tails_make_up_is_no_hole() {
        let mut listing = listing(1);
        let start = SegmentNumber(4).start(listing.segment_size);
        let half = LsnRange { start, end: start.advance(1 << 19) };
        let rest = LsnRange { start: half.end, end: start.advance(1 << 20) };
        listing.tails.insert(SegmentNumber(4), vec![half, rest]);
        listing.tails.insert(SegmentNumber(6), vec![LsnRange { start: Lsn(0x60_0000), end: Lsn(0x60_8000) }]);
        for lost in [4, 6] {
            listing.leave_out(&whole(&listing, lost, None));
        }
        assert_eq!(listing.contiguous_end(Lsn(0x30_0000)), Lsn(0x60_8000));
        listing.leave_out(&ObjectName::Tail(listing.branch, whole_name(&listing, 4), rest));
        assert_eq!(listing.contiguous_end(Lsn(0x30_0000)), half.end);
    }

    #[test]
    fn case_18_the_other_parts_of_a_large_segment_stay() {
        let mut listing = listing(64);
        let lost = whole(&listing, 4, Some(2));
        let start = SegmentNumber(4).start(listing.segment_size);
        let range = LsnRange { start: start.advance(2 * MAX_PLAINTEXT), end: start.advance(3 * MAX_PLAINTEXT) };
        assert_eq!(listing.leave_out(&lost), Some(range));
        assert_eq!(listing.contiguous_end(SegmentNumber(3).start(listing.segment_size)), range.start);
        assert_eq!(listing.parts_of(SegmentNumber(4)), [0, 1, 3]);
        assert_eq!(listing.objects_of(SegmentNumber(4)).len(), 3);
        assert_eq!(listing.objects_of(SegmentNumber(5)).len(), 4);
    }
}
