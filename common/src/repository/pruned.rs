//! What retention removed, written down before it goes, so that nobody takes it for lost. Section 19 of the format.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BaseId, ObjectName, Repository, RepositoryError, RunId, Stretch};
use crate::lsn::LsnRange;
use crate::seal::{Kind, SealError, WriterKey};
use crate::store::LARGEST_PAGE;
use crate::timeline::Branch;

/// The body of a `pruned` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PrunedRecord {
    /// The run, as in the name.
    pub run: RunId,
    /// Base backups.
    pub bases: Vec<BaseId>,
    /// WAL, whole segments.
    pub wal: Vec<Stretch>,
    /// When this was written, by the writer's clock; never used to judge.
    pub written: Timestamp,
}

/// What retention removed so far, or was about to remove.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    bases: BTreeSet<BaseId>,
    /// In order, and none touches the next.
    wal: BTreeMap<Branch, Vec<LsnRange>>,
}

impl Pruned {
    /// Takes in a base backup.
    pub fn add_base(&mut self, id: BaseId) {
        self.bases.insert(id);
    }

    /// Takes in WAL.
    pub fn add_wal(&mut self, branch: Branch, range: LsnRange) {
        let ranges = self.wal.entry(branch).or_default();
        match ranges.last_mut() {
            // As it mostly comes: segment after segment.
            Some(last) if last.start <= range.start && range.start <= last.end => last.end = last.end.max(range.end),
            Some(last) if range.start < last.start => {
                ranges.push(range);
                *ranges = LsnRange::joined(std::mem::take(ranges));
            }
            _ => ranges.push(range),
        }
    }

    /// Takes in all of `other`.
    pub fn merge(&mut self, other: Pruned) {
        self.bases.extend(other.bases);
        for (branch, ranges) in other.wal {
            ranges.into_iter().for_each(|range| self.add_wal(branch, range));
        }
    }

    /// Whether nothing is among it.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty() && self.wal.is_empty()
    }

    /// Leaves out what `other` has.
    pub fn leave_out(&mut self, other: &Pruned) {
        self.bases.retain(|id| !other.has_base(id));
        for (branch, others) in &other.wal {
            self.leave_out_wal(*branch, others);
        }
    }

    /// Leaves out WAL.
    pub fn leave_out_wal(&mut self, branch: Branch, others: &[LsnRange]) {
        let Some(ranges) = self.wal.get_mut(&branch) else { return };
        *ranges = ranges.iter().flat_map(|range| range.without(others)).collect();
        if ranges.is_empty() {
            self.wal.remove(&branch);
        }
    }

    /// Its base backups.
    pub fn bases(&self) -> &BTreeSet<BaseId> {
        &self.bases
    }

    /// The branches of its WAL.
    pub fn branches(&self) -> impl Iterator<Item = Branch> {
        self.wal.keys().copied()
    }

    /// Whether the base backup is among it.
    pub fn has_base(&self, id: &BaseId) -> bool {
        self.bases.contains(id)
    }

    /// Whether all of this WAL is.
    pub fn has(&self, branch: Branch, range: LsnRange) -> bool {
        self.on(branch).iter().any(|pruned| pruned.start <= range.start && range.end <= pruned.end)
    }

    /// Its WAL of a branch, in order.
    pub fn on(&self, branch: Branch) -> &[LsnRange] {
        self.wal.get(&branch).map_or(&[], Vec::as_slice)
    }

    fn of(record: PrunedRecord) -> Pruned {
        let mut pruned = Pruned { bases: record.bases.into_iter().collect(), wal: BTreeMap::new() };
        for Stretch { branch, range, .. } in record.wal {
            pruned.add_wal(branch, range);
        }
        pruned
    }

    fn record(&self, run: RunId, written: Timestamp) -> PrunedRecord {
        let stretch = |(branch, range): (&Branch, &LsnRange)| Stretch { branch: *branch, range: *range, is_end: false };
        let wal = self.wal.iter().flat_map(|(branch, ranges)| ranges.iter().map(move |range| (branch, range)));
        PrunedRecord { run, bases: self.bases.iter().cloned().collect(), wal: wal.map(stretch).collect(), written }
    }
}

/// How often the records are listed anew, because one that was listed is not there: a store may list what it does not give.
const LOOKS: u32 = 5;

impl Repository {
    /// What retention removed, or was about to remove, as every record says that verifies. Whoever wants to know what is missing lists
    /// that first: what goes meanwhile was written down before.
    ///
    /// Errors: the store's.
    pub async fn pruned(&self) -> Result<Pruned, RepositoryError> {
        let mut pruned = Pruned::default();
        self.pruned_records().await?.into_iter().for_each(|(_, record)| pruned.merge(record));
        Ok(pruned)
    }

    async fn pruned_records(&self) -> Result<Vec<(ObjectName, Pruned)>, RepositoryError> {
        let mut looks = 0;
        'anew: loop {
            looks += 1;
            let mut records = Vec::new();
            let mut pages = self.pages("pruned/", None, LARGEST_PAGE);
            while let Some(page) = pages.next().await? {
                for meta in &page {
                    let Ok(name @ ObjectName::Pruned(run)) = meta.key.parse() else { continue };
                    match self.pruned_record(&name, run).await {
                        Ok(record) => records.push((name, Pruned::of(record))),
                        // A newer one took its place, which may not have been listed.
                        Err(error) if error.is_not_found() && looks < LOOKS => continue 'anew,
                        Err(error @ RepositoryError::Object { .. }) => {
                            tracing::warn!(%error, "no record of what retention removed");
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            return Ok(records);
        }
    }

    async fn pruned_record(&self, name: &ObjectName, run: RunId) -> Result<PrunedRecord, RepositoryError> {
        let record: PrunedRecord =
            self.read(name).await?.trailer.body().map_err(|source| self.refused(name, source))?;
        if record.run == run {
            return Ok(record);
        }
        let (found, expected) = (record.run.to_string(), run.to_string());
        Err(self.refused(name, SealError::WrongName { found, expected }))
    }

    /// Writes down what is about to go, with all that went before, but for what is there and `staying`, which an earlier prune was about
    /// to remove and did not: from now on it is missed again. Removes the records whose place that takes. Durable on return. `run` is that
    /// of no other record.
    ///
    /// Errors: the store's. That an older record stays is none: what is only in there is not missed as long as it does.
    pub async fn put_pruned(
        &self,
        run: RunId,
        going: Pruned,
        staying: &Pruned,
        writer: &WriterKey,
    ) -> Result<(), RepositoryError> {
        let mut old = self.pruned_records().await?;
        let mut pruned = Pruned::default();
        old.iter().for_each(|(_, record)| pruned.merge(record.clone()));
        pruned.merge(going);
        pruned.leave_out(staying);
        // Where older ones cannot be removed, the same again must not make one more each time.
        if let Some(same) = old.iter().position(|(_, record)| *record == pruned) {
            old.remove(same);
        } else if !old.is_empty() || !pruned.is_empty() {
            let name = ObjectName::Pruned(run);
            let record = pruned.record(run, Timestamp::now());
            // A name that is taken is our own put whose answer was lost.
            self.put(&self.signed(Kind::Pruned, &name, &record, writer)?).await?;
        }
        for (name, _) in old {
            if let Err(error) = self.remove(&name).await {
                tracing::debug!(%error, "an older record of what retention removed stays");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lsn::Lsn;
    use crate::seal::{Role, TrustedWriter, TrustedWriters};
    use crate::store::fault::{Call, Effect, Faulty};
    use crate::store::{DirectoryStore, StoreErrorKind};
    use crate::timeline::SystemIdentifier;

    fn range(start: u64, end: u64) -> LsnRange {
        LsnRange { start: Lsn(start), end: Lsn(end) }
    }

    #[tokio::test]
    async fn what_went_is_known_from_then_on_and_the_word_of_strangers_counts_for_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = || WriterKey::generate().expect("random bytes");
        let (own, stranger, drill) = (key(), key(), key());
        let mut trust = TrustedWriters::new(vec![TrustedWriter::archiver(own.public())]);
        trust.add(TrustedWriter { key: drill.public(), roles: vec![Role::Drill, Role::Base] });
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder.path().to_owned()))));
        let repository = Repository::new(store.clone(), SystemIdentifier(7), trust);
        let branch: Branch = "00000001-a2dd04c7".parse().expect("a branch");
        let base: BaseId = "20261121T023000Z-0000002a".parse().expect("an id");
        let run = || RunId::random().expect("random bytes");
        let names = || async { repository.first_objects("pruned/", 10).await.expect("listed").len() };

        let mut first = Pruned::default();
        first.add_base(base.clone());
        for part in [range(20, 30), range(10, 20), range(50, 60)] {
            first.add_wal(branch, part);
        }
        let nothing = Pruned::default();
        repository.put_pruned(run(), first.clone(), &nothing, &own).await.expect("stored");
        // The same again needs no other record.
        repository.put_pruned(run(), first.clone(), &nothing, &own).await.expect("known");
        assert_eq!((repository.pruned().await.expect("readable"), names().await), (first.clone(), 1));

        let mut second = Pruned::default();
        second.add_wal(branch, range(30, 50));
        for other in [&stranger, &drill] {
            let forged = repository.signed(
                Kind::Pruned,
                &ObjectName::Pruned(run()),
                &second.record(run(), Timestamp::now()),
                other,
            );
            repository.put(&forged.expect("signed")).await.expect("anybody can put");
        }
        assert_eq!(repository.pruned().await.expect("readable"), first);
        repository.put_pruned(run(), second, &nothing, &own).await.expect("stored");
        let all = repository.pruned().await.expect("readable");
        assert_eq!((all.on(branch), names().await), (&[range(10, 60)][..], 3), "one of ours, two of others");
        assert!(all.has_base(&base) && all.has(branch, range(15, 55)) && !all.has(branch, range(15, 61)));
        // What stays after all is missed again; where the older record does not go, that is tried again and nothing is put anew.
        let mut staying = Pruned::default();
        staying.add_base(base.clone());
        staying.add_wal(branch, range(20, 40));
        store.plan(Call::Delete, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::Denied));
        for _ in 0..3 {
            repository.put_pruned(run(), nothing.clone(), &staying, &own).await.expect("stored");
            assert_eq!((repository.pruned().await.expect("readable"), names().await), (all.clone(), 4));
        }
        store.heal();
        repository.put_pruned(run(), nothing, &staying, &own).await.expect("known");
        let left = repository.pruned().await.expect("readable");
        assert_eq!((left.on(branch), names().await), (&[range(10, 20), range(40, 60)][..], 3));
        assert!(!left.has_base(&base) && left.bases().is_empty());
        // A store that lists what it does not give is no reason to ask for ever.
        for call in [Call::Get, Call::GetRange] {
            store.plan(call, 1..=u64::MAX, Effect::FailBefore(StoreErrorKind::NotFound));
        }
        assert!(repository.pruned().await.expect_err("nothing is given").is_not_found());
    }
}
