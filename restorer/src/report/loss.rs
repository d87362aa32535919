//! What would have been lost in the month, and how much WAL became durable.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use walseal_common::objective::{self, kept_from};

use super::Facts;

/// What would have been lost over the month.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Loss {
    /// By the words of the archivers.
    #[serde(flatten)]
    pub told: objective::Loss,
    /// Bytes of WAL that became durable, day by day.
    pub wal_bytes_by_day: Vec<u64>,
}

impl Loss {
    pub(super) fn of(facts: &Facts) -> Loss {
        let observed = facts.observed();
        let wal_bytes_by_day = wal_by_day(facts, kept_from(&observed));
        Loss { told: objective::Loss::of(&facts.promises, &observed), wal_bytes_by_day }
    }
}

/// What each day added to the frontier, without what is lost. A new branch begins with what the old one had.
fn wal_by_day(facts: &Facts, begin: Timestamp) -> Vec<u64> {
    let mut days = vec![0u64; facts.period.days()];
    for pair in facts.frontiers.windows(2) {
        let [before, after] = pair else { continue };
        let (from, to) = (before.at.frontier, after.at.frontier);
        // A record from long before would put on one day what many wrote.
        let near = after.written.duration_since(before.written) <= SignedDuration::from_hours(24);
        let Some(day) = facts.period.day_of(after.written).filter(|_| near && from < to && begin <= after.written)
        else {
            continue;
        };
        let lost = facts.gaps.iter().filter(|gap| from <= gap.from && gap.from < gap.to && gap.to <= to);
        let lost: u64 = lost.map(|gap| gap.to.bytes_since(gap.from)).sum();
        if let Some(bytes) = days.get_mut(day) {
            *bytes = bytes.saturating_add(to.bytes_since(from).saturating_sub(lost));
        }
    }
    days
}
