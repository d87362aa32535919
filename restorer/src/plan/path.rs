//! The way through the branches to the timeline that recovery ends on, and the WAL that lies on it.

use walseal_common::lsn::{Lsn, LsnRange};
pub use walseal_common::repository::Step;
use walseal_common::repository::{GapRecord, Label, Surplus, extents_along};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use super::branches::End;
use super::facts::BranchFacts;
use super::inventory::Inventory;
use crate::damage::Damage;

/// A timeline with its ancestry and the WAL that the repository holds on the way. Plans walk ancestry by LSN, not by
/// file name (case 5).
#[derive(Clone, Debug)]
pub struct Path<'a> {
    /// Oldest ancestor first.
    pub steps: Vec<Step>,
    /// Ranges of WAL without a hole on the whole way, in order.
    pub extents: Vec<LsnRange>,
    end: Branch,
    size: SegmentSize,
    inventory: &'a Inventory,
}

impl<'a> Path<'a> {
    /// The way to where it ends.
    pub fn new(end: &End, inventory: &'a Inventory) -> Path<'a> {
        let size = inventory.identity.segment_size;
        let mut path = Path { steps: end.way(inventory), extents: Vec::new(), end: end.branch, size, inventory };
        let held = |step: &Step| path.facts(step).map(|facts| (facts.extents.as_slice(), facts.known_end));
        path.extents = extents_along(&path.steps, size, held);
        path
    }

    /// The branch that the path ends on.
    pub fn branch(&self) -> Branch {
        self.end
    }

    /// The step of `branch`.
    pub fn step(&self, branch: Branch) -> Option<&Step> {
        self.steps.iter().find(|step| step.branch == branch)
    }

    /// What is known of a step's branch; `None` when the repository has nothing of it.
    pub fn facts(&self, step: &Step) -> Option<&'a BranchFacts> {
        self.inventory.branches.get(&step.branch)
    }

    /// Every record of a gap.
    pub(super) fn records(&self) -> &'a [GapRecord] {
        &self.inventory.gaps
    }

    /// The WAL on the way that retention removed, in order.
    pub(super) fn pruned(&self) -> Vec<LsnRange> {
        let of = |step: &Step| {
            let from = self.size.align_down(step.begin);
            let until = step.switch.unwrap_or(Lsn(u64::MAX));
            let clip = move |range: &LsnRange| LsnRange::new(range.start.max(from), range.end.min(until));
            self.inventory.pruned.on(step.branch).iter().filter_map(clip).collect::<Vec<_>>()
        };
        LsnRange::joined(self.steps.iter().flat_map(of).filter(|range| !range.is_empty()).collect())
    }

    /// Where the first base backup of the path begins.
    pub(super) fn first_base_start(&self) -> Option<Lsn> {
        self.inventory.bases.iter().filter(|base| self.excludes(base).is_none()).map(|base| base.start).min()
    }

    /// Segment size of the cluster.
    pub fn size(&self) -> SegmentSize {
        self.size
    }

    /// Why the base backup does not lie on this path, if so.
    pub fn excludes(&self, base: &Label) -> Option<String> {
        match self.step(base.branch) {
            None => Some(format!("it was made on branch {}, which is not on the way", base.branch)),
            Some(Step { switch: Some(switch), .. }) if base.stop > *switch => Some(format!(
                "it stops at {}, after the way left timeline {} at {switch}",
                base.stop,
                base.branch.timeline.number()
            )),
            Some(_) => None,
        }
    }

    /// The range without a hole that holds `lsn`, or that ends there.
    pub fn extent_at(&self, lsn: Lsn) -> Option<LsnRange> {
        self.extents.iter().rev().find(|extent| extent.start <= lsn && lsn <= extent.end).copied()
    }

    /// Where WAL without a hole from `from` on ends; `from` itself when there is none.
    pub fn contiguous_end(&self, from: Lsn) -> Lsn {
        self.extent_at(from).map_or(from, |extent| extent.end)
    }

    /// The highest position on the path that anything in the repository speaks of.
    pub fn known_end(&self) -> Lsn {
        let extents = self.extents.last().map_or(Lsn::INVALID, |extent| extent.end);
        let last = self.steps.last().and_then(|step| self.facts(step)).map_or(Lsn::INVALID, |facts| facts.known_end);
        let begin = self.steps.last().map_or(Lsn::INVALID, |step| step.begin);
        extents.max(last).max(begin)
    }

    /// What lies beyond the end of the path and counts for nothing.
    pub fn surplus(&self) -> Option<Surplus> {
        self.steps.last().and_then(|step| self.facts(step)).and_then(|facts| facts.surplus)
    }

    /// Why `at` is no end although nothing leads beyond it, where that was asked.
    pub fn confirmed_beyond(&self, at: Lsn) -> Option<&'a str> {
        let last = self.steps.last().and_then(|step| self.facts(step))?;
        last.confirmed.as_ref().filter(|(end, _)| *end == at).map(|(_, why)| why.as_str())
    }

    /// Where WAL begins again after a hole at `lsn`.
    pub fn next_extent(&self, lsn: Lsn) -> Option<LsnRange> {
        self.extents.iter().find(|extent| extent.start > lsn).copied()
    }

    /// Objects of no use that are there for bytes of `range`.
    pub fn damaged_in(&self, range: LsnRange) -> impl Iterator<Item = &'a Damage> {
        self.steps.iter().filter_map(|step| self.facts(step)).flat_map(move |facts| facts.damaged_in(range))
    }

    /// The branch whose object holds segment `number` on this path: the newest that has begun by then and holds anything of
    /// it, as PostgreSQL looks for it (`XLogFileReadAnyTLI`, `xlogrecovery.c`).
    pub fn branch_of(&self, number: SegmentNumber) -> Option<&Step> {
        let begun = |step: &&Step| self.size.number(step.begin) <= number;
        let open = |step: &&Step| step.switch.is_none_or(|switch| number.start(self.size) < switch);
        let held = |step: &&Step| {
            self.facts(step).is_some_and(|facts| {
                let listing = &facts.listing;
                let partial = || listing.partials.iter().any(|name| name.number(self.size) == Some(number));
                listing.has_segment(number) || !listing.pieces_of(number).is_empty() || partial()
            })
        };
        self.steps.iter().rev().filter(begun).filter(open).find(held)
    }
}
