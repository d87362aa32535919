//! Values as people write them: durations, sizes, words.

use std::time::Duration;

/// Why a value is not what its key takes. Neither part ever quotes a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// What is wrong with it, as a sentence without a subject: `"90" has no unit`.
    pub problem: String,
    /// What to write instead: `write "90s" for seconds`.
    pub fix: String,
}

impl Wrong {
    /// A wrong value and its cure.
    pub fn new(problem: impl Into<String>, fix: impl Into<String>) -> Wrong {
        Wrong { problem: problem.into(), fix: fix.into() }
    }
}

/// Names of units and what one of them is worth.
const TIMES: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Splits `90s` into its number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A duration such as `500ms`, `1s`, `5m`, `12h`, `14d` or `2w`; at most 100 years.
///
/// Errors: a number without unit, an unknown unit, a fraction, too much.
pub fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    const LONGEST: u64 = 100 * 366 * 86_400_000;
    let units = "a duration is a whole number with ms, s, m, h, d or w, such as \"500ms\", \"5m\" or \"14d\"";
    let Some((number, unit)) = split(text) else {
        return Err(Wrong::new(format!("{text:?} is not a duration"), units));
    };
    if unit.is_empty() {
        return Err(Wrong::new(format!("{number} has no unit"), format!("write \"{number}s\" if seconds are meant")));
    }
    let Some((_, worth)) = TIMES.iter().find(|(name, _)| *name == unit) else {
        return Err(Wrong::new(format!("{text:?} is not a duration"), units));
    };
    match number.checked_mul(*worth) {
        Some(milliseconds) if milliseconds <= LONGEST => Ok(Duration::from_millis(milliseconds)),
        _ => Err(Wrong::new(format!("{text:?} is more than 100 years"), "write a shorter time")),
    }
}

/// A size or a rate in bytes: `0`, `512B`, `100MB` (10^6), `64MiB` (2^20). A rate may end in `/s`.
///
/// Errors: a number other than 0 without unit, an unknown unit, a fraction, more than 2^63 bytes.
pub fn parse_size(text: &str) -> Result<u64, Wrong> {
    let units = "a size is a whole number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as \"100MB\" or \"64MiB\"";
    let Some((number, unit)) = split(text.trim().trim_end_matches("/s")) else {
        return Err(Wrong::new(format!("{text:?} is not a size"), units));
    };
    if unit.is_empty() {
        return match number {
            0 => Ok(0),
            _ => Err(Wrong::new(format!("{number} has no unit"), format!("write \"{number}B\" if bytes are meant"))),
        };
    }
    let Some((_, worth)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        return Err(Wrong::new(format!("{text:?} is not a size"), units));
    };
    match number.checked_mul(*worth) {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(Wrong::new(format!("{text:?} is more than any disk holds"), "write a smaller size")),
    }
}

/// Checks a cluster's name: `[a-z0-9_-]`, at most 55 long, so that `walseal_<name>` fits a slot's name.
pub fn check_cluster_name(name: &str) -> Result<(), Wrong> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    match name.len() {
        1..=55 if name.bytes().all(plain) => Ok(()),
        _ => Err(Wrong::new(
            format!("{name:?} cannot be a cluster's name"),
            "use 1 to 55 of a-z, 0-9, _ and -, such as \"orders\"",
        )),
    }
}

/// Checks a slot's name by PostgreSQL's rule: `[a-z0-9_]`, 1 to 63 long (src/backend/replication/slot.c).
pub fn check_slot(name: &str) -> Result<(), Wrong> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
    match name.len() {
        1..=63 if name.bytes().all(plain) => Ok(()),
        _ => Err(Wrong::new(
            format!("{name:?} cannot be a replication slot's name"),
            "use 1 to 63 of a-z, 0-9 and _, such as \"walseal_orders\"",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("1s", 1_000), ("5m", 300_000), ("14d", 1_209_600_000), ("0s", 0), (" 2 h ", 7_200_000)]
        {
            assert_eq!(parse_duration(text).expect(text), Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn a_duration_without_unit_is_refused_with_the_fix() {
        let wrong = parse_duration("90").expect_err("no unit");
        assert_eq!(
            (wrong.problem.as_str(), wrong.fix.as_str()),
            ("90 has no unit", "write \"90s\" if seconds are meant")
        );
        for text in ["", "s", "1.5s", "-1s", "1 second", "1y", "1S", "99999999999999999999s", "5000w", "５s"] {
            if text == "5000w" {
                assert!(parse_duration(text).is_ok(), "{text} is less than 100 years");
            } else {
                assert!(parse_duration(text).is_err(), "{text} was accepted");
            }
        }
    }

    #[test]
    fn sizes_tell_decimal_from_binary_units() {
        for (text, bytes) in
            [("0", 0), ("100MB", 100_000_000), ("64MiB", 67_108_864), ("1 kB", 1_000), ("5MB/s", 5_000_000)]
        {
            assert_eq!(parse_size(text).expect(text), bytes, "{text}");
        }
        for text in ["", "100", "64M", "1.5GB", "-1MB", "99999999TiB", "MB"] {
            assert!(parse_size(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn names_that_postgres_would_refuse_as_slots_are_refused() {
        assert!(check_cluster_name("orders-eu_1").is_ok() && check_slot("walseal_orders_eu_1").is_ok());
        for name in ["", "Orders", "a b", "a/b", "ä", &"x".repeat(56)] {
            assert!(check_cluster_name(name).is_err(), "{name} was accepted");
        }
        for name in ["", "with-hyphen", &"x".repeat(64)] {
            assert!(check_slot(name).is_err(), "{name} was accepted");
        }
    }

    proptest! {
        #[test]
        fn durations_and_sizes_never_panic_on_any_text(text: String) {
            prop_assert!(parse_duration(&text).is_ok() || parse_duration(&text).is_err());
            prop_assert!(parse_size(&text).is_ok() || parse_size(&text).is_err());
        }

        #[test]
        fn any_whole_number_with_a_known_unit_is_a_duration(number in 0u64..3_000, unit in 0usize..TIMES.len()) {
            let (name, worth) = TIMES[unit];
            prop_assert_eq!(parse_duration(&format!("{number}{name}")), Ok(Duration::from_millis(number * worth)));
        }
    }
}
