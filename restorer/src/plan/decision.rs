//! The base backup and the stopping point, for each kind of target.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::Label;
use walseal_common::time::PgTimestamp;

use super::holding::Holding;
use super::planner::{Decision, Planner, holds_later, may_hold_later, stops_late};
use super::reader::PathReader;
use super::refusal::PlanError;

impl<'a> Planner<'a> {
    /// The WAL from a base backup's start on without a hole.
    ///
    /// Errors: [`PlanError::Gap`] when it does not reach the backup's own stop.
    async fn wal_of(&self, reader: &PathReader<'_>, base: &Label) -> Result<LsnRange, PlanError> {
        let end = reader.path().contiguous_end(base.start);
        if end < base.stop {
            return Err(self.gap(reader, end, base.stop).await);
        }
        Ok(LsnRange { start: base.start, end })
    }

    /// To the end of the WAL that follows the newest base backup.
    pub(super) async fn to_latest(
        &self,
        reader: &PathReader<'_>,
        bases: Vec<&'a Label>,
    ) -> Result<Decision<'a>, PlanError> {
        let Some(base) = bases.first() else { return Err(self.none_fits(reader, &bases, Vec::new()).await) };
        let wal = self.wal_of(reader, base).await?;
        // WAL beyond a hole was durable once: an end before it is not the latest moment (I6).
        let known = reader.path().known_end();
        if known > wal.end {
            return Err(self.gap(reader, wal.end, known).await);
        }
        let last = reader.last_record(wal).await?;
        let stop = last.map_or(base.stop, |record| record.end.max(base.stop));
        Ok(Decision { base, stop, passed_over: Vec::new() })
    }

    /// To where the newest base backup (or the one asked for) is complete.
    pub(super) async fn to_immediate(
        &self,
        reader: &PathReader<'_>,
        bases: Vec<&'a Label>,
    ) -> Result<Decision<'a>, PlanError> {
        let Some(base) = bases.first() else { return Err(self.none_fits(reader, &bases, Vec::new()).await) };
        self.wal_of(reader, base).await?;
        Ok(Decision { base, stop: base.stop, passed_over: Vec::new() })
    }

    /// PostgreSQL stops before the first commit or abort, in LSN order from the start of replay on, with a later time
    /// (`recoveryStopsBefore`, `xlogrecovery.c`). A base backup fits when that record lies after its stop point, and it holds no
    /// later transaction from before its start, which recovery would never see.
    pub(super) async fn to_time(
        &self,
        reader: &PathReader<'_>,
        bases: Vec<&'a Label>,
        time: PgTimestamp,
    ) -> Result<Decision<'a>, PlanError> {
        let exclusive = self.request.exclusive;
        let later = |ended: PgTimestamp| if exclusive { ended >= time } else { ended > time };
        let mut passed_over = Vec::new();
        for base in &bases {
            // What the archiver saw before it was complete is signed: of hundreds of backups no WAL is read for this.
            if let Some(seen) = base.highest_time.map(PgTimestamp::from_jiff).filter(|seen| later(*seen)) {
                passed_over.push(may_hold_later(base, Holding::Transaction(seen)));
                continue;
            }
            let end = reader.path().contiguous_end(base.start);
            let wal = LsnRange { start: base.start, end };
            let dull = |hint: &walseal_common::seal::Transactions| {
                hint.highest.is_none_or(|highest| !later(PgTimestamp::from_jiff(highest)))
            };
            let first = reader.first_transaction(wal, |point| later(point.time), dull).await?;
            if let Some(first) = first.filter(|first| first.lsn < base.stop) {
                passed_over.push(holds_later(base, &first));
                continue;
            }
            let holding = reader.holding(base, later).await?;
            if holding.until().is_none_or(later) {
                passed_over.push(may_hold_later(base, holding));
                continue;
            }
            if let Some(first) = first {
                self.wal_of(reader, base).await?;
                return Ok(Decision { base, stop: first.lsn, passed_over });
            }
            let known = reader.path().known_end().max(base.stop);
            if known > end {
                return Err(self.gap(reader, end, known).await);
            }
            let last = reader.last_transaction(wal).await?;
            return Err(PlanError::TimeAfterEnd { request: Box::new(self.request.clone()), last, end });
        }
        Err(self.none_fits(reader, &bases, passed_over).await)
    }

    /// PostgreSQL stops after the first record that starts at or after the position; exclusive: before it.
    pub(super) async fn to_lsn(
        &self,
        reader: &PathReader<'_>,
        bases: Vec<&'a Label>,
        lsn: Lsn,
    ) -> Result<Decision<'a>, PlanError> {
        let (base, passed_over) = self.newest_before(reader, &bases, lsn).await?;
        let wal = self.wal_of(reader, base).await?;
        match reader.first_record(lsn, wal).await? {
            Some(record) => {
                let stop = if self.request.exclusive { record.start } else { record.end };
                Ok(Decision { base, stop, passed_over })
            }
            None => {
                let known = reader.path().known_end();
                if known > wal.end {
                    return Err(self.gap(reader, wal.end, known.max(lsn)).await);
                }
                let branch = reader.path().branch();
                Err(PlanError::LsnAfterEnd { request: Box::new(self.request.clone()), branch, end: wal.end })
            }
        }
    }

    /// To a record that was found at `stop`.
    pub(super) async fn to_position(
        &self,
        reader: &PathReader<'_>,
        bases: Vec<&'a Label>,
        stop: Lsn,
    ) -> Result<Decision<'a>, PlanError> {
        let (base, passed_over) = self.newest_before(reader, &bases, stop).await?;
        let wal = self.wal_of(reader, base).await?;
        if wal.end < stop {
            return Err(self.gap(reader, wal.end, stop).await);
        }
        Ok(Decision { base, stop, passed_over })
    }

    /// The newest base backup that is complete at or before `lsn`, and why newer ones are not taken.
    async fn newest_before(
        &self,
        reader: &PathReader<'_>,
        bases: &[&'a Label],
        lsn: Lsn,
    ) -> Result<(&'a Label, Vec<super::PassedOver>), PlanError> {
        let passed_over = bases.iter().take_while(|base| base.stop > lsn).map(|base| stops_late(base)).collect();
        match bases.iter().find(|base| base.stop <= lsn) {
            Some(base) => Ok((base, passed_over)),
            None => Err(self.none_fits(reader, bases, passed_over).await),
        }
    }

    /// The ranges of WAL that some base backup leads into, newest first, from the oldest base backup's start on.
    fn searched(&self, reader: &PathReader<'_>, bases: &[&Label]) -> Vec<LsnRange> {
        let from = bases.iter().map(|base| base.start).min().unwrap_or(Lsn::INVALID);
        let extents = reader.path().extents.iter().rev().filter(|extent| extent.end > from);
        extents.map(|extent| LsnRange { start: extent.start.max(from), end: extent.end }).collect()
    }

    /// Where recovery stops for a transaction: after its end; exclusive: before it.
    pub(super) async fn transaction(
        &self,
        reader: &PathReader<'_>,
        bases: &[&Label],
        xid: u64,
    ) -> Result<Lsn, PlanError> {
        let ranges = self.searched(reader, bases);
        for range in &ranges {
            if let Some(point) = reader.transaction_end(xid, *range).await? {
                return Ok(if self.request.exclusive { point.lsn } else { point.end });
            }
        }
        let branch = reader.path().branch();
        let others = self.other_branches(reader.path());
        Err(PlanError::NoSuchTransaction { xid, branch, searched: ranges, others })
    }

    /// Where recovery stops for a name. PostgreSQL takes the first restore point of that name that it meets, so that with
    /// several of them it would depend on the base backup which one that is: refused, unless a base backup was named.
    pub(super) async fn restore_point(
        &self,
        reader: &PathReader<'_>,
        bases: &[&Label],
        name: &str,
    ) -> Result<Lsn, PlanError> {
        let ranges = self.searched(reader, bases);
        let mut found = Vec::new();
        for range in ranges.iter().rev() {
            found.extend(reader.restore_points(name, *range).await?);
        }
        match found.as_slice() {
            [] => {
                let branch = reader.path().branch();
                let others = self.other_branches(reader.path());
                Err(PlanError::NoSuchName { name: name.to_owned(), branch, searched: ranges, others })
            }
            [first, ..] if found.len() == 1 || self.request.base.is_some() => Ok(first.record.end),
            _ => {
                let found = found.iter().map(|point| (point.record.start, point.time)).collect();
                Err(PlanError::AmbiguousName { request: Box::new(self.request.clone()), name: name.to_owned(), found })
            }
        }
    }
}
