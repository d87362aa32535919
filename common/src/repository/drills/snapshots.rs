//! Drills of snapshots.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::clock;
use crate::repository::ledger::Body;
use crate::repository::{Repository, RepositoryError, SnapshotId};
use crate::seal::WriterPublic;

/// The word of the ledger.
pub(super) const DRILLED: &str = "snapshot-drilled";

/// A drill of a snapshot, as a trusted writer recorded it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotDrill {
    /// Who recorded it.
    pub writer: WriterPublic,
    /// When it was judged, by that writer's clock.
    pub time: Timestamp,
    /// The snapshot.
    pub id: SnapshotId,
    /// Whether every check ran and passed.
    pub passed: bool,
}

/// What the drills of snapshots say, for those who show it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotProof {
    /// Of each snapshot: when a drill of it last passed; none where all failed.
    drilled: BTreeMap<SnapshotId, Option<Timestamp>>,
    /// When the last drill was judged, and whether it passed.
    pub last: Option<(Timestamp, bool)>,
}

impl SnapshotDrill {
    /// What an entry of the ledger says of a drill of a snapshot; `None` where it is about something else.
    pub(super) fn of_entry(writer: WriterPublic, body: Body) -> Option<serde_json::Result<SnapshotDrill>> {
        if body.act != DRILLED {
            return None;
        }
        let facts = serde_json::from_value::<Facts>(body.facts.into());
        Some(facts.map(|Facts { id, passed }| SnapshotDrill { writer, time: body.time, id, passed }))
    }
}

/// What of an entry counts.
#[derive(Deserialize)]
struct Facts {
    id: SnapshotId,
    passed: bool,
}

impl SnapshotProof {
    /// What these drills say, as [`Proof::of`](super::Proof::of).
    pub fn of(drills: &[SnapshotDrill], now: Timestamp) -> SnapshotProof {
        let mut proof = SnapshotProof::default();
        for drill in drills {
            let ahead = clock::was_wrong(drill.time, now);
            if ahead && drill.passed {
                continue;
            }
            let last = proof.drilled.entry(drill.id.clone()).or_default();
            *last = (*last).max(drill.passed.then_some(drill.time));
            if !ahead && proof.last.is_none_or(|(time, _)| time <= drill.time) {
                proof.last = Some((drill.time, drill.passed));
            }
        }
        proof
    }

    /// Whether a drill of the snapshot passed; `None` before one has run.
    pub fn of_snapshot(&self, id: &SnapshotId) -> Option<bool> {
        self.drilled.get(id).map(Option::is_some)
    }

    /// When one last did.
    pub fn proven_at(&self, id: &SnapshotId) -> Option<Timestamp> {
        self.drilled.get(id).copied().flatten()
    }

    /// When a drill last passed, of whichever snapshot.
    pub fn last_passed(&self) -> Option<Timestamp> {
        self.drilled.values().copied().flatten().max()
    }
}

impl Repository {
    /// Every drill of a snapshot that a trusted writer recorded, oldest first: as [`Repository::drills`].
    ///
    /// Errors: the store's.
    pub async fn snapshot_drills(&self) -> Result<Vec<SnapshotDrill>, RepositoryError> {
        let mut drills = self.recorded(SnapshotDrill::of_entry).await?;
        drills.sort_by_key(|one| one.time);
        Ok(drills)
    }
}
