//! What the repository says, gathered once. Everything in it was signed by a trusted writer.

use jiff::Timestamp;
use walseal_common::objective::{Observed, Promises};
use walseal_common::repository::{FrontierRecord, Gap, Label, LedgerReading};

use super::Period;
use crate::access::Access;
use crate::plan::windows::{Window, windows};
use crate::plan::{Inventory, InventoryError, PlanError};
use crate::record;

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The repository's URL.
    pub repository: String,
    /// The cluster's system identifier.
    pub cluster: String,
    /// PostgreSQL's major version.
    pub postgres_major: u32,
    /// The month.
    pub period: Period,
    /// When this was gathered: nothing later is known.
    pub made: Timestamp,
    /// What the configuration promises.
    pub promises: Promises,
    /// The whole ledger.
    pub ledger: LedgerReading,
    /// What the writers said in the month of how far WAL was durable, and of each the last word before, by time.
    pub frontiers: Vec<FrontierRecord>,
    /// The base backups that are there.
    pub labels: Vec<Label>,
    /// What can be restored now.
    pub windows: Vec<Window>,
    /// The records of gaps.
    pub gaps: Vec<Gap>,
    /// What did not verify, each in words.
    pub unverified: Vec<String>,
}

impl Facts {
    /// Reads the ledger, labels, gaps, the month's frontier records, and the edges of the windows' WAL.
    ///
    /// Cost: a small read for each entry of the ledger, each label and each frontier record from the beginning of the month on.
    ///
    /// Errors: the store's; no identity that opens the WAL. What does not verify is a finding.
    pub async fn gather(access: &Access, period: Period, made: Timestamp) -> Result<Facts, PlanError> {
        let repository = &access.repository;
        let mut inventory = Inventory::read(repository, &access.identities).await?;
        let windows = windows(repository, &access.identities, &mut inventory).await?;
        let own = record::with_own(access);
        let ledger = own.ledger().await.map_err(InventoryError::from)?;
        let frontiers = repository.frontier_history(period.from).await.map_err(InventoryError::from)?;
        let mut frontiers: Vec<FrontierRecord> = frontiers
            .into_iter()
            .map(|written| written.record)
            .filter(|record| record.written < period.until)
            .collect();
        frontiers.sort_by_key(|record| record.written);
        let mut unverified: Vec<String> =
            inventory.unusable.iter().map(|base| format!("label of base backup {}: {}", base.id, base.why)).collect();
        let mut gaps = Vec::new();
        for record in inventory.gaps {
            match record.content {
                Ok(gap) => gaps.push(gap),
                Err(error) => unverified.push(format!("record of a gap: {error}")),
            }
        }
        Ok(Facts {
            repository: inventory.store,
            cluster: inventory.identity.cluster.to_string(),
            postgres_major: inventory.identity.postgres_major,
            period,
            made,
            promises: Promises::of(&access.config),
            ledger,
            frontiers,
            labels: inventory.bases,
            windows,
            gaps,
            unverified,
        })
    }

    /// What the objectives are measured by.
    pub(super) fn observed(&self) -> Observed<'_> {
        let (from, until) = (self.period.from, self.until());
        Observed { from, until, entries: &self.ledger.entries, frontiers: &self.frontiers }
    }

    /// The end of what the report covers: that of the month, or of what is known.
    pub(super) fn until(&self) -> Timestamp {
        self.period.until.min(self.made)
    }
}
