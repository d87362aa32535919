//! How far WAL was durable, and when: written down by the archiver again and again, signed, so that somebody who sees nothing but
//! the repository can tell how fresh it is, and what has been there once (case 1).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Repository, RepositoryError};
use crate::lsn::Lsn;
use crate::seal::{Kind, SealError, WriterKey, WriterPublic};
use crate::store::PutOutcome;
use crate::timeline::Branch;

/// Up to where the WAL of a branch was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BranchFrontier {
    /// The branch.
    pub branch: Branch,
    /// The furthest that its contiguous durable WAL has reached while this writer streamed it.
    pub frontier: Lsn,
}

/// What a writer knew at a moment; the body of a `frontier` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrontierRecord {
    /// The branch that it was streaming, and up to where its WAL was durable.
    #[serde(flatten)]
    pub at: BranchFrontier,
    /// End of the server's WAL as the server last said: where this is the frontier, nothing was waiting.
    pub server_end: Lsn,
    /// The highest transaction time that the writer saw in durable WAL; none where it saw none.
    pub highest_time: Option<Timestamp>,
    /// When this was, by the writer's clock.
    pub written: Timestamp,
    /// Seconds after which the writer meant to write the next one.
    pub interval_seconds: u64,
    /// Other branches that it has streamed before, the last one first.
    #[serde(default)]
    pub earlier: Vec<BranchFrontier>,
}

impl FrontierRecord {
    /// Most branches in [`FrontierRecord::earlier`].
    pub const MOST_EARLIER: usize = 1000;

    /// Every branch that it speaks of.
    pub fn branches(&self) -> impl Iterator<Item = BranchFrontier> {
        std::iter::once(self.at).chain(self.earlier.iter().copied())
    }
}

/// A record, and who wrote it where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenFrontier {
    /// The object's name.
    pub name: ObjectName,
    /// What it says.
    pub record: FrontierRecord,
}

/// The number of a writer's first record; later ones count down.
const FIRST: u64 = 9_999_999_999;

/// Names that may be taken before the next record is given up.
const MOST_TAKEN: usize = 1000;

/// Records of one writer that are tried until one verifies.
const TRIES: usize = 8;

impl Repository {
    /// The newest record of each trusted writer. One that does not verify is left out, with a warning, for the one before it.
    ///
    /// Cost: a listing and a small read for each writer, and one listing more.
    ///
    /// Errors: the store's.
    pub async fn frontiers(&self) -> Result<Vec<WrittenFrontier>, RepositoryError> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page("frontier/", after.as_deref(), TRIES).await?;
            let Some(first) = page.first() else { return Ok(found) };
            let folder = first.key.get("frontier/".len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            if let Ok(writer) = folder.parse::<WriterPublic>()
                && self.trust().iter().any(|trusted| trusted.key == writer)
            {
                found.extend(self.newest_of(page.iter().map(|meta| meta.key.as_str()), writer).await?);
            }
            // '0' is the byte after '/': everything of this writer sorts before it.
            after = Some(format!("frontier/{folder}0"));
        }
    }

    /// The newest record of `writer`.
    ///
    /// Errors: the store's.
    pub async fn frontier_of(&self, writer: WriterPublic) -> Result<Option<WrittenFrontier>, RepositoryError> {
        let page = self.list_page(&format!("frontier/{writer}/"), None, TRIES).await?;
        self.newest_of(page.iter().map(|meta| meta.key.as_str()), writer).await
    }

    async fn newest_of<'a>(
        &self,
        keys: impl Iterator<Item = &'a str>,
        writer: WriterPublic,
    ) -> Result<Option<WrittenFrontier>, RepositoryError> {
        for name in keys.filter_map(|key| key.parse::<ObjectName>().ok()) {
            if !matches!(&name, ObjectName::Frontier(by, _) if **by == writer) {
                continue;
            }
            match self.frontier_record(&name, writer).await {
                Ok(record) => return Ok(Some(WrittenFrontier { name, record })),
                // Pruned while this looked.
                Err(error) if error.is_not_found() => {}
                Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no record of a frontier"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn frontier_record(
        &self,
        name: &ObjectName,
        writer: WriterPublic,
    ) -> Result<FrontierRecord, RepositoryError> {
        let envelope = self.read(name).await?;
        let signer = &envelope.header().writer;
        if *signer != writer.to_string() {
            let why = format!("it was signed by {signer}, and stands under the name of another writer");
            return Err(self.refused(name, SealError::Structure(why)));
        }
        envelope.trailer.body().map_err(|source| self.refused(name, source))
    }

    /// Up to where the WAL of `branch` has been durable, as any trusted writer wrote down, and the object that says so.
    ///
    /// Errors: the store's.
    pub async fn recorded_frontier(&self, branch: Branch) -> Result<Option<(Lsn, ObjectName)>, RepositoryError> {
        Ok(furthest(&self.frontiers().await?, branch))
    }

    /// Writes a record under the next of `writer`'s numbers.
    ///
    /// Errors: the store's.
    pub async fn put_frontier(
        &self,
        record: &FrontierRecord,
        writer: &WriterKey,
    ) -> Result<ObjectName, RepositoryError> {
        let public = writer.public();
        // After the newest that verifies: a name that somebody else took must not use the numbers up.
        let first = match self.frontier_of(public).await?.map(|newest| newest.name) {
            Some(ObjectName::Frontier(_, newest)) => newest.saturating_sub(1),
            _ => FIRST,
        };
        for free in (0..=first).rev().take(MOST_TAKEN) {
            let name = ObjectName::Frontier(Box::new(public), free);
            let object = self.signed(Kind::Frontier, &name, record, writer)?;
            match self.put(&object).await? {
                PutOutcome::Created => return Ok(name),
                // Somebody else with this key was faster.
                PutOutcome::AlreadyExists => {}
            }
        }
        let name = ObjectName::Frontier(Box::new(public), first);
        Err(self.refused(&name, SealError::Structure("it and the names after it are taken by others".to_owned())))
    }
}

/// The furthest that `frontiers` tell of `branch`, and the object that says so.
pub fn furthest(frontiers: &[WrittenFrontier], branch: Branch) -> Option<(Lsn, ObjectName)> {
    let told = frontiers.iter().flat_map(|written| {
        let of_branch = written.record.branches().filter(|one| one.branch == branch);
        of_branch.map(|one| (one.frontier, written.name.clone()))
    });
    told.max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{TrustedWriter, TrustedWriters};
    use crate::store::DirectoryStore;
    use crate::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    fn branch(number: u32) -> Branch {
        TimelineHistory::root(TimelineId::new(number).expect("not zero")).branch(SystemIdentifier(7))
    }

    fn record(frontier: u64, minute: i8) -> FrontierRecord {
        FrontierRecord {
            at: BranchFrontier { branch: branch(2), frontier: Lsn(frontier) },
            server_end: Lsn(frontier),
            highest_time: None,
            written: jiff::civil::date(2026, 11, 21).at(2, minute, 0, 0).in_tz("UTC").expect("a time").timestamp(),
            interval_seconds: 300,
            earlier: vec![BranchFrontier { branch: branch(1), frontier: Lsn(0x500) }],
        }
    }

    #[tokio::test]
    async fn the_newest_record_of_each_trusted_writer_is_found_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys: Vec<WriterKey> = (0..3).map(|_| WriterKey::generate().expect("random bytes")).collect();
        let trust = TrustedWriters::new(keys.iter().take(2).map(|key| TrustedWriter::archiver(key.public())).collect());
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        assert_eq!(repository.frontiers().await.expect("readable"), vec![]);
        for (at, key) in keys.iter().enumerate() {
            for minute in 0..12 {
                let frontier = 0x1000 * (at as u64 + 1) + minute as u64;
                repository.put_frontier(&record(frontier, minute), key).await.expect("stored");
            }
        }
        let mut found: Vec<Lsn> =
            repository.frontiers().await.expect("readable").iter().map(|one| one.record.at.frontier).collect();
        found.sort();
        assert_eq!(found, [Lsn(0x100B), Lsn(0x200B)], "a stranger's counts for nothing");
        let told = |number| repository.recorded_frontier(branch(number));
        let name = ObjectName::Frontier(Box::new(keys[1].public()), FIRST - 11);
        assert_eq!(told(2).await.expect("readable"), Some((Lsn(0x200B), name.clone())));
        assert_eq!(told(1).await.expect("readable").map(|(lsn, _)| lsn), Some(Lsn(0x500)));
        assert_eq!(told(3).await.expect("readable"), None);

        // The newest is damaged: the one before it tells.
        let path = folder.path().join(name.key(SystemIdentifier(7)));
        let mut bytes = std::fs::read(&path).expect("an object of our own");
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).expect("a folder of our own");
        assert_eq!(told(2).await.expect("readable").map(|(lsn, _)| lsn), Some(Lsn(0x200A)));
        // Names that somebody else took, the last one there is and the next, do not stop the writer.
        for taken in [0, FIRST - 12] {
            let key = ObjectName::Frontier(Box::new(keys[1].public()), taken).key(SystemIdentifier(7));
            repository.store().put_new(&key, bytes::Bytes::from_static(b"junk")).await.expect("stored");
        }
        repository.put_frontier(&record(0x200C, 12), &keys[1]).await.expect("stored");
        assert_eq!(told(2).await.expect("readable").map(|(lsn, _)| lsn), Some(Lsn(0x200C)));
    }
}
