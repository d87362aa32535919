//! Holds: base backups that somebody wants kept until some time, whatever retention says. Section 16 of the format.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BaseId, ObjectName, Repository, RepositoryError};
use crate::seal::{Kind, WriterKey};
use crate::store::{LARGEST_PAGE, PutOutcome};

/// Numbers that may be taken by others before a hold is given up.
const MOST_TAKEN: usize = 100;

/// The body of a `hold` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoldRecord {
    /// The base backup.
    pub base: BaseId,
    /// It stays until then; `None` once it is released.
    pub until: Option<Timestamp>,
    /// When this was said, by the writer's clock.
    pub written: Timestamp,
}

/// The newest word about a base backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// The object that says it.
    pub name: ObjectName,
    /// What it says.
    pub record: HoldRecord,
}

impl Hold {
    /// Whether the backup has to be kept at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.record.until.is_some_and(|until| until > now)
    }
}

impl Repository {
    /// The newest object of every hold that verifies, also of those that are over. One that does not verify is passed over, with a
    /// warning, and the one before it counts.
    ///
    /// Errors: the store's.
    pub async fn holds(&self) -> Result<Vec<Hold>, RepositoryError> {
        let mut numbers: BTreeMap<BaseId, Vec<u32>> = BTreeMap::new();
        let mut pages = self.pages("hold/", None, LARGEST_PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                if let Ok(ObjectName::Hold(id, number)) = meta.key.parse() {
                    numbers.entry(id).or_default().push(number);
                }
            }
        }
        let mut holds = Vec::new();
        for (id, numbers) in numbers {
            // In order of their numbers, as they were listed.
            for number in numbers.into_iter().rev() {
                match self.hold(&id, number).await {
                    Ok(hold) => {
                        holds.push(hold);
                        break;
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no object of a hold"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(holds)
    }

    async fn hold(&self, id: &BaseId, number: u32) -> Result<Hold, RepositoryError> {
        let name = ObjectName::Hold(id.clone(), number);
        let record: HoldRecord =
            self.read(&name).await?.trailer.body().map_err(|source| self.refused(&name, source))?;
        if record.base == *id {
            return Ok(Hold { name, record });
        }
        let (found, expected) = (record.base.to_string(), id.to_string());
        Err(self.refused(&name, crate::seal::SealError::WrongName { found, expected }))
    }

    /// Says that a base backup stays until some time, or that it is released. Durable on return; counts from now on.
    ///
    /// Errors: the store's; others keep saying something else about it at the same time.
    pub async fn put_hold(&self, record: &HoldRecord, writer: &WriterKey) -> Result<Hold, RepositoryError> {
        let prefix = format!("hold/{}/", record.base);
        let mut conflict = None;
        for _ in 0..MOST_TAKEN {
            // Names of others count, too: ours has to be the newest.
            let (mut next, mut pages) = (0, self.pages(&prefix, None, LARGEST_PAGE));
            while let Some(page) = pages.next().await? {
                if let Some(Ok(ObjectName::Hold(_, number))) = page.last().map(|last| last.key.parse()) {
                    next = number.saturating_add(1);
                }
            }
            let name = ObjectName::Hold(record.base.clone(), next);
            let object = self.signed(Kind::Hold, &name, record, writer)?;
            match self.put(&object).await? {
                PutOutcome::Created => return Ok(Hold { name, record: record.clone() }),
                // The answer to our own put was lost, or somebody was faster.
                PutOutcome::AlreadyExists => match self.hold(&record.base, next).await {
                    Ok(there) if there.record == *record => return Ok(there),
                    Ok(_) | Err(RepositoryError::Object { .. }) => conflict = Some(name),
                    Err(error) => return Err(error),
                },
            }
        }
        let name = conflict.unwrap_or(ObjectName::Hold(record.base.clone(), 0)).to_string();
        Err(RepositoryError::Conflict { name, writer: "others".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{Role, TrustedWriter, TrustedWriters};
    use crate::store::DirectoryStore;
    use crate::timeline::SystemIdentifier;

    #[tokio::test]
    async fn the_newest_word_of_a_trusted_archiver_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = || WriterKey::generate().expect("random bytes");
        let (own, stranger, drill) = (key(), key(), key());
        let mut trust = TrustedWriters::new(vec![TrustedWriter::archiver(own.public())]);
        trust.add(TrustedWriter { key: drill.public(), roles: vec![Role::Drill, Role::Base] });
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        let base: BaseId = "20261121T023000Z-0000002a".parse().expect("an id");
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (written, now) = (time("2026-11-21T03:00:00Z"), time("2026-12-01T00:00:00Z"));
        let record = |until: Option<&str>| HoldRecord { base: base.clone(), until: until.map(time), written };
        repository.put_hold(&record(Some("2027-01-01T00:00:00Z")), &own).await.expect("stored");
        for other in [&stranger, &drill] {
            repository.put_hold(&record(None), other).await.expect("anybody can put");
        }
        let held = repository.holds().await.expect("readable");
        assert!(held.len() == 1 && held[0].holds(now) && !held[0].holds(time("2027-01-01T00:00:00Z")), "{held:?}");
        repository.put_hold(&record(None), &own).await.expect("stored");
        assert!(!repository.holds().await.expect("readable")[0].holds(now), "released");
    }
}
