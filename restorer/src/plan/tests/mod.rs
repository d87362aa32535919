#![allow(clippy::expect_used, clippy::panic)]

mod catalog;
mod choice;
mod damage;
mod gaps;
mod oracle;
mod presence;
mod split;
mod surplus;
mod timelines;
mod words;

use std::time::Duration;

use walseal_common::lsn::Lsn;
use walseal_common::repository::BaseId;

use super::planner::plan_patiently;
use super::*;
use crate::sample::{SampleRepository, SampleWal, Spot};

/// A time of the day on which everything in these tests happens.
fn at(clock: &str) -> String {
    format!("2026-11-21T{clock}Z")
}

/// One timeline with one base backup, and what followed.
struct Day {
    sample: SampleRepository,
    wal: SampleWal,
    base: BaseId,
    base_stop: Lsn,
    /// 10:01:00.
    commit_702: Spot,
    /// 10:02:00, rolled back.
    abort_703: Spot,
    /// 10:03:00; its record spans two segments.
    commit_704: Spot,
    /// 10:02:30, after 704: times are not in LSN order.
    commit_705: Spot,
    /// 10:04:00.
    point: Spot,
    /// 10:05:00.
    commit_706: Spot,
}

impl Day {
    async fn new() -> Day {
        let sample = SampleRepository::new().await;
        let mut wal = SampleWal::from(Lsn(0x30_0000));
        wal.commit(700, &at("10:00:00"));
        let start = wal.checkpoint(701, &at("10:00:00")).start;
        wal.commit(701, &at("10:00:01"));
        let base_stop = wal.filler(16).end;
        let commit_702 = wal.commit(702, &at("10:01:00"));
        let abort_703 = wal.abort(703, &at("10:02:00"));
        wal.fill_segment();
        wal.fill_segment_but(24);
        let commit_704 = wal.commit(704, &at("10:03:00"));
        assert_ne!(wal.size.number(commit_704.start), wal.size.number(Lsn(commit_704.end.0 - 1)), "it must span");
        let commit_705 = wal.commit(705, &at("10:02:30"));
        let point = wal.restore_point("before_migration", &at("10:04:00"));
        wal.fill_segment();
        let commit_706 = wal.commit(706, &at("10:05:00"));
        wal.filler(100);
        let branch = sample.branch();
        sample.put_wal(branch, &wal, Lsn(0x30_0000)).await;
        let base = sample.put_label(branch, start, base_stop, &at("10:00:00"), Some(&at("10:00:01"))).await;
        Day { sample, wal, base, base_stop, commit_702, abort_703, commit_704, commit_705, point, commit_706 }
    }

    async fn plan(&self, target: &str) -> Result<Plan, PlanError> {
        self.request(&Request::to(target.parse().expect("a target"))).await
    }

    async fn exclusive(&self, target: &str) -> Result<Plan, PlanError> {
        self.request(&Request { exclusive: true, ..Request::to(target.parse().expect("a target")) }).await
    }

    async fn request(&self, request: &Request) -> Result<Plan, PlanError> {
        planned(&self.sample, request).await
    }
}

/// As `plan`, without waiting when there is a gap.
async fn planned(sample: &SampleRepository, request: &Request) -> Result<Plan, PlanError> {
    plan_patiently(&sample.repository, &sample.identities, request, None, Duration::ZERO).await
}

/// The transactions beside the stopping point.
fn beside(plan: &Plan) -> (Option<u32>, Option<u32>) {
    (plan.last_before.map(|point| point.xid.0), plan.first_after.map(|point| point.xid.0))
}
