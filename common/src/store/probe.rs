//! Finding out what a store can do, by doing it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Capabilities, ObjectStore, PutOutcome, StoreError, StoreErrorKind};

/// Puts the object `probe/<unique_id>`, reads, lists, tries to overwrite and deletes it.
///
/// For S3, `store` must have [`S3Options::conditional_put`](super::S3Options::conditional_put) set: without, the store
/// looks before it writes, and it is the look that would be probed. When the answer has `conditional_put`
/// false, open the store again with the option off.
///
/// Errors: put, get or list fail or do not do what they must; `unique_id` was used before; or the store failed
/// in passing, so that nothing is known.
pub async fn probe(store: &dyn ObjectStore, unique_id: &str) -> Result<Capabilities, StoreError> {
    Ok(probe_all(store, unique_id).await?.capabilities)
}

/// What a probe saw.
#[derive(Clone, PartialEq, Debug)]
pub struct Probed {
    /// What the store can do.
    pub capabilities: Capabilities,
    /// Seconds by which the store's clock is ahead of this host's, negative where it is behind; 0 where they agree as far as the
    /// whole seconds of a listing tell. `None` where it does not tell its time.
    pub clock_ahead: Option<f64>,
}

/// As [`probe`], and what else could be seen meanwhile.
///
/// Errors: as [`probe`].
pub async fn probe_all(store: &dyn ObjectStore, unique_id: &str) -> Result<Probed, StoreError> {
    let key = format!("probe/{unique_id}");
    let wrong = |operation: &'static str, reason: &str| StoreError {
        kind: StoreErrorKind::Protocol,
        operation,
        key: key.clone(),
        store: store.describe(),
        reason: reason.to_owned(),
    };
    let first = Bytes::from(format!("walseal looks what this store can do: {unique_id}\n"));
    let other = Bytes::from(format!("walseal tries to overwrite an object: {unique_id}\n"));

    let before = unix_seconds();
    let outcome = store.put_new(&key, first.clone()).await?;
    let after = unix_seconds();
    // "Already there" is fine when it was an earlier attempt of this very put.
    if store.get(&key).await? != first {
        return Err(match outcome {
            PutOutcome::Created => wrong("get", "the store returned other bytes than were put"),
            PutOutcome::AlreadyExists => wrong("put", "there is an object of this name already"),
        });
    }
    let range = store.get_range(&key, 8..13).await?;
    if range.bytes != first.slice(8..13) || range.object_size != first.len() as u64 {
        return Err(wrong("get", "the store does not serve ranges of objects"));
    }
    let listed = store.list(&key, None, 2).await?;
    let Some(meta) = listed.objects.iter().find(|meta| meta.key == key && meta.size == first.len() as u64) else {
        return Err(wrong("list", "an object that was just put is not listed, or with another size"));
    };
    let clock_ahead = meta.modified.map(|modified| clock_ahead(modified, before, after));
    store.put_new(&key, other).await?;
    // The object decides, not the answer.
    let conditional_put = store.get(&key).await? == first;
    let delete = match store.delete(&key).await {
        // Object lock may take the delete and keep the object.
        Ok(()) => match store.get(&key).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => true,
            Ok(_) => false,
            Err(error) => return Err(error),
        },
        Err(error) if error.is_permanent() => {
            tracing::info!(%error, "objects cannot be deleted with these credentials");
            false
        }
        Err(error) => return Err(error),
    };
    Ok(Probed { capabilities: Capabilities { conditional_put, delete }, clock_ahead })
}

/// By how much a clock that says `modified`, in whole seconds, was ahead at a moment between two of ours.
fn clock_ahead(modified: i64, before: f64, after: f64) -> f64 {
    let modified = modified as f64;
    if modified > after {
        modified - after
    } else if modified + 1.0 < before {
        modified + 1.0 - before
    } else {
        0.0
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fault::{Call, Effect, Faulty};
    use super::super::{Decorator, DirectoryStore};
    use super::*;

    fn directory() -> (tempfile::TempDir, Arc<DirectoryStore>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        (folder, store)
    }

    #[tokio::test]
    async fn case_42_a_store_is_known_by_what_it_did_and_left_clean() {
        let (_folder, store) = directory();
        let seen = probe(store.as_ref(), "1").await.expect("probe");
        assert_eq!(seen, Capabilities { conditional_put: true, delete: true });
        assert_eq!(store.list("", None, 10).await.expect("list").objects, []);
    }

    #[tokio::test]
    async fn case_44_a_clock_is_compared_as_far_as_whole_seconds_tell() {
        let (_folder, store) = directory();
        let seen = probe_all(store.as_ref(), "1").await.expect("probe");
        assert_eq!(seen.clock_ahead, Some(0.0), "a folder has this host's clock");
        assert_eq!(clock_ahead(1000, 1000.2, 1000.3), 0.0);
        assert_eq!(clock_ahead(999, 1000.0, 1001.0), 0.0, "it may have been 999.99");
        assert_eq!(clock_ahead(1061, 1000.0, 1001.0), 60.0);
        assert_eq!(clock_ahead(939, 1000.0, 1001.0), -60.0);
    }

    #[tokio::test]
    async fn case_42_a_store_that_does_not_delete_is_usable() {
        let (_folder, store) = directory();
        let store = Faulty::new(store);
        store.plan(Call::Delete, 1..=1, Effect::FailBefore(StoreErrorKind::Denied));
        let seen = probe(&store, "1").await.expect("probe");
        assert_eq!(seen, Capabilities { conditional_put: true, delete: false });
    }

    #[tokio::test]
    async fn case_42_a_store_that_does_not_list_or_spoils_bytes_is_refused() {
        for (call, effect) in [
            (Call::List, Effect::Truncated),
            (Call::List, Effect::FailBefore(StoreErrorKind::Denied)),
            (Call::Put, Effect::WrongBytes),
            (Call::Get, Effect::Truncated),
            (Call::GetRange, Effect::Truncated),
        ] {
            let (_folder, store) = directory();
            let store = Faulty::new(store);
            store.plan(call, 1..=1, effect);
            assert!(probe(&store, "1").await.is_err(), "{call:?} {effect:?}");
        }
    }

    #[tokio::test]
    async fn an_id_that_was_used_by_others_is_refused_but_an_own_lost_answer_is_not() {
        let (_folder, store) = directory();
        store.put_new("probe/1", Bytes::from_static(b"of somebody else")).await.expect("put");
        let error = probe(store.as_ref(), "1").await.expect_err("taken");
        assert!(error.reason.contains("already"), "{error}");
    }

    /// Overwrites, as a provider does that ignores `If-None-Match`.
    #[derive(Debug)]
    struct Overwriting(Arc<DirectoryStore>);

    #[async_trait::async_trait]
    impl Decorator for Overwriting {
        fn inner(&self) -> &dyn ObjectStore {
            self.0.as_ref()
        }
        async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
            self.0.delete(key).await?;
            self.0.put_new(key, body).await
        }
    }

    #[tokio::test]
    async fn case_42_a_store_that_overwrites_is_found_out() {
        let (_folder, store) = directory();
        let seen = probe(&Overwriting(store), "1").await.expect("probe");
        assert_eq!(seen, Capabilities { conditional_put: false, delete: true });
    }
}
