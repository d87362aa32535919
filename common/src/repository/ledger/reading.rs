//! Reading the ledger, and telling what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;

use super::{Body, Finding, Head, RunId};
use crate::repository::{ObjectName, Repository, RepositoryError, WrittenFrontier};
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

impl LedgerEntry {
    /// Its facts, where they are what this version knows.
    pub fn facts<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_value(self.body.facts.clone().into()).ok()
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

/// Entries that somebody has read, who wants to hear of others only.
#[derive(Debug, Default)]
pub struct KnownEntries(BTreeSet<(WriterPublic, RunId, u32)>);

impl Repository {
    /// Every entry that is not in `known` and verifies, by time; they are known from then on. What does not verify is left out, and
    /// tried again the next time: whether the ledger is right [`Repository::ledger`] tells.
    ///
    /// Cost: a listing, and a small read for each entry.
    ///
    /// Errors: the store's.
    pub async fn entries_beyond(&self, known: &mut KnownEntries) -> Result<Vec<LedgerEntry>, RepositoryError> {
        let runs = self.ledger_runs().await?;
        let names: Vec<_> = runs.names().filter(|number| !known.0.contains(number)).collect();
        let reads = names.into_iter().map(|(writer, run, sequence)| self.ledger_entry(writer, run, sequence));
        let mut reads = stream::iter(reads).buffered(AT_A_TIME);
        let mut entries = Vec::new();
        while let Some(read) = reads.next().await {
            match read {
                Ok(entry) => entries.push(entry),
                Err(error @ RepositoryError::Object { .. }) => tracing::debug!(%error, "no entry of the ledger"),
                Err(error) if error.is_not_found() => tracing::debug!(%error, "no entry of the ledger"),
                Err(error) => return Err(error),
            }
        }
        drop(reads);
        known.0.extend(entries.iter().map(|entry| (entry.writer, entry.body.run, entry.body.sequence)));
        entries.sort_by_key(|entry| entry.body.time);
        Ok(entries)
    }

    /// Reads the whole ledger and checks it: signatures, numbers, chains, and what the runs and the writers' newest frontiers have
    /// seen of each other.
    ///
    /// Errors: the store's. Everything else is a finding.
    pub async fn ledger(&self) -> Result<LedgerReading, RepositoryError> {
        // Before the entries are listed: what is written meanwhile must not seem to be missing.
        let seen: Vec<Seen> = self.frontiers().await?.into_iter().filter_map(Seen::by_frontier).collect();
        let runs = self.ledger_runs().await?;
        let names: Vec<_> = runs.names().collect();
        let reads = names.into_iter().map(|(writer, run, sequence)| async move {
            ((writer, run, sequence), self.ledger_entry(writer, run, sequence).await)
        });
        let mut reads = stream::iter(reads).buffered(AT_A_TIME);
        let (mut reading, mut refused) = (LedgerReading::default(), Refused::new());
        while let Some((number, read)) = reads.next().await {
            match read {
                Ok(entry) => reading.entries.push(entry),
                Err(RepositoryError::Object { source, .. }) => drop(refused.insert(number, source)),
                Err(error) if error.is_not_found() => {
                    let why = "it went while it was read".to_owned();
                    refused.insert(number, SealError::Structure(why));
                }
                Err(error) => return Err(error),
            }
        }
        reading.judge(&refused, seen);
        Ok(reading)
    }

    /// Which entries are there, by name.
    pub(super) async fn ledger_runs(&self) -> Result<Runs, RepositoryError> {
        let mut runs = Runs::default();
        let mut pages = self.pages("ledger/", None, PER_PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                // Other names are somebody else's.
                if let Ok(ObjectName::Ledger(writer, run, sequence)) = meta.key.parse() {
                    runs.0.entry((*writer, run)).or_default().insert(sequence);
                }
            }
        }
        Ok(runs)
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
        let signer = &envelope.header().writer;
        if *signer != writer.to_string() {
            return Err(self.refused(&name, SealError::OtherWriter(signer.clone())));
        }
        let body: Body = envelope.trailer.body().map_err(|source| self.refused(&name, source))?;
        if (body.run, body.sequence) != (run, sequence) {
            let why = format!("it says that it is entry {} of run {}", body.sequence, body.run);
            return Err(self.refused(&name, SealError::Structure(why)));
        }
        Ok(LedgerEntry { writer, body, digest })
    }
}

/// An entry, and the object that has seen it.
struct Seen {
    head: Head,
    by: String,
}

impl Seen {
    fn by_frontier(written: WrittenFrontier) -> Option<Seen> {
        Some(Seen { head: written.record.ledger?, by: written.name.to_string() })
    }

    fn by_entry(entry: &LedgerEntry) -> impl Iterator<Item = Seen> {
        let name = ObjectName::Ledger(Box::new(entry.writer), entry.body.run, entry.body.sequence).to_string();
        entry.body.heads.iter().flatten().map(move |head| Seen { head: head.clone(), by: name.clone() })
    }
}

/// What has the name of an entry and is none, and why.
type Refused = BTreeMap<(WriterPublic, RunId, u32), SealError>;

impl LedgerReading {
    /// Finds what is wrong between entries that are each for themselves right, and sorts them. `seen` is what frontiers tell.
    fn judge(&mut self, refused: &Refused, mut seen: Vec<Seen>) {
        let by_name: BTreeMap<(WriterPublic, RunId, u32), &LedgerEntry> =
            self.entries.iter().map(|entry| ((entry.writer, entry.body.run, entry.body.sequence), entry)).collect();
        let own_place = |name: &str| match name.parse() {
            Ok(ObjectName::Ledger(writer, run, sequence)) => by_name.contains_key(&(*writer, run, sequence)),
            // No entry, so that none has changed places.
            _ => true,
        };
        let mut findings: Vec<Finding> = refused
            .iter()
            .map(|((writer, run, sequence), why)| {
                let name = ObjectName::Ledger(Box::new(*writer), *run, *sequence).to_string();
                Finding::of_refused(name, why, own_place)
            })
            .collect();
        let mut before: Option<&LedgerEntry> = None;
        for entry in by_name.values() {
            let same_run = |last: &&&LedgerEntry| (last.writer, last.body.run) == (entry.writer, entry.body.run);
            findings.extend(follows(before.as_ref().filter(same_run).copied(), entry, refused));
            before = Some(entry);
        }
        seen.extend(by_name.values().flat_map(|entry| Seen::by_entry(entry)));
        for Seen { head: Head { writer, run, sequence, digest }, by } in seen {
            let number = (writer, run, sequence);
            match by_name.get(&number) {
                Some(there) if there.digest == digest => {}
                Some(_) => findings.push(Finding::Replaced { writer, run, sequence, by }),
                // What is there in its place was named above.
                None if refused.contains_key(&number) => {}
                None => findings.push(Finding::CutOff { writer, run, seen: sequence, by }),
            }
        }
        findings.sort();
        self.findings = findings;
        // Clocks lie, and are put back: a run's own order counts more than its times, so that an entry stands where the latest time
        // up to it does.
        let mut places: BTreeMap<(WriterPublic, RunId, u32), Timestamp> = BTreeMap::new();
        let mut latest: Option<((WriterPublic, RunId), Timestamp)> = None;
        for (key, entry) in by_name {
            let run = (key.0, key.1);
            let before = latest.filter(|(of, _)| *of == run).map_or(Timestamp::MIN, |(_, time)| time);
            let time = entry.body.time.max(before);
            latest = Some((run, time));
            places.insert(key, time);
        }
        self.entries.sort_by_cached_key(|entry| {
            let key = (entry.writer, entry.body.run, entry.body.sequence);
            (places.get(&key).copied(), key)
        });
    }
}

/// What is wrong with `entry` behind `last`, the one before it in its run as far as there is one.
fn follows(last: Option<&LedgerEntry>, entry: &LedgerEntry, refused: &Refused) -> Vec<Finding> {
    let Body { run, sequence, previous, heads, .. } = &entry.body;
    let (writer, run, sequence) = (entry.writer, *run, *sequence);
    let broken = |why: &str| vec![Finding::Broken { writer, run, sequence, why: why.to_owned() }];
    let expected = last.map_or(0, |last| last.body.sequence + 1);
    if sequence > expected {
        // What has a name there was refused, and is named as that.
        let not_there = (expected..sequence).filter(|number| !refused.contains_key(&(writer, run, *number)));
        return missing(writer, run, not_there);
    }
    match (sequence, previous, heads) {
        (0, None, Some(_)) => vec![],
        (0, ..) => broken("is the first, and names one before it, or no heads"),
        (_, _, Some(_)) => broken("is not the first, and names heads"),
        (_, None, None) => broken("names none before it"),
        (_, Some(previous), None) if last.is_some_and(|last| last.digest == *previous) => vec![],
        (_, Some(_), None) => broken("names another entry before it than the one that is there"),
    }
}

/// A finding for each stretch of `numbers`, which ascend.
fn missing(writer: WriterPublic, run: RunId, numbers: impl Iterator<Item = u32>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for number in numbers {
        match findings.last_mut() {
            Some(Finding::Missing { last, .. }) if *last + 1 == number => *last = number,
            _ => findings.push(Finding::Missing { writer, run, first: number, last: number }),
        }
    }
    findings
}
