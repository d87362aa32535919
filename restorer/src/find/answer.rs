//! What is kept of what is found: the worst, or what lies around a moment.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use walseal_common::wal::{FullXid, Record, TimeRange, WalVersion};

use super::activity::Activity;
use super::finding::Finding;
use super::question::{Question, RecordLine};
use super::table::Kind;
use super::wanted::badness;

/// What is kept of what was found.
#[derive(Default)]
pub(super) struct Kept {
    findings: VecDeque<Finding>,
    after: usize,
    found: u64,
}

/// What is found of what was asked.
pub(super) struct Answer<'a> {
    pub(super) question: &'a Question,
    pub(super) kept: Kept,
    /// Transactions in the range.
    pub(super) commits: u64,
    /// Those of them that summaries only count.
    pub(super) counted: u64,
    full: bool,
    pub(super) activity: Option<Activity>,
    /// Whether anything was seen before, and after, the time that is asked about: then nothing is missing between.
    beyond: (bool, bool),
    pub(super) records: Vec<RecordLine>,
}

impl<'a> Answer<'a> {
    /// Nothing yet.
    pub(super) fn new(question: &'a Question) -> Answer<'a> {
        let activity = match question {
            Question::Activity { table, steps, .. } => Some(Activity::new(*steps, table.clone())),
            _ => None,
        };
        let (kept, records) = (Kept::default(), Vec::new());
        Answer { question, kept, commits: 0, counted: 0, full: false, activity, beyond: (false, false), records }
    }

    /// Whether nothing more is asked for.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Keeps a record where single ones are asked for.
    pub(super) fn note(&mut self, record: &Record<'_>, version: WalVersion) {
        if let Question::Transaction { xid, most } = self.question
            && record.xid == FullXid(*xid).xid()
            && self.records.len() < *most
        {
            self.records.push(RecordLine::of(record, version));
        }
    }

    /// Takes what a transaction did. Breaks when nothing more is asked for.
    pub(super) fn take(&mut self, finding: Finding) -> ControlFlow<()> {
        match self.question {
            Question::Worst { wanted, since, until, most } => {
                if finding.time < *since || until.is_some_and(|until| finding.time > until) {
                    return ControlFlow::Continue(());
                }
                self.commits += 1;
                if wanted.holds(&finding) {
                    self.kept.found += 1;
                    self.kept.findings.push_back(finding);
                    // So that memory is bounded, and sorting rare.
                    if self.kept.findings.len() > most.saturating_mul(4).max(256) {
                        self.kept.worst(*most);
                    }
                }
            }
            Question::Activity { since, until, .. } => {
                let is_late = until.is_some_and(|until| finding.time > until);
                self.beyond = (self.beyond.0 || finding.time < *since, self.beyond.1 || is_late);
                if finding.time >= *since && !is_late {
                    self.commits += 1;
                    if let Some(activity) = &mut self.activity {
                        activity.add(TimeRange::at(finding.time), 1, finding.bytes, &finding.tables, None);
                    }
                }
            }
            Question::Transaction { xid, .. } => {
                self.commits += 1;
                if finding.xid == FullXid(*xid).xid() {
                    self.kept.found = 1;
                    // The newest that has the id.
                    self.kept.findings = VecDeque::from([finding]);
                }
            }
            Question::Around { time, each } => {
                self.commits += 1;
                self.kept.found += 1;
                let is_after = finding.time > *time;
                self.kept.findings.push_back(finding);
                if is_after {
                    self.kept.after += 1;
                    if self.kept.after >= *each {
                        self.full = true;
                        return ControlFlow::Break(());
                    }
                } else if self.kept.findings.len() > each.saturating_add(self.kept.after) {
                    self.kept.findings.pop_front();
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Answer<'_> {
    /// Rows and bytes over all of the time that was asked about and seen; `None` where something else was asked.
    pub(super) fn activity(&mut self) -> Option<Activity> {
        let Question::Activity { since, until, .. } = self.question else { return None };
        let mut activity = self.activity.take()?;
        if activity.range().is_some() {
            if self.beyond.0 {
                activity.reach(*since);
            }
            if let Some(until) = until.filter(|_| self.beyond.1) {
                activity.reach(until);
            }
        }
        Some(activity)
    }
}

impl Kept {
    /// So many rows at least have those that are shown lost each; 0 while there is room for more.
    pub(super) fn bar(&self, most: usize) -> u64 {
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_cached_key(|finding| badness(finding));
        let lost = |finding: &&Finding| finding.rows.deleted.saturating_add(finding.rows.updated);
        // Who made or removed something is worse than whoever only changed rows, except by changes of the catalogs.
        let rows = |finding: &&&Finding| !matches!(finding.kinds.first(), Some(Kind::Drop | Kind::Truncate));
        if sorted.len() < most { 0 } else { sorted.iter().take(most).filter(rows).map(lost).min().unwrap_or(u64::MAX) }
    }

    fn worst(&mut self, most: usize) {
        self.findings.make_contiguous().sort_by_cached_key(badness);
        self.findings.truncate(most);
    }

    /// What is shown, and how many there are of it.
    pub(super) fn finish(mut self, question: &Question) -> (Vec<Finding>, u64) {
        if let Question::Worst { most, .. } = question {
            self.worst(*most);
        }
        (self.findings.into(), self.found)
    }
}
