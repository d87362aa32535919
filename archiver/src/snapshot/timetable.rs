//! When snapshots are due. Nothing is remembered (I8): what is due follows from the newest label of each series.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use walseal_common::config::SnapshotConfig;
use walseal_common::schedule::{Schedule, UnknownZone, zone};

/// When, in which time zone.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// The rhythm.
    pub rhythm: Rhythm,
    /// The zone of the schedule, and of retention.
    pub zone: TimeZone,
    /// Begin later by a random time up to this.
    pub jitter: Duration,
}

/// How often.
#[derive(Clone, Debug)]
pub enum Rhythm {
    /// At the times of a calendar.
    Schedule(Schedule),
    /// So long after the last one began.
    Every(Duration),
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It is due since then.
    Due(Timestamp),
    /// Nothing before this time.
    Wait(Timestamp),
    /// A calendar knows no further time.
    Never,
}

impl Timetable {
    /// What is configured; `None` where nothing is to be dumped by itself. A schedule goes before an interval.
    ///
    /// Errors: the time zone is not known on this host.
    pub fn of(config: &SnapshotConfig) -> Result<Option<Timetable>, UnknownZone> {
        let rhythm = match (&config.schedule, &config.interval) {
            (Some(schedule), _) => Rhythm::Schedule(schedule.clone()),
            (None, Some(interval)) => Rhythm::Every(interval.value),
            (None, None) => return Ok(None),
        };
        let zone = match &config.timezone {
            Some(name) => zone(&name.value)?,
            None => TimeZone::system(),
        };
        Ok(Some(Timetable { rhythm, zone, jitter: config.jitter.value }))
    }

    /// What is to be done, with the newest snapshot begun at `newest`. Without any the first one is due at once.
    pub fn turn(&self, newest: Option<Timestamp>, now: Timestamp) -> Turn {
        // Clocks may be apart a little.
        let Some(since) = newest.map(|newest| newest.min(now)) else { return Turn::Due(now) };
        match &self.rhythm {
            Rhythm::Schedule(schedule) => {
                match (schedule.due(since, now, &self.zone), schedule.next(now, &self.zone)) {
                    (Some(due), _) => Turn::Due(due),
                    (None, Some(next)) => Turn::Wait(next),
                    (None, None) => Turn::Never,
                }
            }
            Rhythm::Every(interval) => {
                let next = since.saturating_add(SignedDuration::try_from(*interval).unwrap_or(SignedDuration::MAX));
                match next {
                    Ok(next) if next <= now => Turn::Due(next),
                    Ok(next) => Turn::Wait(next),
                    Err(_) => Turn::Never,
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_caught_up_once_and_a_wrong_clock_holds_up_nothing() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = at("2026-11-21T12:00:00Z");
        let every = |seconds| Timetable {
            rhythm: Rhythm::Every(Duration::from_secs(seconds)),
            zone: TimeZone::UTC,
            jitter: Duration::ZERO,
        };
        assert_eq!(every(3600).turn(None, now), Turn::Due(now));
        assert_eq!(every(3600).turn(Some(at("2026-11-20T12:00:00Z")), now), Turn::Due(at("2026-11-20T13:00:00Z")));
        assert_eq!(every(3600).turn(Some(at("2026-11-21T11:30:00Z")), now), Turn::Wait(at("2026-11-21T12:30:00Z")));
        assert_eq!(every(3600).turn(Some(at("2027-11-21T11:30:00Z")), now), Turn::Wait(at("2026-11-21T13:00:00Z")));
        let schedule = Rhythm::Schedule("0 3 * * *".parse().expect("a schedule"));
        let daily = Timetable { rhythm: schedule, ..every(1) };
        assert_eq!(daily.turn(Some(at("2026-11-18T03:00:10Z")), now), Turn::Due(at("2026-11-19T03:00:00Z")));
        assert_eq!(daily.turn(Some(at("2026-11-21T03:00:10Z")), now), Turn::Wait(at("2026-11-22T03:00:00Z")));
    }
}
