//! WAL that cannot be had on the way to a target, and what can be reached on both sides of it.

use std::fmt;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{BaseId, Label};
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use super::hole::Hole;
use super::path::Path;
use super::planner::Planner;
use super::reader::{PathReader, ReadError};
use super::refusal::PlanError;
use super::{Request, TransactionPoint};
use crate::damage::{Damage, sentence};

/// WAL that cannot be had on the way to a target.
#[derive(Clone, Debug)]
pub struct Gap {
    /// What was asked.
    pub request: Request,
    /// The bytes that cannot be had.
    pub missing: LsnRange,
    /// On which branch.
    pub branch: Branch,
    /// Segment size.
    pub size: SegmentSize,
    /// The same bytes, part by part, with the records of what was lost.
    pub holes: Vec<Hole>,
    /// Objects that are there for these bytes, and of no use.
    pub damaged: Vec<Damage>,
    /// Why it is no end although nothing leads beyond it, where that was asked.
    pub confirmed: Option<String>,
    /// The last point before it that can be reached.
    pub before: Option<Nearest>,
    /// The last transaction by then.
    pub last: Option<TransactionPoint>,
    /// The first base backup after it, and where it is complete.
    pub after: Option<(BaseId, Lsn)>,
}

/// The last point before a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Nearest {
    /// Through this record.
    Record(LsnRange),
    /// Where this base backup is complete.
    Base(BaseId),
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nearest::Record(record) => write!(f, "--to lsn:{}", record.start),
            Nearest::Base(id) => write!(f, "--to immediate --base {id}"),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |lsn: Lsn| SegmentName::new(self.branch.timeline, self.size.number(lsn), self.size).to_string();
        let (first, last) = (name(self.missing.start), name(Lsn(self.missing.end.0.saturating_sub(1))));
        let segments = if first == last { format!("segment {first}") } else { format!("segments {first} to {last}") };
        let place = format!(
            "from {} to {} ({}, in {segments}, branch {})",
            self.missing.start,
            self.missing.end,
            units::size(self.missing.len()),
            self.branch
        );
        match self.damaged.as_slice() {
            [] => write!(f, "{} cannot be reached: WAL is missing on the way, {place}", self.request.target)?,
            damaged => write!(
                f,
                "{} cannot be reached: WAL on the way cannot be used, {place}: {}. If the store keeps older versions, or \
                 there is another copy of the repository, put back what was written",
                self.request.target,
                sentence(damaged)
            )?,
        }
        for hole in &self.holes {
            write!(f, ".\n{}", hole.words())?;
        }
        let all_pruned = !self.holes.is_empty() && self.holes.iter().all(|hole| hole.pruned);
        if self.damaged.is_empty() && !all_pruned {
            write!(
                f,
                ".\nIf the server, a standby or another archive still has it, it can be filled: walseal-archiver heal"
            )?;
        }
        if let Some(confirmed) = &self.confirmed {
            write!(f, ". Nothing shows that the WAL ended there: {confirmed}")?;
        }
        let timeline = self.request.timeline_flag();
        if let Some(before) = &self.before {
            write!(f, "\nThe last point before the gap: {before}{timeline}")?;
            if let Some(last) = &self.last {
                write!(f, "   (with transaction {} of {})", last.xid, last.time)?;
            }
        }
        if let Some((id, stop)) = &self.after {
            write!(f, "\nThe first point after the gap: --to immediate --base {id}{timeline}   (at {stop})")?;
        }
        Ok(())
    }
}

impl Planner<'_> {
    /// WAL cannot be had from `at` on; `until` is known to have been there.
    pub(super) async fn gap(&self, reader: &PathReader<'_>, at: Lsn, until: Lsn) -> PlanError {
        let path = reader.path();
        let end = path.next_extent(at).map_or(until, |extent| extent.start).max(at.advance(1));
        let missing = LsnRange { start: at, end };
        let (before, last) = match self.nearest_before(reader, at).await {
            Ok(found) => found,
            Err(error) => return error.into(),
        };
        let within = |hole: &Hole| hole.range.start < missing.end && missing.start < hole.range.end;
        PlanError::Gap(Box::new(Gap {
            request: self.request.clone(),
            missing,
            branch: path.branch_at(at),
            holes: path.holes().into_iter().filter(within).collect(),
            size: path.size(),
            confirmed: path.confirmed_beyond(at).map(str::to_owned),
            damaged: path.damaged_in(missing).cloned().collect(),
            before,
            last,
            after: self.first_after(path, end),
        }))
    }

    /// Base backups of the path that have their own WAL, with the end of what follows it.
    fn reachable<'b>(&'b self, path: &'b Path<'_>) -> impl Iterator<Item = (&'b Label, Lsn)> {
        let on_path = self.inventory.bases.iter().filter(|base| path.excludes(base).is_none());
        on_path.map(|base| (base, path.contiguous_end(base.start))).filter(|(base, end)| base.stop <= *end)
    }

    /// The last point at or before `at` that any base backup leads to, and the last transaction by then.
    async fn nearest_before(
        &self,
        reader: &PathReader<'_>,
        at: Lsn,
    ) -> Result<(Option<Nearest>, Option<TransactionPoint>), ReadError> {
        let early = self.reachable(reader.path()).filter(|(base, _)| base.stop <= at);
        let Some((base, end)) = early.max_by_key(|(base, end)| ((*end).min(at), base.stop)) else {
            return Ok((None, None));
        };
        let wal = LsnRange { start: base.start, end: end.min(at) };
        let record = reader.last_record(wal).await?.filter(|record| record.start >= base.stop);
        let stop = record.map_or(base.stop, |record| record.end);
        let last = reader.last_transaction(LsnRange { end: stop, ..wal }).await?;
        Ok((Some(record.map_or_else(|| Nearest::Base(base.id.clone()), Nearest::Record)), last))
    }

    /// The first base backup that begins at or after `end`.
    fn first_after(&self, path: &Path<'_>, end: Lsn) -> Option<(BaseId, Lsn)> {
        let later = self.reachable(path).filter(|(base, _)| base.start >= end);
        later.min_by_key(|(base, _)| base.stop).map(|(base, _)| (base.id.clone(), base.stop))
    }
}
