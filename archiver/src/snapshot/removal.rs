//! Removing snapshots that a plan names.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use walseal_common::clock;
use walseal_common::repository::{ObjectName, Repository, RepositoryError, SnapshotId, SnapshotLabel};

/// What has no label and is older is what an attempt left that came to nothing (case 36): no dump takes so long.
const DEBRIS: Duration = Duration::from_secs(7 * 86_400);

/// The labels of all snapshots of trusted writers. What does not verify is neither counted nor ever removed.
///
/// Errors: the store's.
pub(super) async fn labels(repository: &Repository) -> Result<Vec<SnapshotLabel>, RepositoryError> {
    let mut labels = Vec::new();
    for id in repository.snapshot_ids().await? {
        match repository.snapshot(&id).await {
            Ok(label) => labels.push(label),
            Err(error @ RepositoryError::Object { .. }) => {
                tracing::warn!(%error, %id, "a snapshot that cannot be read is left alone");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(labels)
}

/// The lower of this host's clock and of the store's, as its newest snapshot shows it: one that is fast must not age anything (case
/// 44). This host's alone where the store tells no times.
///
/// Errors: the store's.
pub(super) async fn now(repository: &Repository) -> Result<Timestamp, RepositoryError> {
    let here = Timestamp::now();
    // One of a clock that was ahead stays the newest by name, and was stored long ago: by it time would stand still.
    let right = |id: &SnapshotId| id.begun().is_none_or(|begun| !clock::was_wrong(begun, here));
    let Some(id) = repository.snapshot_ids().await?.into_iter().filter(right).max() else { return Ok(here) };
    let found = repository.first_objects(&ObjectName::Snapshot(id).to_string(), 1).await?;
    let there = found.first().and_then(|meta| meta.modified).and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(there.map_or(here, |there| there.min(here)))
}

/// Removes a snapshot: its label first, so that what is left after an interruption does not exist (I7).
///
/// Errors: the store's.
pub(super) async fn remove(repository: &Repository, id: &SnapshotId) -> Result<(), RepositoryError> {
    let label = ObjectName::Snapshot(id.clone());
    repository.store().delete(&label.key(repository.cluster())).await?;
    for name in repository.snapshot_objects(id).await? {
        repository.store().delete(&name.key(repository.cluster())).await?;
    }
    Ok(())
}

/// Removes what attempts left that came to nothing. Returns how many.
///
/// Errors: the store's.
pub(super) async fn remove_debris(repository: &Repository, now: Timestamp) -> Result<usize, RepositoryError> {
    let age = SignedDuration::try_from(DEBRIS).unwrap_or(SignedDuration::MAX);
    let mut count = 0;
    for (id, whole) in repository.snapshot_folders().await? {
        if !whole && id.begun().is_some_and(|begun| now.duration_since(begun) > age) {
            remove(repository, &id).await?;
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use walseal_common::seal::{TrustedWriter, TrustedWriters, WriterKey};
    use walseal_common::store::DirectoryStore;
    use walseal_common::timeline::SystemIdentifier;

    use super::*;

    #[tokio::test]
    async fn case_44_a_snapshot_of_a_clock_that_was_ahead_does_not_hold_up_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(DirectoryStore::new(folder.path().to_owned()));
        let writer = WriterKey::generate().expect("random bytes");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let repository = Repository::new(store, SystemIdentifier(7), trust);
        let here = Timestamp::now();
        let days = |count: i64| SignedDuration::from_hours(24 * count);
        let ago = |count| here.checked_sub(days(count)).expect("a time");
        // What was stored `stored` days ago, by a clock that said `begun`.
        let put = async |begun: Timestamp, stored: i64| {
            let label = SnapshotLabel::sample(begun, 1, "a").expect("an id");
            let object = repository.signed_snapshot(&label, &writer).expect("short");
            repository.put(&object).await.expect("a folder of our own");
            let path = folder.path().join(ObjectName::Snapshot(label.id).key(repository.cluster()));
            let file = File::options().write(true).open(path).expect("it is there");
            file.set_modified(ago(stored).into()).expect("a time");
        };
        put(here.checked_add(days(365)).expect("a time"), 30).await;
        assert!(now(&repository).await.expect("it answers") >= here, "without another one this host's clock tells");
        put(ago(20), 20).await;
        put(ago(1), 2).await;
        // This host's clock may be the one that is wrong: the store's tells, by the newest one of a clock that was right.
        let told = now(&repository).await.expect("it answers");
        assert_eq!(told.as_second(), ago(2).as_second());
    }
}
