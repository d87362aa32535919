//! Whether a standby that is streamed still gets WAL itself (case 33): one that does not goes on answering, and has nothing that its primary
//! commits since.

use std::time::{Duration, Instant};

use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

/// What the server says of where its WAL comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Upstream {
    /// It was not seen.
    #[default]
    Unknown,
    /// It writes its WAL itself, receives it, or gets it from an archive only, of which nobody can tell how fresh it is.
    Fine,
    /// It is a standby of a primary that it is not connected to.
    CutOff,
}

/// For how long it has been cut off.
#[derive(Debug)]
pub(super) struct UpstreamWatch {
    allowed: Duration,
    since: Option<Instant>,
}

/// Where nothing else is asked for: a primary that is started again is back sooner.
const ALLOWED: Duration = Duration::from_secs(60);

impl UpstreamWatch {
    /// `rpo` is what may be lost; zero says nothing.
    pub(super) fn new(rpo: Duration) -> UpstreamWatch {
        UpstreamWatch { allowed: if rpo.is_zero() { ALLOWED } else { rpo }, since: None }
    }

    /// Judges a look at `host`.
    pub(super) fn look(&mut self, alerts: &Alerts, upstream: Upstream, host: Option<&str>, now: Instant) {
        const KIND: AlertKind = AlertKind::StandbyCutOff;
        match upstream {
            // As it was.
            Upstream::Unknown => {}
            Upstream::Fine => {
                self.since = None;
                alerts.clear(KIND, "", "the server that is streamed receives WAL, or writes it itself");
            }
            Upstream::CutOff => {
                let since = *self.since.get_or_insert(now);
                let lasted = now.duration_since(since);
                if lasted >= self.allowed {
                    let text = format!(
                        "the standby{} that is streamed has not been connected to its primary for {}: what is committed there meanwhile is \
                         nowhere in the repository, although nothing waits here. Look at the standby's log and at primary_conninfo, or name \
                         the primary in cluster.conninfo",
                        host.map_or_else(String::new, |host| format!(" {host}")),
                        units::duration(Duration::from_secs(lasted.as_secs())),
                    );
                    alerts.raise(KIND, "", Severity::Critical, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_33_a_standby_that_is_cut_off_for_longer_than_may_be_lost_is_told_until_it_receives_again() {
        let (alerts, mut watch) = (Alerts::to_log(), UpstreamWatch::new(Duration::from_secs(300)));
        let begin = Instant::now();
        let mut look = |upstream, seconds| {
            watch.look(&alerts, upstream, Some("db2"), begin + Duration::from_secs(seconds));
            alerts.standing().into_iter().map(|alert| alert.text).next()
        };
        assert_eq!(look(Upstream::CutOff, 0), None);
        assert_eq!(look(Upstream::Unknown, 200), None);
        assert_eq!(look(Upstream::CutOff, 299), None);
        let text = look(Upstream::CutOff, 300).unwrap_or_default();
        assert!(text.contains("the standby db2 that is streamed") && text.contains("5 min"), "{text}");
        assert!(look(Upstream::Unknown, 400).is_some(), "nobody knows better");
        assert_eq!(look(Upstream::Fine, 500), None);
        assert_eq!(look(Upstream::CutOff, 501), None, "it begins anew");
    }
}
