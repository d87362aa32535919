//! Forks, and the ways through them.

use walseal_common::lsn::LsnRange;
use walseal_common::repository::ObjectName;
use walseal_common::timeline::{TimelineHistory, TimelineId};

use super::*;
use crate::sample::SYSTEM;

/// The day of [`Day`], but the primary died after 10:02:00 and a standby was promoted there. The old primary had shipped
/// more: transactions 704 to 706, which the new one does not have.
struct Failover {
    day: Day,
    history: TimelineHistory,
    child: SampleWal,
    switch: Lsn,
    /// 10:07:00 on timeline 2.
    commit_804: Spot,
}

impl Failover {
    async fn new() -> Failover {
        let day = Day::new().await;
        let switch = day.abort_703.end;
        let (history, child, commit_804) = fork(&day.sample, &day.wal, switch).await;
        Failover { day, history, child, switch, commit_804 }
    }

    fn second(&self) -> Branch {
        self.history.branch(SYSTEM)
    }

    fn on(&self, target: &str, timeline: u32) -> Request {
        let timeline = TimelineId::new(timeline).map(TimelineChoice::Number);
        Request { timeline, ..Request::to(target.parse().expect("a target")) }
    }
}

/// Timeline 2 from `switch` on: a checkpoint, two segments of filler, and transaction 804.
async fn fork(sample: &SampleRepository, wal: &SampleWal, switch: Lsn) -> (TimelineHistory, SampleWal, Spot) {
    let root = TimelineHistory::root(TimelineId::FIRST);
    let history = sample.put_history(&root, 2, switch).await;
    let mut child = wal.until(switch).fork(2);
    child.checkpoint(704, &at("10:06:00"));
    child.fill_segment();
    child.fill_segment();
    let commit_804 = child.commit(804, &at("10:07:00"));
    child.filler(100);
    sample.put_wal(history.branch(SYSTEM), &child, child.size.align_down(switch)).await;
    (history, child, commit_804)
}

#[tokio::test]
async fn case_05_the_way_leads_through_both_timelines_by_lsn() {
    let failover = Failover::new().await;
    let plan = failover.day.plan("latest").await.expect("the newest branch");
    assert_eq!((plan.timeline().number(), plan.stop), (2, failover.child.end()));
    assert_eq!(plan.base.id, failover.day.base);
    assert_eq!(beside(&plan), (Some(804), None));
    let steps: Vec<_> = plan.path.iter().map(|step| (step.timeline.number(), step.to)).collect();
    assert_eq!(steps, [(1, failover.switch), (2, failover.child.end())]);
    // The old branch's surplus is known, so that fetch can tell a hole from the end.
    assert_eq!(plan.path[0].known_end, failover.day.wal.end());
    assert_eq!(plan.recovery[0].line(), "recovery_target_timeline = '2'");
    assert_eq!(plan.histories, [failover.second()]);
    let words = plan.explain();
    assert!(words.contains("\n  timelines    1 -> 2, with the history file of timeline 2\n"), "{words}");
}

#[tokio::test]
async fn case_05_recovery_to_before_a_fork_ends_on_the_timeline_that_was_there() {
    // PostgreSQL would name timeline 2 as the parent of the one that it makes, by a history whose switch points go back.
    let day = Day::new().await;
    fork(&day.sample, &day.wal, day.commit_706.end).await;
    for (target, timeline) in
        [(&*at("10:01:00"), 1), ("immediate", 1), ("xid:702", 1), ("xid:804", 2), (&*at("10:06:00"), 2), ("latest", 2)]
    {
        let plan = day.plan(target).await.unwrap_or_else(|error| panic!("{target}: {error}"));
        let line = format!("recovery_target_timeline = '{timeline}'");
        assert_eq!(plan.recovery[0].line(), line, "{target}");
    }
}

#[tokio::test]
async fn case_11_a_new_primary_that_has_committed_less_lately_than_the_old_one_is_named() {
    let day = Day::new().await;
    let root = TimelineHistory::root(TimelineId::FIRST);
    let switch = day.abort_703.end;
    let history = day.sample.put_history(&root, 2, switch).await;
    let mut child = day.wal.until(switch).fork(2);
    child.commit(804, &at("10:03:30"));
    day.sample.put_wal(history.branch(SYSTEM), &child, child.size.align_down(switch)).await;
    let plan = day.plan("latest").await.expect("the one with the newest commit");
    assert_eq!((plan.timeline().number(), plan.stop), (1, day.wal.end()));
    let [warning] = plan.warnings.as_slice() else { panic!("{:?}", plan.warnings) };
    let expected = format!("timeline 2 left timeline 1 at {switch}");
    assert!(warning.starts_with(&expected), "{warning}");
    assert!(warning.ends_with(&format!("--timeline {}", history.branch(SYSTEM))), "{warning}");
    let failover = Failover::new().await;
    assert_eq!(failover.day.plan("latest").await.expect("the new primary").warnings, Vec::<String>::new());
    // Gone back to before the failover, and nothing is committed there yet.
    let back = failover.day.commit_702.end;
    let history = failover.day.sample.put_history(&root, 3, back).await;
    let mut third = failover.day.wal.until(back).fork(3);
    third.checkpoint(703, &at("10:06:30"));
    failover.day.sample.put_wal(history.branch(SYSTEM), &third, third.size.align_down(back)).await;
    let plan = failover.day.plan("latest").await.expect("the one with the newest commit");
    assert_eq!(plan.timeline().number(), 2);
    let [warning] = plan.warnings.as_slice() else { panic!("{:?}", plan.warnings) };
    assert!(warning.starts_with(&format!("timeline 3 went back to {back}, before timeline 2 began")), "{warning}");
}

#[tokio::test]
async fn case_49_points_before_and_after_the_fork_can_be_reached_on_both_timelines() {
    let failover = Failover::new().await;
    for (target, timeline, stop) in [
        (at("10:01:00"), 1, failover.day.abort_703.start),
        (at("10:01:00"), 2, failover.day.abort_703.start),
        (at("10:04:00"), 1, failover.day.commit_706.start),
        (at("10:04:00"), 2, failover.commit_804.start),
        ("xid:706".to_owned(), 1, failover.day.commit_706.end),
        ("xid:804".to_owned(), 2, failover.commit_804.end),
        ("latest".to_owned(), 1, failover.day.wal.end()),
    ] {
        let request = failover.on(&target, timeline);
        let plan = failover.day.request(&request).await.unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!((plan.stop, plan.timeline().number()), (stop, timeline), "{target} on {timeline}");
    }
    let error = failover.day.request(&failover.on("xid:804", 1)).await.expect_err("it is on timeline 2");
    assert!(error.to_string().contains(&format!("--timeline {}", failover.second())), "{error}");
}

#[tokio::test]
async fn a_time_on_two_branches_is_refused_with_both_named_and_one_before_the_fork_is_not() {
    let failover = Failover::new().await;
    let error = failover.day.plan(&at("10:04:00")).await.expect_err("it lies on both");
    let text = error.to_string();
    for branch in [failover.day.sample.branch(), failover.second()] {
        assert!(text.contains(&format!("--timeline {branch}")), "{text}");
    }
    assert!(text.contains("706") || text.contains("705"), "what each would have: {text}");
    let plan = failover.day.plan(&at("10:01:00")).await.expect("both agree");
    assert_eq!((plan.stop, plan.timeline().number()), (failover.day.abort_703.start, 2));
    // After the old branch's end only the new one reaches it.
    let plan = failover.day.plan(&at("10:06:30")).await.expect("one of them");
    assert_eq!((plan.stop, plan.timeline().number()), (failover.commit_804.start, 2));
}

#[tokio::test]
async fn case_17_two_timelines_of_one_number_are_told_apart_by_branch() {
    let failover = Failover::new().await;
    let (other, _, _) = fork(&failover.day.sample, &failover.day.wal, failover.day.commit_702.end).await;
    let error = failover.day.request(&failover.on("latest", 2)).await.expect_err("two of them");
    let text = error.to_string();
    for branch in [other.branch(SYSTEM), failover.second()] {
        assert!(text.contains(&format!("--timeline {branch}")), "{text}");
        let choice = Some(TimelineChoice::Branch(branch));
        let request = Request { timeline: choice, ..Request::to(Target::Latest) };
        let plan = failover.day.request(&request).await.expect("exactly this one");
        assert_eq!(plan.path.last().map(|step| step.branch), Some(branch));
    }
}

#[tokio::test]
async fn case_02_a_missing_history_is_named_and_another_timeline_can_still_be_chosen() {
    let failover = Failover::new().await;
    failover.day.sample.remove(&ObjectName::History(failover.second())).await;
    let error = failover.day.plan("latest").await.expect_err("nobody can tell how timeline 2 came about");
    let text = error.to_string();
    assert!(text.contains(&format!("history/{}", failover.second())) && text.contains("00000002.history"), "{text}");
    assert!(text.contains(&format!("--timeline {}", failover.day.sample.branch())), "{text}");
    let plan = failover.day.request(&failover.on("latest", 1)).await.expect("its own history is not needed");
    assert_eq!(plan.stop, failover.day.wal.end());
}

#[tokio::test]
async fn case_04_a_child_without_wal_ends_in_its_parents_segment() {
    let sample = SampleRepository::new().await;
    let mut wal = SampleWal::from(Lsn(0x30_0000));
    let start = wal.checkpoint(699, &at("10:00:00")).start;
    let stop = wal.filler(16).end;
    let commit = wal.commit(702, &at("10:01:00"));
    let range = LsnRange { start: Lsn(0x30_0000), end: wal.end() };
    sample.put_partial(sample.branch(), range, wal.slice(range)).await;
    sample.put_label(sample.branch(), start, stop, &at("10:00:00"), None).await;
    let history = sample.put_history(&TimelineHistory::root(TimelineId::FIRST), 2, wal.end()).await;
    let plan = planned(&sample, &Request::to(Target::Latest)).await.expect("a plan");
    assert_eq!((plan.stop, plan.timeline().number()), (commit.end, 2));
    assert_eq!(plan.path.last().map(|step| step.branch), Some(history.branch(SYSTEM)));
}

#[tokio::test]
async fn a_base_backup_of_a_branch_that_is_not_on_the_way_is_not_taken() {
    let failover = Failover::new().await;
    let (start, stop) = (failover.day.commit_704.start, failover.day.commit_705.end);
    let surplus = failover.day.sample.put_label(failover.day.sample.branch(), start, stop, &at("10:03:30"), None).await;
    let plan = failover.day.plan("latest").await.expect("the older one");
    assert_eq!((&plan.base.id, plan.timeline().number()), (&failover.day.base, 2));
    let [newer] = plan.passed_over.as_slice() else { panic!("{:?}", plan.passed_over) };
    assert!(newer.id == surplus && newer.why.contains("after the way left timeline 1"), "{newer:?}");
    let request = Request { base: Some(surplus.clone()), ..Request::to(Target::Latest) };
    let error = failover.day.request(&request).await.expect_err("it lies beyond the fork");
    assert!(matches!(error, PlanError::BaseUnfit { .. }), "{error}");
    let plan = failover.day.request(&failover.on("latest", 1)).await.expect("on its own timeline");
    assert_eq!(plan.base.id, surplus);
}

#[tokio::test]
async fn no_such_timeline_names_those_that_there_are() {
    let failover = Failover::new().await;
    let error = failover.day.request(&failover.on("latest", 3)).await.expect_err("nobody made it");
    let text = error.to_string();
    assert!(text.contains(&format!("1 ({}), 2 ({})", failover.day.sample.branch(), failover.second())), "{text}");
}

#[tokio::test]
async fn case_05_damage_on_the_newest_timeline_is_no_reason_to_land_on_an_older_one_unasked() {
    let failover = Failover::new().await;
    let sample = &failover.day.sample;
    let number = sample.size.number(failover.switch).next();
    let damaged = ObjectName::Wal(failover.second(), sample.segment(failover.second(), number), None);
    sample.garble(&damaged);
    let error = failover.day.plan(&at("10:04:00")).await.expect_err("it is needed on timeline 2");
    let PlanError::Gap(gap) = &error else { panic!("{error}") };
    assert_eq!((gap.branch, &gap.damaged[0].name), (failover.second(), &damaged));
    let asked = failover.day.request(&failover.on(&at("10:04:00"), 1)).await.expect("asked for");
    assert_eq!(asked.stop, failover.day.commit_706.start);
}

#[tokio::test]
async fn windows_are_listed_for_each_branch_that_nothing_grows_on() {
    let failover = Failover::new().await;
    let sample = &failover.day.sample;
    let mut inventory = Inventory::read(&sample.repository, &sample.identities).await.expect("readable");
    let found = windows::windows(&sample.repository, &sample.identities, &mut inventory).await.expect("readable");
    let spans: Vec<_> = found.iter().map(|window| (window.timeline.number(), window.from, window.to)).collect();
    let from = failover.day.base_stop;
    assert_eq!(spans, [(1, from, failover.day.wal.end()), (2, from, failover.child.end())]);
    assert_eq!(found[0].from_time.map(|time| time.to_string()), Some("2026-11-21 10:00:01+00".to_owned()));
    failover.day.sample.remove(&ObjectName::History(failover.second())).await;
    let mut without = Inventory::read(&sample.repository, &sample.identities).await.expect("readable");
    let left = windows::windows(&sample.repository, &sample.identities, &mut without).await.expect("readable");
    assert_eq!((left.as_slice(), ends(&without).unreadable.len()), (&found[..1], 1));
    assert_eq!(found[1].to_time.map(|time| time.to_string()), Some("2026-11-21 10:07:00+00".to_owned()));
}

#[tokio::test]
async fn case_17_what_a_refusal_offers_stays_on_the_timeline_that_was_asked_for() {
    let failover = Failover::new().await;
    for (target, offered) in [
        (at("10:06:00"), "--to latest --timeline 1".to_owned()),
        ("lsn:0/9000000".to_owned(), "--to latest --timeline 1".to_owned()),
        (at("10:00:00"), format!("--to immediate --base {} --timeline 1", failover.day.base)),
    ] {
        let error = failover.day.request(&failover.on(&target, 1)).await.expect_err("it cannot be reached");
        assert!(error.to_string().ends_with(&offered), "{target}: {error}");
    }
    let sample = &failover.day.sample;
    let lost = sample.segment(sample.branch(), sample.size.number(failover.day.commit_705.start));
    sample.remove(&ObjectName::Wal(sample.branch(), lost, None)).await;
    let error = failover.day.request(&failover.on("latest", 1)).await.expect_err("a hole lies on the way");
    let text = error.to_string();
    let offered = text.lines().find(|line| line.starts_with("The last point before the gap: --to lsn:"));
    assert!(offered.is_some_and(|line| line.contains(" --timeline 1   (with transaction")), "{text}");
}
