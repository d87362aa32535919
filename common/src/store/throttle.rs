//! A store that is slower than it could be.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Lock, ObjectStore, Page, PutOutcome, RangeBody, StoreError};

/// What a throttled store allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ThrottleLimits {
    /// Added to every call.
    pub latency: Duration,
    /// Bytes of bodies per second, in both directions and over all calls together. `None` or 0: no limit.
    pub bytes_per_second: Option<u64>,
}

/// Delays calls: to leave bandwidth to others, or to try what a slow store does to its callers.
#[derive(Debug)]
pub struct Throttle {
    inner: Arc<dyn ObjectStore>,
    limits: ThrottleLimits,
    /// When the line is free of the bytes that were let through so far.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// `inner`, held to `limits`.
    pub fn new(inner: Arc<dyn ObjectStore>, limits: ThrottleLimits) -> Throttle {
        Throttle { inner, limits, free_at: Mutex::new(None) }
    }

    /// Waits until `bytes` more bytes have had their time on the line.
    async fn pass(&self, bytes: usize) {
        let Some(rate) = self.limits.bytes_per_second.filter(|rate| *rate > 0 && bytes > 0) else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let done = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let done = free_at.map_or(now, |free| free.max(now)) + cost;
            *free_at = Some(done);
            done
        };
        sleep_until(done).await;
    }

    async fn begin(&self) {
        if !self.limits.latency.is_zero() {
            sleep(self.limits.latency).await;
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Throttle {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.begin().await;
        self.pass(body.len()).await;
        self.inner.put_new(key, body).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.begin().await;
        let body = self.inner.get(key).await?;
        self.pass(body.len()).await;
        Ok(body)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        self.begin().await;
        let body = self.inner.get_range(key, range).await?;
        self.pass(body.bytes.len()).await;
        Ok(body)
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.begin().await;
        self.inner.list(prefix, start_after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.begin().await;
        self.inner.delete(key).await
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        self.inner.legal_hold(key, held).await
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        self.begin().await;
        self.inner.has_locks().await
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        self.begin().await;
        self.inner.lock(key).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::DirectoryStore;
    use super::*;

    #[tokio::test]
    async fn bytes_of_all_calls_share_one_line_and_every_call_waits() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let limits = ThrottleLimits { latency: Duration::from_millis(20), bytes_per_second: Some(100_000) };
        let store = Throttle::new(Arc::new(DirectoryStore::new(folder.path().to_owned())), limits);
        let begun = Instant::now();
        let body = Bytes::from(vec![7; 10_000]);
        let puts = ["a", "b"].map(|key| store.put_new(key, body.clone()));
        for outcome in futures_util::future::join_all(puts).await {
            outcome.expect("put");
        }
        store.get_range("a", 0..5_000).await.expect("get");
        // Two puts side by side and a get: 25,000 bytes on one line, after at least two latencies in a row. Only the
        // lower bound is the throttle's promise.
        assert!(begun.elapsed() >= Duration::from_millis(250 + 2 * 20), "{:?}", begun.elapsed());
    }
}
