//! What the report says: follows from the facts, without I/O. It is the JSON document `walseal.report/1`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::objective::{Objectives, Promises};
use walseal_common::repository::Gap;

use super::acts::Acts;
use super::backups::Backups;
use super::drills::Drills;
use super::loss::Loss;
use super::{Facts, Period};
use crate::plan::windows::Window;

/// What the report of a month says.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The repository's URL.
    pub repository: String,
    /// The cluster's system identifier.
    pub cluster: String,
    /// PostgreSQL's major version.
    pub postgres_major: u32,
    /// The month: `2026-11`.
    pub month: String,
    /// Its first moment.
    pub from: Timestamp,
    /// The end of what is covered.
    pub until: Timestamp,
    /// When the report was made.
    pub made: Timestamp,
    /// Which program made it.
    pub program: &'static str,
    /// What was promised.
    pub promises: Promises,
    /// How far that was kept.
    pub objectives: Objectives,
    /// What can be restored, as of `made`.
    pub windows: Vec<Window>,
    /// WAL that was found to be lost in the month.
    pub gaps: Vec<Gap>,
    /// What would have been lost.
    pub loss: Loss,
    /// The base backups.
    pub backups: Backups,
    /// The drills.
    pub drills: Drills,
    /// Who did what.
    #[serde(flatten)]
    pub acts: Acts,
    /// Entries of the ledger that were verified, of all times.
    pub ledger_entries: usize,
    /// What is wrong with the ledger, in words.
    pub ledger_findings: Vec<String>,
    /// What else did not verify, in words.
    pub unverified: Vec<String>,
    /// WAL that is missing after windows, which no record of any month tells of and retention did not remove.
    #[serde(skip)]
    pub(super) unrecorded: BTreeSet<(Lsn, Lsn)>,
    #[serde(skip)]
    pub(super) period: Period,
}

impl Figures {
    /// What follows from the facts.
    pub fn of(facts: &Facts) -> Figures {
        let loss = Loss::of(facts);
        let (backups, drills) = (Backups::of(facts), Drills::of(facts));
        let gaps = facts.gaps.iter().filter(|gap| facts.period.contains(gap.found)).cloned().collect();
        let told = |hole: &LsnRange| facts.gaps.iter().any(|gap| gap.from < hole.end && hole.start < gap.to);
        let holes = facts.windows.iter().filter(|window| !window.gap_pruned).filter_map(|window| window.gap);
        let unrecorded = holes.filter(|hole| !told(hole)).map(|hole| (hole.start, hole.end)).collect();
        Figures {
            repository: facts.repository.clone(),
            cluster: facts.cluster.clone(),
            postgres_major: facts.postgres_major,
            month: facts.period.to_string(),
            from: facts.period.from,
            until: facts.until(),
            made: facts.made,
            program: concat!("walseal-restorer ", env!("CARGO_PKG_VERSION")),
            promises: facts.promises.clone(),
            objectives: Objectives::of(&facts.promises, &facts.observed(), &loss.told),
            windows: facts.windows.clone(),
            gaps,
            loss,
            backups,
            drills,
            acts: Acts::of(facts),
            ledger_entries: facts.ledger.entries.len(),
            ledger_findings: facts.ledger.findings.iter().map(ToString::to_string).collect(),
            unverified: facts.unverified.clone(),
            unrecorded,
            period: facts.period,
        }
    }

    /// Whether everything that was read verified.
    pub fn verified(&self) -> bool {
        self.ledger_findings.is_empty() && self.unverified.is_empty()
    }
}
