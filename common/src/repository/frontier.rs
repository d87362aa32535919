//! How far WAL was durable, and when: written down by the archiver again and again, signed, so that somebody who sees nothing but
//! the repository can tell how fresh it is, and what has been there once (case 1).

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Head, ObjectName, Repository, RepositoryError};
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

/// The text is not a branch and a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a branch and a position, such as 00000001-a2dd04c7@0/3000060")]
pub struct NoBranchFrontier;

/// As `BRANCH@LSN`, for people to keep outside the repository.
impl std::fmt::Display for BranchFrontier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.branch, self.frontier)
    }
}

impl std::str::FromStr for BranchFrontier {
    type Err = NoBranchFrontier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (branch, frontier) = text.split_once('@').ok_or(NoBranchFrontier)?;
        let branch = branch.parse().map_err(|_| NoBranchFrontier)?;
        let frontier = frontier.parse().map_err(|_| NoBranchFrontier)?;
        Ok(BranchFrontier { branch, frontier })
    }
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
    /// The last entry of the ledger that the writer had stored, so that it is missed where a ledger is cut off at its end. None where
    /// it had stored none, or does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Head>,
}

impl FrontierRecord {
    /// Most branches in [`FrontierRecord::earlier`].
    pub const MOST_EARLIER: usize = 1000;

    /// For so long each is kept, at least: a report of the month before measures with them. Readers ask for the newest alone, whose
    /// names come first.
    pub const KEPT: SignedDuration = SignedDuration::from_hours(62 * 24);

    /// For how long nothing was heard of its writer, where the next word is overdue ([`silence`]).
    pub fn silence(&self, now: Timestamp) -> Option<Duration> {
        silence(self.written, self.interval_seconds, now)
    }

    /// Every branch that it speaks of.
    pub fn branches(&self) -> impl Iterator<Item = BranchFrontier> {
        std::iter::once(self.at).chain(self.earlier.iter().copied())
    }
}

/// For how long nothing was heard after a word that was written then, where the next one is overdue: the archiver does not run, or does not
/// reach the server or the store.
pub fn silence(written: Timestamp, interval_seconds: u64, now: Timestamp) -> Option<Duration> {
    let due = Duration::from_secs(interval_seconds);
    let silent = Duration::try_from(now.duration_since(written)).unwrap_or_default();
    (silent > due.saturating_mul(2).saturating_add(Duration::from_secs(60))).then_some(silent)
}

/// A record, and who wrote it where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenFrontier {
    /// The object's name.
    pub name: ObjectName,
    /// What it says.
    pub record: FrontierRecord,
}

/// Names that one call lists.
const PAGE: usize = 1000;

/// Records that are read at the same time: there may be thousands, and each waits for the store.
const READS_AT_ONCE: usize = 32;

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
        let mut pages = self.pages("frontier/", None, TRIES);
        while let Some(page) = pages.next().await? {
            let Some(first) = page.first() else { break };
            let folder = first.key.get("frontier/".len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            if let Ok(writer) = folder.parse::<WriterPublic>()
                && self.trust().iter().any(|trusted| trusted.key == writer)
            {
                found.extend(self.newest_of(page.iter().map(|meta| meta.key.as_str()), writer).await?);
            }
            pages.pass(&format!("frontier/{folder}"));
        }
        Ok(found)
    }

    /// The newest record of `writer`.
    ///
    /// Errors: the store's.
    pub async fn frontier_of(&self, writer: WriterPublic) -> Result<Option<WrittenFrontier>, RepositoryError> {
        let page = self.first_objects(&format!("frontier/{writer}/"), TRIES).await?;
        self.newest_of(page.iter().map(|meta| meta.key.as_str()), writer).await
    }

    /// Every record of each trusted writer that was written at `since` or later, and of each writer the newest from before. One
    /// that does not verify is left out, with a warning.
    ///
    /// Cost: a small read for each record from `since` on, several at once.
    ///
    /// Errors: the store's.
    pub async fn frontier_history(&self, since: Timestamp) -> Result<Vec<WrittenFrontier>, RepositoryError> {
        let mut found = Vec::new();
        for writer in self.trust().iter().map(|trusted| trusted.key) {
            self.history_of(writer, since, &mut found).await?;
        }
        Ok(found)
    }

    /// Newest first: the names count down.
    async fn history_of(
        &self,
        writer: WriterPublic,
        since: Timestamp,
        found: &mut Vec<WrittenFrontier>,
    ) -> Result<(), RepositoryError> {
        let mut pages = self.pages(&format!("frontier/{writer}/"), None, PAGE);
        while let Some(page) = pages.next().await? {
            let names = page.iter().filter_map(|meta| meta.key.parse::<ObjectName>().ok());
            let own: Vec<ObjectName> =
                names.filter(|name| matches!(name, ObjectName::Frontier(by, _) if **by == writer)).collect();
            let reads = own.into_iter().map(|name| async move {
                let record = self.frontier_record(&name, writer).await;
                (name, record)
            });
            let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
            while let Some((name, read)) = reads.next().await {
                match read {
                    Ok(record) => {
                        let before = record.written < since;
                        found.push(WrittenFrontier { name, record });
                        if before {
                            return Ok(());
                        }
                    }
                    // Pruned while this looked.
                    Err(error) if error.is_not_found() => {}
                    Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no record of a frontier"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
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
            return Err(self.refused(name, SealError::OtherWriter(signer.clone())));
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
    use crate::store::{DirectoryStore, ObjectStore};
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
            ledger: None,
        }
    }

    #[test]
    fn records_of_writers_that_say_nothing_of_the_ledger_are_read() {
        let text = serde_json::to_value(record(0x1000, 0)).expect("serialises");
        assert_eq!(text.get("ledger"), None);
        assert_eq!(serde_json::from_value::<FrontierRecord>(text.clone()).expect("as before"), record(0x1000, 0));
        let mut empty = text;
        empty["ledger"] = serde_json::Value::Null;
        assert_eq!(serde_json::from_value::<FrontierRecord>(empty).expect("null is none"), record(0x1000, 0));
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

        // From a moment on: every record, and of each writer the last word before.
        let since = record(0, 9).written;
        let history = repository.frontier_history(since).await.expect("readable");
        let minutes: Vec<_> = history.iter().map(|one| one.record.at.frontier.0 & 0xF).collect();
        assert_eq!(minutes, [11, 10, 9, 8, 11, 10, 9, 8]);

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

    #[tokio::test]
    async fn the_records_among_the_vectors_are_read_with_and_without_an_entry_of_the_ledger() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = WriterKey::read_file(include_str!("../../tests/vectors/writer.key")).expect("a key");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let cluster = SystemIdentifier(7_437_123_456_789_012_345);
        let repository = Repository::new(store.clone(), cluster, trust);
        let vector = |file: &str| {
            let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
            bytes::Bytes::from(std::fs::read(path).expect("the vector is part of the project"))
        };
        for (file, count) in [("frontier.object", "9999999999"), ("frontier-ledger.object", "9999999998")] {
            let key = format!("{cluster}/frontier/{}/{count}", writer.public());
            store.put_new(&key, vector(file)).await.expect("stored");
        }
        let newest = repository.frontier_of(writer.public()).await.expect("readable").expect("a record").record;
        let head = newest.ledger.expect("it names an entry");
        assert_eq!(
            (head.writer, head.run.to_string().as_str(), head.sequence),
            (writer.public(), "00112233aabbccdd", 0)
        );
        assert_eq!(head.digest, crate::seal::ObjectDigest::of(&vector("ledger.object")));
        let all = repository.frontier_history(jiff::Timestamp::MIN).await.expect("readable");
        assert_eq!(all.iter().filter(|written| written.record.ledger.is_some()).count(), 1);
        assert_eq!(all.len(), 2, "one was written before there was this member");
    }
}
