//! How much committed work would be lost with the server, against what is allowed (`alerts.rpo`).

use std::time::Duration;

use jiff::Timestamp;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

use crate::stream::Progress;

/// What is allowed, and since when somebody looks.
#[derive(Debug)]
pub(super) struct ExposureWatch {
    /// Nothing is too much where this is zero.
    allowed: Duration,
    begun: Option<Timestamp>,
}

impl ExposureWatch {
    pub(super) fn new(allowed: Duration) -> ExposureWatch {
        ExposureWatch { allowed, begun: None }
    }

    /// Judges a moment and says so.
    pub(super) fn look(&mut self, alerts: &Alerts, now: &Progress, at: Timestamp) {
        const KIND: AlertKind = AlertKind::RpoExceeded;
        if self.allowed.is_zero() {
            return;
        }
        let begun = *self.begun.get_or_insert(at);
        let loss = now.loss(at);
        // Before the first stream nobody knows what is missing, and that is no better the longer it lasts.
        let blind = Duration::try_from(at.duration_since(begun)).unwrap_or_default();
        let time = loss.map_or(blind, |loss| loss.time);
        if time <= self.allowed {
            if loss.is_some() {
                let over = format!("{} of commits would be lost with the server now", units::duration(time));
                alerts.clear(KIND, "", over);
            }
            return;
        }
        let (time, allowed) = (units::duration(whole(time)), units::duration(self.allowed));
        let what = match loss {
            Some(loss) if loss.at_most => {
                format!("up to {time} of commits would be lost with the server now: it is not heard")
            }
            Some(_) => format!("{time} of commits would be lost with the server now"),
            None => format!("no WAL has been streamed for {time}, since this daemon began"),
        };
        let why = match now.store_trouble.as_deref().or(now.trouble.as_deref()) {
            Some(why) => format!("because: {why}"),
            None => "because WAL is written faster than it is shipped, or the server is silent".to_owned(),
        };
        let text = format!("{what}; {allowed} are allowed (alerts.rpo); {why}");
        alerts.raise(KIND, "", Severity::Critical, text);
    }
}

fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::lsn::Lsn;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_228_200 + seconds).expect("a time")
    }

    fn progress(exposed_since: Option<i64>) -> Progress {
        serde_json::from_value(serde_json::json!({
            "connected": true, "branch": null, "server_end": Lsn(1), "received": Lsn(1), "frontier": Lsn(1),
            "frontier_moved": null, "behind_since": null, "highest_time": null, "trouble": null, "shipped_bytes": 0,
            "exposed_since": exposed_since.map(at), "current_at": at(0), "heard_at": at(1000),
        }))
        .expect("a progress")
    }

    #[test]
    fn more_than_is_allowed_is_told_with_its_amount_until_it_is_less() {
        let (alerts, mut watch) = (Alerts::to_log(), ExposureWatch::new(Duration::from_secs(300)));
        watch.look(&alerts, &progress(Some(701)), at(1001));
        assert_eq!(alerts.standing(), [], "exactly what is allowed");
        watch.look(&alerts, &progress(Some(700)), at(1002));
        let standing = alerts.standing();
        let text = standing.first().map(|alert| alert.text.as_str()).expect("an alert");
        assert!(text.contains("5 min 2 s of commits") && text.contains("5 min are allowed"), "{text}");
        watch.look(&alerts, &progress(None), at(1003));
        assert_eq!(alerts.standing(), []);
    }

    #[test]
    fn a_daemon_that_never_streams_is_told_of_and_zero_asks_for_nothing() {
        let (alerts, mut watch) = (Alerts::to_log(), ExposureWatch::new(Duration::from_secs(300)));
        watch.look(&alerts, &Progress::default(), at(0));
        watch.look(&alerts, &Progress::default(), at(300));
        assert_eq!(alerts.standing(), []);
        watch.look(&alerts, &Progress::default(), at(301));
        assert_eq!(alerts.standing().len(), 1);
        let (alerts, mut never) = (Alerts::to_log(), ExposureWatch::new(Duration::ZERO));
        never.look(&alerts, &progress(Some(0)), at(1_000_000));
        assert_eq!(alerts.standing(), []);
    }
}
