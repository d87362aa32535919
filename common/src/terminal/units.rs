//! Sizes, times and rates for people.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::time::PgTimestamp;

/// Bytes, in powers of 1,024: `512 B`, `1.2 GiB`, `340 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be printed as 1024 belongs to the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") };
    format!("{} {}", digits.trim_end_matches(".0"), UNITS[unit])
}

/// Bytes per second: `210 MiB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    // Casting saturates, and makes 0 of what is not a number.
    format!("{}/s", size(bytes_per_second as u64))
}

/// WAL between two positions: `16 MiB`; with a minus sign where `later` lies before `earlier`.
pub fn distance(earlier: Lsn, later: Lsn) -> String {
    if later < earlier { format!("-{}", size(earlier.bytes_since(later))) } else { size(later.bytes_since(earlier)) }
}

/// A length of time: `80 ms`, `0.8 s`, `45 s`, `3 min 20 s`, `2 h 5 min`, `14 d 3 h`.
pub fn duration(time: Duration) -> String {
    let milliseconds = time.as_millis();
    let (first, second) = match time.as_secs() {
        _ if milliseconds < 100 => return format!("{milliseconds} ms"),
        _ if milliseconds < 9_950 => return format!("{:.1} s", time.as_secs_f64()).replace(".0 ", " "),
        seconds if milliseconds < 59_500 => return format!("{} s", seconds + u64::from(time.subsec_millis() >= 500)),
        seconds if seconds < 3_600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        seconds if seconds < 86_400 => ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "min")),
        seconds => ((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
    };
    // 59.5 s rounds up to a minute.
    let first = (if first == (0, "min") { 1 } else { first.0 }, first.1);
    let second = if time.as_secs() < 60 { (0, second.1) } else { second };
    if second.0 == 0 {
        format!("{} {}", first.0, first.1)
    } else {
        format!("{} {} {} {}", first.0, first.1, second.0, second.1)
    }
}

/// How long before `now` a moment was, in one unit: `3 s ago`, `6 h ago`. A moment in the future, which happens where
/// clocks differ, is `in 3 s`.
pub fn ago(now: PgTimestamp, moment: PgTimestamp) -> String {
    let seconds = now.0.abs_diff(moment.0) / 1_000_000;
    let text = match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    if moment > now && seconds > 0 { format!("in {text}") } else { format!("{text} ago") }
}

/// A moment as an argument that needs no quotes, always with its offset: `2026-11-21T02:30:00.12Z`. For reading,
/// [`PgTimestamp`] prints itself as PostgreSQL does.
pub fn time_argument(moment: PgTimestamp) -> String {
    moment.to_string().replacen(' ', "T", 1).replace("+00", "Z")
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits_that_matter() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (16 << 20, "16 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (340 << 20, "340 MiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(rate(220_200_960.0), "210 MiB/s");
        assert_eq!(rate(f64::NAN), "0 B/s");
        assert_eq!(distance(Lsn(0), Lsn(16 << 20)), "16 MiB");
        assert_eq!(distance(Lsn(16 << 20), Lsn(0)), "-16 MiB");
    }

    #[test]
    fn durations_are_as_exact_as_they_are_long() {
        let cases = [
            (0, "0 ms"),
            (80, "80 ms"),
            (800, "0.8 s"),
            (3_000, "3 s"),
            (9_949, "9.9 s"),
            (9_951, "10 s"),
            (59_499, "59 s"),
            (59_700, "1 min"),
            (60_000, "1 min"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
            (1_220_400_000, "14 d 3 h"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn moments_are_told_relative_to_now_and_as_arguments() {
        let at = |text: &str| text.parse::<PgTimestamp>().expect(text);
        let now = at("2026-11-21 12:00:00+00");
        assert_eq!(ago(now, at("2026-11-21 11:59:57.2+00")), "2 s ago");
        assert_eq!(ago(now, at("2026-11-21 06:00:00+00")), "6 h ago");
        assert_eq!(ago(now, at("2026-11-18 06:00:00+00")), "3 d ago");
        assert_eq!(ago(now, at("2026-11-21 12:00:05+00")), "in 5 s");
        assert_eq!(ago(now, now), "0 s ago");
        assert_eq!(time_argument(at("2026-11-21 02:30:00.12+00")), "2026-11-21T02:30:00.12Z");
    }

    proptest! {
        #[test]
        fn no_number_makes_the_units_panic(bytes: u64, milliseconds: u64, a: i64, b: i64, per_second: f64) {
            prop_assert!(!size(bytes).is_empty() && !rate(per_second).is_empty());
            prop_assert!(!duration(Duration::from_millis(milliseconds)).is_empty());
            prop_assert!(!ago(PgTimestamp(a), PgTimestamp(b)).is_empty());
        }

        #[test]
        fn a_printed_argument_is_read_as_the_same_moment(micros in -1_000_000_000_000_000i64..1_000_000_000_000_000) {
            let moment = PgTimestamp(micros);
            prop_assert_eq!(time_argument(moment).parse::<PgTimestamp>(), Ok(moment));
        }
    }
}
