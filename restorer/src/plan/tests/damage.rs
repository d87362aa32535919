//! Objects that cannot be used stand in the way of what needs them, and of nothing else.

use walseal_common::lsn::LsnRange;
use walseal_common::repository::ObjectName;
use walseal_common::segment::SegmentNumber;

use super::*;

impl Day {
    fn whole(&self, number: u64) -> ObjectName {
        let name = self.sample.segment(self.sample.branch(), SegmentNumber(number));
        ObjectName::Wal(self.sample.branch(), name, None)
    }

    fn last_tail(&self) -> ObjectName {
        let start = self.sample.size.align_down(self.wal.end());
        let name = self.sample.segment(self.sample.branch(), self.sample.size.number(start));
        ObjectName::Tail(self.sample.branch(), name, LsnRange { start, end: self.wal.end() })
    }

    async fn gap(&self, target: &str) -> Gap {
        match self.plan(target).await {
            Err(PlanError::Gap(gap)) => *gap,
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_segment_is_named_where_it_is_needed_with_what_can_be_reached_on_both_sides() {
    let day = Day::new().await;
    let mut wal = day.wal.clone();
    wal.fill_segment();
    let start = wal.checkpoint(710, &at("10:10:00")).start;
    let stop = wal.filler(16).end;
    let commit_710 = wal.commit(710, &at("10:11:00"));
    let whole = LsnRange { start: Lsn(0x60_0000), end: Lsn(0x70_0000) };
    day.sample.put_segment(day.sample.branch(), SegmentNumber(6), wal.slice(whole)).await;
    let tail = LsnRange { start: Lsn(0x70_0000), end: wal.end() };
    day.sample.put_tail(day.sample.branch(), tail, wal.slice(tail)).await;
    let later = day.sample.put_label(day.sample.branch(), start, stop, &at("10:10:00"), None).await;
    day.sample.garble(&day.whole(5));

    let gap = day.gap(&format!("lsn:{}", day.commit_705.start)).await;
    assert_eq!(gap.missing, LsnRange { start: Lsn(0x50_0000), end: Lsn(0x60_0000) });
    assert_eq!(gap.damaged.iter().map(|damage| damage.name.clone()).collect::<Vec<_>>(), [day.whole(5)]);
    assert_eq!(gap.after, Some((later.clone(), stop)));
    let Some(Nearest::Record(record)) = gap.before else { panic!("{gap}") };
    // Both offers hold.
    let before = day.plan(&format!("lsn:{}", record.start)).await.expect("the last point before");
    assert_eq!((before.stop, beside(&before).0), (record.end, Some(703)));
    let request = Request { base: Some(later), ..Request::to(Target::Immediate) };
    assert_eq!(day.request(&request).await.expect("the first point after").stop, stop);
    // And so does what does not need it.
    assert_eq!(day.plan("latest").await.expect("from the later base backup").stop, wal.end());
    assert_eq!(day.plan("xid:710").await.expect("from the later base backup").stop, commit_710.end);
    assert_eq!(day.plan(&at("10:01:00")).await.expect("from the earlier one").stop, day.abort_703.start);
    assert_eq!(day.plan("immediate").await.expect("from the later one").stop, stop);
}

#[tokio::test]
async fn a_damaged_tail_at_the_end_is_no_end_and_everything_before_it_can_be_reached() {
    for frames in [false, true] {
        let day = Day::new().await;
        let tail = day.last_tail();
        if frames {
            day.sample.garble_frames(&tail)
        } else {
            day.sample.garble(&tail)
        }
        for target in ["latest".to_owned(), at("10:04:30"), format!("lsn:{}", day.commit_706.start)] {
            let gap = day.gap(&target).await;
            assert_eq!(gap.missing, LsnRange { start: Lsn(0x60_0000), end: day.wal.end() }, "{target}");
            assert_eq!(gap.damaged[0].name, tail);
            assert!(gap.to_string().contains(&tail.to_string()), "{gap}");
        }
        let error = day.plan("xid:706").await.expect_err("it lies in the damaged object");
        assert!(matches!(error, PlanError::NoSuchTransaction { .. }), "{error}");
        let plan = day.plan("name:before_migration").await.expect("what lies before it");
        assert_eq!(plan.stop, day.point.end);
        assert!(plan.warnings.iter().any(|warning| warning.contains(&tail.to_string())), "{:?}", plan.warnings);
    }
}

#[tokio::test]
async fn a_damaged_object_is_left_out_where_others_hold_the_same_wal() {
    let day = Day::new().await;
    let (branch, wal) = (day.sample.branch(), &day.wal);
    let segment = wal.slice(LsnRange { start: Lsn(0x50_0000), end: Lsn(0x60_0000) });
    // Tails stay until the whole segment is there, and some time longer.
    for (from, to) in [(0x50_0000, 0x57_0000), (0x57_0000, 0x60_0000)] {
        day.sample.put_tail(branch, LsnRange { start: Lsn(from), end: Lsn(to) }, segment).await;
    }
    day.sample.garble(&day.whole(5));
    assert_eq!(day.plan("latest").await.expect("the tails have it").stop, wal.end());
    assert_eq!(day.plan("xid:705").await.expect("the tails have it").stop, day.commit_705.end);
    // A coalesced tail over a damaged one.
    let tail = LsnRange { start: Lsn(0x60_0000), end: wal.end() };
    let small = LsnRange { end: tail.start.advance(800), ..tail };
    day.sample.put_tail(branch, small, wal.slice(tail)).await;
    day.sample.put_tail(branch, LsnRange { start: small.end, end: tail.end }, wal.slice(tail)).await;
    day.sample.garble_frames(&day.last_tail());
    assert_eq!(day.plan("latest").await.expect("the small ones have it").stop, wal.end());
}

#[tokio::test]
async fn a_damaged_partial_hides_what_only_it_may_hold() {
    let day = Day::new().await;
    let branch = day.sample.branch();
    let range = LsnRange { start: Lsn(0x60_0000), end: day.wal.end() };
    day.sample.put_partial(branch, range, day.wal.slice(range)).await;
    day.sample.remove(&day.last_tail()).await;
    assert_eq!(day.plan("latest").await.expect("a partial").stop, day.wal.end());
    let partial = ObjectName::Partial(branch, day.sample.segment(branch, SegmentNumber(6)));
    day.sample.garble(&partial);
    let gap = day.gap("latest").await;
    assert_eq!(gap.missing.start, Lsn(0x60_0000));
    assert_eq!(gap.damaged[0].name, partial);
    assert!(day.plan("name:before_migration").await.is_ok(), "it does not need it");
}

#[tokio::test]
async fn wal_that_does_not_go_together_is_named_like_damage() {
    let day = Day::new().await;
    let (branch, tail) = (day.sample.branch(), day.last_tail());
    let range = LsnRange { start: Lsn(0x60_0000), end: day.wal.end() };
    let mut other = day.wal.slice(range).to_vec();
    other[100] ^= 1;
    other.resize(0x2000, 0);
    let more = LsnRange { start: day.wal.end(), end: Lsn(0x60_2000) };
    day.sample.put_tail(branch, more, &other).await;
    let gap = day.gap("latest").await;
    assert!(gap.damaged.iter().any(|damage| damage.name == tail), "{gap}");
    assert!(gap.to_string().contains("two servers wrote the same branch"), "{gap}");
    assert!(day.plan(&at("10:01:00")).await.is_ok(), "it does not need them");
}

#[tokio::test]
async fn a_damaged_label_is_named_and_the_others_serve() {
    let day = Day::new().await;
    let (start, stop) = (day.commit_705.start, day.commit_705.end);
    let damaged = day.sample.put_label(day.sample.branch(), start, stop, &at("10:03:30"), None).await;
    day.sample.garble(&ObjectName::Label(damaged.clone()));
    let plan = day.plan("latest").await.expect("the other one");
    assert_eq!(plan.base.id, day.base);
    assert!(plan.warnings.iter().any(|warning| warning.contains(&damaged.to_string())), "{:?}", plan.warnings);
    let text = day.plan(&at("10:00:00")).await.expect_err("too early for the other one").to_string();
    assert!(text.contains(&damaged.to_string()), "{text}");
    day.sample.garble(&ObjectName::Label(day.base.clone()));
    let text = day.plan("latest").await.expect_err("none is left").to_string();
    assert!(text.contains(&damaged.to_string()) && text.contains(&day.base.to_string()), "{text}");
}

#[tokio::test]
async fn an_object_that_the_store_refuses_is_named_like_a_damaged_one() {
    use walseal_common::store::StoreErrorKind;
    use walseal_common::store::fault::{Call, Effect, Faulty};
    let mut day = Day::new().await;
    let tail = day.last_tail();
    let faulty = std::sync::Arc::new(Faulty::new(day.sample.repository.store().clone()));
    let prefix = tail.key(crate::sample::SYSTEM);
    faulty.plan_below(&prefix, Call::Get, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Denied));
    faulty.plan_below(&prefix, Call::GetRange, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Denied));
    let trust = day.sample.repository.trust().clone();
    day.sample.repository = walseal_common::repository::Repository::new(faulty.clone(), crate::sample::SYSTEM, trust);
    let gap = day.gap("latest").await;
    assert_eq!(gap.damaged[0].name, tail);
    assert!(day.plan("name:before_migration").await.is_ok(), "it does not need it");
    // A store that refuses everything blames no object.
    faulty.plan_below(&prefix, Call::Get, 1..=1, Effect::Truncated);
    faulty.set_down(Some(StoreErrorKind::Denied));
    assert!(matches!(day.plan("latest").await, Err(PlanError::Inventory(_))));
}
