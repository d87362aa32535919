//! Drills: what they found, sealed, and which base backups they proved. Section 14 of the format.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::ledger::AT_A_TIME;
use super::{BaseId, DrillFacts, ObjectName, Repository, RepositoryError, RunId};
use crate::seal::{Draft, Identity, Kind, ObjectDigest, Recipient, WriterKey, WriterPublic};
use crate::store::PutOutcome;

/// Names that one call lists.
const PAGE: usize = 1000;

/// The words of the ledger.
const PASSED: &str = "drill-passed";
const FAILED: &str = "drill-failed";

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
    /// What these drills say.
    pub fn of(drills: &[Drill]) -> Proof {
        let mut proof = Proof::default();
        for drill in drills {
            if let Some(base) = &drill.facts.base {
                let bases = if drill.passed { &mut proof.proven } else { &mut proof.failed };
                let last = bases.entry(base.clone()).or_insert(drill.time);
                *last = drill.time.max(*last);
            }
            let newest = proof.last.is_none_or(|(time, _)| time <= drill.time);
            if newest {
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
        let runs = self.runs_with_evidence().await?;
        let reads = runs.into_iter().map(|(writer, run)| self.drills_of(writer, run));
        let mut reads = stream::iter(reads).buffer_unordered(AT_A_TIME);
        let mut drills = Vec::new();
        while let Some(found) = reads.next().await {
            drills.extend(found?);
        }
        drills.sort_by_key(|one| one.time);
        Ok(drills)
    }

    /// The runs of trusted writers that have evidence, by name.
    async fn runs_with_evidence(&self) -> Result<BTreeSet<(WriterPublic, RunId)>, RepositoryError> {
        let mut runs = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page("evidence/", after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(runs) };
            after = Some(last.key.clone());
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
    }

    async fn drills_of(&self, writer: WriterPublic, run: RunId) -> Result<Vec<Drill>, RepositoryError> {
        let mut drills = Vec::new();
        let page = self.list_page(&format!("ledger/{writer}/{run}/"), None, PAGE).await?;
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
            let passed = match entry.body.act.as_str() {
                PASSED => true,
                FAILED => false,
                _ => continue,
            };
            match serde_json::from_value::<DrillFacts>(entry.body.facts.into()) {
                Ok(facts) => drills.push(Drill { writer, time: entry.body.time, passed, facts }),
                Err(error) => tracing::warn!(name = meta.key, %error, "a record of a drill that says too little"),
            }
        }
        Ok(drills)
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
            if ObjectDigest::of(&there) != object.digest {
                return Err(RepositoryError::Conflict { name: name.to_string(), writer: writer.public().to_string() });
            }
        }
        Ok((name, object.digest))
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
