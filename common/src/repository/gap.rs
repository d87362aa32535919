//! Gaps: WAL that was lost before it could be stored. Recorded where it happened, never silent (I5).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Repository, RepositoryError, WalListing};
use crate::lsn::{Lsn, LsnRange};
use crate::seal::{Draft, Kind, SealError, WriterKey};
use crate::segment::SegmentSize;
use crate::timeline::{Branch, TimelineId};

/// WAL that the repository lacked when the stream went on without it. It may have been filled since: what is still missing,
/// the names of WAL tell ([`Repository::open_part`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// The branch that breaks off.
    pub branch: Branch,
    /// The first byte that is missing.
    pub from: Lsn,
    /// Where WAL goes on.
    pub to: Lsn,
    /// The branch on which it goes on.
    pub next: Branch,
    /// When it was found, by the archiver's clock.
    pub found: Timestamp,
    /// The highest transaction time that the archiver saw before it; none where it saw none.
    pub highest_time: Option<Timestamp>,
    /// Why the WAL is gone, in words.
    pub why: String,
}

impl Gap {
    /// What is missing.
    pub fn range(&self) -> LsnRange {
        LsnRange { start: self.from, end: self.to }
    }

    /// Sorts gaps by where WAL goes on behind them, the last one last.
    pub fn goes_on(&self) -> (TimelineId, Lsn) {
        (self.next.timeline, self.to)
    }

    /// What of it is still missing when `listing` holds the branch's WAL; `None` once it has been filled.
    fn open(&self, listing: &WalListing) -> Option<LsnRange> {
        let end = listing.contiguous_end(self.from);
        LsnRange::new(end.max(self.from), self.to).filter(|rest| !rest.is_empty())
    }
}

impl Repository {
    /// Records a gap. One that was recorded before stays as it is.
    ///
    /// Errors: the store's.
    pub async fn put_gap(&self, gap: &Gap, writer: &WriterKey) -> Result<(), RepositoryError> {
        let name = ObjectName::Gap(gap.branch, gap.from);
        let draft = Draft {
            kind: Kind::Gap,
            cluster: self.cluster(),
            name: name.to_string(),
            wal: None,
            frame_size: 64 << 10,
            level: 1,
        };
        let object = draft.sign(writer, gap).map_err(|source| self.refused(&name, source))?;
        // Whatever has the name says that WAL is missing from here on.
        self.put(&object).await.map(|_| ())
    }

    /// Every gap that a trusted writer recorded, by branch and position. What else has such a name is left out, with a
    /// warning.
    ///
    /// Errors: the store's.
    pub async fn gaps(&self) -> Result<Vec<Gap>, RepositoryError> {
        let mut gaps = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page("gap/", after.as_deref(), GAPS_PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok(gaps) };
            after = Some(last.key.clone());
            for meta in &page {
                // Other names are somebody else's.
                if let Ok(name @ ObjectName::Gap(..)) = meta.key.parse::<ObjectName>() {
                    match self.gap(&name).await {
                        Ok(gap) => gaps.push(gap),
                        Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no record of a gap"),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// What of a gap is still missing, by name; `None` once it has been filled. `size` is that of the cluster's segments.
    ///
    /// Errors: the store's.
    pub async fn open_part(&self, gap: &Gap, size: SegmentSize) -> Result<Option<LsnRange>, RepositoryError> {
        let listing = self.wal_listing(gap.branch, size, Some(size.number(gap.from))).await?;
        Ok(gap.open(&listing))
    }

    async fn gap(&self, name: &ObjectName) -> Result<Gap, RepositoryError> {
        let gap: Gap = self.read(name).await?.trailer.body().map_err(|source| self.refused(name, source))?;
        let (found, expected) = (ObjectName::Gap(gap.branch, gap.from).to_string(), name.to_string());
        if found == expected { Ok(gap) } else { Err(self.refused(name, SealError::WrongName { found, expected })) }
    }
}

/// Names that one call lists.
const GAPS_PER_PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{TrustedWriter, TrustedWriters};
    use crate::segment::SegmentNumber;
    use crate::store::DirectoryStore;
    use crate::timeline::{SystemIdentifier, TimelineHistory};

    fn gap(from: u64, to: u64) -> Gap {
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7));
        let found = "2026-11-21T02:30:00Z".parse().expect("a time");
        let why = "the slot was dropped".to_owned();
        Gap { branch, from: Lsn(from), to: Lsn(to), next: branch, found, highest_time: None, why }
    }

    #[tokio::test]
    async fn i5_a_gap_is_found_again_with_what_was_said_of_it_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        assert_eq!(repository.gaps().await.expect("readable"), vec![]);
        for gap in [gap(0x500_0000, 0x700_0000), gap(0x100_0000, 0x200_0000), gap(0x500_0000, 0x900_0000)] {
            repository.put_gap(&gap, &writer).await.expect("stored");
        }
        let found = repository.gaps().await.expect("readable");
        assert_eq!(found, vec![gap(0x100_0000, 0x200_0000), gap(0x500_0000, 0x700_0000)]);
        // Somebody else's record is no record.
        let stranger = WriterKey::generate().expect("random bytes");
        repository.put_gap(&gap(0x900_0000, 0xA00_0000), &stranger).await.expect("the store takes it");
        assert_eq!(repository.gaps().await.expect("readable"), found);
    }

    #[test]
    fn a_gap_closes_as_it_is_filled() {
        let size = SegmentSize::DEFAULT;
        let segment = |number: u64| SegmentNumber(number).range(size);
        let run = |first: u64, last: u64| LsnRange { start: segment(first).start, end: segment(last).end };
        let gap = gap(segment(5).start.0 + 100, segment(7).start.0);
        let mut listing = WalListing {
            branch: gap.branch,
            segment_size: size,
            runs: vec![run(1, 4), run(7, 9)],
            partials: vec![],
            tails: [(SegmentNumber(5), vec![LsnRange { start: segment(5).start, end: gap.from }])].into(),
            parts: std::collections::BTreeMap::new(),
        };
        assert_eq!(gap.open(&listing), Some(gap.range()));
        listing.runs = vec![run(1, 5), run(7, 9)];
        assert_eq!(gap.open(&listing), Some(segment(6)));
        listing.runs = vec![run(1, 9)];
        assert_eq!(gap.open(&listing), None);
    }
}
