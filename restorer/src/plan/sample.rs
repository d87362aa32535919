//! A plan made by hand, for tests.
#![allow(clippy::expect_used)]

use jiff::Timestamp;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{BaseId, BaseType};
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::{TimelineHistory, TimelineId};

use super::{Cost, PLAN_SCHEMA, Plan, PlannedBase, Request};
use crate::sample::SYSTEM;

/// A plan on timeline 1, with segments of 1 MiB, from a base backup that begins at `start` to `stop`, without a way and
/// without transactions.
pub(crate) fn plan(request: Request, start: Lsn, stop: Lsn) -> Plan {
    let began: Timestamp = "2026-11-21T02:30:00Z".parse().expect("a time");
    Plan {
        histories: Vec::new(),
        version: PLAN_SCHEMA.version,
        cluster: SYSTEM,
        repository: "file:///srv/walseal".to_owned(),
        segment_size: SegmentSize::new(1 << 20).expect("a legal size"),
        request,
        base: PlannedBase {
            id: BaseId::new(began, 1),
            kind: BaseType::Full,
            parent: None,
            stored_size: 0,
            branch: TimelineHistory::root(TimelineId::FIRST).branch(SYSTEM),
            start,
            stop: start.advance(100),
            start_time: began,
            stop_time: began,
            postgres_version: 150_018,
            tablespaces: 0,
            suspect: 0,
            referenced_size: 0,
        },
        passed_over: Vec::new(),
        path: Vec::new(),
        stop,
        recovery: Vec::new(),
        last_before: None,
        first_after: None,
        gaps: Vec::new(),
        cost: Cost::default(),
        warnings: Vec::new(),
    }
}
