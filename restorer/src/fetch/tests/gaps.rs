//! WAL that is on record as lost is known: recovery does not end there.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::ObjectName;

use super::bed::{Bed, MIB, not_there, segment_name};
use crate::fetch::*;

#[tokio::test]
async fn case_01_a_gap_record_is_known_wherever_recovery_comes_to_its_edge() {
    for tail in [0, 5000] {
        let bed = Bed::new(3, tail).await;
        let end = bed.wal.end();
        let planned = bed.planned(vec![(bed.root(), end, end)]);
        let edge = segment_name(5);
        // Without it, the WAL ends there: by the plan, and by the repository.
        if tail == 0 {
            not_there(bed.fetch(&edge).await);
            not_there(planned.fetch(&edge).await);
        } else {
            assert_eq!(bed.fetch(&edge).await.expect("the last tail"), Outcome::Delivered);
        }
        bed.sample.put_gap(bed.branch(), LsnRange { start: end, end: Lsn(7 * MIB) }).await;
        // Found since the plan was made.
        for (answer, file) in [
            (bed.fetch(&edge).await, &edge),
            (planned.fetch(&edge).await, &edge),
            (bed.fetch(&segment_name(6)).await, &segment_name(6)),
        ] {
            let error = answer.expect_err("a hole");
            assert!(matches!(error, FetchError::Hole { .. }), "{file}: {error}");
            assert!(error.to_string().contains("WAL up to 0/700000 was lost: the slot was dropped"), "{file}: {error}");
        }
        // Beyond it nothing is known.
        not_there(bed.fetch(&segment_name(7)).await);
    }
}

#[tokio::test]
async fn case_01_a_gap_record_that_cannot_be_read_is_no_end_either() {
    let bed = Bed::new(3, 0).await;
    let gap = bed.sample.put_gap(bed.branch(), LsnRange { start: bed.wal.end(), end: Lsn(7 * MIB) }).await;
    bed.sample.garble(&ObjectName::Gap(gap.branch, gap.from));
    let error = bed.fetch(&segment_name(5)).await.expect_err("a hole");
    assert!(error.to_string().contains("a record of a gap that cannot be read"), "{error}");
}

#[tokio::test]
async fn case_01_recovery_that_stops_before_a_gap_is_not_held_up_by_it() {
    let bed = Bed::new(3, 5000).await;
    let end = bed.wal.end();
    bed.sample.put_gap(bed.branch(), LsnRange { start: end, end: Lsn(7 * MIB) }).await;
    let mut planned = bed.planned(vec![(bed.root(), end, Lsn(7 * MIB))]);
    planned.fetcher.read_through = Some(end);
    not_there(planned.fetch(&segment_name(6)).await);
}
