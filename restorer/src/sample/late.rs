//! A store in which an object appears late.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use walseal_common::store::{Decorator, ObjectStore, Page, RangeBody, StoreError, StoreErrorKind};

/// Shows `key` only from the listing number `listings` of whole segments on; from then on nothing below `vanishing` is
/// there any more.
#[derive(Debug)]
pub(crate) struct LateStore {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) key: String,
    pub(crate) vanishing: Option<String>,
    pub(crate) listings: usize,
    seen: AtomicUsize,
}

impl LateStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, key: String, listings: usize) -> LateStore {
        LateStore { inner, key, vanishing: None, listings, seen: AtomicUsize::new(0) }
    }

    fn hides(&self, key: &str) -> bool {
        let early = self.seen.load(Ordering::SeqCst) < self.listings;
        let gone = self.vanishing.as_ref().is_some_and(|prefix| key.starts_with(prefix));
        if early { key == self.key } else { gone }
    }

    fn look(&self, key: &str) -> Result<(), StoreError> {
        if !self.hides(key) {
            return Ok(());
        }
        let (kind, operation) = (StoreErrorKind::NotFound, "get");
        let store = self.inner.describe();
        Err(StoreError { kind, operation, key: key.to_owned(), store, reason: "none".to_owned() })
    }
}

#[async_trait::async_trait]
impl Decorator for LateStore {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.look(key)?;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        self.look(key)?;
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let mut page = self.inner.list(prefix, after, limit).await?;
        // What vanishes does so after it was listed.
        page.objects.retain(|meta| meta.key != self.key || !self.hides(&meta.key));
        if page.objects.is_empty() && prefix.contains("/wal/") {
            self.seen.fetch_add(1, Ordering::SeqCst);
        }
        Ok(page)
    }
}
