//! Several databases, a few at a time.

use futures_util::stream::{self, Stream, StreamExt};
use walseal_common::repository::Ledger;

use super::stow::Hold;
use super::{Home, Order, SnapshotError, Taken, take};

/// Dumps of databases of one server, which share its memory (I11).
#[derive(Debug)]
pub struct Round<'a> {
    pub(super) home: &'a Home,
    pub(super) order: &'a Order,
    pub(super) ledger: &'a Ledger,
    pub(super) hold: Hold,
    jobs: usize,
}

impl<'a> Round<'a> {
    /// At most `jobs` databases at a time; at the least one.
    pub fn new(home: &'a Home, order: &'a Order, ledger: &'a Ledger, jobs: usize) -> Round<'a> {
        let jobs = jobs.max(1);
        let hold = Hold::new(home.repository.clone(), home.keys.clone(), jobs);
        Round { home, order, ledger, hold, jobs }
    }

    /// Dumps each of `databases`, begun in their order. Gives each outcome as it comes, with the place of its database in the list:
    /// one that fails keeps no other away. Dropped, what is under way is broken off, and nothing of it is visible (I7). `told` hears
    /// of bytes of any archive as they come.
    pub fn take(
        &'a self,
        databases: &'a [String],
        told: impl Fn(u64) + Copy + 'a,
    ) -> impl Stream<Item = (usize, Result<Taken, SnapshotError>)> + 'a {
        let dumps = databases.iter().enumerate();
        let dumps = dumps.map(move |(place, database)| async move { (place, take(self, database, told).await) });
        stream::iter(dumps).buffer_unordered(self.jobs)
    }
}
