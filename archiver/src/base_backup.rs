//! Taking a base backup while the WAL streams: the two halves of a restore, brought together.

use std::time::Instant;

use walseal_common::config::{Config, ConfigError};
use walseal_common::lsn::LsnRange;
use walseal_common::postgres::{Conninfo, PostgresError};
use walseal_common::repository::{Act, BaseId, FailureClass, Label, Ledger, Repository, RepositoryIdentity};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use crate::base::{self, BackupMode, BackupOptions, BaseError, DurableWal, PageCache, Policy, Stage, WaitDurable};
use crate::keys::ArchiveKeys;
use crate::primary;
use crate::stream::{ProgressWatch, StreamError};

/// A backup could not be taken. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The backup itself.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// It is another server.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Another one is under way.
    #[error("a base backup is already under way; wait for it to end")]
    Busy,
    /// A result that could not be passed on.
    #[error("{0}")]
    Internal(String),
}

impl TakeError {
    /// What failed, for the ledger.
    fn class(&self) -> FailureClass {
        match self {
            TakeError::Base(BaseError::Server(_)) | TakeError::Postgres(_) | TakeError::Stream(_) => {
                FailureClass::Server
            }
            TakeError::Base(BaseError::Repository(_)) => FailureClass::Repository,
            TakeError::Base(BaseError::Wal { .. }) => FailureClass::Wal,
            TakeError::Base(_) | TakeError::Busy | TakeError::Internal(_) => FailureClass::Other,
        }
    }
}

/// What the configuration says of base backups.
#[derive(Clone, Debug)]
pub struct BaseSettings {
    /// When a full one is due.
    pub policy: Policy,
    /// Where copies are kept of what the next one has to know.
    pub cache: PageCache,
}

impl BaseSettings {
    /// Of a configuration.
    ///
    /// Errors: `cluster.state_dir` is not known.
    pub fn of(config: &Config) -> Result<BaseSettings, ConfigError> {
        let policy = Policy { full_every: config.base.full_every.value, max_depth: config.base.max_depth.value };
        Ok(BaseSettings { policy, cache: PageCache::below(&config.need_state_dir()?) })
    }
}

/// What is needed to take a base backup, beside a stream.
#[derive(Clone, Copy)]
pub struct Taking<'a> {
    /// The server.
    pub conninfo: &'a Conninfo,
    /// Where it goes.
    pub repository: &'a Repository,
    /// What that is.
    pub identity: &'a RepositoryIdentity,
    /// Who it is sealed to, and who signs it.
    pub keys: &'a ArchiveKeys,
    /// What the configuration says.
    pub settings: &'a BaseSettings,
    /// Whether it is to be full or incremental.
    pub mode: BackupMode,
    /// Where its beginning and its end are recorded.
    pub ledger: &'a Ledger,
}

/// Takes a base backup and returns its label, which is durable. `progress` follows the stream that brings the WAL. Its
/// beginning and its end go to the ledger.
///
/// Errors: as [`base::run`]; the server is not the repository's cluster.
pub async fn take(
    taking: Taking<'_>,
    progress: ProgressWatch,
    report: impl FnMut(String, Option<u64>, Option<u64>) + Send,
) -> Result<Label, TakeError> {
    let begun = Instant::now();
    let mut id = None;
    let ledger = taking.ledger;
    let taken = take_with(taking, progress, &mut id, report).await;
    match &taken {
        Ok(label) => ledger.record(Act::BaseFinished {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            suspect: label.suspect,
            seconds: begun.elapsed().as_secs_f64(),
        }),
        Err(error) => ledger.record(Act::BaseFailed { id, class: error.class() }),
    }
    taken
}

async fn take_with(
    taking: Taking<'_>,
    progress: ProgressWatch,
    begun: &mut Option<BaseId>,
    mut report: impl FnMut(String, Option<u64>, Option<u64>) + Send,
) -> Result<Label, TakeError> {
    let Taking { conninfo, repository, identity, keys, settings, mode, ledger } = taking;
    let mut client = primary::connect(conninfo, "walseal base backup").await?;
    crate::stream::identify(&mut client, repository, identity, conninfo.target_session_attrs()).await?;
    let options = BackupOptions {
        mode,
        policy: settings.policy,
        cache: settings.cache.clone(),
        ..BackupOptions::by_hand(keys.clone())
    };
    let wal = StreamedWal { repository: repository.clone(), identity: identity.clone(), progress };
    let mut tell = move |stage: Stage| {
        if let Stage::Checkpoint { id } = &stage {
            *begun = Some(id.clone());
            ledger.record(Act::BaseStarted { id: id.clone() });
        }
        let (text, done, total) = words(&stage);
        report(text, done, total);
    };
    let label = base::run(&mut client, repository, &options, &mut tell, &wal).await?;
    client.close().await;
    Ok(label)
}

fn words(stage: &Stage) -> (String, Option<u64>, Option<u64>) {
    match stage {
        Stage::Comparing { parent } => (format!("incremental: compared with {parent}"), None, None),
        Stage::Full { why } => (format!("full: {why}"), None, None),
        Stage::Native => ("incremental: the server sends changed blocks only".to_owned(), None, None),
        Stage::NotNative { why } => (format!("incremental: the server sends everything, because {why}"), None, None),
        Stage::GoingOn { attempts } => {
            let ids = attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            (format!("what interrupted backups had stored is not stored again: {ids}"), None, None)
        }
        Stage::ObjectsMissing { count } => {
            let text = format!(
                "{count} data objects of earlier backups are GONE from the repository; what they held is stored anew"
            );
            (text, None, None)
        }
        Stage::Checkpoint { id } => (format!("{id}: the server makes a checkpoint"), None, None),
        Stage::Copying { done, total } => ("copying".to_owned(), Some(*done), *total),
        Stage::Storing => ("storing the last objects".to_owned(), None, None),
        Stage::WaitingForWal { through, waited } => {
            let text =
                format!("waiting for WAL through {through} to be durable, for {} so far", units::duration(*waited));
            (text, None, None)
        }
        Stage::ChecksumFailure { message } => {
            (format!("the server reports a page checksum failure: {message}"), None, None)
        }
    }
}

/// WAL that a stream makes durable beside the backup.
struct StreamedWal {
    repository: Repository,
    identity: RepositoryIdentity,
    progress: ProgressWatch,
}

/// The WAL that a backup needs will not come.
#[derive(Debug, thiserror::Error)]
enum MissingWal {
    #[error("the WAL stream has moved on to branch {now}, but the backup was made on {wanted}; take another one")]
    OtherBranch { now: Branch, wanted: Branch },
    #[error("WAL from {} on is missing in the repository, where it ends at {end}: the replication slot was made too late or lost WAL; take another one", .range.start)]
    Gap { range: LsnRange, end: walseal_common::lsn::Lsn },
}

#[async_trait::async_trait]
impl WaitDurable for StreamedWal {
    async fn wait_durable(
        &self,
        branch: Branch,
        range: LsnRange,
    ) -> Result<DurableWal, Box<dyn std::error::Error + Send + Sync>> {
        let mut progress = self.progress.clone();
        loop {
            progress.durable(range.end).await?;
            let now = progress.now();
            match now.branch {
                Some(now) if now == branch => break,
                Some(now) if now.timeline > branch.timeline => {
                    return Err(MissingWal::OtherBranch { now, wanted: branch }.into());
                }
                _ => progress.changed().await.map(|_| ())?,
            }
        }
        // The frontier says that there is no hole behind it as far as this stream knows; the repository says it for all.
        let size = self.identity.segment_size;
        let listing = self.repository.wal_listing(branch, size, Some(size.number(range.start))).await?;
        let end = self.repository.contiguous_end(&listing, range.start).await?;
        if end < range.end {
            return Err(MissingWal::Gap { range, end }.into());
        }
        Ok(DurableWal { highest_time: progress.now().highest_time })
    }
}
