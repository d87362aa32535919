//! The server's own archiving: while that fails, WAL piles up in `pg_wal`, however much of it the stream has shipped (case 26).

use std::time::{Duration, Instant};

use walseal_common::lsn::Lsn;
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

/// A failure must last for so long, unless much waits already: one that the next try mends is none.
const SETTLED: Duration = Duration::from_secs(60);

/// What the server says of its archiving.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Archiving {
    /// It was not seen, or does not say.
    #[default]
    Unknown,
    /// It does not fail: it works, or there is none.
    Fine,
    Fails(Jam),
}

/// Where it fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Jam {
    /// What could not be archived: a segment, a history file, a backup label.
    pub(super) file: String,
    /// Bytes of WAL from there on, where it is a segment.
    pub(super) waiting: Option<u64>,
}

impl Jam {
    pub(super) fn at(file: String, end: Lsn, size: Option<SegmentSize>) -> Jam {
        let number =
            file.parse().ok().zip(size).and_then(|(name, size): (SegmentName, _)| Some((name.number(size)?, size)));
        let waiting = number.map(|(number, size)| end.0.saturating_sub(number.range(size).start.0));
        Jam { file, waiting }
    }
}

/// How long it has failed.
#[derive(Debug)]
pub(super) struct JamWatch {
    limit: u64,
    since: Option<Instant>,
}

impl JamWatch {
    /// More bytes than `limit` are told at once.
    pub(super) fn new(limit: u64) -> JamWatch {
        JamWatch { limit, since: None }
    }

    /// Judges a look; `free` is what the disk of `pg_wal` has left.
    pub(super) fn look(&mut self, alerts: &Alerts, archiving: &Archiving, free: Option<u64>, now: Instant) {
        const KIND: AlertKind = AlertKind::ArchiveCommandFails;
        let jam = match archiving {
            Archiving::Unknown => return,
            Archiving::Fine => {
                self.since = None;
                alerts.clear(KIND, "", "the server's own archiving does not fail any more");
                return;
            }
            Archiving::Fails(jam) => jam,
        };
        let since = *self.since.get_or_insert(now);
        let much = jam.waiting.is_some_and(|waiting| waiting > self.limit);
        if much || now.duration_since(since) >= SETTLED {
            let severity = if much { Severity::Critical } else { Severity::Warning };
            alerts.raise(KIND, "", severity, text(jam, free));
        }
    }
}

fn text(jam: &Jam, free: Option<u64>) -> String {
    let mut text = format!("the server's own archiving (archive_command or archive_library) fails at {}", jam.file);
    match jam.waiting {
        Some(waiting) => text.push_str(&format!(": {} of WAL wait in pg_wal until it works", units::size(waiting))),
        None => text.push_str(": WAL waits in pg_wal until it works"),
    }
    text.push_str(", also what the stream has shipped");
    if let Some(free) = free {
        text.push_str(&format!("; of that disk {} are free", units::size(free)));
    }
    text.push_str("; the server's log says why it fails");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn case_26_what_waits_begins_with_the_segment_that_failed() {
        let at = |file: &str| Jam::at(file.to_owned(), Lsn(5 * 16 * MIB + 7), SegmentSize::new(16 << 20).ok()).waiting;
        assert_eq!(at("000000010000000000000003"), Some(2 * 16 * MIB + 7));
        assert_eq!(at("000000010000000000000009"), Some(0), "of a server that went back in time");
        assert_eq!(at("00000002.history"), None);
        assert_eq!(Jam::at("000000010000000000000003".to_owned(), Lsn(0), None).waiting, None);
    }

    #[test]
    fn case_26_an_archiving_that_fails_is_told_when_it_lasts_or_much_waits_and_when_it_works() {
        let (alerts, start) = (Alerts::to_log(), Instant::now());
        let mut watch = JamWatch::new(64 * MIB);
        let mut look = |waiting: Option<u64>, seconds| {
            let fails = |bytes| Archiving::Fails(Jam { file: "0".repeat(24), waiting: Some(bytes) });
            let archiving = waiting.map_or(Archiving::Fine, fails);
            watch.look(&alerts, &archiving, Some(MIB), start + Duration::from_secs(seconds));
            watch.look(&alerts, &Archiving::Unknown, None, start + Duration::from_secs(seconds));
            alerts.standing().first().map(|alert| (alert.severity, alert.text.clone()))
        };
        assert_eq!(look(Some(MIB), 0), None, "the next try may mend it");
        assert_eq!(look(None, 30), None);
        assert_eq!(look(Some(MIB), 50), None);
        assert_eq!(look(Some(MIB), 100), None, "it began anew");
        let (severity, text) = look(Some(MIB), 110).expect("it lasts");
        assert_eq!(severity, Severity::Warning);
        assert!(text.contains("1 MiB of WAL wait in pg_wal") && text.contains("of that disk 1 MiB are free"), "{text}");
        assert_eq!(look(None, 115), None, "it is over");
        assert_eq!(look(Some(65 * MIB), 120).expect("much waits").0, Severity::Critical);
    }
}
