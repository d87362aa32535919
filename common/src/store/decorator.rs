//! A store over another one, for what changes a few of its calls.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Failing, Lock, ObjectStore, Page, PutOutcome, RangeBody, StoreError, Tally};

/// A store that passes every call on to another but those that it spells out itself: whoever implements this is an [`ObjectStore`].
/// For tests; a store that others rely on spells out every call, so that a new one is thought of.
#[async_trait::async_trait]
pub trait Decorator: Send + Sync + fmt::Debug {
    /// The store below.
    fn inner(&self) -> &dyn ObjectStore;

    /// As [`ObjectStore::put_new`].
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.inner().put_new(key, body).await
    }

    /// As [`ObjectStore::get`].
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.inner().get(key).await
    }

    /// As [`ObjectStore::get_range`].
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        self.inner().get_range(key, range).await
    }

    /// As [`ObjectStore::list`].
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.inner().list(prefix, start_after, limit).await
    }

    /// As [`ObjectStore::delete`].
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner().delete(key).await
    }

    /// As [`ObjectStore::legal_hold`].
    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        self.inner().legal_hold(key, held).await
    }

    /// As [`ObjectStore::has_locks`].
    async fn has_locks(&self) -> Result<bool, StoreError> {
        self.inner().has_locks().await
    }

    /// As [`ObjectStore::lock`].
    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        self.inner().lock(key).await
    }
}

#[async_trait::async_trait]
impl<D: Decorator> ObjectStore for D {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        Decorator::put_new(self, key, body).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        Decorator::get(self, key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        Decorator::get_range(self, key, range).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        Decorator::list(self, prefix, start_after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        Decorator::delete(self, key).await
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        Decorator::legal_hold(self, key, held).await
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        Decorator::has_locks(self).await
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        Decorator::lock(self, key).await
    }

    fn describe(&self) -> String {
        self.inner().describe()
    }

    fn failing(&self) -> Option<watch::Receiver<Failing>> {
        self.inner().failing()
    }

    fn tally(&self) -> Option<Arc<Tally>> {
        self.inner().tally()
    }
}
