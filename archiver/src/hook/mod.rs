//! `archive_command`: a file of `pg_wal` that PostgreSQL is done with, into the repository.
//!
//! An [`Archivist`] is used by the daemon and by a hook that finds none. It answers "yes" only when the file's content is
//! durable (I1); the same bytes again are "yes" (case 21); other bytes are a conflict, and are kept (I3).

mod ahead;
mod error;
mod segment;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walseal_common::repository::{Repository, RepositoryIdentity};
use walseal_common::segment::WalFileName;
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

pub use ahead::ready_beside;
pub use error::PushError;

use crate::keys::ArchiveKeys;
use crate::stream::store_histories;

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It was shipped now.
    Shipped,
    /// Its bytes were in the repository before.
    AlreadyThere,
    /// It carries nothing that a restore needs (`.backup` files).
    NotNeeded,
}

/// Ships files of `pg_wal`.
#[derive(Clone, Debug)]
pub struct Archivist {
    repository: Repository,
    identity: RepositoryIdentity,
    keys: Arc<ArchiveKeys>,
}

impl Archivist {
    /// An archivist for this repository.
    pub fn new(repository: Repository, identity: RepositoryIdentity, keys: Arc<ArchiveKeys>) -> Archivist {
        Archivist { repository, identity, keys }
    }

    /// Makes the file at `path` durable, as its name says what it is.
    ///
    /// Errors: a name that PostgreSQL gives to no file of WAL; content that is not what the name says, or of another
    /// cluster (case 25); a conflict; a store that does not take it.
    pub async fn push(&self, path: &Path) -> Result<Pushed, PushError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let file: WalFileName = name.parse()?;
        match file {
            WalFileName::Segment(segment) => {
                let (branch, history) = self.branch(path, segment.timeline).await?;
                segment::whole(self, path, segment, branch, history.as_ref()).await
            }
            WalFileName::Partial(segment) => {
                let (branch, history) = self.branch(path, segment.timeline).await?;
                segment::partial(self, path, segment, branch, history.as_ref()).await
            }
            WalFileName::History(timeline) => {
                let history = TimelineHistory::parse(timeline, &read_small(path)?)?;
                store_histories(&self.repository, &self.keys, &history).await.map_err(Box::new)?;
                Ok(Pushed::Shipped)
            }
            // The label of a base backup says the same, signed; that the file can be read is all there is to check.
            WalFileName::BackupHistory(..) => read_small(path).map(|_| Pushed::NotNeeded),
        }
    }

    /// The branch that a file of `timeline` belongs to, and its history where that is at hand. The history file lies beside
    /// the segments; where it does not, the repository may know exactly one branch of that timeline.
    async fn branch(&self, path: &Path, timeline: TimelineId) -> Result<(Branch, Option<TimelineHistory>), PushError> {
        let cluster = self.repository.cluster();
        if timeline == TimelineId::FIRST {
            let root = TimelineHistory::root(timeline);
            return Ok((root.branch(cluster), Some(root)));
        }
        let beside = beside(path, &WalFileName::History(timeline).to_string());
        if beside.exists() {
            let history = TimelineHistory::parse(timeline, &read_small(&beside)?)?;
            // Without it no restore could follow the timeline (case 2).
            store_histories(&self.repository, &self.keys, &history).await.map_err(Box::new)?;
            return Ok((history.branch(cluster), Some(history)));
        }
        let mut known = self.repository.branches().await?;
        known.retain(|branch| branch.timeline == timeline);
        match known.as_slice() {
            [one] => Ok((*one, None)),
            _ => Err(PushError::NoHistory { timeline: timeline.number(), known: known.len(), beside }),
        }
    }
}

/// The path of `name` in the folder of `path`.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or_else(|| Path::new(".")).join(name)
}

/// Reads a history or backup file. They have some hundred bytes; a larger one is none.
fn read_small(path: &Path) -> Result<Vec<u8>, PushError> {
    use std::io::Read;
    const LARGEST: u64 = 1 << 20;
    let failed = |source| PushError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > LARGEST {
        return Err(PushError::Size { path: path.to_owned(), found: content.len() as u64, expected: LARGEST });
    }
    Ok(content)
}
