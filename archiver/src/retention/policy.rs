//! What is promised.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use walseal_common::config::RetentionConfig;

/// What stays: promises, not ages of files (case 39).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Policy {
    /// Any second of this time can be restored, in seconds.
    #[serde(rename = "window_seconds", serialize_with = "seconds")]
    pub window: Duration,
    /// Beyond it a base backup, with the WAL up to its stop point, for each of so many days that have one.
    pub daily: u32,
    /// Likewise for weeks, which begin on Monday.
    pub weekly: u32,
    /// Likewise for months.
    pub monthly: u32,
    /// Proven backups below which nothing that is proven goes.
    pub min_proven: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_secs())
}

impl Policy {
    /// That of a configuration.
    pub fn of(config: &RetentionConfig) -> Policy {
        Policy {
            window: *config.window,
            daily: *config.daily,
            weekly: *config.weekly,
            monthly: *config.monthly,
            min_proven: *config.min_proven,
        }
    }

    /// Where the window begins.
    pub fn begin(&self, now: Timestamp) -> Timestamp {
        let window = SignedDuration::try_from(self.window).unwrap_or(SignedDuration::MAX);
        now.checked_sub(window).unwrap_or(Timestamp::MIN)
    }
}

/// What a backup is the last one of: of a day, a week, a month, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
}

impl Period {
    /// A number that is the same for times of the same period, and higher for later ones.
    pub fn of(self, time: Timestamp) -> i64 {
        let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
        let days = time.as_second().div_euclid(86_400);
        match self {
            Period::Day => days,
            // 1970-01-01 was a Thursday.
            Period::Week => (days + 3).div_euclid(7),
            Period::Month => i64::from(date.year()) * 12 + i64::from(date.month()),
        }
    }
}
