//! WAL that the server keeps for us: how much, why, and when its disk is full at this rate (case 26).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

/// A backlog without trouble must last for so long: a burst is no backlog.
const SETTLED: Duration = Duration::from_secs(60);

/// The rate is that of so much time.
const MEASURED: Duration = Duration::from_secs(300);

/// A disk that is full sooner is critical, whatever the size.
const NEAR: Duration = Duration::from_secs(3600);

/// Below this a rate tells nothing.
const SMALL: u64 = 64 << 20;

/// One look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    /// Bytes of WAL that the slot keeps.
    pub(super) kept: u64,
    /// Bytes free on the disk of `pg_wal`, where they can be seen.
    pub(super) free: Option<u64>,
    /// Bytes that may be written until the server gives the slot up; `None` without a limit.
    pub(super) allowed: Option<u64>,
    /// What is wrong, in words.
    pub(super) why: Option<&'a str>,
}

/// What was seen over the last minutes.
#[derive(Debug)]
pub(super) struct Backlog {
    limit: u64,
    seen: VecDeque<(Instant, u64)>,
    /// Since when it is over the limit.
    over: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(limit: u64) -> Backlog {
        Backlog { limit, seen: VecDeque::new(), over: None }
    }

    /// Judges a look and says so.
    pub(super) fn look(&mut self, alerts: &Alerts, slot: &str, sight: &Sight<'_>, now: Instant) {
        self.seen.push_back((now, sight.kept));
        while self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > MEASURED) {
            self.seen.pop_front();
        }
        let rate = self.rate();
        let full = sight.free.and_then(|free| time_until(free, rate));
        let given_up = sight.allowed.and_then(|allowed| time_until(allowed, rate));
        let near = [full, given_up].into_iter().flatten().any(|time| time < NEAR) && sight.kept >= SMALL;
        self.over = if sight.kept > self.limit { self.over.or(Some(now)) } else { None };
        let lasts = self.over.is_some_and(|since| now.duration_since(since) >= SETTLED);
        if near || lasts || (self.over.is_some() && sight.why.is_some()) {
            let severity = if near { Severity::Critical } else { Severity::Warning };
            alerts.raise(AlertKind::Backlog, slot, severity, text(sight, rate, full, given_up));
        } else if sight.kept <= self.limit / 2 {
            let over = format!("the server keeps {} of WAL for the archiver now", units::size(sight.kept));
            alerts.clear(AlertKind::Backlog, slot, over);
        }
    }

    /// By how many bytes it grows in a second; 0 when it does not.
    fn rate(&self) -> f64 {
        let (Some((first, least)), Some((last, most))) = (self.seen.front(), self.seen.back()) else { return 0.0 };
        let seconds = last.duration_since(*first).as_secs_f64();
        if seconds < 1.0 { 0.0 } else { most.saturating_sub(*least) as f64 / seconds }
    }
}

/// How long until so many bytes are written; `None` when that is never, or years away.
fn time_until(bytes: u64, rate: f64) -> Option<Duration> {
    const YEAR: f64 = 365.0 * 86_400.0;
    let seconds = bytes as f64 / rate;
    (rate >= 1.0 && seconds < YEAR).then(|| Duration::from_secs_f64(seconds))
}

fn text(sight: &Sight<'_>, rate: f64, full: Option<Duration>, given_up: Option<Duration>) -> String {
    let at = |time: Duration| {
        let moment = jiff::Timestamp::now().checked_add(time).map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string());
        format!("in {} ({})", units::duration(Duration::from_secs(time.as_secs())), moment.unwrap_or_default())
    };
    let mut text = format!("pg_wal holds {} of WAL for the archiver", units::size(sight.kept));
    match sight.why {
        Some(why) => text.push_str(&format!(", because: {why}")),
        None => text.push_str(", because it is written faster than it is shipped"),
    }
    if rate >= 1.0 {
        text.push_str(&format!(". It grows by {}", units::rate(rate)));
    } else {
        text.push_str(". It does not grow at the moment");
    }
    match (sight.free, full) {
        (Some(free), Some(full)) => {
            let free = units::size(free);
            text.push_str(&format!(
                "; of that disk {free} are free: at this rate it is full, and the server stops, {}",
                at(full)
            ));
        }
        (Some(free), None) => text.push_str(&format!("; of that disk {} are free", units::size(free))),
        (None, _) => text.push_str("; how much of that disk is free cannot be seen from here"),
    }
    match (sight.allowed, given_up) {
        (Some(_), Some(time)) => {
            text.push_str(&format!("; max_slot_wal_keep_size is reached, and WAL is lost, {}", at(time)));
        }
        (Some(allowed), None) => {
            text.push_str(&format!("; max_slot_wal_keep_size is reached after {} more", units::size(allowed)));
        }
        (None, _) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sight(kept: u64) -> Sight<'static> {
        Sight { kept, free: Some(100 * GIB), allowed: None, why: None }
    }

    struct Bed {
        alerts: Alerts,
        backlog: Backlog,
        start: Instant,
    }

    impl Bed {
        fn new() -> Bed {
            Bed { alerts: Alerts::to_log(), backlog: Backlog::new(GIB), start: Instant::now() }
        }

        /// The alert after a look at so many seconds.
        fn at(&mut self, seconds: u64, sight: Sight<'_>) -> Option<(Severity, String)> {
            self.backlog.look(&self.alerts, "walseal_orders", &sight, self.start + Duration::from_secs(seconds));
            self.alerts.standing().first().map(|alert| (alert.severity, alert.text.clone()))
        }
    }

    #[test]
    fn case_26_a_backlog_is_told_with_its_size_its_cause_and_the_hour_when_the_disk_is_full() {
        let mut bed = Bed::new();
        assert_eq!(bed.at(0, sight(GIB)), None);
        let why = Some("put wal/1 in s3://acme-pg/orders: connection refused");
        let (severity, text) = bed.at(10, Sight { why, ..sight(2 * GIB) }).expect("an alert at once");
        // 1 GiB in 10 s: 100 GiB are full in 1000 s.
        assert_eq!(severity, Severity::Critical);
        for part in
            ["holds 2 GiB of WAL", "because: put wal/1", "grows by 102 MiB/s", "100 GiB are free", "in 16 min 40 s ("]
        {
            assert!(text.contains(part), "{part:?} is missing: {text}");
        }
    }

    #[test]
    fn case_26_a_burst_is_no_backlog_and_one_that_lasts_is() {
        let mut bed = Bed::new();
        assert_eq!(bed.at(0, sight(2 * GIB)), None);
        assert_eq!(bed.at(30, sight(2 * GIB)), None);
        assert_eq!(bed.at(40, sight(0)), None);
        assert_eq!(bed.at(50, sight(2 * GIB)), None);
        assert_eq!(bed.at(109, sight(2 * GIB)), None);
        let (severity, text) = bed.at(110, sight(2 * GIB)).expect("an alert");
        assert!(severity == Severity::Warning && text.contains("written faster than it is shipped"), "{text}");
        // Over is it only when much less is left.
        assert!(bed.at(120, sight(GIB - 1)).is_some());
        assert_eq!(bed.at(130, sight(GIB / 2)), None);
    }

    #[test]
    fn case_26_a_slot_that_is_given_up_soon_is_critical_however_small_it_is() {
        let mut bed = Bed::new();
        bed.at(0, Sight { free: None, ..sight(0) });
        let (severity, text) =
            bed.at(100, Sight { free: None, allowed: Some(GIB), ..sight(100 << 20) }).expect("an alert");
        assert!(
            severity == Severity::Critical
                && text.contains("max_slot_wal_keep_size is reached, and WAL is lost, in 17 min"),
            "{text}"
        );
        assert!(text.contains("cannot be seen from here"), "{text}");
    }

    #[test]
    fn i11_what_was_seen_is_forgotten() {
        let mut bed = Bed::new();
        for look in 0..10_000 {
            bed.at(look * 5, sight(look));
        }
        assert!(bed.backlog.seen.len() <= 62, "{}", bed.backlog.seen.len());
    }
}
