//! A store with legal holds, that lets a held object go all the same, as a bucket with versions hides it: who does not ask loses it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use walseal_common::store::{DirectoryStore, Lock, ObjectStore, Page, PutOutcome, RangeBody, StoreError};

#[derive(Debug)]
pub(super) struct Holding {
    inner: DirectoryStore,
    held: Mutex<BTreeSet<String>>,
}

impl Holding {
    pub(super) fn new(inner: DirectoryStore) -> Holding {
        Holding { inner, held: Mutex::default() }
    }

    fn held<T>(&self, look: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        look(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait::async_trait]
impl ObjectStore for Holding {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.inner.put_new(key, body).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, start_after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        self.held(|all| if held { all.insert(key.to_owned()) } else { all.remove(key) });
        Ok(())
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        Ok(self.held(|all| !all.is_empty()))
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        Ok(Lock { until: None, held: self.held(|all| all.contains(key)) })
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
