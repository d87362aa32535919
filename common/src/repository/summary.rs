//! Summaries: what the transactions of a run of segments did, sealed by whoever streamed them. They spare a reader the WAL; where there
//! is none, or one is of no use, the WAL is read.

use super::{ObjectName, Repository, RepositoryError};
use crate::seal::{Draft, Identity, Kind, Recipient, SealError, WriterKey};
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::store::PutOutcome;
use crate::timeline::Branch;
use crate::wal::change::RunSummary;

/// A longer document is not stored: reading the WAL is as quick. Below the most that an object holds.
const LONGEST: usize = 8 << 20;

/// The name of the summary that begins with `first`.
fn name(branch: Branch, first: SegmentNumber, size: SegmentSize) -> ObjectName {
    let segment = |number| SegmentName::new(branch.timeline, number, size);
    ObjectName::Summary(branch, segment(first), segment(RunSummary::last_of(first)))
}

impl Repository {
    /// Seals a summary to `recipients` and stores it. One that was stored before stays as it is; `None` where it is too long.
    ///
    /// Errors: the store's.
    pub async fn put_summary(
        &self,
        (branch, first, size): (Branch, SegmentNumber, SegmentSize),
        summary: &RunSummary,
        recipients: &[Recipient],
        writer: &WriterKey,
    ) -> Result<Option<PutOutcome>, RepositoryError> {
        let name = name(branch, first, size);
        let text = |error: serde_json::Error| self.refused(&name, SealError::Structure(error.to_string()));
        let document = serde_json::to_vec(summary).map_err(text)?;
        if document.len() > LONGEST {
            return Ok(None);
        }
        let draft = Draft {
            kind: Kind::Summary,
            cluster: self.cluster(),
            name: name.to_string(),
            wal: None,
            frame_size: 1 << 20,
            level: 1,
        };
        let seal = || {
            let mut sealer = draft.seal(recipients, writer)?;
            sealer.frames_of(&document)?;
            sealer.finish()
        };
        let object = seal().map_err(|source| self.refused(&name, source))?;
        self.put(&object).await.map(Some)
    }

    /// The summary of the run that begins with `first`, opened.
    ///
    /// Errors: not there; not signed by a trusted writer; no identity opens it; no such document; the store.
    pub async fn summary(
        &self,
        (branch, first, size): (Branch, SegmentNumber, SegmentSize),
        identities: &[Identity],
    ) -> Result<RunSummary, RepositoryError> {
        let name = name(branch, first, size);
        let plain = self.open(&name, identities).await?;
        let read = serde_json::from_slice(&plain);
        read.map_err(|error| self.refused(&name, SealError::Structure(error.to_string())))
    }

    /// The first segments of the runs that `branch` has summaries of, from the run of `from` on, by name, in order.
    ///
    /// Errors: the store's.
    pub async fn summaries(
        &self,
        branch: Branch,
        size: SegmentSize,
        from: SegmentNumber,
    ) -> Result<Vec<SegmentNumber>, RepositoryError> {
        let prefix = format!("summary/{branch}/");
        let before = RunSummary::first_of(from).0.checked_sub(1).map(SegmentNumber);
        let after = before.map(|before| format!("{prefix}{}~", SegmentName::new(branch.timeline, before, size)));
        let mut runs = Vec::new();
        let mut pages = self.pages(&prefix, after, crate::store::LARGEST_PAGE);
        while let Some(page) = pages.next().await? {
            runs.extend(page.iter().filter_map(|meta| {
                let Ok(ObjectName::Summary(_, first, _)) = meta.key.parse() else { return None };
                let number = first.number(size).filter(|number| RunSummary::first_of(*number) == *number)?;
                (name(branch, number, size).to_string() == meta.key).then_some(number)
            }));
        }
        Ok(runs)
    }
}
