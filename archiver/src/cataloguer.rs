//! Catalog pages: written as soon as 256 segments in a row are durable, and at the start of the daemon for all that lack one. Nobody
//! waits for a page, and one that was not written costs readers time and nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{CatalogPage, Repository, RepositoryError};
use walseal_common::seal::WriterKey;
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use crate::stream::{ProgressWatch, StreamEnded};

/// Pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(60);

/// Writes pages as runs of segments end. Returns when the stream's owner is gone.
pub async fn run(repository: Repository, size: SegmentSize, writer: WriterKey, progress: ProgressWatch) {
    let cataloguer = Cataloguer { repository, size, writer, looked_at: BTreeMap::new() };
    // The only end is that of the stream.
    drop(cataloguer.follow(progress).await);
}

struct Cataloguer {
    repository: Repository,
    size: SegmentSize,
    writer: WriterKey,
    /// Pages before this one have been looked at, by branch.
    looked_at: BTreeMap<Branch, SegmentNumber>,
}

impl Cataloguer {
    async fn follow(mut self, mut progress: ProgressWatch) -> Result<(), StreamEnded> {
        // WAL is shipped first: it waits for a store that answers, and for everything else to be settled.
        progress.connected().await?;
        let mut ailing = false;
        loop {
            let now = progress.now();
            let streamed = now.branch.map(|branch| (branch, now.frontier));
            match self.catch_up(streamed).await {
                Ok(()) => {
                    ailing = false;
                    let place = |lsn: Lsn| CatalogPage::first_of(self.size.number(lsn));
                    let known = streamed.map(|(branch, frontier)| (branch, place(frontier)));
                    progress.until(|now| now.branch.map(|branch| (branch, place(now.frontier))) != known).await?;
                }
                Err(error) => {
                    if std::mem::replace(&mut ailing, true) {
                        tracing::debug!(%error, "catalog pages still cannot be written");
                    } else {
                        tracing::info!(%error, "a catalog page could not be written; trying again later");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Writes every page that can be and was not looked at yet. `streamed`: the branch that is growing, and up to where it is durable.
    async fn catch_up(&mut self, streamed: Option<(Branch, Lsn)>) -> Result<(), RepositoryError> {
        for branch in self.repository.branches().await? {
            let grown = streamed.filter(|(growing, _)| *growing == branch).map(|(_, frontier)| frontier);
            self.catch_up_on(branch, grown).await?;
        }
        Ok(())
    }

    async fn catch_up_on(&mut self, branch: Branch, grown: Option<Lsn>) -> Result<(), RepositoryError> {
        let from = self.looked_at.get(&branch).copied();
        // Another branch than the one that is streamed does not grow, but for what is pushed: that is found after a restart.
        if from.is_some() && grown.is_none() {
            return Ok(());
        }
        let Some(mut first) = self.repository.first_segment(branch, self.size, from).await?.map(CatalogPage::first_of)
        else {
            return Ok(());
        };
        let there = self.repository.catalog_pages(branch, self.size, Some(first)).await?;
        let ends = |first: SegmentNumber| CatalogPage::last_of(first).end(self.size);
        // As long as it is not known to be the end, the next block is looked at.
        while grown.is_none_or(|frontier| ends(first) <= frontier) {
            let begun = Instant::now();
            if there.binary_search(&first).is_err() {
                if !self.repository.has_all(branch, self.size, first, CatalogPage::last_of(first)).await? {
                    let next = CatalogPage::last_of(first).next();
                    match self.repository.first_segment(branch, self.size, Some(next)).await? {
                        Some(beyond) => {
                            first = CatalogPage::first_of(beyond);
                            continue;
                        }
                        None => break,
                    }
                }
                self.write(branch, first).await?;
                // A backlog of pages leaves the store to others for half of the time.
                sleep(begun.elapsed()).await;
            }
            first = CatalogPage::last_of(first).next();
        }
        self.looked_at.insert(branch, first);
        Ok(())
    }

    async fn write(&self, branch: Branch, first: SegmentNumber) -> Result<(), RepositoryError> {
        let before = match first.0.checked_sub(CatalogPage::SEGMENTS).map(SegmentNumber) {
            Some(before) => self.page(branch, before).await?,
            None => None,
        };
        match self.repository.make_catalog_page(branch, first, self.size, before.as_ref()).await {
            Ok(Some(page)) => {
                let put = self.repository.put_catalog_page(&page, &self.writer).await?;
                tracing::debug!(%branch, first = %page.first, ?put, "catalog page");
            }
            Ok(None) => {
                tracing::debug!(%branch, ?first, "no catalog page: its segments are not all there, or not of one archiver")
            }
            // Whoever reads the segment says more about it.
            Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no catalog page"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn page(&self, branch: Branch, first: SegmentNumber) -> Result<Option<CatalogPage>, RepositoryError> {
        match self.repository.catalog_page(branch, first, self.size).await {
            Ok(page) => Ok(Some(page)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error @ RepositoryError::Object { .. }) => {
                tracing::warn!(%error, "this catalog page does not count");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
