//! A store that counts the bytes that leave it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use walseal_common::store::{Decorator, ObjectStore, RangeBody, StoreError};

/// Counts what is read.
#[derive(Debug)]
pub(crate) struct Meter {
    inner: Arc<dyn ObjectStore>,
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Meter {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Meter {
        Meter { inner, bytes: AtomicU64::new(0), requests: AtomicU64::new(0) }
    }

    /// Bytes and requests since the last call.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.bytes.swap(0, Ordering::Relaxed), self.requests.swap(0, Ordering::Relaxed))
    }

    fn count(&self, bytes: &Bytes) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Decorator for Meter {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(key).await?;
        self.count(&bytes);
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        let body = self.inner.get_range(key, range).await?;
        self.count(&body.bytes);
        Ok(body)
    }
}
