//! WAL beyond a hole that was never confirmed does not keep recovery from ending.

use walseal_common::lsn::{Lsn, LsnRange};

use super::bed::{Bed, MIB, not_there, segment_name};
use crate::fetch::*;
use crate::sample::SYSTEM;

/// Segments 3 and 4 and a tail; what followed it never arrived, and what followed that says that WAL was durable up to
/// `durable` of the tail's end.
async fn bed(durable: impl FnOnce(Lsn) -> Option<Lsn>) -> (Bed, Lsn) {
    let mut bed = Bed::new(3, 5000).await;
    let end = bed.wal.end();
    bed.sample.durable = durable(end);
    let mut wal = bed.wal.clone();
    wal.filler(3000);
    let overtaker = LsnRange { start: wal.end(), end: wal.filler(2000).end };
    while wal.end() < Lsn(7 * MIB) {
        wal.filler(4000);
    }
    let segment = |number: u64| wal.slice(LsnRange { start: Lsn(number * MIB), end: Lsn((number + 1) * MIB) });
    bed.sample.put_tail(bed.branch(), overtaker, segment(5)).await;
    bed.sample.put_segment(bed.branch(), bed.sample.size.number(Lsn(6 * MIB)), segment(6)).await;
    (bed, end)
}

#[tokio::test]
async fn case_01_the_last_tail_is_the_end_where_nothing_beyond_was_confirmed() {
    let (bed, end) = bed(Some).await;
    let planned = bed.planned(vec![(bed.root(), end, end)]);
    for file in [segment_name(5), segment_name(5)] {
        assert_eq!(planned.fetch(&file).await.expect("PostgreSQL asks twice"), Outcome::Delivered);
        let (delivered, valid) = (planned.delivered(), (end.0 - 5 * MIB) as usize);
        assert!(delivered[..valid] == *bed.wal.slice(LsnRange { start: Lsn(5 * MIB), end }));
        assert!(delivered[valid..].iter().all(|byte| *byte == 0), "nothing from beyond the hole");
    }
    not_there(planned.fetch(&segment_name(7)).await);
    // A standby without a plan is told the same.
    assert_eq!(bed.fetch(&segment_name(5)).await.expect("the last tail"), Outcome::Delivered);
}

#[tokio::test]
async fn case_01_i6_what_a_writer_said_was_durable_is_known_although_nothing_of_it_is_there() {
    // The newest end was cut off, tails and all; what lies beyond the last tail tells of nothing.
    let (bed, end) = bed(Some).await;
    let said = end.advance(1);
    let written = "2026-11-21T10:00:00Z".parse().expect("a time");
    bed.sample.put_frontier(bed.branch(), end, end, written).await;
    let planned = bed.planned(vec![(bed.root(), end, end)]);
    assert_eq!(planned.fetch(&segment_name(5)).await.expect("as far as was said"), Outcome::Delivered);
    let name = bed.sample.put_frontier(bed.branch(), said, said, written).await;
    for fetched in [planned.fetch(&segment_name(5)).await, bed.fetch(&segment_name(5)).await] {
        let error = fetched.expect_err("a hole").to_string();
        assert!(error.contains(&format!("{name} says that it was durable up to {said}")), "{error}");
    }
    // Beyond what was said nothing is known.
    not_there(planned.fetch(&segment_name(9)).await);
    let far = bed.sample.put_frontier(bed.branch(), Lsn(9 * MIB + 1), Lsn(9 * MIB + 1), written).await;
    let error = planned.fetch(&segment_name(9)).await.expect_err("a hole").to_string();
    assert!(error.contains(&far.to_string()), "{error}");
}

#[tokio::test]
async fn case_01_a_hole_that_begins_with_a_segment_is_the_end_where_nothing_beyond_was_confirmed() {
    let (bed, _) = bed(|_| Some(Lsn(5 * MIB))).await;
    bed.remove_last_tail().await;
    let planned = bed.planned(vec![(bed.root(), Lsn(5 * MIB), Lsn(5 * MIB))]);
    // Its second piece is there, the first one is not.
    let why = not_there(planned.fetch(&segment_name(5)).await);
    assert!(why.contains("nothing of its own at 0/500000"), "{why}");
    assert!(!planned.target().exists(), "not a file of zeros");
    // The one before was confirmed, says the same piece: of it nothing may be missing.
    bed.remove_segment(4).await;
    let error = bed.fetch(&segment_name(4)).await.expect_err("it was confirmed");
    assert!(matches!(error, FetchError::Hole { from: Lsn(0x40_0000), .. }), "{error}");
}

#[tokio::test]
async fn case_01_what_was_confirmed_once_is_a_hole() {
    for durable in [None, Some(1)] {
        let (bed, end) = bed(|end| durable.map(|more| end.advance(more))).await;
        let planned = bed.planned(vec![(bed.root(), end, end)]);
        let error = planned.fetch(&segment_name(5)).await.expect_err("a hole");
        assert!(matches!(error, FetchError::Hole { from, .. } if from == end), "{error}");
    }
}

#[tokio::test]
async fn case_01_what_a_plan_knew_is_a_hole_whatever_the_objects_say() {
    let (bed, end) = bed(Some).await;
    let planned = bed.planned(vec![(bed.root(), end, end.advance(8))]);
    let error = planned.fetch(&segment_name(5)).await.expect_err("it was known when the restore began");
    assert!(error.to_string().contains("when the restore began"), "{error}");
}

#[tokio::test]
async fn case_04_where_a_timelines_first_piece_never_arrived_its_parents_segment_serves() {
    let mut bed = Bed::new(3, 5000).await;
    let switch = bed.wal.end();
    let child = bed.sample.put_history(&bed.root(), 2, switch).await;
    let mut wal = bed.wal.fork(2);
    wal.filler(2000);
    let next = LsnRange { start: wal.end(), end: wal.filler(2000).end };
    bed.sample.durable = Some(switch);
    let segment = wal.slice(LsnRange { start: Lsn(5 * MIB), end: next.end }).to_vec();
    bed.sample.put_tail(child.branch(SYSTEM), next, &segment).await;
    let planned = bed.planned(vec![(bed.root(), switch, switch), (child.clone(), switch, switch)]);
    not_there(planned.fetch("000000020000000000000005").await);
    assert_eq!(planned.fetch(&segment_name(5)).await.expect("the parent's"), Outcome::Delivered);
    // The child's first piece up to somewhere before the fork changes nothing.
    let head = LsnRange { start: Lsn(5 * MIB), end: Lsn(5 * MIB + 800) };
    bed.sample.put_tail(child.branch(SYSTEM), head, &segment).await;
    not_there(planned.fetch("000000020000000000000005").await);
}
