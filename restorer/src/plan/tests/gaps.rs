//! WAL that is on record as lost.

use walseal_common::lsn::LsnRange;
use walseal_common::repository::ObjectName;
use walseal_common::segment::SegmentNumber;

use super::*;

async fn refused(day: &Day, target: &str) -> Gap {
    match day.plan(target).await {
        Err(PlanError::Gap(gap)) => *gap,
        other => panic!("{target}: {other:?}"),
    }
}

#[tokio::test]
async fn i5_a_target_in_a_gap_is_refused_with_its_record_and_one_beside_it_is_told_of_it() {
    let day = Day::new().await;
    let branch = day.sample.branch();
    let lost = SegmentNumber(5).range(day.sample.size);
    day.sample.remove(&ObjectName::Wal(branch, day.sample.segment(branch, SegmentNumber(5)), None)).await;
    let record = day.sample.put_gap(branch, lost).await;
    let gap = refused(&day, &at("10:04:30")).await;
    assert_eq!(gap.holes, [Hole { branch, range: lost, record: Some(record.clone()), pruned: false }]);
    let words = "\nGap: 0/500000 to 0/600000 (1 MiB) on timeline 1, found 2026-11-21 12:00:00+00: the slot was dropped; the latest \
                 transaction that the archiver saw before it is of 2026-11-21 10:04:59+00.\nIf the server, a standby or \
                 another archive still has it, it can be filled: walseal-archiver heal";
    assert!(gap.to_string().contains(words), "{gap}");

    let plan = day.plan(&at("10:01:30")).await.expect("before the gap");
    assert_eq!(plan.gaps, gap.holes);
    let text = plan.explain();
    assert!(text.contains("\nMissing elsewhere on the way, and not needed:\n  Gap: 0/500000 to 0/600000"), "{text}");
    let json = serde_json::to_value(&plan).expect("serialisable");
    assert_eq!(json["gaps"][0]["record"]["found"], "2026-11-21T12:00:00Z");

    // Filled, the record stays, and nothing is said of it.
    day.sample.put_segment(branch, SegmentNumber(5), day.wal.slice(lost)).await;
    let plan = day.plan(&at("10:04:30")).await.expect("it was filled");
    assert_eq!(plan.gaps, []);
}

#[tokio::test]
async fn i6_wal_that_ends_where_a_gap_begins_has_not_ended_there() {
    let day = Day::new().await;
    day.plan("latest").await.expect("the end of the WAL");
    day.sample.put_gap(day.sample.branch(), LsnRange { start: day.wal.end(), end: Lsn(0x80_0000) }).await;
    let gap = refused(&day, "latest").await;
    assert_eq!(gap.missing, LsnRange { start: day.wal.end(), end: Lsn(0x80_0000) });
    refused(&day, &at("10:06:00")).await;
    let plan = day.plan(&format!("lsn:{}", day.commit_706.start)).await.expect("before the gap");
    assert_eq!(plan.path[0].known_end, Lsn(0x80_0000), "pinned for fetch");
}

#[tokio::test]
async fn i5_what_never_was_confirmed_does_not_hide_a_gap_before_it() {
    let mut day = Day::new().await;
    let branch = day.sample.branch();
    // It says that no more than the end before the gap was durable; the record knows better.
    day.sample.durable = Some(day.wal.end());
    let mut wal = day.wal.clone();
    wal.fill_segment();
    wal.fill_segment();
    day.sample.put_segment(branch, SegmentNumber(7), wal.slice(SegmentNumber(7).range(wal.size))).await;
    day.plan("latest").await.expect("a surplus");
    day.sample.put_gap(branch, LsnRange { start: day.wal.end(), end: Lsn(0x70_0000) }).await;
    refused(&day, "latest").await;
}
