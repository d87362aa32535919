//! Leases: what a writer that is at work relies on, so that nobody removes it meanwhile (case 40).
//!
//! A writer puts the first object of its lease before it relies on anything, a new one every interval, and a last one that
//! releases it. Whether a lease is over is judged by the times that the store gives its objects and by no clock of a host.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BaseId, ObjectName, Repository, RepositoryError, RunId};
use crate::seal::{Kind, WriterKey};
use crate::store::PutOutcome;

/// A lease counts until so many intervals have passed since the store took its newest object.
const INTERVALS: i64 = 3;

/// Names that are listed at a time.
const PAGE: usize = 1000;

/// What is relied on; the body of a `lease` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The base backup that is being taken: everything of it, though it has no label yet.
    pub base: BaseId,
    /// The backup that it refers to.
    pub parent: Option<BaseId>,
    /// Names that must stay: those that begin with one of these.
    pub objects: Vec<String>,
    /// When this was written, by the writer's clock; never used to judge.
    pub written: Timestamp,
    /// Seconds after which the writer means to write the next one.
    pub interval_seconds: u64,
    /// Whether the writer needs nothing of it any more.
    #[serde(default)]
    pub released: bool,
}

/// The newest object of a lease, and when the store took it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldLease {
    /// The object.
    pub name: ObjectName,
    /// What it says.
    pub record: LeaseRecord,
    /// Seconds since 1970 by the store's clock; `None` from a store that does not tell.
    pub stored: Option<i64>,
}

impl HeldLease {
    /// Whether nothing has to be kept for it any more, `now` being the store's own time: that of an object which it took just now.
    /// One whose age is not known holds until it is released.
    pub fn is_over(&self, now: i64) -> bool {
        let limit = i64::try_from(self.record.interval_seconds).unwrap_or(i64::MAX).saturating_mul(INTERVALS);
        self.record.released || self.stored.is_some_and(|stored| now.saturating_sub(stored) > limit)
    }

    /// Whether the object of this name has to be kept for it.
    pub fn covers(&self, name: &str) -> bool {
        let of = |id: &BaseId| name.strip_prefix("base/").and_then(|rest| rest.strip_prefix(id.as_str()));
        let whole = |id: &BaseId| of(id).is_some_and(|rest| rest.starts_with('/'));
        whole(&self.record.base)
            || self.record.parent.as_ref().is_some_and(whole)
            || self.record.objects.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

impl Repository {
    /// The newest object of every lease that verifies, over or not. What strangers wrote counts for nothing.
    ///
    /// Cost: a listing, and a small read for each lease.
    ///
    /// Errors: the store's.
    pub async fn leases(&self) -> Result<Vec<HeldLease>, RepositoryError> {
        let mut runs: BTreeMap<RunId, Vec<(u32, Option<i64>)>> = BTreeMap::new();
        let mut pages = self.pages("lease/", None, PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                if let Ok(ObjectName::Lease(run, number)) = meta.key.parse() {
                    runs.entry(run).or_default().push((number, meta.modified));
                }
            }
        }
        let mut found = Vec::new();
        for (run, objects) in runs {
            // In order of their numbers, as they were listed.
            for (number, stored) in objects.into_iter().rev() {
                let name = ObjectName::Lease(run, number);
                match self.lease_record(&name).await {
                    Ok(record) => {
                        found.push(HeldLease { name, record, stored });
                        break;
                    }
                    // Pruned while this looked.
                    Err(error) if error.is_not_found() => {}
                    Err(error @ RepositoryError::Object { .. }) => tracing::warn!(%error, "no object of a lease"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    async fn lease_record(&self, name: &ObjectName) -> Result<LeaseRecord, RepositoryError> {
        self.read(name).await?.trailer.body().map_err(|source| self.refused(name, source))
    }

    /// Writes object `number` of the lease of `run`. Durable on return.
    ///
    /// Errors: the store's; the name is taken, which another `run` avoids.
    pub async fn put_lease(
        &self,
        run: RunId,
        number: u32,
        record: &LeaseRecord,
        writer: &WriterKey,
    ) -> Result<(), RepositoryError> {
        let name = ObjectName::Lease(run, number);
        let object = self.signed(Kind::Lease, &name, record, writer)?;
        match self.put(&object).await? {
            PutOutcome::Created => Ok(()),
            // The answer to our own put was lost, or somebody else took the name.
            PutOutcome::AlreadyExists => match self.lease_record(&name).await? {
                there if there == *record => Ok(()),
                _ => Err(RepositoryError::Conflict { name: name.to_string(), writer: "another run".to_owned() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::{Role, TrustedWriter, TrustedWriters};
    use crate::store::DirectoryStore;
    use crate::timeline::SystemIdentifier;

    fn record(released: bool) -> LeaseRecord {
        LeaseRecord {
            base: "20261121T023000Z-0000002a".parse().expect("an id"),
            parent: Some("20261120T023000Z-00000029".parse().expect("an id")),
            objects: vec!["base/20261114T023000Z-00000007/data/".to_owned()],
            written: "2026-11-21T02:30:00Z".parse().expect("a time"),
            interval_seconds: 300,
            released,
        }
    }

    #[tokio::test]
    async fn case_40_a_lease_holds_until_it_is_released_or_old_by_the_stores_own_clock() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = || WriterKey::generate().expect("random bytes");
        let (own, stranger, drill) = (key(), key(), key());
        let mut trust = TrustedWriters::new(vec![TrustedWriter::archiver(own.public())]);
        trust.add(TrustedWriter { key: drill.public(), roles: vec![Role::Drill] });
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        assert_eq!(repository.leases().await.expect("readable"), vec![]);

        let run = RunId::random().expect("random bytes");
        for number in 0..3 {
            repository.put_lease(run, number, &record(false), &own).await.expect("stored");
            repository.put_lease(run, number, &record(false), &own).await.expect("the same again is success");
        }
        let other = LeaseRecord { interval_seconds: 1, ..record(false) };
        repository.put_lease(run, 2, &other, &own).await.expect_err("other bytes are a conflict");
        for writer in [&stranger, &drill] {
            let run = RunId::random().expect("random bytes");
            repository.put_lease(run, 0, &record(false), writer).await.expect("anybody can put");
        }
        let found = repository.leases().await.expect("readable");
        let [held] = found.as_slice() else { panic!("strangers hold nothing: {found:?}") };
        assert_eq!((&held.name, &held.record), (&ObjectName::Lease(run, 2), &record(false)));
        let stored = held.stored.expect("a folder knows when");
        assert!(!held.is_over(stored + 900) && held.is_over(stored + 901));
        assert!(!HeldLease { stored: None, ..held.clone() }.is_over(i64::MAX), "its age is not known");

        for (name, covered) in [
            ("base/20261121T023000Z-0000002a/data/00000000", true),
            ("base/20261120T023000Z-00000029/label", true),
            ("base/20261114T023000Z-00000007/data/00000001", true),
            ("base/20261114T023000Z-00000007/label", false),
            ("base/20261113T023000Z-00000006/data/00000000", false),
            ("wal/00000001-a2dd04c7/000000010000000000000003", false),
        ] {
            assert_eq!(held.covers(name), covered, "{name}");
        }

        repository.put_lease(run, 3, &record(true), &own).await.expect("stored");
        assert!(repository.leases().await.expect("readable")[0].is_over(stored));
    }
}
