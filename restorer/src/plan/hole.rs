//! WAL that is missing on the way, and what the repository's records say of it (I5): a gap, what retention removed, or a hole that nobody
//! recorded.

use serde::{Deserialize, Serialize};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Gap, GapRecord};
use walseal_common::terminal::units;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::path::Path;

/// WAL that is missing on a path.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hole {
    /// The branch that it is missing on.
    pub branch: Branch,
    /// What is missing.
    #[serde(flatten)]
    pub range: LsnRange,
    /// The record of the gap, where there is one.
    pub record: Option<Gap>,
    /// Whether retention removed it: it is not lost, nobody promised it.
    #[serde(default)]
    pub pruned: bool,
}

impl Hole {
    /// As a sentence without its full stop.
    pub fn words(&self) -> String {
        let place = format!(
            "{} to {} ({}) on timeline {}",
            self.range.start,
            self.range.end,
            units::size(self.range.len()),
            self.branch.timeline.number()
        );
        match &self.record {
            _ if self.pruned => format!("Removed by retention: {place}"),
            Some(gap) => format!("Gap: {place}, {}", recorded(gap)),
            None => format!(
                "Hole without a record: {place}. No gap was recorded there, so the WAL was in the repository once, or is on its \
                 way into it"
            ),
        }
    }
}

/// When a gap was found, why, and what came before it.
fn recorded(gap: &Gap) -> String {
    let found = PgTimestamp::from_jiff(gap.found);
    let before = match gap.highest_time {
        Some(time) => {
            format!("; the latest transaction that the archiver saw before it is of {}", PgTimestamp::from_jiff(time))
        }
        None => String::new(),
    };
    format!("found {found}: {}{before}", gap.why)
}

/// What records say of `branch`: up to where its WAL was there once.
pub(super) fn known_on(records: &[GapRecord], branch: Branch) -> Option<Lsn> {
    records.iter().filter_map(|record| record.known_on(branch)).max()
}

impl Path<'_> {
    /// Everything that is missing on the path, in order, each with its record. Nothing of what lies before the path's first base
    /// backup: there nothing could be restored anyway.
    pub fn holes(&self) -> Vec<Hole> {
        let records: Vec<(LsnRange, Option<&Gap>)> =
            self.records().iter().filter_map(|record| self.on_the_way(record)).collect();
        let begin = self.first_base_start().unwrap_or(Lsn::INVALID);
        let mut missing: Vec<LsnRange> = Vec::new();
        let mut at = self.extents.first().map(|extent| extent.start);
        if let Some(first) = records.iter().filter(|(range, _)| range.end > begin).map(|(range, _)| range.start).min() {
            at = Some(at.map_or(first, |at| at.min(first)));
        }
        let Some(mut at) = at else { return Vec::new() };
        let known = self.known_end();
        for extent in &self.extents {
            missing.push(LsnRange { start: at, end: extent.start.max(at) });
            at = at.max(extent.end);
        }
        missing.push(LsnRange { start: at, end: known.max(at) });
        missing.retain(|range| !range.is_empty() && range.end > begin);
        let pruned = self.pruned();
        missing.into_iter().flat_map(|range| self.split(range, &records, &pruned)).collect()
    }

    /// The parts of a range that is missing: within records, and beside them. What was lost before retention came by is a gap.
    fn split(&self, range: LsnRange, records: &[(LsnRange, Option<&Gap>)], pruned: &[LsnRange]) -> Vec<Hole> {
        let told = records.iter().map(|(record, _)| record).chain(pruned);
        let mut borders: Vec<Lsn> = told.flat_map(|record| [record.start, record.end]).collect();
        borders.retain(|border| range.start < *border && *border < range.end);
        borders.extend([range.start, range.end]);
        borders.sort();
        borders.dedup();
        let holes = borders.windows(2).filter_map(|pair| {
            let part = LsnRange { start: *pair.first()?, end: *pair.get(1)? };
            let within = records.iter().rev().find(|(record, _)| record.start <= part.start && part.end <= record.end);
            let record = within.and_then(|(_, gap)| gap.cloned());
            let went = pruned.iter().any(|went| went.start <= part.start && part.end <= went.end);
            Some(Hole { branch: self.branch_at(part.start), range: part, pruned: went && record.is_none(), record })
        });
        holes.collect()
    }

    /// What a record says is missing on this path, and its content; `None` where it is about other branches.
    fn on_the_way<'r>(&self, record: &'r GapRecord) -> Option<(LsnRange, Option<&'r Gap>)> {
        self.step(record.branch)?;
        let known = self.steps.iter().filter_map(|step| record.known_on(step.branch)).max()?;
        let range = LsnRange::new(record.from, known)?;
        Some((range, record.content.as_ref().ok()))
    }

    /// The branch that the byte at `lsn` lies on.
    pub fn branch_at(&self, lsn: Lsn) -> Branch {
        let step = self.steps.iter().rev().find(|step| step.begin <= lsn).or(self.steps.first());
        step.map_or(self.branch(), |step| step.branch)
    }
}
