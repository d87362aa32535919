//! After a gap: the base backup without which nothing that follows could be restored, taken by itself (I5).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use walseal_common::repository::{Gap, Label, Repository, RepositoryError, RepositoryIdentity, lies_on};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;
use walseal_common::timeline::Branch;

use crate::base_backup::TakeError;
use crate::stream::{Progress, ProgressWatch};
use crate::turns::Occasion;

/// Takes base backups.
#[async_trait::async_trait]
pub trait TakesBase: Send + Sync + 'static {
    /// Takes one now, without anybody waiting for it.
    ///
    /// Errors: see [`TakeError`]; nothing of it is visible then.
    async fn take_base(&self, occasion: Occasion) -> Result<Label, TakeError>;
}

/// First and longest pause after an attempt that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Raises the alert of a gap; it stands until a base backup lies behind it, or it was filled ([`mend`]).
pub fn alert(alerts: &Alerts, gap: &Gap) {
    let text = format!(
        "gap: this WAL is not in the repository and no longer on the server: {} to {} on branch {}, {}; no restore can cross it, \
         and a new base backup is taken. Where a standby or an archive still has it, it can be filled",
        gap.from,
        gap.to,
        gap.branch,
        units::distance(gap.from, gap.to),
    );
    alerts.raise(AlertKind::Gap, format!("{} {}", gap.branch, gap.from), Severity::Critical, text);
}

/// The last gap that nobody filled and behind which no base backup was begun, on the way to `branch`: what followed it cannot be restored
/// yet. One that the cluster went back to before needs none.
///
/// Errors: the repository's. A label that cannot be read is no backup.
pub async fn unmended(
    repository: &Repository,
    identity: &RepositoryIdentity,
    branch: Option<Branch>,
) -> Result<Option<Gap>, RepositoryError> {
    let way = match branch {
        Some(branch) => repository.way_to(&repository.adoptions().await?, branch).await?,
        None => None,
    };
    let mut open = Vec::new();
    for gap in repository.gaps().await? {
        let matters = way.as_ref().is_none_or(|way| gap.breaks(way));
        if matters && repository.open_part(&gap, identity.segment_size).await?.is_some() {
            open.push(gap);
        }
    }
    let Some(last) = open.into_iter().max_by_key(Gap::goes_on) else { return Ok(None) };
    let mends = |label: &Label| {
        let on_it = match &way {
            Some(way) => lies_on(way, label.branch, label.stop),
            None => label.branch.timeline >= last.next.timeline,
        };
        on_it && label.start >= last.to
    };
    for id in repository.base_ids().await?.iter().rev() {
        match repository.label(id).await {
            Ok(label) if mends(&label) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.is_permanent() => tracing::warn!(%id, %error, "this base backup does not count"),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(last))
}

/// Takes a base backup whenever the last gap has none behind it, at the start and after each gap that is found, and tries
/// again until there is one. Returns when the stream has ended.
pub async fn mend(
    repository: Repository,
    identity: RepositoryIdentity,
    mut progress: ProgressWatch,
    taker: Arc<dyn TakesBase>,
    alerts: Alerts,
) {
    let mut pause = PAUSES.0;
    let now = progress.clone();
    // A gap that was found meanwhile has its own alert, and its own turn.
    let over = |known| {
        if now.now().gaps == known {
            alerts.clear_all_but(AlertKind::Gap, &[], "a base backup lies behind it now, or it was filled");
        }
    };
    loop {
        // Its WAL can only become durable while a stream runs.
        if progress.connected().await.is_err() {
            return;
        }
        let Progress { gaps: known, branch, .. } = progress.now();
        let failed = match unmended(&repository, &identity, branch).await {
            Ok(None) => {
                over(known);
                None
            }
            Ok(Some(gap)) => {
                alert(&alerts, &gap);
                tracing::warn!(
                    from = %gap.from, to = %gap.to, branch = %gap.branch,
                    "no base backup was taken since this gap, and what follows it cannot be restored without: taking one now"
                );
                taker.take_base(Occasion::Gap).await.map(|_| over(known)).err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        let Some(why) = failed else {
            pause = PAUSES.0;
            if progress.more_gaps(known).await.is_err() {
                return;
            }
            continue;
        };
        tracing::error!(why, "no base backup since the last gap yet; trying again in {} s", pause.as_secs());
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
