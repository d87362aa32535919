//! Where a drill leads.

use std::hash::{BuildHasher, Hasher, RandomState};

use walseal_common::time::PgTimestamp;

use crate::plan::windows::Window;
use crate::plan::{Request, Target, TimelineChoice};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;

/// `T` of `drill --to T`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// One that is drawn inside the windows.
    Random,
    /// This one.
    Given(Target),
}

impl Choice {
    /// The kind, for the ledger.
    pub fn word(&self) -> &'static str {
        match self {
            Choice::Random => "random",
            Choice::Given(Target::Latest) => "latest",
            Choice::Given(Target::Immediate) => "immediate",
            Choice::Given(Target::Time(_)) => "time",
            Choice::Given(Target::Lsn(_)) => "lsn",
            Choice::Given(Target::Xid(_)) => "xid",
            Choice::Given(Target::Name(_)) => "name",
        }
    }
}

/// As it is written after `--to`.
impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Random => f.write_str("random"),
            Choice::Given(target) => write!(f, "{target}"),
        }
    }
}

/// A seed that nobody chose.
pub fn fresh_seed() -> u64 {
    // Seeded by the operating system; short enough to be typed again.
    RandomState::new().build_hasher().finish() >> 32
}

/// A time in one of the windows, each second as likely as any other, and the same for the same windows and seed. Whole seconds,
/// where a window has one; `None` where no window has two transactions with times apart.
pub fn draw(windows: &[Window], seed: u64) -> Option<Request> {
    // A time is reached only when a transaction ends later (case 8).
    let span = |window: &Window| {
        let (from, to) = (window.from_time?.0, window.to_time?.0.checked_sub(1)?);
        (from <= to).then_some((from, to))
    };
    let seconds = |(from, to): (i64, i64)| {
        let (first, last) = (-((-from).div_euclid(SECOND)), to.div_euclid(SECOND));
        (first <= last).then_some((first, last))
    };
    let spans: Vec<(&Window, (i64, i64))> = windows.iter().filter_map(|window| Some((window, span(window)?))).collect();
    let whole: Vec<(&Window, (i64, i64))> =
        spans.iter().filter_map(|(window, span)| Some((*window, seconds(*span)?))).collect();
    let (spans, unit) = if whole.is_empty() { (spans, 1) } else { (whole, SECOND) };
    let total: u64 = spans.iter().map(|(_, (first, last))| last.abs_diff(*first) + 1).sum();
    let mut at = mixed(seed).checked_rem(total)?;
    for (window, (first, last)) in spans {
        let here = last.abs_diff(first) + 1;
        if at < here {
            let time = PgTimestamp(first.saturating_add_unsigned(at).saturating_mul(unit));
            // The same time may lie on another branch, too.
            let timeline = Some(TimelineChoice::Branch(window.branch));
            return Some(Request { timeline, ..Request::to(Target::Time(time)) });
        }
        at -= here;
    }
    None
}

/// SplitMix64: seeds that are close give numbers that are not.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic)]
mod tests {
    use std::collections::BTreeSet;

    use walseal_common::lsn::Lsn;
    use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn window(timeline: u32, from: Option<i64>, to: Option<i64>) -> Window {
        let timeline = TimelineId::new(timeline).expect("not zero");
        Window {
            branch: TimelineHistory::root(timeline).branch(SystemIdentifier(7)),
            timeline,
            from: Lsn(1),
            to: Lsn(2),
            from_time: from.map(PgTimestamp),
            to_time: to.map(PgTimestamp),
            bases: Vec::new(),
            gap: None,
            gap_pruned: false,
            surplus: None,
            damaged: Vec::new(),
        }
    }

    #[test]
    fn every_second_of_every_window_is_drawn_and_none_beyond() {
        // Seconds 10 to 12 on one, 100 on the other; 13 is that of the last transaction, and cannot be reached.
        let windows = [window(1, Some(9_500_000), Some(13_000_000)), window(2, Some(100_000_000), Some(100_000_001))];
        let drawn: BTreeSet<(i64, u32)> = (0..200)
            .map(|seed| match draw(&windows, seed).expect("there is a choice") {
                Request { target: Target::Time(time), timeline: Some(TimelineChoice::Branch(branch)), .. } => {
                    (time.0, branch.timeline.number())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [(10_000_000, 1), (11_000_000, 1), (12_000_000, 1), (100_000_000, 2)];
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(draw(&windows, 42), draw(&windows, 42));
    }

    #[test]
    fn a_window_of_less_than_a_second_is_drawn_from_by_the_microsecond() {
        for seed in 0..50 {
            let request = draw(&[window(1, Some(10_000_001), Some(10_000_004))], seed).expect("there is a choice");
            let Target::Time(time) = request.target else { panic!("{request:?}") };
            assert!((10_000_001..=10_000_003).contains(&time.0), "{time:?}");
        }
        for (from, to) in [(None, Some(5)), (Some(5), None), (Some(5), Some(5)), (Some(6), Some(5))] {
            assert_eq!(draw(&[window(1, from, to)], 1), None);
        }
        assert_eq!(draw(&[], 1), None);
    }
}
