//! Snapshots: whether all is there that their labels refer to, and every one of which the ledger or a witness speaks.

use std::collections::BTreeSet;

use super::flaw::{Flaw, FlawKind};
use super::heads::Witness;
use super::references::References;
use super::survey::ids;
use crate::repository::{
    KnownEntries, LedgerEntry, LedgerReading, ObjectName, Repository, RepositoryError, SnapshotId,
};
use crate::seal::Kind;

/// What labels and the ledger say of snapshots.
pub(super) struct Snapshots {
    /// Those that the ledger says were finished, and does not say were removed.
    finished: BTreeSet<SnapshotId>,
    /// Those that had a label when labels were listed, whatever it is worth.
    labelled: BTreeSet<SnapshotId>,
    /// Those with a label that verifies, oldest first.
    pub(super) sound: Vec<SnapshotId>,
}

impl Snapshots {
    /// Reads every label, after the ledger `reading`: of what is finished meanwhile nobody has heard yet.
    ///
    /// Errors: the store's, where it does not answer.
    pub(super) async fn read(
        repository: &Repository,
        reading: &LedgerReading,
        references: &mut References,
        flaws: &mut Vec<Flaw>,
    ) -> Result<Snapshots, RepositoryError> {
        let mut finished = ids(&reading.entries, "snapshot-finished");
        let removed = removed(repository, &reading.entries);
        finished.retain(|id| !removed.contains(id));
        let (mut labelled, mut sound) = (BTreeSet::new(), Vec::new());
        for id in repository.snapshot_ids().await? {
            match repository.snapshot(&id).await {
                Ok(label) => {
                    for (object, what) in references.add_snapshot(&label) {
                        let what = format!("the label of snapshot {id} refers to it, and {what}");
                        flaws.push(Flaw::new(FlawKind::Replaced, object, what).costing_snapshot(&id));
                    }
                    sound.push(id.clone());
                }
                // It went while this looked.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    let flaw = Flaw::of(&ObjectName::Snapshot(id.clone()), &error).ok_or(error)?;
                    flaws.push(flaw.costing_snapshot(&id));
                }
            }
            labelled.insert(id);
        }
        Ok(Snapshots { finished, labelled, sound })
    }

    /// Lists what lies below each, and compares it with what its label refers to. Nothing refers to what an attempt left that came to
    /// nothing (case 36).
    ///
    /// Errors: the store's.
    pub(super) async fn list(
        &self,
        repository: &Repository,
        references: &mut References,
        flaws: &mut Vec<Flaw>,
    ) -> Result<(), RepositoryError> {
        for id in &self.sound {
            let mut wrong = references.see_below(repository, &format!("snapshot/{id}/")).await?;
            wrong.extend(references.unseen_of(id).map(References::missing));
            // Labels go first: what went with its label while this looked is not missing.
            if !wrong.is_empty() && repository.has_snapshot(id).await? {
                flaws.extend(wrong.into_iter().map(|flaw| flaw.costing_snapshot(id)));
            }
        }
        Ok(())
    }

    /// Labels that somebody has seen, and that are not there. What was removed is read again, as it may have been written down since.
    ///
    /// Errors: the store's.
    pub(super) async fn miss(
        &self,
        repository: &Repository,
        witnesses: &[Witness],
        flaws: &mut Vec<Flaw>,
    ) -> Result<(), RepositoryError> {
        let of = |kind, id: &SnapshotId, what: String| {
            Flaw::new(kind, ObjectName::Snapshot(id.clone()), what).costing_snapshot(id)
        };
        let mut missing: Vec<(&SnapshotId, Flaw)> = Vec::new();
        for id in self.finished.difference(&self.labelled) {
            let what = "the ledger says that this snapshot was finished, and its label is not there".to_owned();
            missing.push((id, of(FlawKind::Missing, id, what)));
        }
        let newest = self.labelled.last();
        for witness in witnesses {
            let seen = witness.heads.snapshot.as_ref().filter(|id| newest.is_none_or(|newest| newest < *id));
            if let Some(id) = seen.filter(|id| !self.finished.contains(*id)) {
                let what = format!("{} this snapshot, and neither it nor a newer one is there", witness.who);
                missing.push((id, of(FlawKind::CutOff, id, what)));
            }
        }
        if !missing.is_empty() {
            let entries = repository.entries_beyond(&mut KnownEntries::default()).await?;
            let removed = removed(repository, &entries);
            flaws.extend(missing.into_iter().filter(|(id, _)| !removed.contains(*id)).map(|(_, flaw)| flaw));
        }
        Ok(())
    }
}

/// The snapshots that somebody removed who may write such: a drill's host has no say in what goes.
fn removed(repository: &Repository, entries: &[LedgerEntry]) -> BTreeSet<SnapshotId> {
    let may = |entry: &&LedgerEntry| repository.trust().allows(entry.writer, Kind::Snapshot);
    ids(entries.iter().filter(may), "snapshot-removed")
}
