//! What each promise means, in small.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use walseal_common::repository::{BaseId, FrontierRecord, HeldLease, LeaseRecord, ObjectName, RunId};
use walseal_common::seal::WriterKey;

use super::history::{Event, Fault, History, stands};
use crate::retention::holdings::{Small, UnreadableLabel};
use crate::retention::keep::Reason;
use crate::retention::plan::{Cause, Plan};
use crate::retention::policy::Policy;

const NOTHING: Policy = Policy { window: Duration::from_secs(86_400), daily: 0, weekly: 0, monthly: 0, min_proven: 0 };

fn plan(history: &History, policy: &Policy) -> Plan {
    Plan::make(&history.holdings, policy, history.now, Some(history.now.as_second())).expect("no promise is broken")
}

fn kept(plan: &Plan, reason: Reason) -> Vec<&BaseId> {
    plan.keep.iter().filter(|kept| kept.reasons.contains(&reason)).map(|kept| &kept.id).collect()
}

/// A full backup each day at about the same time, with WAL between.
fn days(days: usize) -> History {
    let mut events = Vec::new();
    for _ in 0..days {
        events.extend([Event::Base(Fault::None, 0), Event::Wal(4), Event::Quiet(18)]);
    }
    History::of(&events)
}

#[test]
fn case_39_the_window_begins_with_the_last_backup_before_it() {
    let history = days(10);
    let plan = plan(&history, &NOTHING);
    // The day's own backup is younger than a day; the one before it is what any second of the day needs.
    let ids: Vec<&BaseId> = history.holdings.bases.iter().map(|base| &base.id).collect();
    assert_eq!(kept(&plan, Reason::Anchor), ids[8..9]);
    assert_eq!(plan.keep.len(), 2);
    assert_eq!(plan.go.iter().collect::<Vec<_>>(), ids[..8]);
    assert_eq!(plan.before.len(), 1);
    assert_eq!(plan.after[0].from, history.holdings.bases[8].stop);
    assert!(plan.oldest_after > plan.oldest_before);
}

#[test]
fn beyond_the_window_one_backup_stays_for_each_day_week_and_month() {
    let history = days(100);
    let policy = Policy { daily: 3, weekly: 2, monthly: 2, ..NOTHING };
    let plan = plan(&history, &policy);
    let counts = [Reason::Daily, Reason::Weekly, Reason::Monthly].map(|reason| kept(&plan, reason).len());
    assert_eq!(counts, [3, 2, 2]);
    let gone: BTreeSet<ObjectName> = plan.removals.iter().map(|one| one.name.clone()).collect();
    let after = history.holdings.without(&gone);
    assert!(after.bases.iter().all(|base| stands(&after, base)));
    // Between them there is no WAL.
    assert!(plan.after.len() > 3, "{:?}", plan.after);
}

#[test]
fn case_31_a_suspect_backup_is_never_the_last_good_one() {
    let mut events = vec![Event::Base(Fault::None, 0), Event::Wal(2)];
    events.extend([Event::Quiet(30), Event::Base(Fault::Suspect, 0), Event::Quiet(60), Event::Wal(2)]);
    let history = History::of(&events);
    let plan = plan(&history, &NOTHING);
    assert_eq!(kept(&plan, Reason::Anchor), [&history.holdings.bases[0].id]);
    assert_eq!(plan.go, Vec::<BaseId>::new());
}

#[test]
fn a_proven_backup_stays_when_there_are_not_enough_others() {
    let mut events = vec![Event::Base(Fault::None, 0), Event::Drill, Event::Wal(2)];
    (0..5).for_each(|_| events.extend([Event::Base(Fault::None, 0), Event::Quiet(30)]));
    let history = History::of(&events);
    let plan = plan(&history, &Policy { min_proven: 1, ..NOTHING });
    assert_eq!(kept(&plan, Reason::Proven), [&history.holdings.bases[0].id]);
}

#[test]
fn a_hold_keeps_a_backup_until_it_is_over() {
    let mut history = days(10);
    let held = history.holdings.bases[2].id.clone();
    history.holdings.holds.insert(held.clone(), history.now + SignedDuration::from_hours(1));
    assert_eq!(kept(&plan(&history, &NOTHING), Reason::Hold), [&held]);
    history.pass(1);
    assert!(plan(&history, &NOTHING).go.contains(&held));
}

#[test]
fn case_40_a_lease_keeps_what_it_names_until_it_is_over() {
    let mut history = days(10);
    let stored = history.now.as_second();
    let record = LeaseRecord {
        base: "20270101T000000Z-0000002a".parse().expect("an id"),
        parent: None,
        objects: vec!["base/".to_owned()],
        written: history.now,
        interval_seconds: 300,
        released: false,
    };
    let run = RunId::random().expect("random bytes");
    history.holdings.leases = vec![HeldLease { name: ObjectName::Lease(run, 0), record, stored: Some(stored) }];
    let busy = plan(&history, &NOTHING);
    assert!(
        busy.removals.iter().all(|one| matches!(one.cause, Cause::Wal | Cause::Catalog | Cause::Summary)),
        "{:?}",
        busy.sums
    );
    assert_eq!(busy.go, Vec::<BaseId>::new());
    let later = Plan::make(&history.holdings, &NOTHING, history.now, Some(stored + 901)).expect("no promise is broken");
    assert_eq!(later.go.len(), 8);
}

#[test]
fn frontiers_stay_as_long_as_a_report_measures_with_them_and_the_newest_of_each_writer_for_ever() {
    let mut history = days(3);
    let kept = FrontierRecord::KEPT.as_secs();
    let removed = |history: &History| {
        let plan = plan(history, &NOTHING);
        plan.removals
            .iter()
            .filter(|one| one.cause == Cause::OldFrontier)
            .map(|one| one.name.clone())
            .collect::<Vec<_>>()
    };
    // Names count down: the first is the newest.
    let ages = [Some(kept + 3), Some(kept + 4), Some(kept + 5), Some(kept), Some(kept + 1), None];
    let now = history.now.as_second();
    let writer = WriterKey::generate().expect("random bytes").public();
    let name = |number| ObjectName::Frontier(Box::new(writer), number);
    let frontiers =
        (0..).zip(ages).map(|(number, age)| Small { name: name(number), size: 500, stored: age.map(|age| now - age) });
    history.holdings.frontiers.insert(writer, frontiers.collect());
    assert_eq!(removed(&history), [name(4)], "of one whose time nobody knows nobody knows the age");
}

#[test]
fn case_36_what_an_attempt_left_goes_when_it_is_old_and_nothing_refers_to_it() {
    let mut history = History::of(&[Event::Attempt, Event::Base(Fault::None, 0)]);
    let attempt = history.holdings.folders.keys().next().cloned().expect("an attempt");
    // The backup refers to one of its objects.
    let needs = &mut history.holdings.bases[0].needs;
    needs.add(&attempt, crate::retention::pieces::PieceKind::Data, 2);
    needs.settle();
    let debris = |plan: &Plan| plan.sums.get(&Cause::Debris).map_or(0, |sum| sum.objects);
    assert_eq!(debris(&plan(&history, &NOTHING)), 0, "an attempt may go on with it");
    history.pass(8 * 24);
    assert_eq!(debris(&plan(&history, &NOTHING)), 6, "five of six data objects, and the list");
}

#[test]
fn what_cannot_be_read_keeps_everything_that_it_may_need() {
    let mut history = days(10);
    let id: BaseId = "20260105T000000Z-000000ff".parse().expect("an id");
    history.holdings.unreadable.push(UnreadableLabel { id, why: "its writer is not trusted".to_owned() });
    let plan = plan(&history, &NOTHING);
    assert_eq!(plan.removals, vec![]);
    assert!(plan.held_back[0].contains("its writer is not trusted"), "{:?}", plan.held_back);
}

#[test]
fn case_44_a_backup_of_a_clock_that_was_behind_is_no_reason_to_let_the_window_go() {
    let mut history = days(10);
    let expected = plan(&history, &NOTHING);
    // The newest, or one in the middle of the window, by a clock that was a year behind.
    let year = SignedDuration::from_hours(365 * 24);
    let week = Policy { window: Duration::from_secs(7 * 86_400), ..NOTHING };
    let expected_of_a_week = plan(&history, &week);
    history.holdings.bases[9].ready -= year;
    assert_eq!(plan(&history, &NOTHING).go, expected.go, "the store knows when it came");
    history.holdings.bases[6].ready -= year;
    let folder = history.holdings.bases[6].id.clone();
    history.holdings.folders.get_mut(&folder).expect("it is there").newest = None;
    assert_eq!(plan(&history, &week).go, expected_of_a_week.go, "one before it lies within the window");
}

#[test]
fn case_44_a_backup_of_a_clock_that_was_ahead_holds_nothing_behind_it() {
    let mut history = days(10);
    let expected = plan(&history, &NOTHING);
    history.holdings.bases[3].ready += SignedDuration::from_hours(365 * 24);
    let ahead = plan(&history, &NOTHING);
    // It goes with those around it: by its position it is one of them.
    assert_eq!((&ahead.go, &ahead.keep), (&expected.go, &expected.keep));
}

#[test]
fn a_branch_of_unknown_descent_keeps_earlier_timelines_until_it_has_a_backup_from_before_the_window() {
    let mut events = vec![Event::Base(Fault::None, 0), Event::Wal(3), Event::Failover(0), Event::Wal(2)];
    let mut history = History::of(&events);
    let unknown = |history: &mut History| {
        let branch = history.branch();
        history.holdings.branches.get_mut(&branch).expect("it was begun").way = None;
    };
    unknown(&mut history);
    let early = plan(&history, &NOTHING);
    assert_eq!((early.go.len(), early.held_back.len()), (0, 1));
    events.extend([Event::Base(Fault::None, 0), Event::Wal(2), Event::Quiet(48), Event::Wal(1)]);
    let mut history = History::of(&events);
    unknown(&mut history);
    let late = plan(&history, &NOTHING);
    assert_eq!((late.go.len(), late.held_back.len()), (1, 0));
}

#[test]
fn case_51_tails_go_only_when_what_supersedes_them_was_verified() {
    let mut history = History::of(&[Event::Base(Fault::None, 0), Event::Wal(1), Event::Failover(1), Event::Wal(3)]);
    let tails = |plan: &Plan| plan.sums.get(&Cause::SupersededTail).map_or(0, |sum| sum.objects);
    assert_eq!(tails(&plan(&history, &NOTHING)), 0, "nothing else has its bytes");
    history = History::of(&[Event::Base(Fault::None, 0), Event::Wal(1), Event::Failover(0), Event::Wal(3)]);
    assert_eq!(tails(&plan(&history, &NOTHING)), 1);
}

#[test]
fn case_44_a_clock_that_is_ahead_ages_nothing_that_is_left_last() {
    let history = days(3);
    let future = history.now + SignedDuration::from_hours(24 * 4000);
    let plan = Plan::make(&history.holdings, &NOTHING, future, Some(future.as_second())).expect("no promise is broken");
    assert_eq!(plan.keep.len(), 1, "the last good one always stays, with what follows");
    assert_eq!(plan.after.len(), 1);
}
