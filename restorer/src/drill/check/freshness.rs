//! How much would be lost, and how long it would take.

use std::time::Duration;

use jiff::Timestamp;
use walseal_common::clock;
use walseal_common::repository::{Label, WrittenFrontier};
use walseal_common::terminal::units;

use crate::drill::report::Found;
use crate::plan::windows::Window;

/// Up to when the repository is known to hold everything: the time of the newest transaction in it, or when a writer last wrote
/// down that the server had no more, or when a base backup in a window ended, whichever is latest. What a host says whose clock was
/// ahead tells nothing.
pub fn known_until(
    windows: &[Window],
    frontiers: &[WrittenFrontier],
    bases: &[Label],
    now: Timestamp,
) -> Option<Timestamp> {
    let times = windows.iter().filter_map(|window| window.to_time?.to_jiff());
    let complete = |written: &&WrittenFrontier| {
        let at = &written.record.at;
        // Only where the WAL that it speaks of is there.
        let there = windows.iter().any(|window| window.branch == at.branch && window.to >= at.frontier);
        there && written.record.server_end <= at.frontier
    };
    let words = frontiers.iter().filter(complete).map(|written| written.record.written);
    let in_a_window = |base: &&Label| windows.iter().any(|window| window.bases.contains(&base.id));
    // One that a drill made ended long after what it holds.
    let ends = bases.iter().filter(in_a_window).filter(|base| base.derived.is_none()).map(|base| base.stop_time);
    times.chain(words.chain(ends).filter(|time| !clock::was_wrong(*time, now))).max()
}

/// What is known of how fresh a repository is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Up to when it is known to hold everything.
    pub until: Option<Timestamp>,
    /// For how long nothing was heard of an archiver, where a word is overdue.
    pub silence: Option<Duration>,
}

/// For how long nothing was heard of any archiver, by the one that was heard last.
pub fn silence(frontiers: &[WrittenFrontier], now: Timestamp) -> Option<Duration> {
    let words = frontiers.iter().map(|written| &written.record).filter(|record| !clock::was_wrong(record.written, now));
    words.max_by_key(|record| record.written)?.silence(now)
}

/// Judges the loss, `now` being this host's clock.
pub fn loss(known: Known, now: Timestamp, most: Option<Duration>) -> Found {
    let Some(known_until) = known.until else {
        let found = "nothing tells how fresh the repository is";
        return if most.is_some() { Found::bad(found) } else { Found::odd(found) };
    };
    if clock::was_wrong(known_until, now) {
        let found = format!(
            "the newest transaction is of {known_until:.0}, which is still to come by the clock here: one of the two clocks is wrong, and how \
             fresh the repository is cannot be told"
        );
        return if most.is_some() { Found::bad(found) } else { Found::odd(found) };
    }
    let lost = Duration::try_from(now.duration_since(known_until)).unwrap_or_default();
    let words = format!("everything until {known_until:.0} is there");
    match known.silence {
        Some(silence) if most.is_none() => Found::odd(format!(
            "{}: {words}; for {} nothing was heard of an archiver: it does not run, or does not reach the server or the store",
            units::duration(lost),
            units::duration(silence)
        )),
        _ => judge(lost, most, &words),
    }
}

/// Judges how long it took to the answer to a first query.
pub fn time_to_first_query(took: Duration, most: Option<Duration>) -> Found {
    judge(took, most, "to the answer to the first query")
}

fn judge(time: Duration, most: Option<Duration>, words: &str) -> Found {
    let found = format!("{}: {words}", units::duration(time));
    if most.is_some_and(|most| time > most) { Found::bad(found) } else { Found::good(found) }
}

/// What is expected, in words.
pub fn expected(most: Option<Duration>, key: &str) -> String {
    most.map_or_else(|| format!("no limit ({key})"), |most| format!("at most {}", units::duration(most)))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::drill::report::Outcome;

    #[test]
    fn what_is_older_than_allowed_or_not_known_at_all_fails() {
        let now: Timestamp = "2026-11-21T02:30:00Z".parse().expect("a time");
        let minute = Some(Duration::from_secs(60));
        let at = |seconds: i64| Timestamp::from_second(now.as_second() - seconds).ok();
        let loss = |until, most: Option<Duration>| loss(Known { until, silence: None }, now, most).outcome;
        assert_eq!(loss(at(59), minute), Outcome::Passed);
        assert_eq!(loss(at(61), minute), Outcome::Failed);
        assert_eq!(loss(at(86_400), None), Outcome::Passed);
        assert_eq!(loss(None, minute), Outcome::Failed);
        assert_eq!(loss(None, None), Outcome::Warned);
        // Of a clock that is wrong nothing is known.
        assert_eq!(loss(at(-86_400), minute), Outcome::Failed);
        assert_eq!(loss(at(-86_400), None), Outcome::Warned);
        // An archiver that is gone is said, also where nobody set a limit.
        let silent = Known { until: at(86_400), silence: Some(Duration::from_secs(86_400)) };
        assert_eq!(super::loss(silent, now, None).outcome, Outcome::Warned);
        assert_eq!(time_to_first_query(Duration::from_secs(61), minute).outcome, Outcome::Failed);
    }
}
