//! What can be restored, by the names and labels in the repository: the archiver opens nothing (I9).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{Repository, RepositoryError, RepositoryIdentity, WalListing};
use walseal_common::terminal::units;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

/// WAL without a hole that a base backup leads into, on one branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Restorable {
    /// The branch.
    pub branch: Branch,
    /// Where its first base backup is complete.
    pub from: Lsn,
    /// When that was, by the archiver's clock.
    pub from_time: Timestamp,
    /// End of the WAL that has no hole; where the branch ended there, it goes on on the next one.
    pub to: Lsn,
    /// Base backups in it.
    pub bases: usize,
}

impl std::fmt::Display for Restorable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backups = if self.bases == 1 { "base backup" } else { "base backups" };
        write!(
            f,
            "{} ({}) to {} on timeline {}, from {} {backups}",
            self.from,
            units::time_argument(PgTimestamp::from_jiff(self.from_time)),
            self.to,
            self.branch.timeline.number(),
            self.bases
        )
    }
}

/// Every such range, by branch and position. A label that cannot be read leads nowhere.
///
/// Errors: the store's.
pub async fn restorable(
    repository: &Repository,
    identity: &RepositoryIdentity,
) -> Result<Vec<Restorable>, RepositoryError> {
    let mut listings = BTreeMap::new();
    let mut found: BTreeMap<(Branch, Lsn), Restorable> = BTreeMap::new();
    for id in repository.base_ids().await? {
        let label = match repository.label(&id).await {
            Ok(label) => label,
            Err(error @ RepositoryError::Object { .. }) => {
                tracing::warn!(%id, %error, "this base backup does not count");
                continue;
            }
            Err(error) => return Err(error),
        };
        let branch = label.branch;
        let listing: &WalListing = match listings.entry(branch) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(repository.wal_listing(branch, identity.segment_size, None).await?),
        };
        let to = repository.contiguous_end(listing, label.start).await?;
        if to < label.stop {
            continue;
        }
        let own = Restorable { branch, from: label.stop, from_time: label.stop_time, to, bases: 0 };
        let range = found.entry((branch, to)).or_insert(own);
        range.bases += 1;
        if label.stop < range.from {
            (range.from, range.from_time) = (label.stop, label.stop_time);
        }
    }
    Ok(found.into_values().collect())
}
