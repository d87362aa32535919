//! What a range of WAL contains, in a few numbers.

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::event::Event;
use super::xid::{FullXid, Xid};
use crate::lsn::Lsn;
use crate::time::PgTimestamp;

/// Lowest and highest of some times; times are not monotonic in LSN, so these are rarely the first and the last (case 54).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeRange {
    /// The lowest.
    pub lowest: PgTimestamp,
    /// The highest; not below the lowest.
    pub highest: PgTimestamp,
}

impl TimeRange {
    /// The range of one time.
    pub const fn at(time: PgTimestamp) -> TimeRange {
        TimeRange { lowest: time, highest: time }
    }

    /// The range that holds both.
    pub fn union(self, other: TimeRange) -> TimeRange {
        TimeRange { lowest: self.lowest.min(other.lowest), highest: self.highest.max(other.highest) }
    }
}

fn union(one: Option<TimeRange>, other: Option<TimeRange>) -> Option<TimeRange> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.union(other)),
        (one, other) => one.or(other),
    }
}

/// A commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitPoint {
    /// End of the commit record: WAL up to here holds the commit.
    pub end: Lsn,
    /// When, by the server's clock.
    pub time: PgTimestamp,
    /// The transaction.
    pub xid: Xid,
}

/// What the records say that *end* in a range of WAL; a record belongs to the segment in which it ends (case 54).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WalSummary {
    /// Complete records.
    pub records: u64,
    /// Transactions that committed, prepared ones among them.
    pub commits: u64,
    /// Transactions that aborted, prepared ones among them.
    pub aborts: u64,
    /// Times of all ends of transactions, commits and aborts: what `recovery_target_time` compares with.
    pub end_times: Option<TimeRange>,
    /// Times of commits only.
    pub commit_times: Option<TimeRange>,
    /// The last commit in LSN order; not always the one with the highest time.
    pub last_commit: Option<CommitPoint>,
    /// The next transaction id by the last checkpoint.
    pub next_xid: Option<FullXid>,
    /// Whether a record that ends in the range began before it and was not read, so that one transaction may be missing.
    pub leading_unread: bool,
    /// Records that could not be interpreted although they should be; each may be a missing transaction.
    pub unreadable: u64,
}

impl WalSummary {
    /// Adds the next event of a walk.
    pub fn add(&mut self, event: &Event<'_>) {
        let record = match event {
            Event::LeadingSkipped { .. } => {
                self.leading_unread = true;
                return;
            }
            Event::Record(record) => record,
        };
        self.records += 1;
        match &record.content {
            Content::Transaction(end) => {
                let time = Some(TimeRange::at(end.time));
                self.end_times = union(self.end_times, time);
                if end.outcome.is_commit() {
                    self.commits += 1;
                    self.commit_times = union(self.commit_times, time);
                    self.last_commit = Some(CommitPoint { end: record.end, time: end.time, xid: end.xid });
                } else {
                    self.aborts += 1;
                }
            }
            Content::Checkpoint(checkpoint) => self.next_xid = Some(checkpoint.next_xid),
            Content::Unreadable(_) => self.unreadable += 1,
            _ => {}
        }
    }

    /// Adds the summary of the range that follows this one.
    pub fn append(&mut self, later: &WalSummary) {
        self.records += later.records;
        self.commits += later.commits;
        self.aborts += later.aborts;
        self.end_times = union(self.end_times, later.end_times);
        self.commit_times = union(self.commit_times, later.commit_times);
        self.last_commit = later.last_commit.or(self.last_commit);
        self.next_xid = later.next_xid.or(self.next_xid);
        self.leading_unread |= later.leading_unread;
        self.unreadable += later.unreadable;
    }

    /// Transactions that ended: commits and aborts.
    pub const fn transactions(&self) -> u64 {
        self.commits + self.aborts
    }

    /// The highest end of a transaction up to the end of this range, where `before` is the same of the range before.
    pub fn running_highest(&self, before: Option<PgTimestamp>) -> Option<PgTimestamp> {
        before.max(self.end_times.map(|times| times.highest))
    }

    /// Whether the numbers are known to be all there is.
    pub const fn is_complete(&self) -> bool {
        !self.leading_unread && self.unreadable == 0
    }
}
