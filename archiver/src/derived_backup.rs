//! A base backup of an instance that a drill restored: production's server is not touched.
//!
//! The instance is paused in recovery, and has replayed WAL that the repository holds already. So nothing is streamed, and nothing is
//! waited for; the repository is asked whether that WAL is all there. The label waits for a word of whoever started this: until then
//! nothing is visible.

use std::time::Instant;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::postgres::PostgresError;
use walseal_common::repository::{Act, BaseId, Derivation, Label, Repository, RepositoryIdentity};
use walseal_common::timeline::Branch;

use crate::archive::{Archive, ArchiveError, LAST_ENTRIES};
use crate::base::attachment::Attachment;
use crate::base::lease::Lease;
use crate::base::{BackupOptions, BaseError, DurableWal, Effort, Policy, Stage, WaitDurable, names, publish, store};
use crate::primary;
use crate::stream::{self, StreamError};

/// A derived backup could not be taken. Nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum DerivedError {
    /// The repository, or the configuration.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The configuration.
    #[error(transparent)]
    Open(#[from] walseal_common::config::OpenError),
    /// The backup itself.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// It is another cluster's.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It is no instance that waits at its target.
    #[error("{0} is not in recovery: a backup can be derived only of a server that replays WAL of the repository")]
    NotInRecovery(String),
    /// Nobody wants it any more.
    #[error("it was not to be published; nothing of it is visible")]
    Unwanted,
    /// There are no random numbers.
    #[error("{0}")]
    Id(walseal_common::seal::SealError),
}

/// Takes it. `stored` hears of its name when all but the label is durable; the label is written once `wanted` says so, and never
/// when it ends otherwise, at whatever time.
///
/// Errors: see [`DerivedError`].
pub async fn take(
    archive: &Archive,
    derivation: &Derivation,
    stored: impl FnOnce(&BaseId),
    wanted: impl Future<Output = bool>,
) -> Result<Label, DerivedError> {
    let conninfo = archive.config.open_conninfo()?;
    let (repository, identity) = archive.repository(&conninfo).await?;
    let ledger = archive.ledger(&repository);
    let begun = Instant::now();
    let taken = take_with(archive, (&repository, &identity), derivation, stored, wanted).await;
    if let Ok(label) = &taken {
        ledger.record(Act::BaseFinished {
            id: label.id.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            suspect: label.suspect,
            suspect_files: label.suspect_files.clone(),
            seconds: begun.elapsed().as_secs_f64(),
        });
    }
    ledger.finish(LAST_ENTRIES).await;
    taken
}

async fn take_with(
    archive: &Archive,
    (repository, identity): (&Repository, &RepositoryIdentity),
    derivation: &Derivation,
    stored: impl FnOnce(&BaseId),
    wanted: impl Future<Output = bool>,
) -> Result<Label, DerivedError> {
    let conninfo = archive.config.open_conninfo()?;
    let mut client = primary::connect(&conninfo, "walseal derived backup").await?;
    stream::identify(&mut client, repository, identity, conninfo.target_session_attrs()).await?;
    if client.parameter("in_hot_standby") != Some("on") {
        return Err(DerivedError::NotInRecovery(client.host().to_string()));
    }
    let id = BaseId::generate().map_err(DerivedError::Id)?;
    // Any frame may be where it was stored first.
    let all = vec!["base/".to_owned()];
    let mut lease = Lease::take(repository, &archive.keys.writer, id.clone(), None, all).await?;
    let working = async {
        let (keys, level) = (&archive.keys, Effort::default().level);
        let mut attached = Attachment::names(repository, keys, &id, level);
        names::read(&conninfo, client.host(), &mut attached).await?;
        let names = attached.finish().await?;
        let mut attached = Attachment::config(repository, keys, &id, level);
        for entry in &derivation.config {
            attached.line(entry).await?;
        }
        let base = &archive.config.base;
        let options = BackupOptions {
            id: Some(id.clone()),
            names,
            config: attached.finish().await?,
            policy: Policy { full_every: base.full_every.value, max_depth: base.max_depth.value },
            derived: Some(derivation.lineage.clone()),
            ..BackupOptions::by_hand(keys.as_ref().clone())
        };
        let wal = HeldWal { repository: repository.clone(), identity: identity.clone() };
        let mut tell = |stage: Stage| tracing::debug!(?stage, "derived backup");
        let label = store(&mut client, repository, &options, &mut tell, &wal).await?;
        client.close().await;
        stored(&label.id);
        Ok::<_, BaseError>((options, label))
    };
    let (mut working, mut wanted) = (std::pin::pin!(working), std::pin::pin!(wanted));
    let outcome = tokio::select! {
        lapsed = lease.keep() => Err(DerivedError::Base(lapsed)),
        // A word before it is asked for can only be a refusal.
        _ = &mut wanted => Err(DerivedError::Unwanted),
        done = &mut working => done.map_err(DerivedError::Base),
    };
    let outcome = match outcome {
        Ok((options, label)) => tokio::select! {
            lapsed = lease.keep() => Err(DerivedError::Base(lapsed)),
            wanted = &mut wanted => match wanted {
                true => publish(repository, &options, &label).await.map(|()| label).map_err(DerivedError::Base),
                false => Err(DerivedError::Unwanted),
            },
        },
        Err(error) => Err(error),
    };
    lease.release().await;
    outcome
}

/// WAL that the repository holds already.
struct HeldWal {
    repository: Repository,
    identity: RepositoryIdentity,
}

/// The WAL that a backup needs is not there.
#[derive(Debug, thiserror::Error)]
#[error("WAL from {} on is needed up to {}, and in the repository it ends at {end} on branch {branch}", .range.start, .range.end)]
struct MissingWal {
    range: LsnRange,
    end: Lsn,
    branch: Branch,
}

#[async_trait::async_trait]
impl WaitDurable for HeldWal {
    async fn wait_durable(
        &self,
        branch: Branch,
        range: LsnRange,
    ) -> Result<DurableWal, Box<dyn std::error::Error + Send + Sync>> {
        let size = self.identity.segment_size;
        let listing = self.repository.wal_listing(branch, size, Some(size.number(range.start))).await?;
        let end = self.repository.contiguous_end(&listing, range.start).await?;
        if end < range.end {
            return Err(MissingWal { range, end, branch }.into());
        }
        // Which transactions lie before it, only who opens WAL can see.
        Ok(DurableWal { highest_time: None })
    }
}
