//! `run`: the daemon.

use walseal_common::terminal::{Failure, units};

use crate::archive::Archive;
use crate::daemon::{self, DaemonError};
use crate::snapshot;
use crate::stream::SessionEnd;

/// Runs until it is told to stop. Without WAL it takes snapshots only.
pub async fn run(archive: Archive) -> Result<(), Failure> {
    if !archive.config.wal.enabled.value {
        return snapshot::daemon::run(archive).await.map_err(Failure::saying);
    }
    match daemon::run(archive).await {
        Ok(SessionEnd::AskedWithRest(bytes)) => {
            tracing::warn!(
                "stopped with {} of WAL not in the repository yet; nothing is lost: the replication slot keeps it on the server for the next start",
                units::size(bytes)
            );
            Ok(())
        }
        Ok(_) => {
            tracing::info!("stopped; everything received is in the repository");
            Ok(())
        }
        Err(DaemonError::Lock(error)) => Err(error.fixes().iter().fold(Failure::saying(&error), Failure::next)),
        Err(error) => Err(Failure::saying(error)),
    }
}
