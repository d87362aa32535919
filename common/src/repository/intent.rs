//! Intents: what is about to be removed, written down before it is (case 40). Section 17 of the format.
//!
//! A writer that takes a base backup puts its lease first and then reads the intents; one that prunes puts its intent first and then
//! reads the leases. So at least one of the two sees the other, and relies on nothing that goes, or removes nothing that is relied on.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Repository, RepositoryError, RunId};
use crate::seal::{Kind, WriterKey};
use crate::store::{LARGEST_PAGE, PutOutcome};

/// Pages that are read at the same time.
const READS_AT_ONCE: usize = 4;

/// A page of what a run means to remove; the body of an `intent` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IntentRecord {
    /// Names of the objects.
    pub names: Vec<String>,
    /// When this was written, by the writer's clock; never used to judge.
    pub written: Timestamp,
}

/// A page that verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IntentPage {
    /// The object.
    pub name: ObjectName,
    /// What it says.
    pub record: IntentRecord,
    /// Seconds since 1970 by the store's clock; `None` from a store that does not tell.
    pub stored: Option<i64>,
}

impl IntentRecord {
    /// Most names on a page.
    pub const MOST_NAMES: usize = 10_000;
}

impl Repository {
    /// Every page of every intent that verifies. What strangers wrote counts for nothing.
    ///
    /// Errors: the store's.
    pub async fn intents(&self) -> Result<Vec<IntentPage>, RepositoryError> {
        let mut pages = Vec::new();
        self.each_intent(|page| pages.push(page)).await?;
        Ok(pages)
    }

    /// Names of everything that is about to be removed.
    ///
    /// Errors: the store's.
    pub async fn announced(&self) -> Result<HashSet<String>, RepositoryError> {
        let mut names = HashSet::new();
        self.each_intent(|page| names.extend(page.record.names)).await?;
        Ok(names)
    }

    /// Shows `look` each page that verifies, one after another, as many in memory as are read at once: a prune may announce millions
    /// of names.
    ///
    /// Errors: the store's.
    pub async fn each_intent(&self, mut look: impl FnMut(IntentPage)) -> Result<(), RepositoryError> {
        let mut listing = self.pages("intent/", None, LARGEST_PAGE);
        while let Some(page) = listing.next().await? {
            let mut reads = Vec::new();
            for meta in &page {
                if let Ok(name @ ObjectName::Intent(..)) = meta.key.parse() {
                    reads.push(self.intent_stored(name, meta.modified));
                }
            }
            let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
            while let Some((name, stored, record)) = reads.next().await {
                match record {
                    Ok(record) => look(IntentPage { name, record, stored }),
                    // Done with while this looked.
                    Err(error) if error.is_not_found() => {}
                    Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no page of an intent"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn intent_stored(
        &self,
        name: ObjectName,
        stored: Option<i64>,
    ) -> (ObjectName, Option<i64>, Result<IntentRecord, RepositoryError>) {
        let record = self.intent(&name).await;
        (name, stored, record)
    }

    async fn intent(&self, name: &ObjectName) -> Result<IntentRecord, RepositoryError> {
        self.read(name).await?.trailer.body().map_err(|source| self.refused(name, source))
    }

    /// Writes page `number` of the intent of `run`, at most [`IntentRecord::MOST_NAMES`] names. Durable on return, with the time at
    /// which the store took it: the store's own time, where it tells.
    ///
    /// Errors: the store's; the name is taken, which another `run` avoids.
    pub async fn put_intent(
        &self,
        run: RunId,
        number: u32,
        record: &IntentRecord,
        writer: &WriterKey,
    ) -> Result<IntentPage, RepositoryError> {
        let name = ObjectName::Intent(run, number);
        let object = self.signed(Kind::Intent, &name, record, writer)?;
        if self.put(&object).await? == PutOutcome::AlreadyExists && self.intent(&name).await? != *record {
            return Err(RepositoryError::Conflict { name: name.to_string(), writer: "another run".to_owned() });
        }
        let key = name.to_string();
        let listed = self.first_objects(&key, 1).await?;
        let stored = listed.iter().find(|meta| meta.key == key).and_then(|meta| meta.modified);
        Ok(IntentPage { name, record: record.clone(), stored })
    }
}
