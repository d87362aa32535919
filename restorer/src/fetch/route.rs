//! Which branch a timeline's number means.

use std::sync::Arc;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::{Branch, TimelineId};

use crate::plan::{PathStep, Plan};

/// The way that recovery goes.
#[derive(Clone, Debug)]
pub enum Route {
    /// As a restore planned it, with the ends that were known then.
    Planned(Arc<Plan>),
    /// A hand-made standby: whatever the repository has under the number, if that is one thing.
    ByNumber,
}

impl Route {
    /// Whether there is a plan.
    pub fn is_planned(&self) -> bool {
        matches!(self, Route::Planned(_))
    }

    pub(super) fn plan(&self) -> Option<&Plan> {
        match self {
            Route::Planned(plan) => Some(plan),
            Route::ByNumber => None,
        }
    }

    fn position(&self, branch: Branch) -> Option<(&Plan, usize)> {
        let plan = self.plan()?;
        Some((plan, plan.path.iter().position(|step| step.branch == branch)?))
    }

    /// The step of `branch`, where a plan has one.
    pub(super) fn step(&self, branch: Branch) -> Option<&PathStep> {
        let (plan, index) = self.position(branch)?;
        plan.path.get(index)
    }

    /// The steps of `timeline`: more than one where two servers wrote it.
    fn steps(&self, timeline: TimelineId) -> impl DoubleEndedIterator<Item = &PathStep> {
        self.plan().into_iter().flat_map(|plan| &plan.path).filter(move |step| step.timeline == timeline)
    }

    /// The branch of `timeline` by its history, where a plan names it.
    pub(super) fn origin(&self, timeline: TimelineId) -> Option<Branch> {
        self.steps(timeline).next().map(|step| step.branch)
    }

    /// The branch of `timeline` that the segment with the bytes `range` lies on, where a plan names it.
    pub(super) fn branch(&self, timeline: TimelineId, range: LsnRange) -> Option<Branch> {
        let begun = |step: &&PathStep| self.begin(step.branch).is_some_and(|begin| begin < range.end);
        self.steps(timeline).rev().find(begun).map(|step| step.branch).or_else(|| self.origin(timeline))
    }

    /// The timeline under which recovery asks for the segment with the bytes `range`, when it goes on from `timeline`: PostgreSQL
    /// tries the newest one that had begun there first (`XLogFileReadAnyTLI` in `xlogrecovery.c`).
    pub(super) fn timeline_at(&self, timeline: TimelineId, range: LsnRange) -> TimelineId {
        let steps = self.plan().into_iter().flat_map(|plan| &plan.path);
        let begun = steps.filter(|step| self.begin(step.branch).is_some_and(|begin| begin < range.end));
        begun.map(|step| step.timeline).next_back().unwrap_or(timeline).max(timeline)
    }

    /// The branch that a planned recovery ends on.
    pub(super) fn end(&self) -> Option<Branch> {
        self.plan()?.path.last().map(|step| step.branch)
    }

    pub(super) fn segment_size(&self) -> Option<SegmentSize> {
        self.plan().map(|plan| plan.segment_size)
    }

    /// Where a planned branch begins: 0/0 for the first.
    pub(super) fn begin(&self, branch: Branch) -> Option<Lsn> {
        let (plan, index) = self.position(branch)?;
        let before = index.checked_sub(1).and_then(|before| plan.path.get(before));
        Some(before.map_or(Lsn::INVALID, |before| before.to))
    }

    /// Where a planned timeline began: 0/0 for the first.
    pub(super) fn began(&self, timeline: TimelineId) -> Option<Lsn> {
        self.begin(self.origin(timeline)?)
    }

    /// Where a planned branch is left for the next one; `None` for the last, which has no end yet.
    pub(super) fn switch(&self, branch: Branch) -> Option<Lsn> {
        let (plan, index) = self.position(branch)?;
        plan.path.get(index + 1)?;
        plan.path.get(index).map(|step| step.to)
    }

    /// Why no segment with the bytes `range` can be on that timeline, when its bounds say so: it lies wholly past the point
    /// where the timeline ended, or wholly before it began. What an old primary wrote past the fork is not on the way.
    pub(super) fn is_outside(&self, timeline: TimelineId, range: LsnRange) -> Option<String> {
        let number = timeline.number();
        let end = self.steps(timeline).next_back().and_then(|step| self.switch(step.branch));
        match (end, self.began(timeline)) {
            (Some(end), _) if range.start >= end => {
                Some(format!("timeline {number} ended at {end}, before this segment"))
            }
            (_, Some(begin)) if range.end <= begin => {
                Some(format!("timeline {number} began at {begin}, after this segment"))
            }
            _ => None,
        }
    }
}
