//! How far the stream is, for everybody who asks: status, backups that wait, the hook.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use walseal_common::lsn::Lsn;
use walseal_common::timeline::Branch;

use super::exposure::{Commits, Exposure};

/// A moment's view of the stream. `server_end >= received >= frontier` while connected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Whether a stream is running now.
    pub connected: bool,
    /// The host that is streamed, or was last, as messages name it.
    #[serde(default)]
    pub host: Option<String>,
    /// The branch that is streamed, or was last.
    pub branch: Option<Branch>,
    /// End of WAL on the server, as it last said.
    pub server_end: Lsn,
    /// End of what was received; may be lost with this process.
    pub received: Lsn,
    /// End of the contiguous durable WAL: what was confirmed to the server.
    pub frontier: Lsn,
    /// When the frontier last moved, by this host's clock.
    pub frontier_moved: Option<Timestamp>,
    /// Since when something received has not been durable, by this host's clock; none while all is.
    pub behind_since: Option<Timestamp>,
    /// The highest transaction time in what this process made durable.
    pub highest_time: Option<Timestamp>,
    /// Why there is no stream, in words.
    pub trouble: Option<String>,
    /// What the store fails to do at the moment, and why, in words; it is tried again, also while the stream goes on.
    #[serde(default)]
    pub store_trouble: Option<String>,
    /// Since when, at the earliest, committed work has not been durable: the time of the first such commit, or where WAL is known
    /// that was not read yet, a time before which none of its commits was made. None while all that is known of is durable.
    #[serde(default)]
    pub exposed_since: Option<Timestamp>,
    /// No commit that is missing was made before this moment, whatever the server has done since it was last heard.
    #[serde(default)]
    pub current_at: Option<Timestamp>,
    /// When the server was last heard.
    #[serde(default)]
    pub heard_at: Option<Timestamp>,
    /// Bytes of WAL that this process made durable.
    pub shipped_bytes: u64,
    /// Pieces of WAL that this process made durable.
    #[serde(default)]
    pub shipped_pieces: u64,
    /// Gaps that this process found and recorded (I5).
    #[serde(default)]
    pub gaps: u64,
    /// Whether the server writes the branch that is streamed itself: it is not in recovery, and the branch is its own, no ancestor's.
    #[serde(skip)]
    pub(crate) written_here: bool,
    /// Up to where the durable WAL is known to be what this server wrote: it was compared with what that sent, or the server's slot was
    /// told of it. The rest, up to the frontier, another server may have written.
    #[serde(skip)]
    pub(crate) proven: Lsn,
    /// The same where somebody else has the slot: what the slot was told of, on which branch.
    #[serde(skip)]
    elsewhere: Option<(Branch, Lsn)>,
    /// End of all that was ever received of the branch, also by streams that ended before it was durable.
    #[serde(skip)]
    known: Lsn,
    /// Since when WAL has been known from a position on, of what is not durable yet.
    #[serde(skip)]
    arrivals: VecDeque<(Lsn, Timestamp)>,
    #[serde(skip)]
    exposure: Exposure,
}

/// Committed work that would be lost with the server now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// How far it reaches back from now.
    pub time: Duration,
    /// It may be less, down to nothing: the server is not heard, and nobody knows what it did since.
    pub at_most: bool,
}

/// A server that streams and says nothing for longer may have gone on without being heard.
const HEARING: Duration = Duration::from_secs(10);

/// Arrivals that are closer together are not told apart.
const ARRIVAL_GRAIN: Duration = Duration::from_millis(100);

/// Most arrivals that are remembered (I11); what comes later counts as having come with the last of them.
const MOST_ARRIVALS: usize = 1024;

impl Progress {
    /// A stream has begun; everything before `frontier` is durable.
    pub(super) fn begun(&mut self, branch: Branch, frontier: Lsn, server_end: Lsn, now: Timestamp) {
        self.exposure.begun(self.branch == Some(branch), frontier);
        if self.branch != Some(branch) {
            self.arrivals.clear();
            self.known = frontier;
            self.server_end = Lsn::INVALID;
        }
        self.connected = true;
        self.branch = Some(branch);
        (self.received, self.frontier, self.proven) = (frontier, frontier, Lsn::INVALID);
        self.elsewhere = None;
        self.server_end = self.server_end.max(server_end);
        self.trouble = None;
        self.forget_durable();
        self.heard(server_end, now);
    }

    /// There is no stream, because somebody else has the slot, which was told of what lies before `end`: that is durable.
    pub(super) fn shipped_by_another(&mut self, branch: Branch, end: Lsn) {
        self.elsewhere = Some((branch, end));
    }

    /// Where WAL of this server ends that is durable, with its branch: of the newest one that is known.
    pub(crate) fn reach(&self) -> Option<(Branch, Lsn)> {
        let own = self.branch.map(|branch| (branch, self.proven));
        own.into_iter().chain(self.elsewhere).max_by_key(|(branch, end)| (branch.timeline, *end))
    }

    /// What is durable up to `end` is this server's.
    pub(super) fn proven_to(&mut self, end: Lsn) {
        self.proven = self.proven.max(end);
    }

    /// The server said where its WAL ends.
    pub(super) fn heard(&mut self, server_end: Lsn, now: Timestamp) {
        self.server_end = self.server_end.max(server_end);
        self.exposure.heard(self.server_end, now);
        self.tell_exposure();
    }

    /// WAL up to `end` was read, with these commits.
    pub(super) fn read_to(&mut self, end: Lsn, commits: Option<Commits>) {
        self.exposure.read_to(end, commits);
        self.tell_exposure();
    }

    fn tell_exposure(&mut self) {
        self.exposed_since = self.exposure.since(self.server_end);
        self.current_at = self.exposure.current();
        self.heard_at = self.exposure.heard_at();
    }

    /// WAL up to `end` was received.
    pub(super) fn arrived(&mut self, end: Lsn, server_end: Lsn, now: Timestamp) {
        self.heard(server_end.max(end), now);
        self.received = self.received.max(end);
        let from = self.known.max(self.frontier);
        let grain =
            |last: Timestamp| Duration::try_from(now.duration_since(last)).is_ok_and(|since| since >= ARRIVAL_GRAIN);
        if end > from {
            let apart = self.arrivals.back().is_none_or(|(_, last)| grain(*last));
            if apart && self.arrivals.len() < MOST_ARRIVALS {
                self.arrivals.push_back((from, now));
            }
            self.known = end;
        }
        self.behind_since = self.arrivals.front().map(|(_, at)| *at);
    }

    /// WAL is durable up to `end`.
    pub(super) fn durable_to(&mut self, end: Lsn, now: Timestamp) {
        if end > self.frontier {
            self.frontier = end;
            self.frontier_moved = Some(now);
            self.forget_durable();
            self.exposure.durable_to(end);
            self.tell_exposure();
        }
    }

    fn forget_durable(&mut self) {
        if self.frontier >= self.known {
            self.arrivals.clear();
        }
        while self.arrivals.get(1).is_some_and(|(from, _)| *from <= self.frontier) {
            self.arrivals.pop_front();
        }
        self.behind_since = self.arrivals.front().map(|(_, at)| *at);
    }

    /// Bytes of WAL that the server is known to have and the repository has not; the slot keeps them.
    pub fn not_durable(&self) -> u64 {
        // Before the first stream nothing is known, of either.
        if self.frontier.is_invalid() { 0 } else { self.server_end.max(self.known).bytes_since(self.frontier) }
    }

    /// How much time's worth of WAL would be lost with the server now: how long its oldest WAL that is not durable has
    /// been known here.
    pub fn behind(&self, now: Timestamp) -> Duration {
        self.behind_since.map(|since| age(now, since)).unwrap_or_default()
    }

    /// Committed work that would be lost with the server now: how long ago the first commit was made that is not durable, by the
    /// commit's own time; nothing while there is none, however long ago the last one was. `None` when nothing is known: no stream
    /// has begun.
    pub fn loss(&self, now: Timestamp) -> Option<Loss> {
        let heard = self.connected && self.heard_at.is_some_and(|at| age(now, at) <= HEARING);
        match self.exposed_since {
            Some(since) => Some(Loss { time: age(now, since), at_most: false }),
            None if heard => Some(Loss { time: Duration::ZERO, at_most: false }),
            None => self.current_at.map(|since| Loss { time: age(now, since), at_most: true }),
        }
    }
}

/// Nothing where the moment is still to come: clocks differ.
fn age(now: Timestamp, moment: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(moment)).unwrap_or_default()
}

/// The side that reports.
#[derive(Clone, Debug)]
pub struct ProgressSender(watch::Sender<Progress>);

impl Default for ProgressSender {
    fn default() -> Self {
        ProgressSender(watch::Sender::new(Progress::default()))
    }
}

impl ProgressSender {
    /// Changes what is reported.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    /// The side that follows.
    pub fn watch(&self) -> ProgressWatch {
        ProgressWatch(self.0.subscribe())
    }
}

/// The side that follows.
#[derive(Clone, Debug)]
pub struct ProgressWatch(watch::Receiver<Progress>);

/// The stream ended while somebody waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the WAL stream ended")]
pub struct StreamEnded;

impl ProgressWatch {
    /// How far it is now.
    pub fn now(&self) -> Progress {
        self.0.borrow().clone()
    }

    /// Waits until the contiguous durable WAL of the stream reaches `lsn`, and is what this server wrote.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn durable(&mut self, lsn: Lsn) -> Result<(), StreamEnded> {
        self.0.wait_for(|progress| progress.proven >= lsn).await.map(|_| ()).map_err(|_| StreamEnded)
    }

    /// Waits until `seen` says so.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn once(&mut self, mut seen: impl FnMut(&Progress) -> bool) -> Result<(), StreamEnded> {
        self.0.wait_for(|progress| seen(progress)).await.map(|_| ()).map_err(|_| StreamEnded)
    }

    /// Waits until a stream runs.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn connected(&mut self) -> Result<(), StreamEnded> {
        self.0.wait_for(|progress| progress.connected).await.map(|_| ()).map_err(|_| StreamEnded)
    }

    /// Waits until the highest transaction time that this process made durable is another than `known`, and tells it.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn transaction_beside(&mut self, known: Option<Timestamp>) -> Result<Option<Timestamp>, StreamEnded> {
        let changed = self.0.wait_for(|progress| progress.highest_time != known).await;
        changed.map(|progress| progress.highest_time).map_err(|_| StreamEnded)
    }

    /// Waits until `like` holds.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn until(&mut self, like: impl FnMut(&Progress) -> bool) -> Result<(), StreamEnded> {
        self.0.wait_for(like).await.map(|_| ()).map_err(|_| StreamEnded)
    }

    /// Waits until more gaps are known than `known`.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn more_gaps(&mut self, known: u64) -> Result<(), StreamEnded> {
        self.0.wait_for(|progress| progress.gaps > known).await.map(|_| ()).map_err(|_| StreamEnded)
    }

    /// Waits for the next change.
    ///
    /// Errors: the stream's owner is gone.
    pub async fn changed(&mut self) -> Result<Progress, StreamEnded> {
        self.0.changed().await.map_err(|_| StreamEnded)?;
        Ok(self.0.borrow_and_update().clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_228_200_000 + milliseconds).expect("a time")
    }

    fn branch(number: u32) -> Branch {
        TimelineHistory::root(TimelineId::new(number).expect("not zero")).branch(SystemIdentifier(7))
    }

    fn begun() -> Progress {
        let mut progress = Progress::default();
        progress.begun(branch(1), Lsn(1000), Lsn(1000), at(0));
        progress
    }

    #[test]
    fn behind_is_the_age_of_the_oldest_wal_that_is_not_durable() {
        let mut progress = begun();
        assert_eq!(progress.behind(at(0)), Duration::ZERO);
        progress.arrived(Lsn(1100), Lsn(1100), at(0));
        progress.arrived(Lsn(1200), Lsn(1200), at(1000));
        progress.arrived(Lsn(1300), Lsn(1300), at(2000));
        assert_eq!(progress.behind(at(5000)), Duration::from_millis(5000));
        // A put took four seconds: what came meanwhile is as old as it is.
        progress.durable_to(Lsn(1100), at(4000));
        assert_eq!(progress.behind(at(5000)), Duration::from_millis(4000));
        progress.durable_to(Lsn(1250), at(4500));
        assert_eq!(progress.behind(at(5000)), Duration::from_millis(3000), "a part of what came last is left");
        progress.durable_to(Lsn(1300), at(5000));
        assert_eq!(progress.behind(at(9000)), Duration::ZERO);
    }

    #[test]
    fn behind_outlives_connections_that_end_before_the_wal_is_durable() {
        let mut progress = begun();
        progress.arrived(Lsn(1100), Lsn(1100), at(0));
        progress.begun(branch(1), Lsn(1000), Lsn(1500), at(1000));
        assert_eq!(progress.behind(at(60_000)), Duration::from_secs(60));
        progress.arrived(Lsn(1100), Lsn(1500), at(60_000));
        assert_eq!(progress.behind(at(60_000)), Duration::from_secs(60), "the same bytes again are not newer");
        // A stream that finds them durable says so; so does one on another branch, which has nothing of them.
        let mut other = progress.clone();
        progress.begun(branch(1), Lsn(1100), Lsn(1500), at(60_000));
        assert_eq!(progress.behind(at(61_000)), Duration::ZERO);
        other.begun(branch(2), Lsn(900), Lsn(1500), at(60_000));
        assert_eq!(other.behind(at(61_000)), Duration::ZERO);
    }

    #[test]
    fn what_would_be_lost_is_told_by_commits_and_at_most_when_the_server_is_not_heard() {
        assert_eq!(Progress::default().loss(at(0)), None);
        let loss = |progress: &Progress, when: i64| {
            let loss = progress.loss(at(when)).expect("a stream has begun");
            (loss.time.as_millis(), loss.at_most)
        };
        let mut progress = begun();
        assert_eq!(loss(&progress, 5000), (0, false));
        progress.arrived(Lsn(1100), Lsn(1100), at(8000));
        progress.read_to(Lsn(1100), Some(Commits::one(at(7900), Lsn(1090))));
        assert_eq!(loss(&progress, 8000), (100, false));
        assert_eq!(loss(&progress, 60_000), (52_100, false), "the store is down, and the commit grows old");
        progress.durable_to(Lsn(1100), at(60_000));
        progress.heard(Lsn(1100), at(60_500));
        assert_eq!(loss(&progress, 70_000), (0, false), "an idle cluster loses nothing");
        assert_eq!(loss(&progress, 71_000), (10_500, true), "nobody knows what it did since it was heard");
        progress.connected = false;
        assert_eq!(loss(&progress, 61_000), (500, true));
    }

    #[test]
    fn i11_what_is_remembered_of_an_outage_is_bounded() {
        let mut progress = begun();
        for step in 1..100_000 {
            progress.arrived(Lsn(1000 + step), Lsn(0), at(step as i64 * 1000));
        }
        assert!(progress.arrivals.len() <= MOST_ARRIVALS);
        assert_eq!(progress.behind(at(100_000_000)), Duration::from_millis(100_000_000 - 1000));
        progress.durable_to(Lsn(1000 + 99_999), at(0));
        assert_eq!(progress.behind(at(100_000_000)), Duration::ZERO);
    }
}
