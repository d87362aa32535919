//! The WAL on a way through branches.

use super::Step;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::SegmentSize;
use crate::timeline::Branch;

/// Whether the WAL of `branch` up to `end` lies on the way: it comes along the branch, and leaves it there or later.
pub fn lies_on(steps: &[Step], branch: Branch, end: Lsn) -> bool {
    let step = steps.iter().find(|step| step.branch == branch);
    step.is_some_and(|step| step.switch.is_none_or(|switch| end <= switch))
}

/// The parts of all branches' extents that lie on the way, joined, in order. Of the branch of a step `held` tells the ranges of its WAL
/// without a hole, and up to where anything of it is known; nothing where nothing is. A child's first segment also holds what its parent
/// wrote in it before the switch (case 4), so that the child's extents count from that segment's start; and from there on the parent's do
/// not where the child holds anything, because PostgreSQL asks the child first.
pub fn extents_along<'a>(
    steps: &[Step],
    size: SegmentSize,
    held: impl Fn(&Step) -> Option<(&'a [LsnRange], Lsn)>,
) -> Vec<LsnRange> {
    let mut clipped: Vec<LsnRange> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let from = size.align_down(step.begin);
        let child_holds = |child: &Step| held(child).is_some_and(|(_, known)| known > child.begin);
        let until = match step.switch {
            Some(switch) if steps.get(index + 1).is_some_and(child_holds) => size.align_down(switch),
            switch => switch.unwrap_or(Lsn(u64::MAX)),
        };
        for extent in held(step).map_or(&[][..], |(extents, _)| extents) {
            let (start, end) = (extent.start.max(from), extent.end.min(until));
            if start < end {
                clipped.push(LsnRange { start, end });
            }
        }
    }
    LsnRange::joined(clipped)
}
