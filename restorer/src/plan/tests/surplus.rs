//! WAL that arrived without what lies before it: no reason to refuse the latest moment, where nothing of it was confirmed.

use walseal_common::lsn::LsnRange;
use walseal_common::repository::ObjectName;
use walseal_common::segment::SegmentNumber;

use super::*;

/// The day, and a repository as it was left when server and archiver were lost together: a piece that never arrived, and
/// two that had overtaken it.
struct Loss {
    day: Day,
    wal: SampleWal,
    /// Where the WAL without a hole ends.
    end: Lsn,
    tail: LsnRange,
}

impl Loss {
    /// The objects beyond the hole say that WAL was durable up to `durable` of its end.
    async fn new(durable: impl FnOnce(Lsn) -> Option<Lsn>) -> Loss {
        let mut day = Day::new().await;
        let mut wal = day.wal.clone();
        let end = wal.end();
        wal.filler(3000);
        let tail = LsnRange { start: wal.end(), end: wal.commit(900, &at("10:20:00")).end };
        wal.fill_segment();
        wal.fill_segment();
        day.sample.durable = durable(end);
        let loss = Loss { day, wal, end, tail };
        let sample = &loss.day.sample;
        sample.put_tail(sample.branch(), tail, loss.segment(6)).await;
        sample.put_segment(sample.branch(), SegmentNumber(7), loss.segment(7)).await;
        loss
    }

    fn segment(&self, number: u64) -> &[u8] {
        self.wal.slice(SegmentNumber(number).range(self.wal.size))
    }

    async fn gap(&self) -> Gap {
        match self.day.plan("latest").await {
            Err(PlanError::Gap(gap)) => *gap,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn i6_a_hole_below_what_a_writer_said_was_durable_was_confirmed() {
    let loss = Loss::new(Some).await;
    let sample = &loss.day.sample;
    let said = loss.end.advance(1);
    let written = at("10:20:00").parse().expect("a time");
    sample.put_frontier(sample.branch(), loss.end, said, written).await;
    loss.day.plan("latest").await.expect("no more was said than is there");
    let name = sample.put_frontier(sample.branch(), said, said, written).await;
    let why = format!("{name} says that WAL was durable up to {said}");
    assert_eq!((loss.gap().await.missing.start, loss.gap().await.confirmed), (loss.end, Some(why.clone())));
    // Nothing at all beyond the end: only the record tells, and the plan pins it.
    let earlier = loss.day.plan("immediate").await.expect("before the hole");
    assert!(earlier.path[0].known_end >= said, "{:?}", earlier.path);
    let tail = ObjectName::Tail(sample.branch(), sample.segment(sample.branch(), SegmentNumber(6)), loss.tail);
    sample.remove(&tail).await;
    let seven = ObjectName::Wal(sample.branch(), sample.segment(sample.branch(), SegmentNumber(7)), None);
    sample.remove(&seven).await;
    let gap = loss.gap().await;
    assert_eq!((gap.missing, gap.confirmed), (LsnRange { start: loss.end, end: said }, Some(why)));
    let earlier = loss.day.plan("immediate").await.expect("before the hole");
    assert_eq!(earlier.path[0].known_end, said);
}

#[tokio::test]
async fn i1_what_was_never_confirmed_is_no_hole_and_the_plan_says_so() {
    let loss = Loss::new(Some).await;
    let plan = loss.day.plan("latest").await.expect("all that was confirmed");
    assert_eq!((plan.stop, beside(&plan)), (loss.end, (Some(706), None)));
    assert_eq!((plan.path[0].to, plan.path[0].known_end), (loss.end, loss.end));
    let bytes = loss.tail.len() + (1 << 20);
    let words = walseal_common::terminal::units::size(bytes);
    let warning = format!(
        "{words} of WAL beyond {} (up to 0/800000) arrived without what lies before, and nothing shows that any of it was \
         ever confirmed to the server: the WAL ends at {}.",
        loss.end, loss.end
    );
    assert_eq!(plan.warnings, [warning]);
    // Nothing of it can be a target.
    for target in [format!("lsn:{}", loss.tail.start), at("10:10:00"), "xid:900".to_owned()] {
        let error = loss.day.plan(&target).await.expect_err("it was never confirmed");
        assert!(!matches!(error, PlanError::Gap(_)), "{target}: {error}");
    }
    let mut inventory =
        Inventory::read(&loss.day.sample.repository, &loss.day.sample.identities).await.expect("readable");
    let found = windows::windows(&loss.day.sample.repository, &loss.day.sample.identities, &mut inventory).await;
    let found = found.expect("readable");
    assert_eq!(
        (found[0].to, found[0].gap, found[0].surplus.map(|surplus| surplus.bytes)),
        (loss.end, None, Some(bytes))
    );
}

#[tokio::test]
async fn i6_wal_that_was_durable_once_and_is_gone_is_a_hole() {
    // One that was sealed a moment later, when the lost piece had been confirmed, tells.
    let loss = Loss::new(Some).await;
    let mut day = loss.day;
    day.sample.durable = Some(loss.tail.start);
    let next = LsnRange { start: Lsn(0x80_0000), end: loss.wal.end() };
    day.sample.put_tail(day.sample.branch(), next, loss.wal.slice(next)).await;
    let PlanError::Gap(gap) = day.plan("latest").await.expect_err("it was confirmed") else {
        panic!("another refusal")
    };
    assert_eq!(gap.missing, LsnRange { start: loss.end, end: Lsn(0x70_0000) });
    let why = format!("was made when the WAL up to {} was durable", loss.tail.start);
    assert!(gap.to_string().contains(&why), "{gap}");
    // A whole segment far from the end.
    let mut day = Day::new().await;
    day.sample.durable = Some(Lsn(0x60_0000));
    let tail = LsnRange { start: Lsn(0x60_0000), end: day.wal.end() };
    let name = ObjectName::Tail(day.sample.branch(), day.sample.segment(day.sample.branch(), SegmentNumber(6)), tail);
    day.sample.remove(&name).await;
    day.sample.put_tail(day.sample.branch(), tail, day.wal.slice(tail)).await;
    let lost = day.sample.segment(day.sample.branch(), SegmentNumber(5));
    day.sample.remove(&ObjectName::Wal(day.sample.branch(), lost, None)).await;
    assert!(matches!(day.plan("latest").await, Err(PlanError::Gap(_))));
}

#[tokio::test]
async fn i6_where_an_object_does_not_tell_or_cannot_be_read_nobody_knows() {
    let loss = Loss::new(|_| None).await;
    assert!(loss.gap().await.to_string().contains("does not tell"));
    let loss = Loss::new(Some).await;
    let branch = loss.day.sample.branch();
    let name = ObjectName::Wal(branch, loss.day.sample.segment(branch, SegmentNumber(7)), None);
    loss.day.sample.garble(&name);
    let gap = loss.gap().await;
    assert_eq!(gap.damaged.iter().map(|damage| damage.name.clone()).collect::<Vec<_>>(), [name]);
    assert!(gap.to_string().contains("), so that nobody can tell whether"), "{gap}");
}

#[tokio::test]
async fn i6_a_base_backup_that_is_complete_beyond_or_nobody_knows_where_shows_a_hole() {
    let loss = Loss::new(Some).await;
    let branch = loss.day.sample.branch();
    let id = loss.day.sample.put_label(branch, Lsn(0x60_0100), loss.end.advance(8), &at("10:30:00"), None).await;
    assert!(matches!(loss.day.plan("latest").await, Err(PlanError::Gap(_))));
    loss.day.sample.garble(&ObjectName::Label(id));
    assert!(matches!(loss.day.plan("latest").await, Err(PlanError::Gap(_))));
}

#[tokio::test]
async fn a_gap_of_long_ago_stays_one_beside_a_loss_at_the_end() {
    let loss = Loss::new(Some).await;
    let mut day = loss.day;
    let lost = day.sample.segment(day.sample.branch(), SegmentNumber(4));
    day.sample.remove(&ObjectName::Wal(day.sample.branch(), lost, None)).await;
    let error = day.plan("latest").await.expect_err("on the way from the base backup");
    let PlanError::Gap(gap) = error else { panic!("{error}") };
    assert_eq!(gap.missing, LsnRange { start: Lsn(0x40_0000), end: Lsn(0x50_0000) });
    // From a base backup after it, the latest moment is the same as without it.
    let (start, stop) = (day.commit_705.start, day.commit_705.end);
    day.base = day.sample.put_label(day.sample.branch(), start, stop, &at("10:03:30"), None).await;
    let plan = day.plan("latest").await.expect("all that was confirmed");
    assert_eq!((plan.base.id, plan.stop), (day.base, loss.end));
}

#[tokio::test]
async fn a_timeline_of_which_the_first_piece_never_arrived_ends_where_it_began() {
    let day = Day::new().await;
    let mut sample = day.sample;
    let switch = day.wal.end();
    let root = walseal_common::timeline::TimelineHistory::root(TimelineId::FIRST);
    let history = sample.put_history(&root, 2, switch).await;
    let mut child = day.wal.fork(2);
    child.filler(2000);
    let next = LsnRange { start: child.end(), end: child.commit(800, &at("10:30:00")).end };
    sample.durable = Some(switch);
    let first = sample.size.align_down(switch);
    sample
        .put_tail(history.branch(crate::sample::SYSTEM), next, child.slice(LsnRange { start: first, end: next.end }))
        .await;
    let request = Request { timeline: TimelineId::new(2).map(TimelineChoice::Number), ..Request::to(Target::Latest) };
    let plan = planned(&sample, &request).await.expect("up to the fork");
    assert_eq!((plan.stop, plan.path[1].known_end), (switch, switch));
}
