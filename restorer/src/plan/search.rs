//! Finding moments in WAL: transactions, positions, restore points.

use std::ops::ControlFlow;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::seal::Transactions;
use walseal_common::segment::SegmentNumber;
use walseal_common::time::PgTimestamp;
use walseal_common::wal::{Content, FullXid, Record, Xid};

use super::TransactionPoint;
use super::reader::{PathReader, ReadError};

/// Segments whose headers are asked for together.
const HINTS: u64 = 64;

/// Segments that are opened together on the way back.
const CHUNK: u64 = 8;

/// A named restore point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPoint {
    /// Where its record lies.
    pub record: LsnRange,
    /// When it was made, by the server's clock.
    pub time: PgTimestamp,
}

/// The transaction that a record ends, if it ends one.
fn transaction(record: &Record<'_>) -> Option<TransactionPoint> {
    let Content::Transaction(end) = &record.content else { return None };
    Some(TransactionPoint { xid: end.xid, time: end.time, lsn: record.start, end: record.end, outcome: end.outcome })
}

impl PathReader<'_> {
    /// The segments that hold the bytes of `range`, first and last; `None` for an empty range.
    pub(super) fn segments(&self, range: LsnRange) -> Option<(SegmentNumber, SegmentNumber)> {
        let size = self.path().size();
        (!range.is_empty()).then(|| (size.number(range.start), size.number(Lsn(range.end.0 - 1))))
    }

    /// The first transaction in LSN order that starts in `range`, ends in it, and for which `wants` holds. Segments whose
    /// headers show that they have none (`dull`) are not opened.
    pub async fn first_transaction(
        &self,
        range: LsnRange,
        wants: impl Fn(&TransactionPoint) -> bool,
        dull: impl Fn(&Transactions) -> bool,
    ) -> Result<Option<TransactionPoint>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let mut next = first;
        while next <= last {
            next = self.skip_dull(range.start, next, last, &dull).await?;
            let numbers: Vec<SegmentNumber> = (next.0..=last.0.min(next.0 + HINTS - 1)).map(SegmentNumber).collect();
            let hints = self.hints(&numbers).await?;
            for (number, hint) in numbers.iter().zip(hints) {
                if hint.is_some_and(|hint| dull(&hint)) {
                    continue;
                }
                let mut found = None;
                self.visit(*number, *number, range.start, |record| {
                    found = transaction(record).filter(|point| point.end <= range.end && wants(point));
                    if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            next = SegmentNumber(next.0 + HINTS);
        }
        Ok(None)
    }

    /// The last transaction in LSN order that starts in `range` and ends in it.
    pub async fn last_transaction(&self, range: LsnRange) -> Result<Option<TransactionPoint>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let mut end = last.0 + 1;
        while end > first.0 {
            let begin = end.saturating_sub(HINTS).max(first.0);
            let numbers: Vec<SegmentNumber> = (begin..end).map(SegmentNumber).collect();
            let hints = self.hints(&numbers).await?;
            for (number, hint) in numbers.iter().zip(hints).rev() {
                if hint.is_some_and(|hint| hint.count == 0) {
                    continue;
                }
                let mut found = None;
                self.visit(*number, *number, range.start, |record| {
                    if record.end > range.end {
                        return ControlFlow::Break(());
                    }
                    found = transaction(record).or(found);
                    ControlFlow::Continue(())
                })
                .await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            end = begin;
        }
        Ok(None)
    }

    /// The highest time of any transaction that starts in `range` and ends in it, searched backwards until `enough` holds.
    /// Segments that lie wholly in `range` are not opened where their headers tell.
    pub async fn highest_time(
        &self,
        range: LsnRange,
        enough: impl Fn(PgTimestamp) -> bool,
    ) -> Result<Option<PgTimestamp>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let size = self.path().size();
        let mut highest: Option<PgTimestamp> = None;
        let mut end = last.0 + 1;
        while end > first.0 {
            let begin = end.saturating_sub(HINTS).max(first.0);
            let numbers: Vec<SegmentNumber> = (begin..end).map(SegmentNumber).collect();
            let hints = self.hints(&numbers).await?;
            for (number, hint) in numbers.iter().zip(hints).rev() {
                let within = range.start <= number.start(size) && number.end(size) <= range.end;
                if let Some(hint) = hint.filter(|hint| within || hint.count == 0) {
                    highest = highest.max(hint.highest.map(PgTimestamp::from_jiff));
                } else {
                    self.visit(*number, *number, range.start, |record| {
                        if record.end > range.end {
                            return ControlFlow::Break(());
                        }
                        highest = highest.max(transaction(record).map(|point| point.time));
                        ControlFlow::Continue(())
                    })
                    .await?;
                }
                if highest.is_some_and(&enough) {
                    return Ok(highest);
                }
            }
            end = begin;
        }
        Ok(highest)
    }

    /// The first record that starts at or after `lsn` and ends in `range`.
    pub async fn first_record(&self, lsn: Lsn, range: LsnRange) -> Result<Option<LsnRange>, ReadError> {
        let within = LsnRange { start: lsn.max(range.start), end: range.end.max(lsn) };
        let Some((first, last)) = self.segments(within) else { return Ok(None) };
        let mut found = None;
        self.visit(first, last, within.start, |record| {
            found = (record.end <= range.end).then_some(LsnRange { start: record.start, end: record.end });
            ControlFlow::Break(())
        })
        .await?;
        Ok(found)
    }

    /// The last whole record that starts in `range` and ends in it.
    pub async fn last_record(&self, range: LsnRange) -> Result<Option<LsnRange>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        for number in (first.0..=last.0).rev().map(SegmentNumber) {
            let mut found = None;
            self.visit(number, number, range.start, |record| {
                if record.end > range.end {
                    return ControlFlow::Break(());
                }
                found = Some(LsnRange { start: record.start, end: record.end });
                ControlFlow::Continue(())
            })
            .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The highest time that any record of the last `segments` segments of `range` tells: ends of transactions, checkpoints,
    /// restore points, ends of recovery. For telling which of two branches lived longer.
    pub async fn latest_time(&self, range: LsnRange, segments: u64) -> Result<Option<PgTimestamp>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let begin = SegmentNumber(last.0.saturating_sub(segments.saturating_sub(1)).max(first.0));
        let mut latest = None;
        self.visit(begin, last, range.start, |record| {
            let time = match &record.content {
                Content::Transaction(end) => Some(end.time),
                Content::RestorePoint(point) => Some(point.time),
                Content::Checkpoint(checkpoint) => Some(checkpoint.time),
                Content::EndOfRecovery(end) => Some(end.time),
                _ => None,
            };
            latest = latest.max(time);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(latest)
    }

    /// The newest end of transaction `xid` in `range`, searched backwards. Ids above 32 bits must also agree with the epoch of
    /// the checkpoints around them (case 10): a plain id means the newest transaction that has it.
    pub async fn transaction_end(&self, xid: u64, range: LsnRange) -> Result<Option<TransactionPoint>, ReadError> {
        let wanted = FullXid(xid).xid();
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let mut end = last.0 + 1;
        while end > first.0 {
            let begin = end.saturating_sub(CHUNK).max(first.0);
            let mut found: Vec<TransactionPoint> = Vec::new();
            self.visit(SegmentNumber(begin), SegmentNumber(end - 1), range.start, |record| {
                if record.end > range.end {
                    return ControlFlow::Break(());
                }
                found.extend(transaction(record).filter(|point| point.xid == wanted));
                ControlFlow::Continue(())
            })
            .await?;
            for point in found.into_iter().rev() {
                if xid == u64::from(wanted.0) || self.full_xid(&point, range).await? == Some(FullXid(xid)) {
                    return Ok(Some(point));
                }
            }
            end = begin;
        }
        Ok(None)
    }

    /// The 64-bit id of a transaction, by the last checkpoint before it in `range`, else the first one after it.
    async fn full_xid(&self, point: &TransactionPoint, range: LsnRange) -> Result<Option<FullXid>, ReadError> {
        let size = self.path().size();
        let Some((first, last)) = self.segments(range) else { return Ok(None) };
        let here = size.number(Lsn(point.end.0.saturating_sub(1)));
        let mut near = None;
        for number in (first.0..=here.0).rev().chain(here.0 + 1..=last.0).map(SegmentNumber) {
            self.visit(number, number, range.start, |record| {
                // The last one before the transaction wins, else the first one after it.
                if let Content::Checkpoint(checkpoint) = &record.content
                    && (near.is_none() || record.start < point.lsn)
                {
                    near = Some(checkpoint.next_xid);
                }
                ControlFlow::Continue(())
            })
            .await?;
            if near.is_some() {
                break;
            }
        }
        Ok(near.and_then(|near| FullXid::resolve(Xid(point.xid.0), near)))
    }

    /// Every restore point called `name` whose record lies in `range`, in LSN order.
    pub async fn restore_points(&self, name: &str, range: LsnRange) -> Result<Vec<NamedPoint>, ReadError> {
        let Some((first, last)) = self.segments(range) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        self.visit(first, last, range.start, |record| {
            if let Content::RestorePoint(point) = &record.content
                && point.name == name
                && record.end <= range.end
            {
                let record = LsnRange { start: record.start, end: record.end };
                found.push(NamedPoint { record, time: point.time });
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok(found)
    }
}
