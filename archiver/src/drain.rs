//! Everything that the server has written until now, durable in the repository (case 20): before a switchover, before an old
//! primary is rewound, before a host is given up.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::{Conninfo, PostgresError};
use walseal_common::repository::{Repository, RepositoryIdentity};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use crate::primary;
use crate::stream::{self, ProgressWatch, StreamEnded, StreamError};

/// How often somebody who waits hears of it.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What is durable.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// End of the server's WAL when it was asked: durable up to here, at least.
    pub through: Lsn,
    /// On this branch.
    pub branch: Branch,
    /// Seconds that it took.
    pub seconds: f64,
}

/// It could not be drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// It is another server.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream ended meanwhile.
    #[error("{0} before everything was durable; the replication slot keeps the rest")]
    Ended(#[from] StreamEnded),
    /// The server went on to another timeline.
    #[error(
        "the stream has gone on to branch {now} while {wanted} was being drained: the server that was asked is no longer the \
         one that is streamed"
    )]
    OtherBranch {
        /// The branch that is streamed.
        now: Branch,
        /// The branch that the server was on.
        wanted: Branch,
    },
}

/// Waits until the WAL that the server has flushed by now is durable. `progress` follows the stream that brings it; `report`
/// hears how much is left.
///
/// Errors: see [`DrainError`]. The slot keeps what is not durable.
pub async fn drain(
    conninfo: &Conninfo,
    repository: &Repository,
    identity: &RepositoryIdentity,
    mut progress: ProgressWatch,
    mut report: impl FnMut(String) + Send,
) -> Result<Drained, DrainError> {
    let begun = Instant::now();
    let mut client = primary::connect_within(conninfo, "walseal drain", repository.cluster()).await?;
    let server = stream::identify(&mut client, repository, identity, conninfo.target_session_attrs()).await?;
    client.close().await;
    let branch = server.branch();
    let mut ticks = interval(REPORT_EVERY);
    loop {
        let now = progress.now();
        match now.reach() {
            Some((streamed, end)) if streamed == branch && end >= server.position => break,
            Some((streamed, _)) if streamed.timeline > branch.timeline => {
                return Err(DrainError::OtherBranch { now: streamed, wanted: branch });
            }
            _ => {}
        }
        tokio::select! {
            changed = progress.changed() => changed.map(|_| ())?,
            _ = ticks.tick() => {
                let left = if now.branch == Some(branch) { units::distance(now.frontier.min(server.position), server.position) } else { "all".to_owned() };
                let trouble = now.trouble.or(now.store_trouble).map_or_else(String::new, |trouble| format!("; {trouble}"));
                report(format!("waiting for {} to be durable, {left} left{trouble}", server.position));
            }
        }
    }
    Ok(Drained { through: server.position, branch, seconds: begun.elapsed().as_secs_f64() })
}
