//! Everything that lies in a cluster's folder, by name, size and the store's own time.

use super::{ObjectName, Pages, Repository, RepositoryError, WalListing};
use crate::lsn::LsnRange;
use crate::store::{LONGEST_PAGE, Lock, StoreError};

impl Repository {
    /// Every object of the cluster.
    pub fn all_objects(&self) -> Pages<'_> {
        self.pages("", None, LONGEST_PAGE)
    }

    /// Removes an object, which may be gone already.
    ///
    /// Errors: the store's own, so that who removes can tell what it may not do from what did not work.
    pub async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(&name.key(self.cluster)).await
    }

    /// Whether objects may be kept from being removed by what only the store knows ([`Repository::lock`]).
    ///
    /// Errors: the store's.
    pub async fn has_locks(&self) -> Result<bool, StoreError> {
        self.store.has_locks().await
    }

    /// What keeps an object from being removed.
    ///
    /// Errors: the store's; also that it may not be known.
    pub async fn lock(&self, name: &ObjectName) -> Result<Lock, StoreError> {
        self.store.lock(&name.key(self.cluster)).await
    }

    /// The ranges of WAL without a hole that `listing` shows, in order, by name and by the headers of `.partial` objects. One that
    /// does not verify counts for nothing; what other objects hold is there all the same.
    ///
    /// Errors: the store's.
    pub async fn extents(&self, listing: &WalListing) -> Result<Vec<LsnRange>, RepositoryError> {
        let mut extents: Vec<LsnRange> = Vec::new();
        for start in listing.begins() {
            if extents.last().is_some_and(|last| start < last.end) {
                continue;
            }
            let end = match self.contiguous_end(listing, start).await {
                Ok(end) => end,
                Err(RepositoryError::Object { .. }) => listing.contiguous_end(start),
                Err(error) => return Err(error),
            };
            match extents.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if end > start => extents.push(LsnRange { start, end }),
                _ => {}
            }
        }
        Ok(extents)
    }
}
