//! What a person asks to be restored to.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};
use walseal_common::lsn::{Lsn, LsnParseError};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::{Branch, TimelineId};

/// The longest name of a restore point, in bytes (`MAXFNAMELEN`, `xlog_internal.h`, with the zero at its end).
const LONGEST_NAME: usize = 63;

/// `T` of `--to T`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The end of the WAL that the repository holds without a gap.
    Latest,
    /// As soon as the base backup is consistent.
    Immediate,
    /// PostgreSQL's rule: every commit before the first commit or abort, in LSN order, with a later time.
    Time(PgTimestamp),
    /// Through the first record that starts at or after the position; exclusive: up to it.
    Lsn(Lsn),
    /// Through the end of a transaction; exclusive: up to it. 64 bits, as users see them (case 10).
    Xid(u64),
    /// Through a named restore point.
    Name(String),
}

impl Target {
    /// Whether "just before it" means something for this kind of target.
    pub const fn can_be_exclusive(&self) -> bool {
        matches!(self, Target::Time(_) | Target::Lsn(_) | Target::Xid(_))
    }
}

/// As it is written after `--to`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => f.write_str("latest"),
            Target::Immediate => f.write_str("immediate"),
            Target::Time(time) => write!(f, "{time}"),
            Target::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Target::Xid(xid) => write!(f, "xid:{xid}"),
            Target::Name(name) => write!(f, "name:{name}"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One way to read a time that was given without an offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The same time with an offset, as it can be given to `--to`.
    pub text: String,
    /// Whose clock shows it so.
    pub zone: String,
}

/// The text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A time that could be several moments.
    #[error("\"{asked}\" has no offset from UTC, so it could be several moments; say which one:{}", lines(.readings))]
    NoOffset {
        /// What was asked.
        asked: String,
        /// The moments that it could be.
        readings: Vec<Reading>,
    },
    /// A position that is none.
    #[error(transparent)]
    Lsn(#[from] LsnParseError),
    /// A transaction id that is none.
    #[error("\"{0}\" is not a transaction id; expected a number from 3 on, as pg_current_xact_id() shows it")]
    Xid(String),
    /// A name that no restore point can have.
    #[error("\"{0}\" cannot be the name of a restore point: those have 1 to 63 bytes on one line")]
    Name(String),
    /// Nothing of all.
    #[error(
        "\"{0}\" is not a target; expected latest, immediate, a time with an offset such as 2026-11-21T02:30:00Z or \
         '2026-11-21 02:30:00.12+00', lsn:0/3000060, xid:12345 or name:before_migration"
    )]
    Unknown(String),
    /// `--exclusive` with a target that has no "just before".
    #[error("--exclusive goes with a time, lsn: or xid: only; {0} has nothing just before it")]
    NotExclusive(String),
}

fn lines(readings: &[Reading]) -> String {
    readings.iter().map(|reading| format!("\n  --to '{}'   ({})", reading.text, reading.zone)).collect()
}

impl Target {
    /// Reads `T`. A time without an offset is refused with its readings in `zone` (this machine's, as a rule) and in UTC.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Target, TargetError> {
        if let Some(lsn) = text.strip_prefix("lsn:") {
            return Ok(Target::Lsn(lsn.parse()?));
        }
        if let Some(xid) = text.strip_prefix("xid:") {
            let plain = xid.bytes().all(|byte| byte.is_ascii_digit());
            // Ids below 3 belong to no transaction of a user (`FirstNormalTransactionId`), in every epoch.
            let legal = |xid: &u64| plain && *xid & 0xFFFF_FFFF >= 3;
            return xid.parse().ok().filter(legal).map(Target::Xid).ok_or_else(|| TargetError::Xid(xid.to_owned()));
        }
        if let Some(name) = text.strip_prefix("name:") {
            let legal = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(['\n', '\r', '\0']);
            return if legal { Ok(Target::Name(name.to_owned())) } else { Err(TargetError::Name(name.to_owned())) };
        }
        match text {
            "latest" => return Ok(Target::Latest),
            "immediate" => return Ok(Target::Immediate),
            _ => {}
        }
        if let Ok(time) = text.parse::<PgTimestamp>() {
            return Ok(Target::Time(time));
        }
        match text.trim().parse::<DateTime>() {
            Ok(local) => Err(TargetError::NoOffset { asked: text.to_owned(), readings: readings(local, zone) }),
            Err(_) => Err(TargetError::Unknown(text.to_owned())),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Target::parse(text, &TimeZone::system())
    }
}

/// The moments that a clock without an offset can mean: by this machine's zone (two where clocks were set back, none
/// where they were set forward over it), and in UTC.
fn readings(local: DateTime, zone: &TimeZone) -> Vec<Reading> {
    let name = zone.iana_name().map_or_else(|| "this machine's time zone".to_owned(), str::to_owned);
    let offsets = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![(offset, name.clone())],
        AmbiguousOffset::Fold { before, after } => vec![
            (before, format!("{name}, before the clocks were set back")),
            (after, format!("{name}, after the clocks were set back")),
        ],
        AmbiguousOffset::Gap { .. } => Vec::new(),
    };
    let mut readings: Vec<Reading> = offsets
        .into_iter()
        .filter(|(offset, _)| !offset.is_zero())
        .filter_map(|(offset, zone)| offset.to_timestamp(local).ok().map(|moment| (moment, offset, zone)))
        .map(|(moment, offset, zone)| Reading { text: moment.display_with_offset(offset).to_string(), zone })
        .collect();
    let utc = jiff::tz::Offset::UTC.to_timestamp(local).ok();
    readings.extend(utc.map(|moment: Timestamp| Reading { text: moment.to_string(), zone: "UTC".to_owned() }));
    readings
}

/// `--timeline`: a number, or a branch where two timelines have the same number (case 17).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TimelineChoice {
    /// The timeline with this number.
    Number(TimelineId),
    /// Exactly this branch.
    Branch(Branch),
}

impl fmt::Display for TimelineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimelineChoice::Number(timeline) => write!(f, "{}", timeline.number()),
            TimelineChoice::Branch(branch) => write!(f, "{branch}"),
        }
    }
}

impl FromStr for TimelineChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse::<u32>().ok().and_then(TimelineId::new).map(TimelineChoice::Number);
        let branch = || text.parse::<Branch>().ok().map(TimelineChoice::Branch);
        number.or_else(branch).ok_or_else(|| {
            format!(
                "\"{text}\" is not a timeline; expected its number, such as 2, or a branch, such as 00000002-9f3a01bc"
            )
        })
    }
}

/// What recovery does when it has reached its target (`recovery_target_action`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// End recovery and accept connections on a new timeline.
    #[default]
    Promote,
    /// Stay in recovery, readable, until told to go on.
    Pause,
    /// Stop the server.
    Shutdown,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Promote => "promote",
            Action::Pause => "pause",
            Action::Shutdown => "shutdown",
        })
    }
}

impl FromStr for Action {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "promote" => Ok(Action::Promote),
            "pause" => Ok(Action::Pause),
            "shutdown" => Ok(Action::Shutdown),
            other => Err(format!("\"{other}\" is not an action; expected promote, pause or shutdown")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").expect("the system has time zones (Debian: apt-get install tzdata)")
    }

    fn parse(text: &str) -> Result<Target, TargetError> {
        Target::parse(text, &berlin())
    }

    #[test]
    fn every_kind_of_target_is_read_and_written_back() {
        for (text, target) in [
            ("latest", Target::Latest),
            ("immediate", Target::Immediate),
            ("lsn:0/3000060", Target::Lsn(Lsn(0x300_0060))),
            ("xid:12345", Target::Xid(12_345)),
            ("xid:4294979641", Target::Xid(4_294_979_641)),
            ("name:before_migration", Target::Name("before_migration".to_owned())),
            ("name:it's 5 o'clock", Target::Name("it's 5 o'clock".to_owned())),
            ("2026-11-21 02:30:00.12+00", Target::Time(PgTimestamp(848_543_400_120_000))),
        ] {
            assert_eq!(parse(text), Ok(target.clone()));
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn a_time_is_read_with_every_offset_that_people_write() {
        for text in [
            "2026-11-21T02:30:00.12Z",
            "2026-11-21 02:30:00.12+00",
            "2026-11-21 02:30:00.12Z",
            "2026-11-21T08:00:00.12+05:30",
            "2026-11-21 08:00:00.12+05:30",
            "2026-11-20 21:30:00.12-05",
            "2026-11-21 02:30:00.1200009+00:00",
        ] {
            assert_eq!(parse(text), Ok(Target::Time(PgTimestamp(848_543_400_120_000))), "{text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_refused_with_both_readings_as_ready_commands() {
        let error = parse("2026-11-21 02:30:00").expect_err("it could be two moments");
        assert_eq!(
            error.to_string(),
            "\"2026-11-21 02:30:00\" has no offset from UTC, so it could be several moments; say which one:\
             \n  --to '2026-11-21T02:30:00+01:00'   (Europe/Berlin)\
             \n  --to '2026-11-21T02:30:00Z'   (UTC)"
        );
        let TargetError::NoOffset { readings, .. } = error else { panic!("another error") };
        for reading in readings {
            assert!(matches!(parse(&reading.text), Ok(Target::Time(_))), "{reading:?}");
        }
    }

    #[test]
    fn an_hour_that_came_twice_has_three_readings_and_one_that_never_was_has_one() {
        let readings = |text: &str| match parse(text) {
            Err(TargetError::NoOffset { readings, .. }) => readings.into_iter().map(|r| r.text).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            readings("2026-10-25 02:30:00"),
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00Z"]
        );
        assert_eq!(readings("2026-03-29 02:30:00"), ["2026-03-29T02:30:00Z"]);
    }

    #[test]
    fn on_a_machine_in_utc_there_is_one_reading() {
        let error = Target::parse("2026-11-21 02:30", &TimeZone::UTC).expect_err("no offset");
        let TargetError::NoOffset { readings, .. } = error else { panic!("another error") };
        assert_eq!(readings.len(), 1);
    }

    #[test]
    fn what_is_no_target_is_refused_by_name() {
        for text in
            ["", "now", "lsn:", "lsn:3000060", "xid:", "xid:2", "xid:4294967296", "xid:-1", "xid:+5", "name:", "12345"]
        {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse(&format!("name:{}", "x".repeat(64))).is_err());
        assert!(parse("name:a\nb").is_err());
    }

    #[test]
    fn case_17_a_timeline_is_chosen_by_number_or_by_branch() {
        assert_eq!("2".parse(), Ok(TimelineChoice::Number(TimelineId::new(2).expect("not zero"))));
        assert!(matches!("00000002-9f3a01bc".parse(), Ok(TimelineChoice::Branch(_))));
        assert!("0".parse::<TimelineChoice>().is_err());
        assert!("latest".parse::<TimelineChoice>().is_err());
    }

    proptest! {
        #[test]
        fn targets_never_panic_and_survive_text(text: String) {
            if let Ok(target) = parse(&text) {
                prop_assert_eq!(parse(&target.to_string()), Ok(target));
            }
        }
    }
}
