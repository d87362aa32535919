//! A store in memory, for tests of many objects or of many histories. What it holds is gone with it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{LARGEST_PAGE, ObjectMeta, ObjectStore, Page, PutOutcome, RangeBody, StoreError, StoreErrorKind};

/// Keeps objects in memory.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeMap<String, Bytes>>);

impl Shelf {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Shelf {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Ok(PutOutcome::AlreadyExists);
        }
        objects.insert(key.to_owned(), body);
        Ok(PutOutcome::Created)
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.objects().get(key).cloned().ok_or_else(|| StoreError {
            kind: StoreErrorKind::NotFound,
            operation: "get",
            key: key.to_owned(),
            store: self.describe(),
            reason: "there is none".to_owned(),
        })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        let bytes = self.get(key).await?;
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
        Ok(RangeBody { bytes: bytes.slice(at(range.start)..at(range.end)), object_size: bytes.len() as u64 })
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let begin = match start_after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        let objects = self.objects();
        let found = objects.range((begin, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let meta =
            |(key, bytes): (&String, &Bytes)| ObjectMeta { key: key.clone(), size: bytes.len() as u64, modified: None };
        let limit = limit.min(LARGEST_PAGE);
        let found: Vec<ObjectMeta> = found.take(limit).map(meta).collect();
        Ok(Page { more: found.len() >= limit, objects: found })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
