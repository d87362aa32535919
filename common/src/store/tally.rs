//! What was asked of a store, and how it went: counted where each attempt is made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::StoreErrorKind;

/// Upper bounds of the histogram of puts, in seconds.
pub const PUT_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The operations, as [`StoreError::operation`](super::StoreError::operation) names them; of locks all are "lock".
pub const OPERATIONS: [&str; 5] = ["put", "get", "list", "delete", "lock"];

/// The kinds of failures that are counted, with their words. That something is not there is an answer.
pub const FAILURES: [(StoreErrorKind, &str); 6] = [
    (StoreErrorKind::Denied, "denied"),
    (StoreErrorKind::NoSuchStore, "no-such-store"),
    (StoreErrorKind::Full, "full"),
    (StoreErrorKind::Throttled, "throttled"),
    (StoreErrorKind::Unreachable, "unreachable"),
    (StoreErrorKind::Protocol, "protocol"),
];

/// Counts of one store, from 0 at the start of the process.
#[derive(Debug, Default)]
pub struct Tally {
    calls: [AtomicU64; OPERATIONS.len()],
    failures: [[AtomicU64; FAILURES.len()]; OPERATIONS.len()],
    puts: [AtomicU64; PUT_SECONDS.len() + 1],
    put_micros: AtomicU64,
    put_bytes: AtomicU64,
}

impl Tally {
    /// An attempt of so many requests has ended; `failed` is how, unless it did what was asked.
    pub(super) fn attempt(&self, operation: &str, requests: u64, took: Duration, failed: Option<StoreErrorKind>) {
        let operation = if matches!(operation, "hold" | "release") { "lock" } else { operation };
        let Some(at) = OPERATIONS.iter().position(|known| *known == operation) else { return };
        if let Some(count) = self.calls.get(at) {
            count.fetch_add(requests, Ordering::Relaxed);
        }
        let kind = failed.and_then(|failed| FAILURES.iter().position(|(kind, _)| *kind == failed));
        if let Some(count) = kind.and_then(|kind| self.failures.get(at)?.get(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if operation == "put" && failed.is_none() {
            let seconds = took.as_secs_f64();
            let bucket = PUT_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(PUT_SECONDS.len());
            if let Some(count) = self.puts.get(bucket) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.put_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// An object of so many bytes was created.
    pub(super) fn created(&self, bytes: u64) {
        self.put_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Requests of all attempts, by operation.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OPERATIONS.iter().zip(&self.calls).map(|(operation, count)| (*operation, count.load(Ordering::Relaxed)))
    }

    /// Attempts that failed, by operation and kind.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        OPERATIONS.iter().zip(&self.failures).flat_map(|(operation, counts)| {
            let kinds = FAILURES.iter().zip(counts);
            kinds.map(|((_, word), count)| (*operation, *word, count.load(Ordering::Relaxed)))
        })
    }

    /// Puts that worked: how many in each bucket of [`PUT_SECONDS`], how many beyond the last, and the sum of their seconds.
    pub fn puts(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut counts = self.puts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets = PUT_SECONDS.iter().copied().zip(counts.by_ref().take(PUT_SECONDS.len())).collect();
        let beyond = counts.next().unwrap_or_default();
        (buckets, beyond, self.put_micros.load(Ordering::Relaxed) as f64 / 1e6)
    }

    /// Bytes of the objects that were created.
    pub fn put_bytes(&self) -> u64 {
        self.put_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_what_became_of_them() {
        let tally = Tally::default();
        tally.attempt("put", 1, Duration::from_millis(7), None);
        tally.attempt("put", 1, Duration::from_secs(40), None);
        tally.attempt("put", 1, Duration::from_secs(1), Some(StoreErrorKind::Full));
        tally.attempt("get", 1, Duration::ZERO, Some(StoreErrorKind::NotFound));
        tally.attempt("lock", 2, Duration::ZERO, None);
        tally.attempt("release", 1, Duration::ZERO, None);
        tally.attempt("dance", 1, Duration::ZERO, None);
        tally.created(100);
        assert_eq!(
            tally.calls().collect::<Vec<_>>(),
            [("put", 3), ("get", 1), ("list", 0), ("delete", 0), ("lock", 3)]
        );
        let failed: Vec<_> = tally.failures().filter(|(.., count)| *count > 0).collect();
        assert_eq!(failed, [("put", "full", 1)], "that something is not there is an answer");
        let (buckets, beyond, sum) = tally.puts();
        assert_eq!((buckets.get(1), beyond), (Some(&(0.01, 1)), 1));
        assert!((sum - 40.007).abs() < 1e-9 && tally.put_bytes() == 100);
    }
}
