//! The way through a range: what summaries tell, and where they do not, the WAL.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use walseal_common::lsn::Lsn;
use walseal_common::segment::SegmentNumber;
use walseal_common::wal::change::{BODY_LIMIT, ChangeWalk, RelationWork, RunSummary, Sum, Unlisted};
use walseal_common::wal::{RelationFile, TimeRange, WalVersion};

use super::activity::Amount;
use super::answer::Answer;
use super::finding::Finding;
use super::names::Names;
use super::question::Question;
use super::telling::Told;
use super::wanted::TablePattern;
use crate::plan::reader::{PathReader, ReadError};

/// Segments that are read before those that are asked for, so that what began there is seen.
pub(super) const BEFORE: u64 = 2;

/// A run whose summary does not list all of it.
pub(super) struct Unread {
    first: SegmentNumber,
    listed: BTreeSet<Lsn>,
    transactions: u64,
    /// Whether any that is not listed is of a kind and a table that is wanted, as far as anybody can tell.
    may_be_wanted: bool,
    /// Whether any of them did more than change rows.
    structural: bool,
    /// The most rows that one of them lost.
    largest: u64,
}

/// What works are told by, and where to.
pub(super) struct Course<'a, 'b> {
    pub(super) reader: &'a PathReader<'a>,
    pub(super) version: WalVersion,
    pub(super) names: &'a mut Names,
    pub(super) restorable: &'a dyn Fn(Lsn) -> bool,
    pub(super) answer: Answer<'b>,
    /// Runs of which something is only counted.
    pub(super) unread: Vec<Unread>,
}

impl Course<'_, '_> {
    /// Reads the WAL of some segments. Returns the end of what was read.
    pub(super) async fn walk(
        &mut self,
        walk: &mut ChangeWalk,
        (first, last): (SegmentNumber, SegmentNumber),
        floor: Lsn,
    ) -> Result<Lsn, ReadError> {
        let Course { reader, version, names, restorable, answer, .. } = self;
        reader
            .visit_with_bodies(first, last, floor, BODY_LIMIT, |record| {
                answer.note(record, *version);
                let Some(work) = walk.record(*version, record) else { return ControlFlow::Continue(()) };
                let finding = Finding::of(&work, names, *restorable);
                names.learn(&work);
                answer.take(finding)
            })
            .await
    }

    /// Takes what the summary of the run from `first` on lists. Returns what was open at the run's end.
    pub(super) fn tell(&mut self, first: SegmentNumber, summary: RunSummary) -> ChangeWalk {
        for work in &summary.transactions {
            let finding = Finding::of(work, self.names, self.restorable);
            self.names.learn(work);
            // There is no end before the last where summaries are read.
            let _ = self.answer.take(finding);
        }
        let unlisted = &summary.unlisted;
        if unlisted.transactions > 0 && self.answer.activity.is_some() {
            self.add_up(unlisted, summary.times);
        } else if unlisted.transactions > 0 {
            let listed = summary.transactions.iter().map(|work| work.commit).collect();
            self.unread.push(Unread {
                first,
                listed,
                transactions: unlisted.transactions,
                may_be_wanted: self.may_be_wanted(unlisted),
                structural: unlisted.structural > 0,
                largest: unlisted.largest,
            });
        }
        ChangeWalk::resuming(summary.after)
    }

    /// Adds what is not listed to what was done over time.
    fn add_up(&mut self, unlisted: &Unlisted, times: Option<TimeRange>) {
        let (Some(activity), Some(times)) = (&mut self.answer.activity, times) else { return };
        let done = |sum: &Sum| RelationWork { rows: sum.rows, bytes: sum.bytes };
        let files = unlisted.relations.iter().filter(|(file, _)| **file != Unlisted::REST);
        let tables = Told::of_files(files.map(|(file, sum)| (*file, done(sum))), self.names).tables;
        let rest = unlisted.relations.get(&Unlisted::REST);
        let rest = rest.map(|sum| Amount { rows: sum.rows, bytes: sum.bytes, ..Amount::default() });
        let bytes = unlisted.relations.values().map(|sum| sum.bytes).fold(0, u64::saturating_add);
        activity.add(times, unlisted.transactions, bytes, &tables, rest);
        self.answer.commits += unlisted.transactions;
    }

    /// Whether any that is not listed is of a kind and a table that is wanted.
    fn may_be_wanted(&self, unlisted: &Unlisted) -> bool {
        let Question::Worst { wanted, .. } = self.answer.question else { return true };
        wanted.may_be_among(unlisted, |file, pattern| self.may_be(file, pattern))
    }

    /// Whether the file is one of the table; what nobody knows could be.
    fn may_be(&self, file: &RelationFile, pattern: &TablePattern) -> bool {
        let Some(oid) = self.names.oid(file) else { return true };
        let table = self.names.table(file).unwrap_or(oid);
        self.names.relation(table).is_none_or(|known| {
            let database = pattern.database.as_deref();
            known.name == pattern.table.name
                && known.schema.as_ref().is_none_or(|schema| *schema == pattern.table.schema)
                && (database.is_none() || database == self.names.database(oid.database))
        })
    }

    /// Of what summaries only count, some may belong among the worst after all: then the WAL tells.
    pub(super) async fn look_again(&mut self) -> Result<(), ReadError> {
        for run in std::mem::take(&mut self.unread) {
            self.answer.commits += run.transactions;
            let worse = || match self.answer.question {
                Question::Worst { most, .. } => run.structural || run.largest > self.answer.kept.bar(*most),
                _ => true,
            };
            if run.may_be_wanted && worse() {
                self.read_unlisted(&run).await?;
            } else {
                self.answer.counted += run.transactions;
            }
        }
        Ok(())
    }

    /// Reads the WAL of a run for what its summary does not list.
    async fn read_unlisted(&mut self, run: &Unread) -> Result<(), ReadError> {
        let size = self.reader.path().size();
        let (first, last) = (run.first, RunSummary::last_of(run.first));
        let from = SegmentNumber(first.0.saturating_sub(BEFORE)).start(size);
        let floor =
            self.reader.path().extent_at(first.start(size)).map_or(first.start(size), |extent| from.max(extent.start));
        let mut walk = ChangeWalk::default();
        let Course { reader, version, names, restorable, answer, .. } = self;
        reader
            .visit_with_bodies(size.number(floor), last, floor, BODY_LIMIT, |record| {
                if let Some(work) = walk.record(*version, record)
                    && record.end > first.start(size)
                    && !run.listed.contains(&work.commit)
                {
                    // It was counted already.
                    answer.commits = answer.commits.saturating_sub(1);
                    let _ = answer.take(Finding::of(&work, names, *restorable));
                }
                ControlFlow::Continue(())
            })
            .await?;
        Ok(())
    }
}
