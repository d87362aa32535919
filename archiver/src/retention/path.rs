//! The ways through the branches that something can be restored along, and what lies on each. As a restore sees it (`plan` of the
//! restorer), but from what everyone may read.

use std::collections::BTreeMap;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Step, extents_along, lies_on};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use super::holdings::{Base, Holdings};

/// Segments of branches, by first and last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segments(BTreeMap<Branch, Vec<(SegmentNumber, SegmentNumber)>>);

impl Segments {
    /// Takes in those from `first` to `last`.
    pub fn add(&mut self, branch: Branch, first: SegmentNumber, last: SegmentNumber) {
        self.0.entry(branch).or_default().push((first, last));
    }

    /// Takes in all of `other`.
    pub fn merge(&mut self, other: &Segments) {
        for (branch, ranges) in &other.0 {
            self.0.entry(*branch).or_default().extend(ranges);
        }
    }

    /// Whether any of those from `first` to `last` is among them.
    pub fn touch(&self, branch: Branch, first: SegmentNumber, last: SegmentNumber) -> bool {
        self.0.get(&branch).into_iter().flatten().any(|(begin, end)| *begin <= last && first <= *end)
    }
}

/// A way to a branch that nothing grows on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// Oldest ancestor first; only the last branch where `is_known` is false.
    pub steps: Vec<Step>,
    /// Whether the repository tells the way.
    pub is_known: bool,
    /// Ranges of WAL without a hole on the whole way, in order.
    pub extents: Vec<LsnRange>,
}

impl Path {
    fn new(steps: Vec<Step>, is_known: bool, holdings: &Holdings) -> Path {
        let held = |step: &Step| holdings.branches.get(&step.branch);
        let of = |step: &Step| held(step).map(|held| (held.extents.as_slice(), held.highest(holdings.size)));
        let extents = extents_along(&steps, holdings.size, of);
        Path { steps, is_known, extents }
    }

    /// The branch that it ends on.
    pub fn branch(&self) -> Option<Branch> {
        self.steps.last().map(|step| step.branch)
    }

    /// Whether the backup lies on it.
    pub fn has(&self, base: &Base) -> bool {
        lies_on(&self.steps, base.branch, base.stop)
    }

    /// The range without a hole in which all WAL of the backup lies.
    pub fn extent_of(&self, base: &Base) -> Option<LsnRange> {
        let fits = |extent: &&LsnRange| extent.start <= base.start && base.stop <= extent.end;
        self.extents.iter().find(fits).copied()
    }

    /// The segments that hold its bytes from `from` up to `to`; without `to` up to its end, and all that will follow.
    pub fn segments(&self, from: Lsn, to: Option<Lsn>, size: SegmentSize) -> Segments {
        let mut segments = Segments::default();
        for step in &self.steps {
            // A child's first segment also holds what its parent wrote in it (case 4).
            let first = size.number(step.begin.max(from));
            let last = match (step.switch, to) {
                (Some(switch), Some(to)) => Some(switch.min(to)),
                (end, to) => end.or(to),
            };
            let last = last.map_or(SegmentNumber(u64::MAX), |last| size.number(last));
            let over = step.switch.is_some_and(|switch| switch < from) || to.is_some_and(|to| to < step.begin);
            if !over && first <= last {
                segments.add(step.branch, first, last);
            }
        }
        segments
    }
}

/// The ways to all branches that nothing grows on. An ancestor counts when it holds WAL from after the point where its child left it;
/// so does a branch of which the way is not known.
pub fn paths(holdings: &Holdings) -> Vec<Path> {
    let ways = || holdings.branches.values().filter_map(|branch| branch.way.as_ref());
    let lives_on = |branch: Branch, end: Lsn| {
        ways().flatten().any(|step| step.branch == branch && step.switch.is_some_and(|switch| end <= switch))
    };
    let mut paths = Vec::new();
    for (branch, held) in &holdings.branches {
        let stop = holdings.bases.iter().filter(|base| base.branch == *branch).map(|base| base.stop).max();
        let end = held.highest(holdings.size).max(stop.unwrap_or(Lsn::INVALID));
        let own = Step { branch: *branch, begin: Lsn::INVALID, switch: None };
        match &held.way {
            _ if lives_on(*branch, end_within(held.extents.last(), end)) => {}
            Some(way) => paths.push(Path::new(way.clone(), true, holdings)),
            None => paths.push(Path::new(vec![own], false, holdings)),
        }
    }
    paths
}

/// Names tell of whole segments only; what is known to the byte goes before.
fn end_within(last: Option<&LsnRange>, named: Lsn) -> Lsn {
    last.map_or(named, |last| if last.end < named { named } else { last.end })
}
