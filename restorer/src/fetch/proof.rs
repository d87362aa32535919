//! The proof that nothing is known at or above a place, without which nothing looks like the end of WAL (I6).

use walseal_common::lsn::Lsn;
use walseal_common::repository::{Beyond, ObjectName};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use super::{FetchError, Fetcher};
use crate::plan::surplus;
use crate::segment_source::SegmentBytes;

impl Fetcher {
    /// Proves that `branch` has nothing in segment `number` or above it; nothing that counts, see
    /// [`Fetcher::prove_unconfirmed`].
    ///
    /// Errors: [`FetchError::Hole`] when anything is known there, by the plan, by an object or by a gap in the repository.
    pub(super) async fn prove_absent(
        &self,
        branch: Branch,
        number: SegmentNumber,
        size: SegmentSize,
    ) -> Result<(), FetchError> {
        let start = number.start(size);
        self.prove_unpinned(branch, start, start)?;
        self.prove_repository().await?;
        self.prove_ungapped(branch, self.own_start(branch, start)).await?;
        self.prove_unrecorded(branch, number, size, self.own_start(branch, start)).await?;
        match self.first_name_from(branch, number, size).await? {
            None => Ok(()),
            Some(_) => self.prove_unconfirmed(branch, number, size, self.own_start(branch, start)).await,
        }
    }

    /// Where the WAL begins that is `branch`'s own in the segment that starts at `start`: there, or where its timeline began.
    pub(super) fn own_start(&self, branch: Branch, start: Lsn) -> Lsn {
        start.max(self.route.begin(branch).unwrap_or(Lsn::INVALID))
    }

    /// Proves that the WAL of `branch` ends where the valid part of `segment` does, so that zeros may follow.
    ///
    /// Errors: as [`Fetcher::prove_absent`].
    pub(super) async fn prove_end(
        &self,
        branch: Branch,
        number: SegmentNumber,
        size: SegmentSize,
        segment: &SegmentBytes,
    ) -> Result<(), FetchError> {
        // What a timeline's first segment holds of its parent was confirmed as the parent's.
        let end = segment.valid_end.max(self.own_start(branch, number.start(size)));
        if let Some(switch) = self.route.switch(branch)
            && end >= switch
        {
            return Ok(()); // Recovery leaves this timeline before the zeros.
        }
        if self.is_read_through(branch, end) {
            return Ok(()); // Recovery stops before the zeros.
        }
        if !segment.lost.is_empty() {
            return Err(FetchError::Damaged { branch, from: end, objects: segment.lost.clone() });
        }
        self.prove_unpinned(branch, number.start(size), end)?;
        self.prove_ungapped(branch, end).await?;
        self.prove_unrecorded(branch, number, size, end).await?;
        if segment.known_end <= end && self.first_name_from(branch, number.next(), size).await?.is_none() {
            return Ok(());
        }
        self.prove_unconfirmed(branch, number, size, end).await
    }

    /// Proves of a `branch` that has WAL beyond `end`, where what has no hole ends in segment `number`, that nothing shows that any
    /// of it was ever confirmed to PostgreSQL: it arrived without what lies before it, and the archiver was lost with the rest.
    ///
    /// Errors: [`FetchError::Hole`] when it was confirmed, or when nobody can tell.
    async fn prove_unconfirmed(
        &self,
        branch: Branch,
        number: SegmentNumber,
        size: SegmentSize,
        end: Lsn,
    ) -> Result<(), FetchError> {
        let listing = self.repository.wal_listing(branch, size, Some(number)).await?;
        let reached = self.repository.contiguous_end(&listing, number.start(size)).await?;
        if reached > end {
            return Err(hole(branch, end, format!("by now there is more, up to {reached}")));
        }
        match self.repository.beyond(&listing, end).await? {
            Beyond::Nothing => Ok(()),
            Beyond::Unconfirmed(surplus) => {
                tracing::warn!("branch {branch}: {}", surplus::words(&surplus, end));
                Ok(())
            }
            Beyond::Known { name, why, .. } => Err(hole(branch, end, format!("{name} is there, which {why}"))),
        }
    }

    /// No gap is on record that says that WAL of `branch` beyond `end` was there once (I5, I6).
    async fn prove_ungapped(&self, branch: Branch, end: Lsn) -> Result<(), FetchError> {
        for record in self.repository.gap_records().await? {
            let Some(known) = record.known_on(branch).filter(|known| *known > end) else { continue };
            let why = match &record.content {
                Ok(gap) => format!("{} says that WAL up to {known} was lost: {}", record.name(), gap.why),
                Err(error) => format!("there is a record of a gap that cannot be read: {error}"),
            };
            return Err(hole(branch, end, why));
        }
        Ok(())
    }

    /// The plan knew of nothing beyond `end`, which lies in the segment that starts at `start`.
    fn prove_unpinned(&self, branch: Branch, start: Lsn, end: Lsn) -> Result<(), FetchError> {
        let Some(step) = self.route.step(branch) else { return Ok(()) };
        if let Some(switch) = self.route.switch(branch)
            && end < switch
        {
            return Err(hole(branch, end, format!("recovery goes along it to {switch}")));
        }
        // A branch that nothing of its own is known of is known up to where it began.
        let begin = self.route.begin(branch).unwrap_or(Lsn::INVALID);
        if step.known_end > end.max(start).max(begin) {
            return Err(hole(branch, end, format!("it was known up to {} when the restore began", step.known_end)));
        }
        Ok(())
    }

    /// No writer ever said that WAL of `branch` was durable beyond `end`, which lies in segment `number`.
    async fn prove_unrecorded(
        &self,
        branch: Branch,
        number: SegmentNumber,
        size: SegmentSize,
        end: Lsn,
    ) -> Result<(), FetchError> {
        let mut told = self.repository.recorded_frontier(branch).await?;
        if let Some(last) = self.repository.catalog_pages(branch, size, Some(number)).await?.pop() {
            told = told.max(self.repository.cataloged(branch, last, size).await?);
        }
        match told {
            Some((recorded, name)) if recorded > end => {
                Err(hole(branch, end, format!("{name} says that it was durable up to {recorded}")))
            }
            _ => Ok(()),
        }
    }

    /// The first object of WAL of `branch` that belongs to segment `number` or a later one, by name.
    async fn first_name_from(
        &self,
        branch: Branch,
        number: SegmentNumber,
        size: SegmentSize,
    ) -> Result<Option<ObjectName>, FetchError> {
        for prefix in [ObjectName::wal_prefix(branch), ObjectName::tail_prefix(branch)] {
            // "~" sorts after everything that a name goes on with.
            let before = number.0.checked_sub(1).map(SegmentNumber);
            let after = before.map(|before| format!("{prefix}{}~", SegmentName::new(branch.timeline, before, size)));
            let mut pages = self.repository.pages(&prefix, after, 100);
            while let Some(page) = pages.next().await? {
                let known = page.iter().find_map(|meta| meta.key.parse::<ObjectName>().ok());
                if known.is_some() {
                    return Ok(known);
                }
            }
        }
        Ok(None)
    }
}

fn hole(branch: Branch, from: Lsn, known: String) -> FetchError {
    FetchError::Hole { branch, from, known }
}
