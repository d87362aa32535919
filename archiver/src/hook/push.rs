//! The verb's way: through the daemon where one runs, else without.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use walseal_common::config::{Config, StoreUse};
use walseal_common::repository::{Repository, RepositoryError, RepositoryIdentity};
use walseal_common::segment::WalFileName;
use walseal_common::store::with_patience;
use walseal_common::timeline::SystemIdentifier;

use super::archivist::{Errand, PATIENCE, blocking, folder_of, wal_name};
use super::freight::header_of;
use super::stored::is_stored;
use super::{Archivist, PushError, Pushed};
use crate::archive::{Archive, ArchiveError};
use crate::socket::{self, Client, Request};

/// How long the daemon may take for one file before the hook does it itself. Longer than the store's own patience, so that
/// only a daemon that hangs is left.
const DAEMON_LIMIT: Duration = Duration::from_secs(120);

/// How long the process goes on beginning segments that lie ahead after its own file is durable. PostgreSQL waits, but for
/// files that it asks for next, and one process that ships many is faster than many that ship one: starting, opening the
/// store and the first connection are paid once, and several are under way at once.
const GO_ON_AHEAD: Duration = Duration::from_secs(2);

/// How long it then waits for those that it has begun. Work thrown away would be done again by the next call; but with a
/// store that is slow, PostgreSQL must not wait for files that it has not asked for.
const FINISH_AHEAD: Duration = Duration::from_secs(3);

/// Files looked at to find one segment with a readable first page.
const MOST_LOOKS: usize = 64;

/// What the daemon made of the file `path`; `None` when there is no daemon, or it could not do it: then [`push_alone`] may, and
/// says why not. Relative paths begin at the working directory, which is the data directory when PostgreSQL calls.
///
/// Errors: the name is not one of WAL; there is no working directory.
pub async fn push_by_daemon(path: &Path, config: &Config) -> Result<Option<Pushed>, PushError> {
    wal_name(path)?;
    Ok(ask_daemon(&absolute(path)?, config).await)
}

/// Makes the file `path` durable without a daemon. No connection to the server is made.
pub async fn push_alone(path: &Path, config: Config) -> Result<Pushed, PushError> {
    let name = wal_name(path)?;
    let path = absolute(path)?;
    let archive = Archive::open(config, StoreUse::Conditional).await?;
    if let WalFileName::Segment(segment) = name
        && with_patience(PATIENCE, is_stored(&archive, &path, segment)).await?
    {
        return Ok(Pushed::AlreadyThere);
    }
    let (repository, identity) = with_patience(PATIENCE, choose(&archive, &path, name)).await?;
    let archivist = Arc::new(Archivist::new(repository, identity, archive.keys.clone(), None));
    let (enough, told) = watch::channel(false);
    let missing = Arc::new(Notify::new());
    let mut ahead = {
        let (archivist, path, missing) = (archivist.clone(), path.clone(), missing.clone());
        tokio::spawn(async move {
            // What is durable already was shipped ahead by an earlier call, or by a daemon, and so was what follows.
            missing.notified().await;
            archivist.look_ahead(path, told).await;
        })
    };
    let outcome = archivist.push_on(&path, Errand::Asked(&missing)).await?;
    if outcome != Pushed::Shipped {
        ahead.abort();
    } else if timeout(GO_ON_AHEAD, &mut ahead).await.is_err() {
        enough.send_replace(true);
        if timeout(FINISH_AHEAD, ahead).await.is_err() {
            tracing::debug!("leaving what was begun ahead to the next call");
        }
    }
    Ok(outcome)
}

fn absolute(path: &Path) -> Result<PathBuf, PushError> {
    std::path::absolute(path).map_err(|source| PushError::Read { path: path.to_owned(), source })
}

async fn ask_daemon(path: &Path, config: &Config) -> Option<Pushed> {
    let state_dir = config.need_state_dir().ok()?;
    let daemon = Client::connect(&socket::path(&state_dir)).await?;
    let request = Request::Push { path: path.to_owned() };
    let answer = timeout(DAEMON_LIMIT, daemon.ask(&request, |_, _, _| ())).await;
    match answer {
        Ok(Ok(result)) => serde_json::from_value(result).ok(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the daemon could not take the file; doing it without");
            None
        }
        Err(_) => {
            tracing::warn!("the daemon has not answered for {} s; doing it without", DAEMON_LIMIT.as_secs());
            None
        }
    }
}

/// The repository that the file belongs to, by the cluster in its first page, or in that of a segment beside it (I4).
async fn choose(
    archive: &Archive,
    path: &Path,
    name: WalFileName,
) -> Result<(Repository, RepositoryIdentity), PushError> {
    let store = archive.store.describe();
    let system = match name {
        WalFileName::Segment(_) | WalFileName::Partial(_) => {
            let path = path.to_owned();
            Some(blocking(move || header_of(&path, name)).await?.system)
        }
        WalFileName::History(_) | WalFileName::BackupHistory(..) => {
            let folder = folder_of(path);
            blocking(move || Ok(system_beside(&folder))).await?
        }
    };
    if let Some(system) = system {
        match of_cluster(archive, system).await {
            Err(ArchiveError::Repository(RepositoryError::Empty { .. })) => {}
            other => return Ok(other?),
        }
    }
    let clusters = Repository::clusters(archive.store.as_ref()).await?;
    let found = clusters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (system, clusters.as_slice()) {
        (_, []) => Err(RepositoryError::Empty { store }.into()),
        (Some(system), _) => Err(PushError::OtherCluster { name, system, store, found }),
        (None, [one]) => Ok(of_cluster(archive, *one).await?),
        (None, _) => Err(PushError::WhichCluster { name, store, found }),
    }
}

async fn of_cluster(
    archive: &Archive,
    cluster: SystemIdentifier,
) -> Result<(Repository, RepositoryIdentity), ArchiveError> {
    archive.with_capabilities(Repository::new(archive.store.clone(), cluster, archive.trust.clone())).await
}

/// The cluster of any segment in `folder`.
fn system_beside(folder: &Path) -> Option<SystemIdentifier> {
    let entries = std::fs::read_dir(folder).ok()?;
    let segments = entries.filter_map(|entry| {
        let path: PathBuf = entry.ok()?.path();
        let name = wal_name(&path).ok()?;
        matches!(name, WalFileName::Segment(_) | WalFileName::Partial(_)).then_some((path, name))
    });
    segments.take(MOST_LOOKS).find_map(|(path, name)| Some(header_of(&path, name).ok()?.system))
}
