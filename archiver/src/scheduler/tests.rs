#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn nightly() -> Schedule {
    "0 2 * * *".parse().unwrap()
}

#[test]
fn a_missed_run_is_caught_up_once() {
    let zone = TimeZone::UTC;
    let decide = |newest: &str, now: &str| turn(&nightly(), &zone, Some(at(newest)), at(now));
    assert_eq!(
        decide("2026-11-18T02:00:01Z", "2026-11-21T12:00:00Z"),
        Turn::Due(at("2026-11-19T02:00:00Z")),
        "the daemon was down for two nights"
    );
    assert_eq!(decide("2026-11-21T12:00:05Z", "2026-11-21T12:10:00Z"), Turn::Wait(at("2026-11-22T02:00:00Z")));
    assert_eq!(decide("2026-11-21T12:00:05Z", "2026-11-22T02:00:00Z"), Turn::Due(at("2026-11-22T02:00:00Z")));
}

#[test]
fn an_empty_repository_gets_its_first_backup_at_once() {
    assert_eq!(turn(&nightly(), &TimeZone::UTC, None, at("2026-11-21T12:00:00Z")), Turn::First);
}

#[test]
fn case_44_a_backup_of_a_clock_that_is_a_little_ahead_is_none_that_is_missing() {
    let now = at("2026-11-21T12:00:00Z");
    assert_eq!(
        turn(&nightly(), &TimeZone::UTC, Some(at("2026-11-21T12:30:00Z")), now),
        Turn::Wait(at("2026-11-22T02:00:00Z"))
    );
}

#[test]
fn a_backup_is_overdue_when_it_is_due_for_long_and_nobody_takes_it() {
    let zone = TimeZone::UTC;
    let begun = at("2026-11-21T12:00:00Z");
    let look = |newest: Option<&str>, under_way: bool, now: &str| {
        overdue((&nightly(), &zone), newest.map(at), begun, HOUR, under_way, at(now)).map(|due| due.to_string())
    };
    let last = Some("2026-11-21T02:00:05Z");
    assert_eq!(look(last, false, "2026-11-22T03:00:00Z"), None, "within its grace");
    assert_eq!(look(last, false, "2026-11-22T03:00:01Z").as_deref(), Some("2026-11-22T02:00:00Z"));
    assert_eq!(look(last, true, "2026-11-22T20:00:00Z"), None, "it is long, and it goes on");
    assert_eq!(
        look(last, true, "2026-11-23T03:00:01Z").as_deref(),
        Some("2026-11-22T02:00:00Z"),
        "it takes longer than a day"
    );
    assert_eq!(look(Some("2026-11-22T03:30:00Z"), false, "2026-11-22T20:00:00Z"), None, "somebody took one");
    assert_eq!(look(None, false, "2026-11-21T12:59:00Z"), None);
    assert_eq!(look(None, false, "2026-11-21T13:00:01Z").as_deref(), Some("2026-11-21T12:00:00Z"), "the first one");
}
