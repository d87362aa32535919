//! Whether a later timeline has left the one that the server writes (case 16).
//!
//! Behind one address (a virtual IP, a name, a socket on each host) an old primary that still takes writes looks like any other. Only the
//! repository knows that somebody else was promoted. The stream goes on: a copy that made a timeline of its own blocks nobody (case 17).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{Adoptions, Ancestry, Repository, RepositoryError};
use walseal_common::segment::SegmentSize;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use crate::stream::Progress;

const KIND: AlertKind = AlertKind::TimelineLeft;

/// How it ends where another server, or another timeline, is streamed.
const ELSEWHERE: &str = "the server that is streamed does not write that timeline any more";

/// How often the repository is asked: mostly one listing, of what is nearly always empty.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A timeline of which nothing has come for so long is nobody's at the moment: a copy that was stopped cannot be taken out of the
/// repository again, and must not hide for ever what else is critical.
const QUIET: Duration = Duration::from_secs(24 * 3600);

/// Up to where WAL of a branch was seen, and when that last grew, or was first looked at.
#[derive(Clone, Copy, Debug)]
struct Growth {
    end: Lsn,
    at: Instant,
}

/// A branch of a later timeline that comes from the one that is streamed.
#[derive(Clone, Copy, Debug)]
struct Fork {
    later: Branch,
    /// Where its way leaves the branch that is streamed, which the server has passed.
    at: Lsn,
    growth: Growth,
}

/// Looks for such branches.
#[derive(Debug)]
pub(super) struct ForkWatch {
    repository: Repository,
    size: SegmentSize,
    /// What was looked at last, and when.
    looked: Option<(Branch, bool, Instant)>,
    /// What was read of histories, which never change.
    ancestries: BTreeMap<Branch, Ancestry>,
    seen: BTreeMap<Branch, Growth>,
}

impl ForkWatch {
    pub(super) fn new(repository: Repository, size: SegmentSize) -> ForkWatch {
        ForkWatch { repository, size, looked: None, ancestries: BTreeMap::new(), seen: BTreeMap::new() }
    }

    /// Looks, where that is due: as soon as another branch is streamed, and at intervals.
    pub(super) async fn look(&mut self, alerts: &Alerts, now: &Progress, at: Instant) {
        let Some(branch) = now.branch.filter(|_| now.connected && now.store_trouble.is_none()) else { return };
        let what = (branch, now.written_here);
        let since = self.looked.filter(|(branch, written_here, _)| (*branch, *written_here) == what);
        if since.is_some_and(|(_, _, looked)| at.duration_since(looked) < INTERVAL) {
            return;
        }
        self.looked = Some((branch, now.written_here, at));
        if !now.written_here {
            alerts.clear_all_but(KIND, &[], ELSEWHERE);
            return;
        }
        match timeout(PATIENCE, self.fork_from(branch, now.server_end, at)).await {
            Ok(Ok(fork)) => judge(alerts, now, branch, fork, at),
            Ok(Err(error)) => tracing::debug!(%error, "whether a later timeline has left {branch} is not known"),
            Err(_) => tracing::debug!("the repository did not say in time whether a later timeline has left {branch}"),
        }
    }

    /// The branch that left `branch` before `position`; of several the one that grew last, or has the newest timeline.
    async fn fork_from(&mut self, branch: Branch, position: Lsn, at: Instant) -> Result<Option<Fork>, RepositoryError> {
        let mut later = self.repository.branches_with_history().await?;
        later.retain(|other| other.timeline > branch.timeline);
        if later.is_empty() {
            return Ok(None);
        }
        let adoptions = self.repository.adoptions().await?;
        let mut last: Option<Fork> = None;
        for other in later {
            let Some(left) = self.left(&adoptions, branch, other).await?.filter(|left| *left < position) else {
                continue;
            };
            let growth = self.growth(adoptions.at(other, Lsn(u64::MAX)), at).await;
            let fork = Fork { later: other, at: left, growth };
            let order = |fork: &Fork| (fork.growth.at, fork.later);
            last = last.into_iter().chain([fork]).max_by_key(order);
        }
        Ok(last)
    }

    /// Where the way to `later` leaves `branch` for another timeline, if it goes along it.
    async fn left(
        &mut self,
        adoptions: &Adoptions,
        branch: Branch,
        later: Branch,
    ) -> Result<Option<Lsn>, RepositoryError> {
        if !self.ancestries.contains_key(&later)
            && let Some(ancestry) = self.repository.ancestry(later).await?
        {
            self.ancestries.insert(later, ancestry);
        }
        let Some(ancestry) = self.ancestries.get(&later) else { return Ok(None) };
        let way = adoptions.way_along(&ancestry.ancestors, later);
        let from = way.iter().zip(way.iter().skip(1)).find(|(step, _)| step.branch == branch);
        Ok(from.filter(|(_, next)| next.branch.timeline != branch.timeline).and_then(|(step, _)| step.switch))
    }

    /// Up to where there is WAL of `branch`, by name, and when that last was news. Whether it grows is no reason not to tell of it: where
    /// that cannot be seen in time, it may.
    async fn growth(&mut self, branch: Branch, at: Instant) -> Growth {
        let known = self.seen.get(&branch).copied().unwrap_or(Growth { end: Lsn::INVALID, at });
        let growth = match timeout(PATIENCE / 6, self.end_of(branch, known.end)).await {
            Ok(Ok(end)) if end > known.end => Growth { end, at },
            Ok(Ok(_)) => known,
            Ok(Err(error)) => {
                tracing::debug!(%error, "whether {branch} grows is not known");
                Growth { at, ..known }
            }
            Err(_) => Growth { at, ..known },
        };
        self.seen.insert(branch, growth);
        growth
    }

    /// The end of the WAL of `branch`, by name, which was seen up to `known`.
    async fn end_of(&self, branch: Branch, known: Lsn) -> Result<Lsn, RepositoryError> {
        let from = match known {
            // The last catalog page lies shortly before the end.
            Lsn::INVALID => self.repository.catalog_pages(branch, self.size, None).await?.pop(),
            known => Some(self.size.number(known)),
        };
        Ok(self.repository.wal_listing(branch, self.size, from).await?.highest().unwrap_or_default())
    }
}

fn judge(alerts: &Alerts, now: &Progress, branch: Branch, fork: Option<Fork>, at: Instant) {
    let Some(fork) = fork else {
        alerts.clear_all_but(KIND, &[], "no later timeline in the repository has left the one that is streamed");
        return;
    };
    let quiet = at.duration_since(fork.growth.at) >= QUIET;
    let severity = if quiet { Severity::Warning } else { Severity::Critical };
    alerts.raise(KIND, branch.to_string(), severity, text(now, branch, &fork, quiet));
    alerts.clear_all_but(KIND, &[branch.to_string()], ELSEWHERE);
}

fn text(now: &Progress, branch: Branch, fork: &Fork, quiet: bool) -> String {
    let (own, other) = (branch.timeline.number(), fork.later.timeline.number());
    let held = match fork.growth.end {
        end if end > fork.at => format!(", and holds WAL of it up to {end}"),
        _ => String::new(),
    };
    let silence = match quiet {
        true => format!(", of which nothing has come for {}", units::duration(QUIET)),
        false => String::new(),
    };
    format!(
        "the server{} takes writes on timeline {own} (branch {branch}), and is at {}. Another server left that timeline at {} and was promoted \
         to timeline {other}: the repository has its history (branch {}){held}{silence}. Is this the old primary? Then what it commits is \
         on a branch that nobody follows: keep clients away from it, stop it, or make a standby of it with pg_rewind; what it wrote stays \
         restorable with --timeline {own}. Where the other one is a copy that archives by mistake, stop that one. WAL is streamed on \
         meanwhile",
        now.host.as_deref().map_or_else(String::new, |host| format!(" {host}")),
        now.server_end,
        fork.at,
        fork.later,
    )
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::timeline::TimelineHistory;

    use super::*;
    use crate::stream::store_histories;
    use crate::stream::tests::toy::{SYSTEM, Toy, history, root};

    struct Bed {
        toy: Toy,
        alerts: Alerts,
        watch: ForkWatch,
        begin: Instant,
    }

    impl Bed {
        fn new() -> Bed {
            let toy = Toy::new(1);
            let watch = ForkWatch::new(toy.repository.clone(), toy.server.size);
            Bed { toy, alerts: Alerts::to_log(), watch, begin: Instant::now() }
        }

        async fn stores(&self, history: &TimelineHistory) -> Branch {
            store_histories(&self.toy.repository, &self.toy.keys, history).await.expect("it is stored");
            history.branch(SYSTEM)
        }

        /// What stands after a look, so many seconds after the beginning, at a server of this history that is at `position`.
        async fn at(&mut self, seconds: u64, history: &TimelineHistory, position: Lsn) -> Option<(Severity, String)> {
            self.of(seconds, history, position, true).await
        }

        /// The same; whether the server writes that timeline itself.
        async fn of(
            &mut self,
            seconds: u64,
            history: &TimelineHistory,
            position: Lsn,
            written_here: bool,
        ) -> Option<(Severity, String)> {
            let mut now = Progress::default();
            (now.connected, now.written_here, now.server_end) = (true, written_here, position);
            (now.host, now.branch) = (Some("db1".to_owned()), Some(history.branch(SYSTEM)));
            self.watch.look(&self.alerts, &now, self.begin + Duration::from_secs(seconds)).await;
            self.alerts.standing().first().map(|alert| (alert.severity, alert.text.clone()))
        }
    }

    #[tokio::test]
    async fn case_16_a_server_beyond_the_place_where_a_later_timeline_left_its_own_is_told() {
        let mut bed = Bed::new();
        let (fork, beyond) = (bed.toy.at(3, 0x60), bed.toy.at(5, 0));
        assert_eq!(bed.at(0, &root(), beyond).await, None, "nobody was promoted");
        let later = bed.stores(&history(2, &[(1, fork)])).await;
        assert_eq!(bed.at(1, &root(), beyond).await, None, "it is not asked at each look");
        let (severity, text) = bed.at(61, &root(), beyond).await.expect("an alert");
        assert_eq!(severity, Severity::Critical);
        let named = ["db1", "timeline 1 ", &fork.to_string(), &beyond.to_string(), &later.to_string(), "pg_rewind"];
        assert!(named.iter().all(|words| text.contains(words)), "{text}");
        // The new primary is streamed, or the old one as its standby.
        assert_eq!(bed.at(62, &history(2, &[(1, fork)]), beyond).await, None);
        assert!(bed.at(63, &root(), beyond).await.is_some());
        assert_eq!(bed.of(64, &root(), beyond, false).await, None);
    }

    #[tokio::test]
    async fn case_16_no_server_is_told_of_what_left_its_timeline_where_it_has_not_come_or_never_was() {
        let mut bed = Bed::new();
        let (before, fork) = (bed.toy.at(2, 0), bed.toy.at(3, 0x60));
        bed.stores(&history(2, &[(1, fork)])).await;
        // It will follow, as a standby that is promoted, or ends exactly there.
        assert_eq!(bed.at(0, &root(), fork).await, None);
        // The cluster went back to before timeline 2 began: timeline 3 comes from the first one, and nobody left it.
        let back = history(3, &[(1, before)]);
        bed.stores(&back).await;
        assert_eq!(bed.at(100, &back, bed.toy.at(9, 0)).await, None);
        // A copy of that one, which made its own timeline 4, is the later one of two.
        let copy = history(4, &[(1, before), (3, fork)]);
        bed.stores(&copy).await;
        let (_, text) = bed.at(200, &back, bed.toy.at(9, 0)).await.expect("an alert");
        assert!(text.contains("timeline 3 ") && text.contains("to timeline 4:"), "{text}");
    }

    #[tokio::test]
    async fn case_17_a_timeline_of_which_nothing_comes_any_more_is_a_warning_until_it_grows_again() {
        const DAY: u64 = 86_400;
        let mut bed = Bed::new();
        let (fork, beyond) = (bed.toy.at(3, 0x60), bed.toy.at(5, 0));
        let later = bed.stores(&history(2, &[(1, fork)])).await;
        let severity = |told: Option<(Severity, String)>| told.map(|(severity, _)| severity);
        assert_eq!(severity(bed.at(0, &root(), beyond).await), Some(Severity::Critical));
        bed.toy.whole(later, 3).await;
        assert_eq!(severity(bed.at(100, &root(), beyond).await), Some(Severity::Critical));
        assert_eq!(severity(bed.at(DAY, &root(), beyond).await), Some(Severity::Critical), "it grew since");
        let (severe, text) = bed.at(DAY + 100, &root(), beyond).await.expect("an alert");
        assert!(severe == Severity::Warning && text.contains("nothing has come for 1 d"), "{text}");
        bed.toy.whole(later, 4).await;
        assert_eq!(severity(bed.at(DAY + 200, &root(), beyond).await), Some(Severity::Critical));
    }
}
