//! `push`: the `archive_command` hook.

use std::path::{Path, PathBuf};

use walseal_common::config::Config;
use walseal_common::repository::Repository;
use walseal_common::terminal::Failure;
use walseal_common::timeline::SystemIdentifier;
use walseal_common::wal::PageHeader;

use crate::archive::Archive;
use crate::hook::{Archivist, Pushed, ready_beside};
use crate::socket::{self, Client, Request};

/// What `push` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The file, as PostgreSQL's %p names it
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// How many segments that wait behind this one are shipped along with it.
const LOOK_AHEAD: usize = 4;

/// Ships the file. Returns without an error only when it is durable (I1).
pub async fn run(arguments: &Arguments, archive: Archive) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        // One line: it ends up in PostgreSQL's log (case 22).
        let why = why.to_string().replace('\n', "; ");
        Failure::new(format!("archive {}", arguments.path.display()), why)
    };
    let path = std::path::absolute(&arguments.path).map_err(|error| failed(&error))?;
    match ask_daemon(&archive.config, &path).await {
        Some(Ok(())) => return Ok(()),
        // What a daemon cannot do, such as reading another user's file, this process may be able to.
        Some(Err(why)) => tracing::debug!(why, "the daemon did not take it"),
        None => {}
    }
    let archivist = alone(&archive, &path).await.map_err(|why| failed(&why))?;
    let ahead = look_ahead(&archivist, &path);
    let own = archivist.push(&path);
    tokio::pin!(ahead, own);
    let outcome = tokio::select! {
        outcome = &mut own => outcome,
        () = &mut ahead => own.await,
    };
    let outcome = outcome.map_err(|error| failed(&error))?;
    tracing::debug!(?outcome, path = %path.display(), "durable");
    Ok(())
}

/// `None`: nobody to ask.
async fn ask_daemon(config: &Config, path: &Path) -> Option<Result<(), String>> {
    let state_dir = config.need_state_dir().ok()?;
    let client = Client::connect(&socket::path(&state_dir)).await?;
    let answer = client.ask(&Request::Push { path: path.to_owned() }, |_, _, _| ()).await;
    Some(answer.map(|_| ()).map_err(|error| error.to_string()))
}

/// An archivist without a daemon. Which cluster it is the file itself says, where the store holds several.
async fn alone(archive: &Archive, path: &Path) -> Result<Archivist, Box<dyn std::error::Error + Send + Sync>> {
    let clusters = Repository::clusters(archive.store.as_ref()).await?;
    let cluster = match clusters.as_slice() {
        [one] => Some(*one),
        _ => cluster_of(path),
    };
    let repository = Repository::find(archive.store.clone(), cluster, archive.trust.clone()).await?;
    let (repository, identity) = archive.with_capabilities(repository).await?;
    Ok(Archivist::new(repository, identity, archive.keys.clone()))
}

/// The system identifier in a segment's header.
fn cluster_of(path: &Path) -> Option<SystemIdentifier> {
    use std::io::Read;
    let mut header = [0; 64];
    std::fs::File::open(path).ok()?.read_exact(&mut header).ok()?;
    PageHeader::parse(&header).ok()?.long.map(|long| long.system)
}

/// Ships what waits behind, one after the other, as long as the file itself takes. Their own hooks find them there; a failure is
/// theirs to report.
async fn look_ahead(archivist: &Archivist, path: &Path) {
    for next in ready_beside(path, LOOK_AHEAD) {
        match archivist.push(&next).await {
            Ok(Pushed::Shipped | Pushed::AlreadyThere | Pushed::NotNeeded) => {}
            Err(error) => {
                tracing::debug!(%error, next = %next.display(), "not shipped ahead");
                return;
            }
        }
    }
}
