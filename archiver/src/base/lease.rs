//! The lease of a base backup: what it relies on is not removed while it is under way (case 40).

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use walseal_common::repository::{BaseId, LeaseRecord, Repository, RepositoryError, RunId};
use walseal_common::seal::WriterKey;

use super::BaseError;

/// How often a lease is renewed.
const INTERVAL: Duration = Duration::from_secs(300);

/// How often the clock is looked at; a machine may have been suspended.
const NAP: Duration = Duration::from_secs(10);

/// A lease that was not renewed for so many intervals may be over by now: whoever prunes waits for three.
const LAPSED: u32 = 2;

/// How long ago that was, by the clock that says more: the calendar's may have been put back, and the other one stands still while a
/// machine is suspended.
fn age(then: (Timestamp, Instant), now: (Timestamp, Instant)) -> Duration {
    let calendar = Duration::try_from(now.0.duration_since(then.0)).unwrap_or_default();
    calendar.max(now.1.saturating_duration_since(then.1))
}

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
        let mut renewed = (self.record.written, Instant::now());
        loop {
            sleep(NAP).await;
            let age = age(renewed, (Timestamp::now(), Instant::now()));
            if age > INTERVAL * LAPSED {
                return BaseError::Lapsed;
            }
            if age < INTERVAL {
                continue;
            }
            // What it is renewed for begins before the put.
            let begun = Instant::now();
            match self.put().await {
                Ok(()) => renewed = (self.record.written, begun),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_44_a_lease_is_renewed_although_the_clock_was_put_back_and_lapses_while_the_machine_sleeps() {
        let (calendar, steady) = (Timestamp::UNIX_EPOCH + INTERVAL * 100, Instant::now());
        let then = (calendar, steady);
        assert_eq!(age(then, (calendar - INTERVAL * 50, steady + INTERVAL)), INTERVAL, "put back");
        assert_eq!(age(then, (calendar + INTERVAL * 3, steady)), INTERVAL * 3, "asleep");
        assert_eq!(age(then, (calendar - INTERVAL, steady)), Duration::ZERO);
    }
}
