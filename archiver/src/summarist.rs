//! Summaries: what the transactions of each run of segments did, sealed and stored once the run is durable. The stream makes them as it
//! cuts; nobody waits for one, and one that is not there costs a reader time and nothing else. The archiver never reads one (I9).

use std::sync::Arc;

use tokio::sync::mpsc;
use walseal_common::repository::Repository;
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;
use walseal_common::wal::change::RunSummary;

use crate::keys::ArchiveKeys;
use crate::stream::{ProgressWatch, StreamEnded};

/// Summaries that wait to be stored, each of some MiB at most (I11).
pub const WAITING: usize = 1;

/// What was done in a run of segments, all of which was read.
#[derive(Debug)]
pub struct FinishedRun {
    /// Its branch.
    pub branch: Branch,
    /// Size of its segments.
    pub size: SegmentSize,
    /// The first of them.
    pub first: SegmentNumber,
    /// What was done.
    pub summary: RunSummary,
}

/// Stores what comes, in order. Returns when the stream's owner is gone.
pub async fn run(
    repository: Repository,
    keys: Arc<ArchiveKeys>,
    mut runs: mpsc::Receiver<FinishedRun>,
    mut progress: ProgressWatch,
) {
    while let Some(run) = runs.recv().await {
        match durable(&run, &mut progress).await {
            Ok(true) => store(&repository, &keys, &run).await,
            // WAL that did not become durable may become other WAL.
            Ok(false) => {
                tracing::debug!(branch = %run.branch, first = ?run.first, "no summary: the branch was left before")
            }
            Err(_) => return,
        }
    }
}

/// Waits until the run is durable; false when the stream went on on another branch before.
async fn durable(run: &FinishedRun, progress: &mut ProgressWatch) -> Result<bool, StreamEnded> {
    let end = RunSummary::last_of(run.first).end(run.size);
    let is_durable = |branch: Option<Branch>, frontier| branch == Some(run.branch) && frontier >= end;
    let left = |branch: Option<Branch>| branch.is_some_and(|branch| branch != run.branch);
    progress.until(|now| is_durable(now.branch, now.frontier) || left(now.branch)).await?;
    let now = progress.now();
    Ok(is_durable(now.branch, now.frontier))
}

async fn store(repository: &Repository, keys: &ArchiveKeys, run: &FinishedRun) {
    let place = (run.branch, run.first, run.size);
    match repository.put_summary(place, &run.summary, &keys.recipients, &keys.writer).await {
        Ok(put) => tracing::debug!(branch = %run.branch, first = ?run.first, ?put, "summary"),
        Err(error) => tracing::info!(%error, "a summary could not be written; find reads the WAL instead"),
    }
}
