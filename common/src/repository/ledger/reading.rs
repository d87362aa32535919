//! Reading the ledger, and telling what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use super::{Body, Head, RunId};
use crate::repository::{ObjectName, Repository, RepositoryError};
use crate::seal::{ObjectDigest, SealError, WriterPublic};

/// Entries that are read at a time.
pub(in crate::repository) const AT_A_TIME: usize = 8;

/// Names that one call lists.
const PER_PAGE: usize = 1000;

/// An entry whose signature was verified.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LedgerEntry {
    /// Who wrote it.
    pub writer: WriterPublic,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
    /// Digest of the object.
    pub digest: ObjectDigest,
}

/// Something that is wrong with the ledger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// What has this name is not what a trusted writer wrote there: forged, damaged, or copied from elsewhere.
    Refused {
        /// The object.
        name: String,
        /// Why, in words.
        why: String,
    },
    /// Entries before others of the same run are not there.
    Missing {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The first that is missing.
        first: u32,
        /// The last that is missing.
        last: u32,
    },
    /// An entry does not follow from the one before it.
    Broken {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The entry.
        sequence: u32,
        /// Why, in words.
        why: String,
    },
    /// Another run has seen an entry that is not there: the end of this run was cut off, or all of it.
    CutOff {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The number that was seen.
        seen: u32,
        /// The object that tells.
        by: String,
    },
    /// Another run has seen another entry under this number: it was replaced.
    Replaced {
        /// Whose run.
        writer: WriterPublic,
        /// The run.
        run: RunId,
        /// The entry.
        sequence: u32,
        /// The object that tells.
        by: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Refused { name, why } => write!(f, "refused: {name}: {why}"),
            Finding::Missing { writer, run, first, last } if first == last => {
                write!(f, "missing: entry {first} of run {run} of {writer}")
            }
            Finding::Missing { writer, run, first, last } => {
                write!(f, "missing: entries {first} to {last} of run {run} of {writer}")
            }
            Finding::Broken { writer, run, sequence, why } => {
                write!(f, "broken: entry {sequence} of run {run} of {writer} {why}")
            }
            Finding::CutOff { writer, run, seen, by } => {
                write!(f, "cut off: {by} has seen entry {seen} of run {run} of {writer}, which is not there")
            }
            Finding::Replaced { writer, run, sequence, by } => {
                write!(f, "replaced: {by} has seen another entry {sequence} of run {run} of {writer}")
            }
        }
    }
}

/// The ledger as it is.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct LedgerReading {
    /// Every entry that is what its writer signed, by time; within a run in order.
    pub entries: Vec<LedgerEntry>,
    /// What is wrong. Empty: everything that anybody has seen is there, as it was.
    pub findings: Vec<Finding>,
}

/// The numbers that each run has, by name.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<(WriterPublic, RunId), BTreeSet<u32>>);

impl Runs {
    /// The highest number of each.
    pub(super) fn last(&self) -> impl Iterator<Item = ((WriterPublic, RunId), u32)> {
        self.0.iter().filter_map(|(run, numbers)| Some((*run, *numbers.last()?)))
    }

    fn names(&self) -> impl Iterator<Item = (WriterPublic, RunId, u32)> {
        self.0.iter().flat_map(|((writer, run), numbers)| numbers.iter().map(|number| (*writer, *run, *number)))
    }
}

impl Repository {
    /// Reads the whole ledger and checks it: signatures, numbers, chains, and what the runs have seen of each other.
    ///
    /// Errors: the store's. Everything else is a finding.
    pub async fn ledger(&self) -> Result<LedgerReading, RepositoryError> {
        let runs = self.ledger_runs().await?;
        let names: Vec<_> = runs.names().collect();
        let reads = names.into_iter().map(|(writer, run, sequence)| async move {
            (ObjectName::Ledger(Box::new(writer), run, sequence), self.ledger_entry(writer, run, sequence).await)
        });
        let mut reads = stream::iter(reads).buffered(AT_A_TIME);
        let mut reading = LedgerReading::default();
        while let Some((name, read)) = reads.next().await {
            match read {
                Ok(entry) => reading.entries.push(entry),
                Err(RepositoryError::Object { name, source }) => {
                    reading.findings.push(Finding::Refused { name, why: source.to_string() });
                }
                Err(error) if error.is_not_found() => {
                    let why = "it went while it was read".to_owned();
                    reading.findings.push(Finding::Refused { name: name.to_string(), why });
                }
                Err(error) => return Err(error),
            }
        }
        reading.judge();
        Ok(reading)
    }

    /// Which entries are there, by name.
    pub(super) async fn ledger_runs(&self) -> Result<Runs, RepositoryError> {
        let mut runs = Runs::default();
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page("ledger/", after.as_deref(), PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok(runs) };
            after = Some(last.key.clone());
            for meta in &page {
                // Other names are somebody else's.
                if let Ok(ObjectName::Ledger(writer, run, sequence)) = meta.key.parse() {
                    runs.0.entry((*writer, run)).or_default().insert(sequence);
                }
            }
        }
    }

    /// One entry, verified: signed by a trusted writer, in that writer's own folder, and what its name says.
    pub(in crate::repository) async fn ledger_entry(
        &self,
        writer: WriterPublic,
        run: RunId,
        sequence: u32,
    ) -> Result<LedgerEntry, RepositoryError> {
        let name = ObjectName::Ledger(Box::new(writer), run, sequence);
        let bytes = self.store().get(&name.key(self.cluster())).await?;
        let digest = ObjectDigest::of(&bytes);
        let envelope = self.verify(&name, bytes)?;
        let refuse = |why: String| self.refused(&name, SealError::Structure(why));
        if envelope.header().writer != writer.to_string() {
            return Err(refuse(format!("it was written by {}, in another writer's folder", envelope.header().writer)));
        }
        let body: Body = envelope.trailer.body().map_err(|source| self.refused(&name, source))?;
        if (body.run, body.sequence) != (run, sequence) {
            return Err(refuse(format!("it says that it is entry {} of run {}", body.sequence, body.run)));
        }
        Ok(LedgerEntry { writer, body, digest })
    }
}

impl LedgerReading {
    /// Finds what is wrong between entries that are each for themselves right, and sorts them.
    fn judge(&mut self) {
        let by_name: BTreeMap<(WriterPublic, RunId, u32), &LedgerEntry> =
            self.entries.iter().map(|entry| ((entry.writer, entry.body.run, entry.body.sequence), entry)).collect();
        let mut findings = Vec::new();
        let mut before: Option<&LedgerEntry> = None;
        for entry in by_name.values() {
            let same_run = |last: &&&LedgerEntry| (last.writer, last.body.run) == (entry.writer, entry.body.run);
            let last = before.as_ref().filter(same_run);
            findings.extend(follows(last.copied(), entry));
            before = Some(entry);
        }
        for entry in by_name.values() {
            let by = || ObjectName::Ledger(Box::new(entry.writer), entry.body.run, entry.body.sequence).to_string();
            for Head { writer, run, sequence, digest } in entry.body.heads.iter().flatten() {
                let (writer, run, sequence) = (*writer, *run, *sequence);
                match by_name.get(&(writer, run, sequence)) {
                    Some(there) if there.digest == *digest => {}
                    Some(_) => findings.push(Finding::Replaced { writer, run, sequence, by: by() }),
                    None => findings.push(Finding::CutOff { writer, run, seen: sequence, by: by() }),
                }
            }
        }
        findings.sort();
        self.findings.append(&mut findings);
        // Clocks lie: a run's own order counts more than its times.
        self.entries.sort_by(|one, other| {
            let same = (one.writer, one.body.run) == (other.writer, other.body.run);
            if same { one.body.sequence.cmp(&other.body.sequence) } else { one.body.time.cmp(&other.body.time) }
        });
    }
}

/// What is wrong with `entry` behind `last`, the one before it in its run as far as there is one.
fn follows(last: Option<&LedgerEntry>, entry: &LedgerEntry) -> Option<Finding> {
    let Body { run, sequence, previous, heads, .. } = &entry.body;
    let (writer, run, sequence) = (entry.writer, *run, *sequence);
    let broken = |why: &str| Some(Finding::Broken { writer, run, sequence, why: why.to_owned() });
    let expected = last.map_or(0, |last| last.body.sequence + 1);
    if sequence > expected {
        return Some(Finding::Missing { writer, run, first: expected, last: sequence - 1 });
    }
    match (sequence, previous, heads) {
        (0, None, Some(_)) => None,
        (0, ..) => broken("is the first, and names one before it, or no heads"),
        (_, _, Some(_)) => broken("is not the first, and names heads"),
        (_, None, None) => broken("names none before it"),
        (_, Some(previous), None) if last.is_some_and(|last| last.digest == *previous) => None,
        (_, Some(_), None) => broken("names another entry before it than the one that is there"),
    }
}
