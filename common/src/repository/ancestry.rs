//! What of a timeline's history everyone may read: on which branches its WAL lay before, and where it left them. The history itself is
//! sealed, because it may name restore points; who prunes opens nothing (I9), and has to know which backups a timeline relies on.

use serde::{Deserialize, Serialize};

use super::{Adoptions, ObjectName, Repository, RepositoryError, Step};
use crate::timeline::{Branch, Leg, SystemIdentifier, TimelineHistory, TimelineId};

/// The plain body of a `history` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ancestry {
    /// The branches of the timeline's ancestors by their histories alone, oldest first.
    pub ancestors: Vec<Leg>,
}

impl Ancestry {
    /// That of a history of the cluster `system`.
    pub fn of(history: &TimelineHistory, system: SystemIdentifier) -> Ancestry {
        Ancestry { ancestors: history.legs(system) }
    }
}

impl Repository {
    /// The ancestors of `origin`, a branch by its history alone; `None` where the repository does not tell: there is no such history,
    /// it was written by an older version, or it does not verify.
    ///
    /// Errors: the store's.
    pub async fn ancestry(&self, origin: Branch) -> Result<Option<Ancestry>, RepositoryError> {
        if origin == TimelineHistory::root(TimelineId::FIRST).branch(self.cluster()) {
            return Ok(Some(Ancestry { ancestors: Vec::new() }));
        }
        match self.read(&ObjectName::History(origin)).await {
            Ok(envelope) => Ok(envelope.trailer.body().ok()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(RepositoryError::Object { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The way to `branch`, itself last; `None` where the repository does not tell from which branches it comes.
    ///
    /// Errors: the store's.
    pub async fn way_to(&self, adoptions: &Adoptions, branch: Branch) -> Result<Option<Vec<Step>>, RepositoryError> {
        let origin = adoptions.origin(branch);
        let root = TimelineHistory::root(TimelineId::FIRST).branch(self.cluster());
        if origin.timeline == TimelineId::FIRST && origin != root {
            // WAL of an adoption that never came to be written: nothing leads there.
            return Ok(None);
        }
        let ancestry = self.ancestry(origin).await?;
        Ok(ancestry.map(|ancestry| adoptions.way_along(&ancestry.ancestors, branch)))
    }
}
