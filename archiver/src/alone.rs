//! A stream of one's own, for a verb that needs one where no daemon runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Ledger, Repository, RepositoryIdentity};

use crate::archive::{Archive, LAST_ENTRIES};
use crate::daemon;
use crate::index::MemoryIndex;
use crate::stream::{ProgressWatch, Streamer};

/// Why it did not work, in words.
pub type AloneError = Box<dyn std::error::Error + Send + Sync>;

/// How long the stream may take to end once its work is done; the slot keeps what it had not shipped.
const END: Duration = Duration::from_secs(15);

/// What the work gets.
pub struct Alone {
    /// The server.
    pub conninfo: Conninfo,
    /// The repository.
    pub repository: Repository,
    /// What it is.
    pub identity: RepositoryIdentity,
    /// Follows the stream.
    pub progress: ProgressWatch,
    /// Where it is recorded.
    pub ledger: Ledger,
}

/// Streams on the cluster's slot while `work` goes on. The stream is connected when that begins, so that the slot holds WAL
/// (case 15).
///
/// Errors: there is no stream, with its own words; it ended early; the work's.
pub async fn while_streaming<T, F>(archive: &Archive, work: impl FnOnce(Alone) -> F) -> Result<T, AloneError>
where
    F: Future<Output = Result<T, AloneError>>,
{
    while_streaming_from(archive, archive.config.open_conninfo()?, work).await
}

/// As [`while_streaming`], from the server that `conninfo` leads to.
///
/// Errors: as there.
pub async fn while_streaming_from<T, F>(
    archive: &Archive,
    conninfo: Conninfo,
    work: impl FnOnce(Alone) -> F,
) -> Result<T, AloneError>
where
    F: Future<Output = Result<T, AloneError>>,
{
    let (repository, identity) = archive.repository(&conninfo).await?;
    let ledger = archive.ledger(&repository);
    let recorded = ledger.clone();
    let streamer = Streamer::new(
        conninfo.clone(),
        archive.config.need_slot()?,
        repository.clone(),
        identity.clone(),
        archive.keys.clone(),
        Arc::new(MemoryIndex::default()),
        daemon::timing(archive),
    )
    .recording(ledger.clone());
    let mut progress = streamer.progress();
    let (stop, stopped) = watch::channel(false);
    let mut streaming = tokio::spawn(async move { streamer.run(stopped).await });
    let working = async {
        while !progress.now().connected {
            if let Some(trouble) = progress.now().trouble {
                return Err(trouble.into());
            }
            progress.changed().await?;
        }
        work(Alone { conninfo, repository, identity, progress, ledger }).await
    };
    let result = tokio::select! {
        result = working => result,
        ended = &mut streaming => {
            let early = match ended {
                Ok(Ok(_)) => "the WAL stream ended while it was needed".into(),
                Ok(Err(error)) => error.into(),
                Err(error) => error.into(),
            };
            recorded.finish(LAST_ENTRIES).await;
            return Err(early);
        }
    };
    stop.send_replace(true);
    if result.is_err() {
        streaming.abort();
    } else if tokio::time::timeout(END, streaming).await.is_err() {
        tracing::warn!("the WAL stream did not end in time; the slot keeps what it had not shipped");
    }
    recorded.finish(LAST_ENTRIES).await;
    result
}
