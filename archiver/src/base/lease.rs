//! The lease of a base backup: what it relies on is not removed while it is under way (case 40).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{sleep, timeout};
use walseal_common::repository::{BaseId, LeaseRecord, Repository, RepositoryError, RunId};
use walseal_common::seal::WriterKey;

use super::BaseError;

/// How often a lease is renewed.
const INTERVAL: Duration = Duration::from_secs(300);

/// How often the clock is looked at; a machine may have been suspended.
const NAP: Duration = Duration::from_secs(10);

/// A lease that was not renewed for so many intervals may be over by now: whoever prunes waits for three.
const LAPSED: i32 = 2;

/// How long a release may take: nobody relies on it.
const RELEASE: Duration = Duration::from_secs(3);

/// A lease that is held. Dropped without [`Lease::release`] it is over when it is old.
#[derive(Debug)]
pub struct Lease {
    repository: Repository,
    writer: WriterKey,
    run: RunId,
    next: u32,
    record: LeaseRecord,
}

impl Lease {
    /// Takes a lease for the backup `base`, which refers to `parent` and to objects whose names begin with one of `objects`. It is
    /// durable on return: only then may anything be relied on.
    ///
    /// Errors: the repository's.
    pub async fn take(
        repository: &Repository,
        writer: &WriterKey,
        base: BaseId,
        parent: Option<BaseId>,
        objects: Vec<String>,
    ) -> Result<Lease, BaseError> {
        let run = RunId::random().map_err(|source| BaseError::Seal { name: "lease".to_owned(), source })?;
        let written = Timestamp::now();
        let interval_seconds = INTERVAL.as_secs();
        let record = LeaseRecord { base, parent, objects, written, interval_seconds, released: false };
        let mut lease = Lease { repository: repository.clone(), writer: writer.clone(), run, next: 0, record };
        lease.put().await?;
        Ok(lease)
    }

    async fn put(&mut self) -> Result<(), RepositoryError> {
        self.record.written = Timestamp::now();
        let put = self.repository.put_lease(self.run, self.next, &self.record, &self.writer).await;
        // A number whose put failed is not used again: nobody knows what lies there.
        self.next = self.next.saturating_add(1);
        put
    }

    /// Renews it every interval. Returns only when it may be over, because it could not be renewed: then nothing that it named can be
    /// relied on any more.
    pub async fn keep(&mut self) -> BaseError {
        let span = |intervals: i32| SignedDuration::try_from(INTERVAL).unwrap_or(SignedDuration::MAX) * intervals;
        let mut renewed = self.record.written;
        loop {
            sleep(NAP).await;
            let age = Timestamp::now().duration_since(renewed);
            if age > span(LAPSED) {
                return BaseError::Lapsed;
            }
            if age < span(1) {
                continue;
            }
            match self.put().await {
                Ok(()) => renewed = self.record.written,
                Err(error) => tracing::warn!(%error, "the lease of the base backup was not renewed; trying again"),
            }
        }
    }

    /// Says that nothing is relied on any more. Without it, whoever prunes waits until the lease is old.
    pub async fn release(mut self) {
        self.record.released = true;
        match timeout(RELEASE, self.put()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the lease of the base backup was not released; it ends by its age")
            }
            Err(_) => tracing::debug!("the lease of the base backup was not released in time; it ends by its age"),
        }
    }
}
