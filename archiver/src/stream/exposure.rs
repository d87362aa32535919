//! What would be lost with the server: commits that are not durable here yet. The recovery point objective's other half, measured.
//!
//! The times of commits come from their records, by the server's clock; everything else is this host's. The two must agree as
//! well as the figure is to be believed.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use walseal_common::lsn::Lsn;

/// Commits that end in a stretch of WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Commits {
    /// The earliest of their times.
    pub(super) earliest: Timestamp,
    /// The latest of their times.
    pub(super) latest: Timestamp,
    /// End of the last one's record.
    pub(super) end: Lsn,
}

impl Commits {
    /// One commit, whose record ends at `end`.
    pub(super) fn one(time: Timestamp, end: Lsn) -> Commits {
        Commits { earliest: time, latest: time, end }
    }

    /// These, and those that follow.
    pub(super) fn and(self, later: Commits) -> Commits {
        Commits {
            earliest: self.earliest.min(later.earliest),
            latest: self.latest.max(later.latest),
            end: self.end.max(later.end),
        }
    }
}

/// Moments that are closer together are not told apart.
const GRAIN: Duration = Duration::from_millis(100);

/// Most moments of each kind that are remembered (I11); commits that come later count as having come with the last of them.
const MOST: usize = 1024;

fn near(earlier: Timestamp, later: Timestamp) -> bool {
    Duration::try_from(later.duration_since(earlier)).is_ok_and(|since| since < GRAIN)
}

/// Which commits the server is known, or has to be supposed, to have beyond what is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposure {
    /// Commits that were read and are not durable, in the order of their WAL.
    undurable: VecDeque<Commits>,
    /// Up to where WAL is durable.
    durable: Lsn,
    /// Up to where every commit is known. `durable <= read`.
    read: Lsn,
    /// The latest commit that was read, durable or not.
    latest: Option<Timestamp>,
    /// Where the server said that its WAL ended, and when; beyond what is read or durable.
    said: VecDeque<(Lsn, Timestamp)>,
    /// When the server last said anything.
    heard: Option<Timestamp>,
    /// When it said so of WAL of which every commit is durable by now.
    current: Option<Timestamp>,
}

impl Exposure {
    /// A stream begins, on the `same` branch as before or on another one. Everything before `frontier` is durable.
    pub(super) fn begun(&mut self, same: bool, frontier: Lsn) {
        if !same {
            *self = Exposure { latest: self.latest, current: self.current, ..Exposure::default() };
        }
        self.durable_to(frontier);
    }

    /// The server said where its WAL ends.
    pub(super) fn heard(&mut self, server_end: Lsn, now: Timestamp) {
        self.heard = Some(now);
        self.follow();
        if self.said.len() < MOST && self.said.back().is_none_or(|(_, at)| !near(*at, now)) {
            self.said.push_back((server_end, now));
        }
        self.follow();
    }

    /// WAL up to `end` was read, with these commits. What was read before, by an earlier stream, counts once.
    pub(super) fn read_to(&mut self, end: Lsn, commits: Option<Commits>) {
        if let Some(new) = commits.filter(|commits| commits.end > self.read) {
            self.latest = self.latest.max(Some(new.latest));
            let full = self.undurable.len() >= MOST;
            match self.undurable.back_mut().filter(|group| full || near(group.earliest, new.latest)) {
                Some(group) => *group = group.and(new),
                None => self.undurable.push_back(new),
            }
        }
        self.read = self.read.max(end);
        self.follow();
    }

    /// WAL up to `end` is durable.
    pub(super) fn durable_to(&mut self, end: Lsn) {
        self.durable = self.durable.max(end);
        self.read = self.read.max(end);
        self.undurable.retain(|group| group.end > end);
        self.follow();
    }

    fn follow(&mut self) {
        let known = if self.undurable.is_empty() { self.read } else { self.durable };
        while let Some((_, at)) = self.said.front().filter(|(said, _)| *said <= known).copied() {
            self.current = self.current.max(Some(at));
            self.said.pop_front();
        }
    }

    /// Since when, at the earliest, committed work has not been durable; `None` while all that is known of is. `server_end`:
    /// end of the WAL that the server is known to have.
    pub(super) fn since(&self, server_end: Lsn) -> Option<Timestamp> {
        match self.undurable.front() {
            Some(first) => Some(first.earliest),
            // What was not read yet committed after all that was, but for moments, and after the server said that there is no more.
            None if server_end > self.read => self.latest.max(self.current).or(self.heard),
            None => None,
        }
    }

    /// No commit that is missing was made before this moment, whatever the server has done since.
    pub(super) fn current(&self) -> Option<Timestamp> {
        match self.undurable.front() {
            Some(first) => Some(first.earliest),
            None => self.latest.max(self.current),
        }
    }

    /// When the server last said anything.
    pub(super) fn heard_at(&self) -> Option<Timestamp> {
        self.heard
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_228_200_000 + milliseconds).expect("a time")
    }

    fn commit(milliseconds: i64, end: u64) -> Option<Commits> {
        Some(Commits { earliest: at(milliseconds), latest: at(milliseconds), end: Lsn(end) })
    }

    fn begun() -> Exposure {
        let mut exposure = Exposure::default();
        exposure.begun(false, Lsn(1000));
        exposure.heard(Lsn(1000), at(0));
        exposure
    }

    #[test]
    fn what_is_lost_begins_with_the_first_commit_that_is_not_durable() {
        let mut exposure = begun();
        assert_eq!(exposure.since(Lsn(1000)), None);
        exposure.heard(Lsn(1300), at(400));
        exposure.read_to(Lsn(1100), commit(100, 1090));
        exposure.read_to(Lsn(1300), commit(300, 1290));
        assert_eq!(exposure.since(Lsn(1300)), Some(at(100)));
        exposure.durable_to(Lsn(1100));
        assert_eq!(exposure.since(Lsn(1300)), Some(at(300)));
        exposure.durable_to(Lsn(1300));
        assert_eq!(exposure.since(Lsn(1300)), None);
        assert_eq!(exposure.current(), Some(at(400)), "the server said so when it had no more than that");
    }

    #[test]
    fn wal_without_a_commit_is_no_loss_and_an_idle_cluster_stays_at_nothing() {
        let mut exposure = begun();
        exposure.read_to(Lsn(1100), commit(10, 1050));
        exposure.durable_to(Lsn(1100));
        // A checkpoint an hour later, while the store is down.
        exposure.heard(Lsn(1400), at(3_600_000));
        exposure.read_to(Lsn(1400), None);
        assert_eq!(exposure.since(Lsn(1400)), None);
        assert_eq!(exposure.current(), Some(at(3_600_000)));
    }

    #[test]
    fn what_was_not_read_yet_is_as_old_as_the_last_that_was_or_the_last_word_before_it() {
        let mut exposure = begun();
        exposure.read_to(Lsn(1100), commit(50, 1100));
        exposure.durable_to(Lsn(1100));
        // Caught up again after an hour: none of the backlog was read yet.
        assert_eq!(exposure.since(Lsn(9000)), Some(at(50)));
        exposure.heard(Lsn(9000), at(3_600_000));
        exposure.read_to(Lsn(5000), None);
        assert_eq!(exposure.since(Lsn(9000)), Some(at(50)), "the rest may be as old");
        // A long burst without commits: the lag is what counts, not the time since the last commit.
        exposure.heard(Lsn(20_000), at(3_601_000));
        exposure.read_to(Lsn(9000), None);
        assert_eq!(exposure.since(Lsn(20_000)), Some(at(3_600_000)));
    }

    #[test]
    fn a_stream_that_begins_again_reads_the_same_commits_once_and_another_branch_forgets_them() {
        let mut exposure = begun();
        exposure.read_to(Lsn(1200), commit(100, 1150));
        exposure.begun(true, Lsn(1000));
        exposure.read_to(Lsn(1180), commit(5, 1150));
        assert_eq!(exposure.since(Lsn(1200)), Some(at(100)));
        exposure.begun(true, Lsn(1200));
        assert_eq!(exposure.since(Lsn(1200)), None);
        exposure.read_to(Lsn(1300), commit(200, 1290));
        exposure.begun(false, Lsn(1100));
        assert_eq!((exposure.since(Lsn(1100)), exposure.current()), (None, Some(at(200))));
    }

    #[test]
    fn i11_what_is_remembered_is_bounded_and_never_says_too_little() {
        let mut exposure = begun();
        for step in 1..10_000u64 {
            exposure.heard(Lsn(1000 + step), at(step as i64 * 1000));
            exposure.read_to(Lsn(1000 + step), commit(step as i64 * 1000, 1000 + step));
        }
        assert!(exposure.undurable.len() <= MOST && exposure.said.len() <= MOST);
        assert_eq!(exposure.since(Lsn(10_999)), Some(at(1000)));
        exposure.durable_to(Lsn(5000));
        assert!(exposure.since(Lsn(10_999)) <= Some(at(4_001_000)));
        exposure.durable_to(Lsn(10_999));
        assert_eq!(exposure.since(Lsn(10_999)), None);
    }
}
