#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::ToSpan;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The next times after `after`, in the zone's own words.
fn run(text: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let zone = zone(zone_name).expect("tzdata is installed");
    let schedule = schedule(text);
    let mut now = at(after);
    let mut times = Vec::new();
    for _ in 0..count {
        now = schedule.next(now, &zone).expect("it comes again");
        times.push(now.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M%:z").to_string());
    }
    times
}

#[test]
fn times_come_as_cron_has_them() {
    let utc = |text, count| run(text, "UTC", "2026-11-21T02:00:00Z", count);
    assert_eq!(utc("0 2 * * *", 2), ["Sun 2026-11-22 02:00+00:00", "Mon 2026-11-23 02:00+00:00"]);
    assert_eq!(
        utc("*/20 2 * * *", 3),
        ["Sat 2026-11-21 02:20+00:00", "Sat 2026-11-21 02:40+00:00", "Sun 2026-11-22 02:00+00:00"]
    );
    assert_eq!(utc("30 1 * * mon-fri", 2), ["Mon 2026-11-23 01:30+00:00", "Tue 2026-11-24 01:30+00:00"]);
    assert_eq!(
        utc("0 0 * * sat-sun", 3),
        ["Sun 2026-11-22 00:00+00:00", "Sat 2026-11-28 00:00+00:00", "Sun 2026-11-29 00:00+00:00"]
    );
    assert_eq!(utc("0 0 * * 7", 1), utc("0 0 * * 0", 1));
    assert_eq!(utc("0 0 29 2 *", 1), ["Tue 2028-02-29 00:00+00:00"]);
    assert_eq!(utc("5,35 23 31 DEC *", 2), ["Thu 2026-12-31 23:05+00:00", "Thu 2026-12-31 23:35+00:00"]);
    assert_eq!(utc("@weekly", 1), ["Sun 2026-11-22 00:00+00:00"]);
    // Both days are told: one of them is enough. Where one begins with a star, both must fit.
    assert_eq!(utc("0 0 1 * mon", 2), ["Mon 2026-11-23 00:00+00:00", "Mon 2026-11-30 00:00+00:00"]);
    assert_eq!(utc("0 0 */7 * mon", 2), ["Mon 2027-02-01 00:00+00:00", "Mon 2027-02-08 00:00+00:00"]);
}

#[test]
fn a_time_that_the_clock_skips_counts_as_the_moment_of_the_change() {
    // Europe/Berlin goes from 02:00 to 03:00 on 2026-03-29, America/Sao_Paulo went from 00:00 to 01:00 on 2018-11-04.
    let spring = |text, count| run(text, "Europe/Berlin", "2026-03-28T12:00:00Z", count);
    assert_eq!(spring("30 2 * * *", 2), ["Sun 2026-03-29 03:00+02:00", "Mon 2026-03-30 02:30+02:00"]);
    assert_eq!(spring("*/20 2 * * *", 2), ["Sun 2026-03-29 03:00+02:00", "Mon 2026-03-30 02:00+02:00"]);
    assert_eq!(spring("0 2,3 * * *", 2), ["Sun 2026-03-29 03:00+02:00", "Mon 2026-03-30 02:00+02:00"]);
    assert_eq!(spring("0 3 * * *", 1), ["Sun 2026-03-29 03:00+02:00"]);
    assert_eq!(
        run("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 2),
        ["Sun 2018-11-04 01:00-02:00", "Mon 2018-11-05 00:00-02:00"]
    );
    // A whole day was left out in Samoa.
    assert_eq!(run("0 2 30 12 *", "Pacific/Apia", "2011-12-29T12:00:00Z", 1), ["Sat 2011-12-31 00:00+14:00"]);
}

#[test]
fn a_time_that_comes_twice_counts_once_unless_every_hour_does() {
    // Europe/Berlin goes back from 03:00 to 02:00 on 2026-10-25.
    let autumn = |text, count| run(text, "Europe/Berlin", "2026-10-24T23:30:00Z", count);
    assert_eq!(autumn("30 2 * * *", 2), ["Sun 2026-10-25 02:30+02:00", "Mon 2026-10-26 02:30+01:00"]);
    assert_eq!(
        autumn("0 * * * *", 4),
        [
            "Sun 2026-10-25 02:00+02:00",
            "Sun 2026-10-25 02:00+01:00",
            "Sun 2026-10-25 03:00+01:00",
            "Sun 2026-10-25 04:00+01:00"
        ]
    );
    // Cuba goes back from 01:00 to 00:00, so that the first hour of the day comes twice.
    assert_eq!(
        run("45 * * * *", "America/Havana", "2025-11-02T03:50:00Z", 3),
        ["Sun 2025-11-02 00:45-04:00", "Sun 2025-11-02 00:45-05:00", "Sun 2025-11-02 01:45-05:00"]
    );
}

#[test]
fn however_many_were_missed_they_are_due_once() {
    let (zone, nightly) = (TimeZone::UTC, schedule("0 2 * * *"));
    let last = at("2026-11-18T02:03:00Z");
    let now = at("2026-11-21T12:00:00Z");
    assert_eq!(nightly.due(last, now, &zone), Some(at("2026-11-19T02:00:00Z")));
    assert_eq!(nightly.due(now, now + 13.hours(), &zone), None, "one that was taken now makes up for all of them");
    assert_eq!(nightly.due(now, at("2026-11-22T02:00:00Z"), &zone), Some(at("2026-11-22T02:00:00Z")));
}

#[test]
fn what_is_no_schedule_is_refused_with_what_to_write() {
    for (text, part) in [
        ("", "five fields"),
        ("0 2 * *", "five fields"),
        ("0 2 * * * *", "five fields"),
        ("@reboot", "five fields"),
        ("60 2 * * *", "from 0 to 59"),
        ("0 24 * * *", "from 0 to 23"),
        ("0 2 0 * *", "from 1 to 31"),
        ("0 2 * foo *", "or jan to dec"),
        ("0 2 * * 8", "or sun to sat"),
        ("+5 2 * * *", "is no minute"),
        ("0 5/2 * * *", "5-23/"),
        ("0 22-6 * * *", "22-23,0-6"),
        ("*/0 * * * *", "no number above 0"),
        ("*/x * * * *", "no number above 0"),
        ("0 2 30 2 *", "never comes"),
        ("0 2 31 4,6,9,11 *", "never comes"),
        ("1,,2 * * * *", "is no minute"),
    ] {
        let error = text.parse::<Schedule>().expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert!("0 2 30 2 mon".parse::<Schedule>().is_ok(), "a Monday is enough");
}

#[test]
fn zones_are_found_by_the_names_that_a_server_has() {
    assert_eq!(zone("UTC"), Ok(TimeZone::UTC));
    assert!(zone("Europe/Berlin").is_ok());
    assert!(zone("Mars/Phobos").is_err_and(|error| error.to_string().contains("Mars/Phobos")));
    let three = server_zone("<+03>-03").expect("a POSIX zone");
    let nightly = schedule("0 2 * * *");
    assert_eq!(nightly.next(at("2026-11-21T12:00:00Z"), &three), Some(at("2026-11-21T23:00:00Z")));
}

#[test]
fn at_the_end_of_time_nothing_is_next() {
    assert_eq!(schedule("0 2 * * *").next(Timestamp::MAX, &TimeZone::UTC), None);
    assert!(schedule("0 2 * * *").next(Timestamp::MIN, &TimeZone::UTC).is_some());
}

/// Fields whose times are the same in every zone that has whole quarters of an hour.
fn fields() -> impl Strategy<Value = String> {
    let minute = prop_oneof![Just("*/15".to_owned()), (0u8..60).prop_map(|minute| minute.to_string())];
    let hour = prop_oneof![Just("*".to_owned()), Just("*/5".to_owned()), (0u8..24).prop_map(|hour| hour.to_string())];
    let weekday = prop_oneof![Just("*".to_owned()), (0u8..7).prop_map(|day| day.to_string())];
    (minute, hour, weekday).prop_map(|(minute, hour, weekday)| format!("{minute} {hour} * * {weekday}"))
}

proptest! {
    #[test]
    fn the_next_time_is_the_first_minute_that_fits(text in fields(), second in 1_700_000_000i64..1_900_000_000) {
        let schedule = schedule(&text);
        let after = Timestamp::from_second(second).expect("a time");
        let next = schedule.next(after, &TimeZone::UTC).expect("it comes");
        let fits = |time: Timestamp| {
            let civil = time.to_zoned(TimeZone::UTC);
            schedule.minutes.has(civil.minute().unsigned_abs())
                && schedule.hours.has(civil.hour().unsigned_abs())
                && schedule.on(civil.date())
        };
        let mut minute = Timestamp::from_second((second / 60 + 1) * 60).expect("a time");
        while !fits(minute) {
            minute += 1.minute();
        }
        prop_assert_eq!(next, minute);
    }

    #[test]
    fn each_day_has_its_time_once_whatever_the_clocks_do(hour in 0u8..24, minute in 0u8..60, day in 0i64..400) {
        for name in ["Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Africa/Casablanca"] {
            let zone = zone(name).expect("tzdata is installed");
            let daily = schedule(&format!("{minute} {hour} * * *"));
            let first = at("2026-01-01T12:00:00Z") + (day * 24).hours();
            let one = daily.next(first, &zone).expect("it comes");
            let two = daily.next(one, &zone).expect("it comes");
            let apart = two.duration_since(one).as_hours();
            prop_assert!((22..=26).contains(&apart), "{name}: {one} and {two}");
            prop_assert!(one.duration_since(first).as_hours() <= 25);
        }
    }

    #[test]
    fn no_text_panics_and_what_is_read_moves_on(text in "[0-9*,/@a-z -]{0,24}") {
        if let Ok(schedule) = text.parse::<Schedule>() {
            let after = at("2026-11-21T02:30:00Z");
            prop_assert!(schedule.next(after, &TimeZone::UTC).is_none_or(|next| next > after));
            prop_assert_eq!(schedule.to_string().parse::<Schedule>(), Ok(schedule));
        }
    }
}
