//! The bytes of a snapshot, in order, in bounded memory.

use std::io::ErrorKind;

use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use walseal_common::repository::{ObjectReference, Repository, RepositoryError};
use walseal_common::seal::Identity;

use super::SnapshotError;

/// Objects of at most 16 MiB that are fetched and opened ahead (I11).
const AHEAD: usize = 2;

/// Writes what these objects hold to `sink`, one after the other. Returns the bytes that it took, which are fewer where it wants no
/// more. `told` hears of them.
///
/// Errors: an object that is not the label's, or not sealed to `identities`; the sink's.
pub async fn pour(
    repository: &Repository,
    identities: &[Identity],
    objects: &[ObjectReference],
    sink: &mut (impl AsyncWrite + Unpin),
    mut told: impl FnMut(u64),
) -> Result<u64, SnapshotError> {
    let open = |reference: ObjectReference| {
        let (repository, identities) = (repository.clone(), identities.to_vec());
        async move {
            let bytes = repository.unverified_reference(&reference).await?;
            let opened = tokio::task::spawn_blocking(move || {
                let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
                repository.verify_reference(&reference, bytes)?.read_all(&identities).map_err(refuse)
            });
            let opened = opened.await.map_err(|error| SnapshotError::Task(error.to_string()))?;
            Ok::<_, SnapshotError>(opened?)
        }
    };
    let mut opened = stream::iter(objects.to_vec()).map(open).buffered(AHEAD);
    let mut poured = 0;
    while let Some(plain) = opened.next().await {
        let plain = plain?;
        match sink.write_all(&plain).await {
            Ok(()) => {}
            // Whoever reads has seen enough; whether that is well its exit code tells.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(poured),
            Err(error) => return Err(SnapshotError::io("write what a snapshot holds")(error)),
        }
        poured += plain.len() as u64;
        told(plain.len() as u64);
    }
    match sink.flush().await {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(SnapshotError::io("write what a snapshot holds")(error))
        }
        _ => Ok(poured),
    }
}
