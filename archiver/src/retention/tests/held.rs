//! A store with legal holds, that lets a held object go all the same, as a bucket with versions hides it: who does not ask loses it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use walseal_common::store::{Decorator, DirectoryStore, Lock, ObjectStore, StoreError};

#[derive(Debug)]
pub(super) struct Holding {
    inner: DirectoryStore,
    held: Mutex<BTreeSet<String>>,
}

impl Holding {
    pub(super) fn new(inner: DirectoryStore) -> Holding {
        Holding { inner, held: Mutex::default() }
    }

    fn held<T>(&self, look: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        look(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait::async_trait]
impl Decorator for Holding {
    fn inner(&self) -> &dyn ObjectStore {
        &self.inner
    }

    async fn legal_hold(&self, key: &str, held: bool) -> Result<(), StoreError> {
        self.held(|all| if held { all.insert(key.to_owned()) } else { all.remove(key) });
        Ok(())
    }

    async fn has_locks(&self) -> Result<bool, StoreError> {
        Ok(self.held(|all| !all.is_empty()))
    }

    async fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        Ok(Lock { until: None, held: self.held(|all| all.contains(key)) })
    }
}
