//! What a store fails to do at the moment, for those who wait for it and for those who ask why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{StoreError, StoreErrorKind};

/// A call that fails for longer is spoken of in the log.
const SPEAK_AFTER: Duration = Duration::from_secs(1);

/// What was said of one kind of failure is not said again so soon, however often it comes and goes.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(300);

/// The calls that fail at the moment and are tried again, with their last failures. Empty while all is well.
#[derive(Clone, Debug, Default)]
pub struct Failing(BTreeMap<&'static str, StoreError>);

impl Failing {
    /// The failure that matters most: a put's, because what cannot be put is not safe.
    pub fn worst(&self) -> Option<&StoreError> {
        self.0.get("put").or_else(|| self.0.values().next())
    }
}

/// Watches the calls to one store, and logs when they begin to fail and when they work again: once, not for each call.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: watch::Sender<Failing>,
    by_operation: Mutex<BTreeMap<&'static str, Operation>>,
}

#[derive(Debug, Default)]
struct Operation {
    /// Calls that have failed and are being tried again.
    trying: usize,
    /// When a failure of this kind was last said.
    said: BTreeMap<String, Instant>,
    /// Since when it has failed, if that was said and its end was not.
    since: Option<Instant>,
}

/// A call that has failed and is being tried again, until this is dropped.
#[derive(Debug)]
pub(super) struct Trying<'a> {
    health: &'a Health,
    operation: &'static str,
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let mut operations = self.health.operations();
        let operation = operations.entry(self.operation).or_default();
        operation.trying = operation.trying.saturating_sub(1);
    }
}

impl Health {
    pub(super) fn watch(&self) -> watch::Receiver<Failing> {
        self.failing.subscribe()
    }

    /// A call has failed for the first time, and is tried again.
    pub(super) fn trying(&self, operation: &'static str) -> Trying<'_> {
        self.operations().entry(operation).or_default().trying += 1;
        Trying { health: self, operation }
    }

    /// An attempt failed, and another follows. `begun` is when the call's first attempt began.
    pub(super) fn failed(&self, error: &StoreError, begun: Instant) {
        self.gave_up(error);
        let now = Instant::now();
        if now.duration_since(begun) < SPEAK_AFTER && error.kind != StoreErrorKind::Full {
            return;
        }
        let mut operations = self.operations();
        let operation = operations.entry(error.operation).or_default();
        let kind = format!("{:?}", error.kind);
        if operation.said.get(&kind).is_none_or(|said| now.duration_since(*said) >= SAY_AGAIN_AFTER) {
            tracing::warn!("{error}; trying again");
            operation.said.insert(kind, now);
            operation.since.get_or_insert(begun);
        }
    }

    /// A call failed, and was given up; whoever made it says so.
    pub(super) fn gave_up(&self, error: &StoreError) {
        self.failing.send_modify(|failing| {
            failing.0.insert(error.operation, error.clone());
        });
    }

    /// A call is not tried any more, and nothing is to be known of the store by that. While others of the kind are tried, those count.
    pub(super) fn let_go(&self, operation: &'static str) {
        let mut operations = self.operations();
        let state = operations.entry(operation).or_default();
        if state.trying > 0 {
            return;
        }
        state.since = None;
        self.failing.send_if_modified(|failing| failing.0.remove(operation).is_some());
    }

    /// The store has done what a call asked for. While others of the kind still fail, that says nothing: a store that is
    /// full may take what is small.
    pub(super) fn worked(&self, operation: &'static str) {
        if !self.failing.borrow().0.contains_key(operation) {
            return;
        }
        let mut operations = self.operations();
        let state = operations.entry(operation).or_default();
        if state.trying > 0 {
            return;
        }
        self.failing.send_modify(|failing| {
            failing.0.remove(operation);
        });
        if let Some(since) = state.since.take() {
            tracing::info!("{operation} works again after {:.1} s", since.elapsed().as_secs_f32());
        }
    }

    fn operations(&self) -> MutexGuard<'_, BTreeMap<&'static str, Operation>> {
        // The map is whole between any two calls on it, so a panic elsewhere does not spoil it.
        self.by_operation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
