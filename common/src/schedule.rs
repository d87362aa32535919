//! Schedules as cron writes them: five fields, in a time zone.
//!
//! | field | values |
//! | --- | --- |
//! | minute | 0 to 59 |
//! | hour | 0 to 23 |
//! | day of the month | 1 to 31 |
//! | month | 1 to 12, or `jan` to `dec` |
//! | day of the week | 0 to 7 (0 and 7 are Sunday), or `sun` to `sat` |
//!
//! A field is `*`, a value, a range (`1-5`), either with a step (`*/15`, `1-31/2`), or several of them with commas. Where both
//! days are told (neither begins with `*`), one of them is enough, as in cron. `@hourly`, `@daily`, `@weekly`, `@monthly` and
//! `@yearly` are known.
//!
//! Where clocks go forward, a time that is skipped counts as the moment of the change. Where they go back, a time that comes
//! twice counts once, unless the hour is `*`: every hour is every hour.
//!
//! ```
//! use walseal_common::schedule::Schedule;
//! use jiff::{Timestamp, tz::TimeZone};
//!
//! let nightly: Schedule = "0 2 * * *".parse()?;
//! let evening: Timestamp = "2026-11-21T20:00:00Z".parse()?;
//! assert_eq!(nightly.next(evening, &TimeZone::UTC), Some("2026-11-22T02:00:00Z".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod field;
mod zone;

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use field::{DAYS, Field, HOURS, MINUTES, MONTHS, WEEKDAYS};
pub use zone::{UnknownZone, server_zone, zone};

/// Days that are looked at for the next time: February 29 on a certain weekday comes again after 40 years at most.
const HORIZON: usize = 41 * 366;

/// Times that come again, as cron writes them. Printed as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    text: String,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {fix}")]
pub struct ScheduleError {
    /// What is wrong, a sentence without a subject.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
}

impl ScheduleError {
    fn new(problem: impl Into<String>, fix: impl Into<String>) -> ScheduleError {
        ScheduleError { problem: problem.into(), fix: fix.into() }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        let written = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fields = match written.as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            fields => fields,
        };
        let parts: Vec<&str> = fields.split(' ').collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            let example = "write minute, hour, day of the month, month and day of the week, as in \"0 2 * * *\"";
            return Err(ScheduleError::new(format!("{text:?} has not the five fields of cron"), example));
        };
        let schedule = Schedule {
            minutes: MINUTES.parse(minute)?,
            hours: HOURS.parse(hour)?,
            days: DAYS.parse(day)?,
            months: MONTHS.parse(month)?,
            weekdays: WEEKDAYS.parse(weekday)?,
            text: written.clone(),
        };
        if schedule.ever_comes() { Ok(schedule) } else { Err(never(&written)) }
    }
}

fn never(text: &str) -> ScheduleError {
    ScheduleError::new(format!("{text:?} names a day that never comes"), "name one that its months have")
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Schedule {
    /// The first time after `after`; `None` beyond the years that a calendar knows.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // One day back: where clocks go back over midnight, a time of the day before may come again.
        let mut date = after.to_zoned(zone.clone()).date().checked_sub(1.day()).ok()?;
        for _ in 0..HORIZON {
            if self.on(date)
                && let Some(next) = self.times(date, zone).into_iter().filter(|time| *time > after).min()
            {
                return Some(next);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The time that has come by `now` and after `since`, of several the first: however many were missed, they are one.
    pub fn due(&self, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.next(since, zone).filter(|due| *due <= now)
    }

    fn on(&self, date: Date) -> bool {
        let day = self.days.has(date.day().unsigned_abs());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset().unsigned_abs());
        let fits = if self.days.is_open() || self.weekdays.is_open() { day && weekday } else { day || weekday };
        fits && self.months.has(date.month().unsigned_abs())
    }

    /// Every time of a day that fits, in no order.
    fn times(&self, date: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let mut times = Vec::new();
        for hour in (0i8..24).filter(|hour| self.hours.has(hour.unsigned_abs())) {
            for minute in (0i8..60).filter(|minute| self.minutes.has(minute.unsigned_abs())) {
                let civil = date.at(hour, minute, 0, 0);
                match zone.to_ambiguous_timestamp(civil).offset() {
                    AmbiguousOffset::Unambiguous { offset } => times.extend(offset.to_timestamp(civil).ok()),
                    AmbiguousOffset::Gap { after, .. } => times.extend(moment_of_change(zone, civil, after)),
                    AmbiguousOffset::Fold { before, after } => {
                        times.extend(before.to_timestamp(civil).ok());
                        if self.hours.is_open() {
                            times.extend(after.to_timestamp(civil).ok());
                        }
                    }
                }
            }
        }
        times
    }

    /// Whether its days are in its months.
    fn ever_comes(&self) -> bool {
        let longest = |month: u8| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let by_day = (1..=12).any(|month| self.months.has(month) && (1..=longest(month)).any(|day| self.days.has(day)));
        // Where one of them is enough, every month has all weekdays.
        by_day || !(self.days.is_open() || self.weekdays.is_open())
    }
}

/// When clocks jumped over `civil`, to the offset `after`.
fn moment_of_change(zone: &TimeZone, civil: DateTime, after: jiff::tz::Offset) -> Option<Timestamp> {
    // Taken with the later offset, a time within the gap lies before the change.
    let before = after.to_timestamp(civil).ok()?;
    zone.following(before).next().map(|transition| transition.timestamp())
}

#[cfg(test)]
mod tests;
