//! The times of the transactions that a base backup holds, as far as anything tells. A base backup cannot give them up: it
//! fits a time only if none of them is later (cases 7 and 54), and what is not known may be later.

use std::ops::ControlFlow;

use walseal_common::lsn::LsnRange;
use walseal_common::repository::Label;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::Content;

use super::reader::{PathReader, ReadError};

/// A checkpoint tells when it began, cut to the second (`CreateCheckPoint`, `xlog.c`), and fixes a moment later the place at
/// which replay begins. What committed before that place did so by then, with this much added.
const CHECKPOINT_SLACK_MICROS: i64 = 1_100_000;

/// No transaction in a base backup ended later than this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holding {
    /// The highest time of those that are known of.
    Transaction(PgTimestamp),
    /// None is known of, and by this time the backup's own checkpoint had begun.
    Checkpoint(PgTimestamp),
    /// Nothing tells.
    Unknown,
}

impl Holding {
    /// No transaction in it ended later.
    pub fn until(self) -> Option<PgTimestamp> {
        match self {
            Holding::Transaction(time) | Holding::Checkpoint(time) => Some(time),
            Holding::Unknown => None,
        }
    }
}

impl PathReader<'_> {
    /// What is known of the transactions in `base`: what its archiver saw, else what the WAL tells that the repository holds
    /// without a hole up to the backup's stop point, else the checkpoint that it began with. `enough`: a time after which nothing
    /// more needs to be known.
    ///
    /// Cost: nothing where the label tells; else a small read for each segment before the backup until `enough`.
    pub async fn holding(&self, base: &Label, enough: impl Fn(PgTimestamp) -> bool) -> Result<Holding, ReadError> {
        if let Some(seen) = base.highest_time {
            return Ok(Holding::Transaction(PgTimestamp::from_jiff(seen)));
        }
        let start = self.path().extent_at(base.start).map_or(base.start, |extent| extent.start);
        let end = base.stop.min(self.path().contiguous_end(base.start));
        if let Some(highest) = self.highest_time(LsnRange { start, end: end.max(start) }, enough).await? {
            return Ok(Holding::Transaction(highest));
        }
        let own = LsnRange { start: base.start, end: end.max(base.start) };
        let checkpoint = self.first_checkpoint(own).await?;
        Ok(checkpoint.map_or(Holding::Unknown, |time| {
            Holding::Checkpoint(PgTimestamp(time.0.saturating_add(CHECKPOINT_SLACK_MICROS)))
        }))
    }

    /// When the first checkpoint began whose record lies in `range`.
    async fn first_checkpoint(&self, range: LsnRange) -> Result<Option<PgTimestamp>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let mut found = None;
        self.visit(first, last, range.start, |record| match &record.content {
            _ if record.end > range.end => ControlFlow::Break(()),
            Content::Checkpoint(checkpoint) => {
                found = Some(checkpoint.time);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })
        .await?;
        Ok(found)
    }
}
