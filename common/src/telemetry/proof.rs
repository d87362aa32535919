//! Whether the backups of a repository are proven, and how long ago that was.

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::{AlertKind, Alerts, Severity};
use crate::repository::{BaseId, Proof, Provable, Repository, RepositoryError, SnapshotProof, is_dumped_again};

/// How often the ledger is read, at the least and at the most.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The subject of the alert that drills of this kind are overdue.
pub fn overdue_subject(what: Provable) -> &'static str {
    match what {
        Provable::BaseBackups => "",
        Provable::Snapshots => "snapshots",
    }
}

/// Raises the alert when no drill of base backups has passed for `within`, and another one when none of snapshots has; clears each when
/// one has. Zero: never. Of what is not there nothing is to be proven.
pub async fn watch_proof(repository: Repository, alerts: Alerts, within: Duration) -> Infallible {
    if within.is_zero() {
        return std::future::pending().await;
    }
    let interval = (within / 8).clamp(INTERVALS.0, INTERVALS.1);
    loop {
        let now = Timestamp::now();
        match seen(&repository, now).await {
            Ok(seen) => seen.into_iter().for_each(|(what, seen)| judge(&alerts, what, seen, within, now)),
            Err(error) => tracing::debug!(%error, "whether the backups are proven cannot be seen"),
        }
        sleep(interval).await;
    }
}

/// Since when nothing of a kind has been proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// There is nothing to be proven.
    Nothing,
    /// The last drill that passed.
    Passed(Timestamp),
    /// None has; the oldest of what is to be proven.
    Never(Timestamp),
}

async fn seen(repository: &Repository, now: Timestamp) -> Result<[(Provable, Seen); 2], RepositoryError> {
    let (of_bases, of_snapshots) = repository.drills_of_both_kinds().await?;
    let bases = match Proof::of(&of_bases, now).last_passed() {
        Some(passed) => Seen::Passed(passed),
        None => first_base(repository).await?,
    };
    let snapshots = match SnapshotProof::of(&of_snapshots, now).last_passed() {
        _ if !snapshots_are_taken(repository, now).await? => Seen::Nothing,
        Some(passed) => Seen::Passed(passed),
        None => first_snapshot(repository).await?,
    };
    Ok([(Provable::BaseBackups, bases), (Provable::Snapshots, snapshots)])
}

async fn first_base(repository: &Repository) -> Result<Seen, RepositoryError> {
    for id in repository.base_ids().await? {
        match repository.label(&id).await {
            Ok(label) => return Ok(Seen::Never(label.stop_time)),
            // What does not verify does not count.
            Err(error) if error.is_permanent() => tracing::debug!(%id, %error, "this base backup does not count"),
            Err(error) => return Err(error),
        }
    }
    Ok(Seen::Nothing)
}

async fn first_snapshot(repository: &Repository) -> Result<Seen, RepositoryError> {
    for id in repository.snapshot_ids().await? {
        match repository.snapshot(&id).await {
            Ok(label) => return Ok(Seen::Never(label.stop_time)),
            Err(error) if error.is_permanent() => tracing::debug!(%id, %error, "this snapshot does not count"),
            Err(error) => return Err(error),
        }
    }
    Ok(Seen::Nothing)
}

/// Whether there are snapshots, and not only old ones beside base backups that are taken on and on.
async fn snapshots_are_taken(repository: &Repository, now: Timestamp) -> Result<bool, RepositoryError> {
    let Some(newest) = repository.snapshot_ids().await?.into_iter().next_back() else { return Ok(false) };
    let base = repository.base_ids().await?.last().and_then(BaseId::begun);
    Ok(match (newest.begun(), base) {
        (Some(begun), Some(base)) => is_dumped_again(begun, base, now),
        _ => true,
    })
}

fn judge(alerts: &Alerts, what: Provable, seen: Seen, within: Duration, now: Timestamp) {
    const KIND: AlertKind = AlertKind::DrillOverdue;
    let (subject, of, verb) = match what {
        Provable::BaseBackups => (overdue_subject(what), "base backup", "drill"),
        Provable::Snapshots => (overdue_subject(what), "snapshot", "snapshot drill"),
    };
    let (since, words) = match seen {
        Seen::Nothing => {
            alerts.clear(KIND, subject, format!("there is no {of} of which a drill would be due"));
            return;
        }
        Seen::Passed(at) => (at, format!("the last drill of a {of} that passed was at {at:.0}")),
        Seen::Never(at) => {
            let words = format!(
                "no drill of a host that counts here has passed since the first {of} at {at:.0} (a drill host counts where \
                 keys.trusted_writers names it with the role drill)"
            );
            (at, words)
        }
    };
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    if age <= within {
        alerts.clear(KIND, subject, words);
        return;
    }
    let text = format!(
        "no {of} is known to restore: {words}, which is longer ago than alerts.proven_within allows; on the restore host run: \
         walseal-restorer {verb}"
    );
    alerts.raise(KIND, subject, Severity::Warning, text);
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_795_228_200 + day * 86_400).expect("a time")
    }

    #[test]
    fn what_was_not_proven_for_too_long_stands_until_a_drill_of_its_kind_passes() {
        let (alerts, week) = (Alerts::to_log(), Duration::from_secs(7 * 86_400));
        let look = |what, seen, day| {
            judge(&alerts, what, seen, week, at(day));
            let standing = alerts.standing().into_iter().find(|alert| alert.subject == overdue_subject(what));
            standing.map(|alert| alert.text)
        };
        let (bases, snapshots) = (Provable::BaseBackups, Provable::Snapshots);
        assert_eq!(look(bases, Seen::Nothing, 100), None, "nothing is there to be proven");
        assert_eq!(look(bases, Seen::Never(at(0)), 7), None);
        let text = look(bases, Seen::Never(at(0)), 8).expect("an alert");
        assert!(text.contains("since the first base backup") && text.contains("walseal-restorer drill"), "{text}");
        let text = look(snapshots, Seen::Never(at(0)), 8).expect("an alert of its own");
        assert!(text.contains("first snapshot at") && text.contains("walseal-restorer snapshot drill"), "{text}");
        // A drill of the one proves nothing of the other.
        assert_eq!(look(bases, Seen::Passed(at(8)), 9), None);
        assert_eq!(alerts.standing().len(), 1);
        assert_eq!(look(snapshots, Seen::Passed(at(9)), 9), None);
        assert!(
            look(bases, Seen::Passed(at(8)), 16)
                .is_some_and(|text| text.contains("the last drill of a base backup that passed"))
        );
        assert!(look(snapshots, Seen::Passed(at(8)), 16).is_some());
        assert_eq!(look(snapshots, Seen::Nothing, 16), None, "nobody takes any more");
        assert_eq!(alerts.standing().len(), 1);
    }
}
