//! Thousands of random histories.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use walseal_common::repository::ObjectName;

use super::history::{Event, Fault, History, Point, restorable, stands};
use crate::retention::holdings::Holdings;
use crate::retention::keep::Reason;
use crate::retention::plan::Plan;
use crate::retention::policy::Policy;

fn event() -> impl Strategy<Value = Event> {
    let fault = prop_oneof![6 => Just(Fault::None), 1 => Just(Fault::Suspect), 1 => Just(Fault::Incomplete)];
    prop_oneof![
        6 => (1u8..6).prop_map(Event::Wal),
        5 => (fault, 0u8..9).prop_map(|(fault, referred)| Event::Base(fault, referred)),
        1 => Just(Event::Drill),
        2 => (1u8..60).prop_map(Event::Quiet),
        1 => (1u8..3).prop_map(Event::Gap),
        1 => (0u8..4).prop_map(Event::Failover),
        1 => Just(Event::Attempt),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (1u64..200, 0u32..4, 0u32..3, 0u32..2, 0u32..3).prop_map(|(hours, daily, weekly, monthly, min_proven)| Policy {
        window: Duration::from_secs(hours * 3600),
        daily,
        weekly,
        monthly,
        min_proven,
    })
}

fn plan(holdings: &Holdings, policy: &Policy, history: &History) -> Plan {
    Plan::make(holdings, policy, history.now, Some(history.now.as_second())).expect("no promise is broken")
}

fn names(plan: &Plan, first: usize) -> BTreeSet<ObjectName> {
    plan.removals.iter().take(first).map(|one| one.name.clone()).collect()
}

/// Every point of the window that can be restored from `before` can be from `after`, and what is left is whole.
fn keeps(history: &History, policy: &Policy, after: &Holdings) -> Result<(), TestCaseError> {
    let begin = policy.begin(history.now);
    let promised = |point: &&Point| point.time >= begin && restorable(&history.holdings, point);
    for point in history.points.iter().filter(promised) {
        prop_assert!(restorable(after, point), "{point:?} is lost");
    }
    for base in &after.bases {
        if history.holdings.is_whole(base) {
            prop_assert!(after.is_whole(base), "{} lost an object", base.id);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn i10_every_promised_point_has_a_complete_plan_after_any_prune_and_any_crash(
        events in prop::collection::vec(event(), 1..40),
        policy in policy(),
        broken in 0usize..400,
    ) {
        let history = History::of(&events);
        let first = plan(&history.holdings, &policy, &history);
        let crashed = history.holdings.without(&names(&first, broken));
        keeps(&history, &policy, &crashed)?;
        // The same again goes on, and then there is nothing more to do but what has to age.
        let mut crashed = crashed;
        crashed.announced.extend(first.go.iter().cloned());
        let second = plan(&crashed, &policy, &history);
        let after = crashed.without(&names(&second, usize::MAX));
        keeps(&history, &policy, &after)?;
        prop_assert_eq!(plan(&after, &policy, &history).removals, vec![]);
        // A crash changes nothing of what is left in the end.
        let straight = history.holdings.without(&names(&first, usize::MAX));
        prop_assert_eq!(&straight.bases, &after.bases);
        prop_assert_eq!(&straight.branches, &after.branches);
    }

    #[test]
    fn every_base_backup_that_stays_beyond_the_window_can_be_restored(
        events in prop::collection::vec(event(), 1..40),
        policy in policy(),
    ) {
        let history = History::of(&events);
        let plan = plan(&history.holdings, &policy, &history);
        let after = history.holdings.without(&names(&plan, usize::MAX));
        for kept in &plan.keep {
            let base = after.bases.iter().find(|base| base.id == kept.id).expect("it stays");
            let promised = kept.reasons.iter().any(|reason| !matches!(reason, Reason::Window | Reason::HeldBack));
            if promised {
                prop_assert!(stands(&after, base), "{kept:?}");
            }
        }
    }
}
