//! A calendar month in UTC.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan};

/// A calendar month in UTC: from its first moment on, and before the first of the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    first: Date,
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment of the next month.
    pub until: Timestamp,
}

/// The text is no month.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is not a month; expected one such as 2026-11")]
pub struct NoMonth(String);

impl Period {
    fn of(first: Date) -> Option<Period> {
        let moment = |date: Date| Some(date.in_tz("UTC").ok()?.timestamp());
        let next = first.checked_add(1.month()).ok()?;
        Some(Period { first, from: moment(first)?, until: moment(next)? })
    }

    /// The last month that was over at `now`.
    pub fn before(now: Timestamp) -> Option<Period> {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        Period::of(today.first_of_month().checked_sub(1.month()).ok()?)
    }

    /// Whether `time` lies in it.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from <= time && time < self.until
    }

    /// How many days it has.
    pub fn days(&self) -> usize {
        usize::from(self.first.days_in_month().unsigned_abs())
    }

    /// The day of the month, counted from 0, on which `time` lies; `None` outside.
    pub fn day_of(&self, time: Timestamp) -> Option<usize> {
        self.contains(time).then(|| (time.duration_since(self.from).as_hours() / 24).unsigned_abs() as usize)
    }

    /// The month in words: `November 2026`.
    pub fn words(&self) -> String {
        self.first.strftime("%B %Y").to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first.strftime("%Y-%m"))
    }
}

impl FromStr for Period {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (year, month) = text.split_once('-')?;
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if (year.len(), month.len()) != (4, 2) || !digits(year) || !digits(month) {
                return None;
            }
            let month: i8 = month.parse().ok().filter(|month| (1..=12).contains(month))?;
            Period::of(date(year.parse().ok()?, month, 1))
        };
        read().ok_or_else(|| NoMonth(text.to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_month_has_its_days() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let month: Period = "2028-02".parse().expect("a month");
        assert_eq!((month.from, month.until), (time("2028-02-01T00:00:00Z"), time("2028-03-01T00:00:00Z")));
        assert_eq!((month.days(), month.to_string(), month.words()), (29, "2028-02".into(), "February 2028".into()));
        assert_eq!(month.day_of(time("2028-02-29T23:59:59Z")), Some(28));
        assert_eq!(month.day_of(time("2028-03-01T00:00:00Z")), None);
        let before = Period::before(time("2027-01-31T12:00:00Z")).expect("a month");
        assert_eq!(before.to_string(), "2026-12");
        for wrong in ["2026", "2026-13", "2026-00", "2026-1", "11-2026", "2026-11-01", "+026-11", ""] {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_month_or_an_error(text in "[-0-9+]{0,9}") {
            if let Ok(month) = text.parse::<Period>() {
                prop_assert_eq!(month.to_string(), text);
            }
        }
    }
}
