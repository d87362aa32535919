//! What a backend knows about a failure; the caller adds the operation, the key and the store.

use super::{StoreError, StoreErrorKind};

/// The kind of a failure and its reason.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(kind: StoreErrorKind, reason: impl Into<String>) -> Failure {
        Failure { kind, reason: reason.into() }
    }

    pub(super) fn protocol(reason: impl Into<String>) -> Failure {
        Failure::new(StoreErrorKind::Protocol, reason)
    }

    pub(super) fn in_call(self, operation: &'static str, key: &str, store: String) -> StoreError {
        StoreError { kind: self.kind, operation, key: key.to_owned(), store, reason: self.reason }
    }
}
