#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bed;
mod endings;
mod gaps;
mod read_ahead;
mod surplus;

use std::fs;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::ObjectName;
use walseal_common::timeline::{TimelineHistory, TimelineId};

use super::*;
use crate::sample::SYSTEM;
use bed::{Bed, MIB, not_there, segment_name};

#[tokio::test]
async fn case_01_nothing_at_or_above_the_place_is_the_end_of_wal() {
    let bed = Bed::new(3, 5000).await;
    // Segments 3 and 4 whole, 5 up to a tail's end.
    assert_eq!(bed.fetch("000000010000000000000003").await.expect("there"), Outcome::Delivered);
    assert_eq!(bed.fetch("000000010000000000000005").await.expect("the last tail"), Outcome::Delivered);
    let why = not_there(bed.fetch("000000010000000000000006").await);
    assert!(why.contains("has nothing at 0/600000"), "{why}");
}

#[tokio::test]
async fn case_01_a_segment_missing_below_anything_known_is_a_hole() {
    let bed = Bed::new(3, 5000).await;
    bed.remove_segment(4).await;
    let error = bed.fetch("000000010000000000000004").await.expect_err("a hole");
    assert!(matches!(error, FetchError::Hole { .. }) && error.to_string().contains("not the end"), "{error}");
    assert!(!error.is_permanent(), "a later segment may be shipped first");
    // Only tails above it are enough to know.
    bed.remove_segment(3).await;
    let error = bed.fetch("000000010000000000000003").await.expect_err("a hole");
    assert!(error.to_string().contains("tail/"), "{error}");
}

#[tokio::test]
async fn case_01_a_tail_below_a_later_segment_is_not_filled_with_zeros() {
    let bed = Bed::new(3, 5000).await;
    let whole = bed.wal.slice(LsnRange { start: Lsn(4 * MIB), end: Lsn(5 * MIB) }).to_vec();
    bed.remove_segment(4).await;
    bed.sample.put_tail(bed.branch(), LsnRange { start: Lsn(4 * MIB), end: Lsn(4 * MIB + 8192) }, &whole).await;
    let error = bed.fetch("000000010000000000000004").await.expect_err("a hole within the segment");
    assert!(matches!(error, FetchError::Hole { from: Lsn(0x40_2000), .. }), "{error}");
}

#[tokio::test]
async fn case_01_a_hole_between_tails_is_no_end() {
    let bed = Bed::new(3, 100_000).await;
    let wal = bed.wal.slice(LsnRange { start: Lsn(5 * MIB), end: bed.wal.end() }).to_vec();
    bed.remove_last_tail().await;
    let piece = |from: u64, to: u64| LsnRange { start: Lsn(5 * MIB + from), end: Lsn(5 * MIB + to) };
    bed.sample.put_tail(bed.branch(), piece(0, 8192), &wal).await;
    bed.sample.put_tail(bed.branch(), piece(16_384, 24_576), &wal).await;
    let error = bed.fetch("000000010000000000000005").await.expect_err("a hole");
    assert!(error.to_string().contains("0000000000506000 is there"), "{error}");
}

#[tokio::test]
async fn case_01_what_the_plan_knew_is_never_the_end_even_when_it_is_gone() {
    let bed = Bed::new(3, 5000).await;
    let planned = bed.planned(vec![(bed.root(), bed.wal.end(), bed.wal.end())]);
    assert_eq!(planned.fetch("000000010000000000000005").await.expect("there"), Outcome::Delivered);
    fs::remove_file(planned.target()).expect("delivered");
    bed.remove_last_tail().await;
    // Without the plan the repository looks as if it ended at 5 MiB.
    not_there(bed.fetch("000000010000000000000005").await);
    let error = planned.fetch("000000010000000000000005").await.expect_err("it was there");
    assert!(error.to_string().contains("when the restore began"), "{error}");
    assert!(!planned.target().exists());
    not_there(planned.fetch("000000010000000000000006").await);
}

#[tokio::test]
async fn case_01_more_than_the_plan_knew_is_delivered() {
    let bed = Bed::new(3, 5000).await;
    let planned = bed.planned(vec![(bed.root(), Lsn(5 * MIB), Lsn(5 * MIB))]);
    assert_eq!(planned.fetch("000000010000000000000005").await.expect("there"), Outcome::Delivered);
}

#[tokio::test]
async fn case_01_past_the_point_where_the_timeline_ended_there_is_nothing() {
    let bed = Bed::new(3, 5000).await;
    let switch = Lsn(4 * MIB + 40);
    let child = bed.sample.put_history(&bed.root(), 2, switch).await;
    let planned = bed.planned(vec![(bed.root(), switch, bed.wal.end()), (child, Lsn(6 * MIB), switch)]);
    assert_eq!(planned.fetch("000000010000000000000004").await.expect("the fork's segment"), Outcome::Delivered);
    // The old primary wrote on; that is not on the way.
    let why = not_there(planned.fetch("000000010000000000000005").await);
    assert!(why.contains("ended at 0/400028"), "{why}");
    let why = not_there(planned.fetch("000000020000000000000003").await);
    assert!(why.contains("began at 0/400028"), "{why}");
}

#[tokio::test]
async fn case_01_an_ancestors_segment_below_the_fork_is_a_hole_when_it_is_missing() {
    let bed = Bed::new(3, 0).await;
    let switch = Lsn(4 * MIB + 40);
    let child = bed.sample.put_history(&bed.root(), 2, switch).await;
    // Known only up to 4 MiB, as if the last segment had never been shipped.
    bed.remove_segment(4).await;
    let planned = bed.planned(vec![(bed.root(), switch, Lsn(4 * MIB)), (child, Lsn(6 * MIB), switch)]);
    let error = planned.fetch("000000010000000000000004").await.expect_err("recovery goes through it");
    assert!(error.to_string().contains("recovery goes along it to 0/400028"), "{error}");
}

#[tokio::test]
async fn case_01_an_empty_folder_in_place_of_the_repository_proves_nothing() {
    let bed = Bed::new(3, 5000).await;
    for entry in fs::read_dir(bed.sample.folder.path()).expect("ours") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { fs::remove_dir_all(path).expect("ours") } else { fs::remove_file(path).expect("ours") }
    }
    for file in ["000000010000000000000003", "00000002.history", "000000020000000000000003"] {
        let error = bed.fetch(file).await.expect_err("nothing is proven");
        assert!(error.to_string().contains("holds no repository"), "{file}: {error}");
        assert!(!error.is_permanent(), "a file system may be mounted late");
    }
}

#[tokio::test]
async fn case_02_histories_are_delivered_as_stored_and_a_number_nobody_took_is_free() {
    let bed = Bed::new(3, 5000).await;
    let two = bed.sample.put_history(&bed.root(), 2, Lsn(4 * MIB)).await;
    assert_eq!(bed.fetch("00000002.history").await.expect("there"), Outcome::Delivered);
    assert_eq!(bed.delivered(), two.render());
    not_there(bed.fetch("00000003.history").await);
    assert!(not_there(bed.fetch("00000001.history").await).contains("no history"));
}

#[tokio::test]
async fn case_02_an_ancestors_missing_history_is_derived_from_its_childs() {
    let bed = Bed::new(3, 5000).await;
    let two = bed.sample.put_history(&bed.root(), 2, Lsn(4 * MIB)).await;
    let three = bed.sample.put_history(&two, 3, Lsn(5 * MIB)).await;
    bed.sample.remove(&ObjectName::History(two.branch(SYSTEM))).await;
    let end = bed.wal.end();
    let steps = vec![(bed.root(), Lsn(4 * MIB), end), (two.clone(), Lsn(5 * MIB), end), (three.clone(), end, end)];
    let planned = bed.planned(steps);
    assert_eq!(planned.fetch("00000002.history").await.expect("derived"), Outcome::Delivered);
    assert_eq!(planned.delivered(), two.render());
    bed.sample.remove(&ObjectName::History(three.branch(SYSTEM))).await;
    let error = planned.fetch("00000003.history").await.expect_err("mandatory");
    assert!(matches!(error, FetchError::HistoryMissing { .. }), "{error}");
}

#[tokio::test]
async fn case_02_a_branch_without_its_history_does_not_look_free() {
    let bed = Bed::new(3, 5000).await;
    let two = TimelineHistory { timeline: TimelineId::new(2).expect("not zero"), ..bed.child_history(2, Lsn(4 * MIB)) };
    let segment = bed.wal.slice(LsnRange { start: Lsn(4 * MIB), end: Lsn(5 * MIB) }).to_vec();
    bed.sample.put_segment(two.branch(SYSTEM), bed.sample.size.number(Lsn(4 * MIB)), &segment).await;
    let error = bed.fetch("00000002.history").await.expect_err("somebody made timeline 2");
    assert!(matches!(error, FetchError::HistoryMissing { .. }), "{error}");
}

#[tokio::test]
async fn case_17_two_branches_of_one_number_are_named_and_only_a_plan_chooses() {
    let bed = Bed::new(3, 5000).await;
    let one = bed.sample.put_history(&bed.root(), 2, Lsn(4 * MIB)).await;
    let other = bed.sample.put_history(&bed.root(), 2, Lsn(4 * MIB + 8)).await;
    for file in ["00000002.history", "000000020000000000000004"] {
        let text = bed.fetch(file).await.expect_err("ambiguous").to_string();
        assert!(
            text.contains(&one.branch(SYSTEM).to_string()) && text.contains(&other.branch(SYSTEM).to_string()),
            "{text}"
        );
    }
    let end = bed.wal.end();
    let planned = bed.planned(vec![(bed.root(), Lsn(4 * MIB + 8), end), (other.clone(), end, Lsn(4 * MIB + 8))]);
    assert_eq!(planned.fetch("00000002.history").await.expect("chosen"), Outcome::Delivered);
    assert_eq!(planned.delivered(), other.render());
    // A plan for timeline 1 is only asked whether 2 is taken.
    let planned = bed.planned(vec![(bed.root(), end, end)]);
    assert_eq!(planned.fetch("00000002.history").await.expect("taken"), Outcome::Delivered);
}

#[tokio::test]
async fn case_17_of_several_timelines_of_a_number_a_plan_goes_on_to_the_one_that_comes_from_its_end() {
    let bed = Bed::new(3, 5000).await;
    let end = bed.wal.end();
    let two = bed.sample.put_history(&bed.root(), 2, Lsn(4 * MIB)).await;
    for switch in [Lsn(4 * MIB + 8), Lsn(4 * MIB + 16)] {
        bed.sample.put_history(&bed.root(), 3, switch).await;
    }
    let three = bed.sample.put_history(&two, 3, Lsn(5 * MIB)).await;
    let planned = bed.planned(vec![(bed.root(), Lsn(4 * MIB), end), (two, end, end)]);
    assert_eq!(planned.fetch("00000003.history").await.expect("decided"), Outcome::Delivered);
    assert_eq!(planned.delivered(), three.render());
    let error = bed.fetch("00000003.history").await.expect_err("without a plan nothing tells");
    assert!(matches!(error, FetchError::AmbiguousTimeline { .. }), "{error}");
}

#[tokio::test]
async fn case_03_a_segment_is_exactly_one_segment_long_and_a_tail_ends_in_zeros() {
    let bed = Bed::new(3, 5000).await;
    assert_eq!(bed.fetch("000000010000000000000004").await.expect("there"), Outcome::Delivered);
    assert!(bed.delivered() == bed.wal.slice(LsnRange { start: Lsn(4 * MIB), end: Lsn(5 * MIB) }));
    // The same file again, over what is there.
    assert_eq!(bed.fetch("000000010000000000000005").await.expect("there"), Outcome::Delivered);
    let (delivered, valid) = (bed.delivered(), bed.wal.end().0 - 5 * MIB);
    assert_eq!(delivered.len() as u64, MIB);
    let (there, zeros) = delivered.split_at(valid as usize);
    assert!(there == bed.wal.slice(LsnRange { start: Lsn(5 * MIB), end: bed.wal.end() }));
    assert!(zeros.iter().all(|byte| *byte == 0));
    let left: Vec<_> =
        fs::read_dir(bed.folder()).expect("ours").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["RECOVERYXLOG"], "nothing unfinished is left");
}

#[tokio::test]
async fn case_04_a_childs_segment_is_served_under_its_own_name_only() {
    let bed = Bed::new(3, 5000).await;
    let switch = Lsn(5 * MIB + 4096);
    let child = bed.sample.put_history(&bed.root(), 2, switch).await;
    let planned = bed.planned(vec![(bed.root(), switch, bed.wal.end()), (child.clone(), switch, switch)]);
    // Nothing of the child is stored yet: it is not made up from the parent's bytes.
    not_there(planned.fetch("000000020000000000000005").await);
    assert_eq!(planned.fetch("000000010000000000000005").await.expect("the parent's own"), Outcome::Delivered);
    let mut wal = bed.wal.fork(2);
    wal.fill_segment();
    let whole = wal.slice(LsnRange { start: Lsn(5 * MIB), end: Lsn(6 * MIB) }).to_vec();
    bed.sample.put_segment(child.branch(SYSTEM), bed.sample.size.number(switch), &whole).await;
    assert_eq!(planned.fetch("000000020000000000000005").await.expect("the child's"), Outcome::Delivered);
    assert!(planned.delivered() == whole);
    assert_eq!(planned.fetch("000000010000000000000005").await.expect("the parent's"), Outcome::Delivered);
    assert!(planned.delivered() != whole, "the parent's tail ends in zeros");
}

#[tokio::test]
async fn i4_bytes_of_another_segment_are_not_delivered() {
    let bed = Bed::new(3, 5000).await;
    let wrong = bed.wal.slice(LsnRange { start: Lsn(3 * MIB), end: Lsn(4 * MIB) }).to_vec();
    // A writer that mixed up its buffers: the object is sound, its content is another segment's.
    bed.sample.put_segment(bed.branch(), bed.sample.size.number(Lsn(7 * MIB)), &wrong).await;
    let error = bed.fetch("000000010000000000000007").await.expect_err("another segment's bytes");
    assert!(matches!(error, FetchError::Content { .. }) && error.is_permanent(), "{error}");
    assert!(!bed.target().exists());
}

#[tokio::test]
async fn backup_and_partial_files_are_not_there_unless_they_are_known() {
    let bed = Bed::new(3, 5000).await;
    not_there(bed.fetch("000000010000000000000003.00000028.backup").await);
    not_there(bed.fetch("000000010000000000000005.partial").await);
    let range = LsnRange { start: Lsn(5 * MIB), end: bed.wal.end() };
    bed.sample.put_partial(bed.branch(), range, bed.wal.slice(range)).await;
    assert_eq!(bed.fetch("000000010000000000000005.partial").await.expect("known"), Outcome::Delivered);
    assert_eq!(bed.delivered().len() as u64, MIB);
    assert_eq!(segment_name(5), "000000010000000000000005");
}

#[tokio::test]
async fn case_01_a_damaged_tail_is_no_end_unless_recovery_leaves_the_timeline_before_it() {
    let bed = Bed::new(3, 5000).await;
    let end = bed.wal.end();
    let more = LsnRange { start: end, end: end.advance(800) };
    let mut longer = bed.wal.clone();
    longer.filler(2000);
    let segment = longer.slice(LsnRange { start: Lsn(5 * MIB), end: longer.end() });
    bed.sample.put_tail(bed.branch(), more, segment).await;
    let tail = ObjectName::Tail(bed.branch(), segment_name(5).parse().expect("a name"), more);
    bed.sample.garble(&tail);
    let error = bed.fetch(&segment_name(5)).await.expect_err("there was more");
    assert!(matches!(error, FetchError::Damaged { from, .. } if from == end), "{error}");
    assert!(error.to_string().contains(&tail.to_string()) && error.is_permanent(), "{error}");
    let child = bed.child_history(2, end);
    let planned = bed.planned(vec![(bed.root(), end, more.end), (child, Lsn(6 * MIB), end)]);
    assert_eq!(planned.fetch(&segment_name(5)).await.expect("enough of it"), Outcome::Delivered);
}
