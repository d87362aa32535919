//! S3, and what speaks its protocol.

mod client;
mod failure;
mod http;
mod list;
mod lock;
mod options;
mod order;
mod put;
mod read;
#[cfg(test)]
mod tests;
mod whole;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_s3::Client;
use bytes::Bytes;

use super::failure::Failure;
use super::key::check_key;
use super::{Lock, ObjectStore, Page, PutOutcome, RangeBody, StoreError, StoreErrorKind};
use client::BuiltClient;
pub use options::{LockMode, ObjectLock, S3Checksum, S3Credentials, S3Options};

/// A store in a bucket, below a prefix.
///
/// Each call is one attempt with a deadline; [`Retry`](super::Retry) repeats it. Every put carries a checksum that the
/// store must verify, and counts only when the answer, or else the object read back, has the same (case 35).
/// Proxies of the environment are not used.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    options: S3Options,
    built: BuiltClient,
    /// The checksum that the store was seen to answer with, where the options leave it open.
    learned: OnceLock<S3Checksum>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client would show its credentials.
        f.debug_struct("S3Store").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl S3Store {
    /// A store with these options. Reads the CA bundle and, for [`S3Credentials::Chain`], the environment and
    /// AWS's files; the bucket itself is not asked.
    ///
    /// Errors: [`StoreErrorKind::Protocol`] when an option cannot be used.
    pub async fn new(options: S3Options) -> Result<S3Store, StoreError> {
        match client::build(&options).await {
            Ok(built) => Ok(S3Store { inner: Arc::new(Inner { options, built, learned: OnceLock::new() }) }),
            Err(failure) => Err(failure.in_call("open", "", describe(&options))),
        }
    }

    fn options(&self) -> &S3Options {
        &self.inner.options
    }

    fn client(&self) -> &Client {
        &self.inner.built.client
    }

    /// The checksum to send; `Auto` as long as it is open and the store was not seen to answer with any.
    fn checksum(&self) -> S3Checksum {
        match self.inner.built.checksum {
            S3Checksum::Auto => self.inner.learned.get().copied().unwrap_or_default(),
            chosen => chosen,
        }
    }

    fn learn(&self, checksum: S3Checksum) {
        // Whoever was first is right for all.
        self.inner.learned.get_or_init(|| checksum);
    }

    fn bucket(&self) -> &str {
        &self.inner.options.bucket
    }

    /// Who answers, for messages.
    fn place(&self) -> &str {
        self.inner.built.endpoint.as_deref().unwrap_or("AWS S3")
    }

    /// `text` below the prefix.
    fn below(&self, text: &str) -> String {
        match self.inner.options.prefix.as_str() {
            "" => text.to_owned(),
            prefix => format!("{prefix}/{text}"),
        }
    }

    /// The key in the bucket. Errors: `Protocol` when `key` cannot be one.
    fn full_key(&self, key: &str) -> Result<String, Failure> {
        let full = self.below(key);
        check_key(key).and_then(|()| check_key(&full)).map_err(Failure::protocol)?;
        Ok(full)
    }

    /// Runs `call`, which moves `bytes` bytes, under its deadline.
    ///
    /// Errors: `Unreachable` when it is not done in time; its outcome is not known then.
    async fn in_time<T>(&self, bytes: u64, call: impl Future<Output = T>) -> Result<T, Failure> {
        let allowed = self.inner.options.deadline + Duration::from_secs(bytes / S3Options::SLOWEST_RATE);
        tokio::time::timeout(allowed, call).await.map_err(|_| {
            let reason = format!("no answer from {} within {} s", self.place(), allowed.as_secs_f64());
            Failure::new(StoreErrorKind::Unreachable, reason)
        })
    }

    async fn remove(&self, key: &str) -> Result<(), Failure> {
        let full = self.full_key(key)?;
        let request = self.client().delete_object().bucket(self.bucket()).key(&full);
        match self.in_time(0, request.send()).await? {
            Ok(_) => Ok(()),
            Err(error) => match failure::failure(&error, self.place()) {
                failure if failure.kind == StoreErrorKind::NotFound => Ok(()),
                failure => Err(failure),
            },
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for S3Store {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.put_once(key, body).await.map_err(|failure| failure.in_call("put", key, self.describe()))
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        match self.read(key, None).await {
            Ok(body) => Ok(body.bytes),
            Err(failure) => Err(failure.in_call("get", key, self.describe())),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        self.read(key, Some(range)).await.map_err(|failure| failure.in_call("get", key, self.describe()))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let page = self.page(prefix, start_after, limit).await;
        page.map_err(|failure| failure.in_call("list", prefix, self.describe()))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.remove(key).await.map_err(|failure| failure.in_call("delete", key, self.describe()))
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        let operation = if held { "hold" } else { "release" };
        self.hold(key, held).await.map_err(|failure| failure.in_call(operation, key, self.describe()))
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        self.bucket_locks().await.map_err(|failure| failure.in_call("lock", "", self.describe()))
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        self.read_lock(key).await.map_err(|failure| failure.in_call("lock", key, self.describe()))
    }

    fn describe(&self) -> String {
        describe(&self.inner.options)
    }
}

fn describe(options: &S3Options) -> String {
    match options.prefix.as_str() {
        "" => format!("s3://{}", options.bucket),
        prefix => format!("s3://{}/{prefix}", options.bucket),
    }
}
