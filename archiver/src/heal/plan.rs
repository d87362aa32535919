//! What is to be done, as a plain value: decided by looking, printed, then done.

use std::collections::BTreeMap;

use serde::Serialize;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Gap, Stretch};
use walseal_common::seal::CompareDigest;
use walseal_common::terminal::units;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::{Branch, TimelineHistory};

/// What can be done about gaps.
#[derive(Clone, Debug, Serialize)]
pub struct HealPlan {
    /// Each gap, in the order of the repository.
    pub gaps: Vec<GapPlan>,
}

/// What can be done about one gap.
#[derive(Clone, Debug, Serialize)]
pub struct GapPlan {
    /// The gap.
    pub gap: Gap,
    /// Whether it stands in the repository; else the WAL was there once and is gone.
    pub recorded: bool,
    /// What of it is missing.
    pub missing: Vec<Stretch>,
    /// What was found, and verifies.
    pub fills: Vec<Fill>,
    /// What is missing after that.
    pub left: Vec<Stretch>,
    /// What was found that is of no use, and why, a sentence each.
    pub findings: Vec<String>,
}

/// WAL that was found and verifies.
#[derive(Clone, Debug, Serialize)]
pub struct Fill {
    /// Where it was found, in words.
    pub source: String,
    /// The branch.
    pub branch: Branch,
    /// What is stored: from the start of a segment to the end of one, or of the last record that verifies.
    #[serde(flatten)]
    pub range: LsnRange,
    /// Names of the repository's objects that hold some of the same bytes, and agree.
    pub agrees_with: Vec<String>,
    /// The source's place among the sources.
    #[serde(skip)]
    pub(super) place: usize,
    /// Reading begins here, so that records are met from their start.
    #[serde(skip)]
    pub(super) read_from: Lsn,
    /// Whether the branch ends with it.
    #[serde(skip)]
    pub(super) is_end: bool,
    /// Digests of the segment up to these positions, where pieces end.
    #[serde(skip)]
    pub(super) digests: BTreeMap<Lsn, CompareDigest>,
    /// The history of the branch, where the source has it.
    #[serde(skip)]
    pub(super) history: Option<TimelineHistory>,
}

impl HealPlan {
    /// Whether there is anything to store.
    pub fn fills(&self) -> bool {
        self.gaps.iter().any(|gap| !gap.fills.is_empty())
    }

    /// Whether everything is whole afterwards.
    pub fn is_complete(&self) -> bool {
        self.gaps.iter().all(|gap| gap.left.is_empty())
    }

    /// For a person: lines that end in a line end.
    pub fn explain(&self) -> String {
        self.gaps.iter().map(GapPlan::explain).collect()
    }
}

impl GapPlan {
    fn explain(&self) -> String {
        let timeline = self.gap.branch.timeline.number();
        let (from, to, size) = (self.gap.from, self.gap.to, units::distance(self.gap.from, self.gap.to));
        let mut text = match self.recorded {
            true => {
                let found = PgTimestamp::from_jiff(self.gap.found);
                format!("Gap on timeline {timeline}, {from} to {to} ({size}), found {found}: {}\n", self.gap.why)
            }
            false => format!("Hole without a record on timeline {timeline}, {from} to {to} ({size})\n"),
        };
        let mut line = |what: &str, words: String| text.push_str(&format!("  {what:<14} {words}\n"));
        for missing in &self.missing {
            line("missing", place(missing));
        }
        for fill in &self.fills {
            let agrees = fill.agrees_with.join(", ");
            let words = place(&Stretch { branch: fill.branch, range: fill.range, is_end: false });
            line("found", format!("{words}, in {}; agrees with {agrees}", fill.source));
        }
        for left in &self.left {
            line("not found", place(left));
        }
        for finding in &self.findings {
            line("of no use", finding.clone());
        }
        text
    }
}

/// Where a stretch lies.
pub fn place(stretch: &Stretch) -> String {
    let range = stretch.range;
    let timeline = stretch.branch.timeline.number();
    format!("{} to {} ({}) on timeline {timeline}", range.start, range.end, units::size(range.len()))
}

/// What is left of `stretches` without what `fills` hold.
pub(super) fn without(stretches: &[Stretch], fills: &[Fill]) -> Vec<Stretch> {
    let mut left = Vec::new();
    for stretch in stretches {
        let mut own: Vec<LsnRange> =
            fills.iter().filter(|fill| fill.branch == stretch.branch).map(|fill| fill.range).collect();
        own.sort();
        let mut at = stretch.range.start;
        let mut rest = |start: Lsn, end: Lsn| {
            if let Some(range) = LsnRange::new(start, end).filter(|range| !range.is_empty()) {
                left.push(Stretch { range, is_end: stretch.is_end && end == stretch.range.end, ..*stretch });
            }
        };
        for fill in own {
            if fill.end > at && fill.start < stretch.range.end {
                rest(at, fill.start.min(stretch.range.end));
                at = at.max(fill.end);
            }
        }
        rest(at, stretch.range.end);
    }
    left
}
