//! Drills: what they found, sealed, and which base backups they proved. Section 14 of the format.

mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::ledger::{AT_A_TIME, Body};
use super::{BaseId, DrillFacts, ObjectName, Repository, RepositoryError, RunId};
use crate::clock;
use crate::seal::{Draft, Identity, Kind, ObjectDigest, Recipient, WriterKey, WriterPublic};
use crate::store::PutOutcome;

pub use self::snapshots::{SnapshotDrill, SnapshotProof};

/// Names that one call lists.
const PAGE: usize = 1000;

/// The words of the ledger.
const PASSED: &str = "drill-passed";
const FAILED: &str = "drill-failed";

/// What drills prove: each kind by drills of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Provable {
    /// Base backups, with the WAL behind them.
    BaseBackups,
    /// Snapshots.
    Snapshots,
}

impl Provable {
    /// In metrics.
    pub fn word(self) -> &'static str {
        match self {
            Provable::BaseBackups => "base-backups",
            Provable::Snapshots => "snapshots",
        }
    }
}

/// A drill, as a trusted writer recorded it.
#[derive(Clone, PartialEq, Debug)]
pub struct Drill {
    /// Who recorded it.
    pub writer: WriterPublic,
    /// When it was judged, by that writer's clock.
    pub time: Timestamp,
    /// Whether every check ran and passed.
    pub passed: bool,
    /// What was found.
    pub facts: DrillFacts,
}

impl Drill {
    /// What an entry of the ledger says of a drill; `None` where it is about something else.
    fn of_entry(writer: WriterPublic, body: Body) -> Option<serde_json::Result<Drill>> {
        let passed = match body.act.as_str() {
            PASSED => true,
            FAILED => false,
            _ => return None,
        };
        let facts = serde_json::from_value::<DrillFacts>(body.facts.into());
        Some(facts.map(|facts| Drill { writer, time: body.time, passed, facts }))
    }
}

/// What the drills of a repository say, for those who show it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Proof {
    /// The base backups that are proven, with the time of the last drill that passed.
    pub proven: BTreeMap<BaseId, Timestamp>,
    /// Those of which a drill failed, with the time of the last that did.
    pub failed: BTreeMap<BaseId, Timestamp>,
    /// When the last drill was judged, and whether it passed.
    pub last: Option<(Timestamp, bool)>,
}

impl Proof {
    /// What these drills say. What passed by a clock that was ahead proves nothing: until that time comes it would seem to have passed
    /// just now, whatever is found since.
    pub fn of(drills: &[Drill], now: Timestamp) -> Proof {
        let mut proof = Proof::default();
        for drill in drills {
            let ahead = clock::was_wrong(drill.time, now);
            if let Some(base) = drill.facts.base.as_ref().filter(|_| !(ahead && drill.passed)) {
                let bases = if drill.passed { &mut proof.proven } else { &mut proof.failed };
                let last = bases.entry(base.clone()).or_insert(drill.time);
                *last = drill.time.max(*last);
            }
            let newest = proof.last.is_none_or(|(time, _)| time <= drill.time);
            if newest && !ahead {
                proof.last = Some((drill.time, drill.passed));
            }
        }
        proof
    }

    /// Whether a drill of the backup passed; `None` before one has run.
    pub fn of_base(&self, base: &BaseId) -> Option<bool> {
        let proven = self.proven.contains_key(base);
        (proven || self.failed.contains_key(base)).then_some(proven)
    }

    /// When a drill last passed, of whichever backup.
    pub fn last_passed(&self) -> Option<Timestamp> {
        self.proven.values().max().copied()
    }
}

impl Repository {
    /// Every drill that a trusted writer recorded, oldest first. What does not verify counts for nothing, with a warning.
    ///
    /// Cost: a listing, and for each drill a listing and a small read.
    ///
    /// Errors: the store's.
    pub async fn drills(&self) -> Result<Vec<Drill>, RepositoryError> {
        let mut drills = self.recorded(Drill::of_entry).await?;
        drills.sort_by_key(|one| one.time);
        Ok(drills)
    }

    /// As [`Repository::drills`] and [`Repository::snapshot_drills`], at the cost of one of them.
    ///
    /// Errors: the store's.
    pub async fn drills_of_both_kinds(&self) -> Result<(Vec<Drill>, Vec<SnapshotDrill>), RepositoryError> {
        let either = |writer, body: Body| match body.act.as_str() {
            snapshots::DRILLED => SnapshotDrill::of_entry(writer, body).map(|read| read.map(|one| (None, Some(one)))),
            _ => Drill::of_entry(writer, body).map(|read| read.map(|one| (Some(one), None))),
        };
        let (bases, snapshots): (Vec<_>, Vec<_>) = self.recorded(either).await?.into_iter().unzip();
        let mut bases: Vec<Drill> = bases.into_iter().flatten().collect();
        let mut snapshots: Vec<SnapshotDrill> = snapshots.into_iter().flatten().collect();
        bases.sort_by_key(|one| one.time);
        snapshots.sort_by_key(|one| one.time);
        Ok((bases, snapshots))
    }

    /// What `read` makes of the entries of runs that have evidence; `None` is of no interest.
    async fn recorded<T>(
        &self,
        read: impl Fn(WriterPublic, Body) -> Option<serde_json::Result<T>> + Copy,
    ) -> Result<Vec<T>, RepositoryError> {
        let runs = self.runs_with_evidence().await?;
        let reads = runs.into_iter().map(|(writer, run)| self.recorded_in(writer, run, read));
        let mut reads = stream::iter(reads).buffer_unordered(AT_A_TIME);
        let mut all = Vec::new();
        while let Some(found) = reads.next().await {
            all.extend(found?);
        }
        Ok(all)
    }

    /// The runs of trusted writers that have evidence, by name.
    async fn runs_with_evidence(&self) -> Result<BTreeSet<(WriterPublic, RunId)>, RepositoryError> {
        let mut runs = BTreeSet::new();
        let mut pages = self.pages("evidence/", None, PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                match meta.key.parse() {
                    Ok(ObjectName::Evidence(writer, run, _)) if self.trust().iter().any(|one| one.key == *writer) => {
                        runs.insert((*writer, run));
                    }
                    // Other names, and other writers, are somebody else's.
                    _ => {}
                }
            }
        }
        Ok(runs)
    }

    async fn recorded_in<T>(
        &self,
        writer: WriterPublic,
        run: RunId,
        read: impl Fn(WriterPublic, Body) -> Option<serde_json::Result<T>>,
    ) -> Result<Vec<T>, RepositoryError> {
        let mut all = Vec::new();
        let page = self.first_objects(&format!("ledger/{writer}/{run}/"), PAGE).await?;
        for meta in page {
            let Ok(ObjectName::Ledger(_, _, sequence)) = meta.key.parse() else { continue };
            let entry = match self.ledger_entry(writer, run, sequence).await {
                Ok(entry) => entry,
                // Pruned while this looked.
                Err(error) if error.is_not_found() => continue,
                Err(error @ RepositoryError::Object { .. }) => {
                    tracing::warn!(%error, "no record of a drill");
                    continue;
                }
                Err(error) => return Err(error),
            };
            match read(writer, entry.body) {
                None => {}
                Some(Ok(found)) => all.push(found),
                Some(Err(error)) => tracing::warn!(name = meta.key, %error, "a record of a drill that says too little"),
            }
        }
        Ok(all)
    }

    /// Puts what a drill found, sealed to `recipients`. Durable on return.
    ///
    /// Errors: the store's; the name is taken, which another `run` avoids; more than 16 MiB.
    pub async fn put_evidence(
        &self,
        run: RunId,
        number: u32,
        document: &[u8],
        recipients: &[Recipient],
        writer: &WriterKey,
    ) -> Result<(ObjectName, ObjectDigest), RepositoryError> {
        let name = ObjectName::Evidence(Box::new(writer.public()), run, number);
        let draft = Draft {
            kind: Kind::Evidence,
            cluster: self.cluster(),
            name: name.to_string(),
            wal: None,
            frame_size: 1 << 20,
            level: 3,
        };
        let seal = || {
            let mut sealer = draft.seal(recipients, writer)?;
            sealer.frames_of(document)?;
            sealer.finish()
        };
        let object = seal().map_err(|source| self.refused(&name, source))?;
        if self.put(&object).await? == PutOutcome::AlreadyExists {
            // An answer that was lost, most likely: the name holds a random number that nobody else has drawn.
            let there = self.store().get(&name.key(self.cluster())).await?;
            if there != object.bytes {
                return Err(RepositoryError::Conflict { name: name.to_string(), writer: writer.public().to_string() });
            }
        }
        Ok((name, object.digest()))
    }

    /// The evidence of a drill, opened: the very object that its entry in the ledger names.
    ///
    /// Errors: not there; another object; no identity that opens it; the store's.
    pub async fn evidence(&self, drill: &Drill, identities: &[Identity]) -> Result<Option<Vec<u8>>, RepositoryError> {
        let Some(fact) = &drill.facts.evidence else { return Ok(None) };
        let refuse = |source| RepositoryError::Object { name: fact.name.clone(), source };
        let unfit = |why: &str| refuse(crate::seal::SealError::Structure(why.to_owned()));
        let name: ObjectName = fact.name.parse().map_err(|_| unfit("it is no name of evidence"))?;
        if !matches!(&name, ObjectName::Evidence(writer, ..) if **writer == drill.writer) {
            return Err(unfit("it is another writer's"));
        }
        let bytes = self.store().get(&name.key(self.cluster())).await?;
        if ObjectDigest::of(&bytes) != fact.digest {
            return Err(unfit("it is not the object that the ledger names"));
        }
        self.verify(&name, bytes)?.read_all(identities).map_err(refuse).map(Some)
    }
}

#[cfg(test)]
mod tests;
