//! Moments as PostgreSQL counts them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 2000-01-01 00:00:00 UTC in seconds since 1970 (`POSTGRES_EPOCH_JDATE`, `datatype/timestamp.h`).
const EPOCH_UNIX_SECONDS: i64 = 946_684_800;
const MICROS: i64 = 1_000_000;

/// A moment: microseconds since 2000-01-01 00:00:00 UTC, as in `TimestampTz` of WAL records.
///
/// Printed in UTC as PostgreSQL does (`2026-11-21 02:30:00.12+00`); serialised as RFC 3339 with microseconds
/// (`2026-11-21T02:30:00.120000Z`). Any number can stand in the field, because it may come from outside;
/// [`PgTimestamp::to_jiff`] says which are moments that a calendar knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// The moment `timestamp`, cut (towards the past) to whole microseconds.
    pub fn from_jiff(timestamp: jiff::Timestamp) -> PgTimestamp {
        // A jiff timestamp lies within about 10,000 years of 1970: microseconds fit 64 bits many times over.
        let nanos = timestamp.as_nanosecond().div_euclid(1000);
        let unix = i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
        PgTimestamp(unix.saturating_sub(EPOCH_UNIX_SECONDS * MICROS))
    }

    /// A moment given in whole seconds since 1970, as `pg_time_t` of checkpoints; saturates.
    pub const fn from_unix_seconds(seconds: i64) -> PgTimestamp {
        PgTimestamp(seconds.saturating_sub(EPOCH_UNIX_SECONDS).saturating_mul(MICROS))
    }

    /// The same moment for calendars and clocks; `None` outside the years -9999 to 9999.
    pub fn to_jiff(self) -> Option<jiff::Timestamp> {
        let unix = self.0.checked_add(EPOCH_UNIX_SECONDS * MICROS)?;
        jiff::Timestamp::from_microsecond(unix).ok()
    }

    /// As [`PgTimestamp::to_jiff`], with what lies outside those years moved to their edge. Nothing moves in a
    /// [`TransactionEnd`](crate::wal::TransactionEnd), whose times are checked.
    pub fn to_jiff_saturating(self) -> jiff::Timestamp {
        let edge = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        self.to_jiff().unwrap_or(edge)
    }
}

impl fmt::Display for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(moment) = self.to_jiff() else {
            return write!(f, "{} microseconds since 2000-01-01", self.0);
        };
        let utc = moment.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let (year, month, day) = (utc.year(), utc.month(), utc.day());
        let (hour, minute, second) = (utc.hour(), utc.minute(), utc.second());
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")?;
        let micros = utc.subsec_nanosecond() / 1000;
        if micros != 0 {
            write!(f, ".{}", format!("{micros:06}").trim_end_matches('0'))?;
        }
        f.write_str("+00")
    }
}

impl fmt::Debug for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a time with an offset; expected one such as 2026-11-21T02:30:00Z or 2026-11-21 02:30:00.12+00")]
pub struct PgTimestampParseError(pub String);

/// RFC 3339, or as PostgreSQL prints it. The offset is required; digits beyond microseconds are cut.
impl FromStr for PgTimestamp {
    type Err = PgTimestampParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| PgTimestampParseError(text.to_owned()))?;
        Ok(PgTimestamp::from_jiff(moment))
    }
}

impl Serialize for PgTimestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let moment = self
            .to_jiff()
            .ok_or_else(|| serde::ser::Error::custom(format!("a time outside the years -9999 to 9999: {self}")))?;
        serializer.collect_str(&format_args!("{moment:.6}"))
    }
}

impl<'de> Deserialize<'de> for PgTimestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamp_is_printed_as_postgres_prints_it() {
        // The values are those of select extract(epoch from t - '2000-01-01 UTC') * 1000000.
        let cases = [
            (0, "2000-01-01 00:00:00+00"),
            (848_543_400_120_000, "2026-11-21 02:30:00.12+00"),
            (848_543_400_000_001, "2026-11-21 02:30:00.000001+00"),
            (-1, "1999-12-31 23:59:59.999999+00"),
        ];
        for (micros, text) in cases {
            assert_eq!(PgTimestamp(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(PgTimestamp(micros)));
        }
    }

    #[test]
    fn timestamp_reads_offsets_and_refuses_times_without_one() {
        let expected = Ok(PgTimestamp(848_543_400_000_000));
        for text in [
            "2026-11-21T02:30:00Z",
            "2026-11-21T03:30:00+01:00",
            "2026-11-20 21:30:00-05",
            "2026-11-21T02:30:00.0000009Z",
        ] {
            assert_eq!(text.parse::<PgTimestamp>(), expected, "{text}");
        }
        for text in ["2026-11-21 02:30:00", "2026-11-21", "now", "", "infinity"] {
            assert!(text.parse::<PgTimestamp>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn timestamp_is_serialised_as_rfc_3339_with_microseconds() {
        let json = serde_json::to_string(&PgTimestamp(848_543_400_120_000)).expect("a time of our years");
        assert_eq!(json, "\"2026-11-21T02:30:00.120000Z\"");
        assert!(serde_json::to_string(&PgTimestamp(i64::MAX)).is_err());
    }

    proptest! {
        #[test]
        fn timestamp_survives_text_and_json(micros in -300_000_000_000_000_000i64..200_000_000_000_000_000) {
            let moment = PgTimestamp(micros);
            let json = serde_json::to_string(&moment).expect("in range");
            prop_assert_eq!(serde_json::from_str::<PgTimestamp>(&json).ok(), Some(moment));
            prop_assert_eq!(moment.to_jiff().map(PgTimestamp::from_jiff), Some(moment));
            // PostgreSQL marks years before 1 with BC; jiff's signed years are not read here.
            if micros > -63_113_904_000_000_000 {
                prop_assert_eq!(moment.to_string().parse(), Ok(moment));
            }
        }

        #[test]
        fn timestamp_never_panics(micros: i64, text: String) {
            prop_assert!(!PgTimestamp(micros).to_string().is_empty());
            prop_assert_eq!(PgTimestamp(micros).to_jiff_saturating() > jiff::Timestamp::UNIX_EPOCH, micros > -946_684_800_000_000);
            let parsed = text.parse::<PgTimestamp>();
            prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
