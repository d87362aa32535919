//! What scheduled drills are of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use walseal_common::clock;
use walseal_common::repository::{
    BaseId, Proof, Provable, Repository, RepositoryError, SnapshotId, SnapshotLabel, SnapshotProof, is_dumped_again,
};
use walseal_common::seal::WriterPublic;

/// What the ledger says of drills of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Past {
    /// When one last passed, whoever held it.
    pub(super) proven: Option<Timestamp>,
    /// When the last one was judged, and whether it passed.
    pub(super) last: Option<(Timestamp, bool)>,
    /// When this host last recorded one.
    pub(super) own: Option<Timestamp>,
}

/// What there is to be drilled, base backups first, and what was recorded of that; `own` is this host's key. Where there is nothing at
/// all it is base backups: their drill says so.
///
/// Errors: the store's.
pub(super) async fn due(
    repository: &Repository,
    own: Option<WriterPublic>,
    now: Timestamp,
) -> Result<Vec<(Provable, Past)>, RepositoryError> {
    let (of_bases, of_snapshots) = repository.drills_of_both_kinds().await?;
    let has_snapshots = !snapshots(repository, now).await?.is_empty();
    let mut kinds = Vec::new();
    if !has_snapshots || !repository.base_ids().await?.is_empty() {
        let proof = Proof::of(&of_bases, now);
        let own = last_of(own, now, of_bases.iter().map(|drill| (drill.writer, drill.time)));
        kinds.push((Provable::BaseBackups, Past { proven: proof.last_passed(), last: proof.last, own }));
    }
    if has_snapshots {
        let proof = SnapshotProof::of(&of_snapshots, now);
        let own = last_of(own, now, of_snapshots.iter().map(|drill| (drill.writer, drill.time)));
        kinds.push((Provable::Snapshots, Past { proven: proof.last_passed(), last: proof.last, own }));
    }
    Ok(kinds)
}

/// When this writer last recorded one. What it did by a clock that was ahead must not hold up the others until then (case 44).
fn last_of(
    own: Option<WriterPublic>,
    now: Timestamp,
    drills: impl Iterator<Item = (WriterPublic, Timestamp)>,
) -> Option<Timestamp> {
    let own = drills.filter(|(writer, time)| Some(*writer) == own && !clock::was_wrong(*time, now));
    own.map(|(_, time)| time).max()
}

/// The newest snapshot of each database, or of each part of one, oldest first.
///
/// Errors: the store's.
pub(super) async fn snapshots(repository: &Repository, now: Timestamp) -> Result<Vec<SnapshotId>, RepositoryError> {
    let (mut labels, mut unreadable) = (Vec::new(), None);
    for id in repository.snapshot_ids().await? {
        match repository.snapshot(&id).await {
            Ok(label) => {
                unreadable = None;
                labels.push(label);
            }
            // Removed meanwhile.
            Err(error) if error.is_not_found() => {}
            // One that is not the newest is nobody's hope; the drill of the newest says what is wrong with it (I12).
            Err(RepositoryError::Object { .. }) => unreadable = Some(id),
            Err(error) => return Err(error),
        }
    }
    let base = repository.base_ids().await?.last().and_then(BaseId::begun);
    Ok(newest(labels, base, now).into_iter().chain(unreadable).collect())
}

/// The newest snapshot of each series that is dumped again and again, oldest first; `base` is when the newest base backup was begun. One of
/// a clock that was ahead is taken only where its series has no other.
fn newest(labels: Vec<SnapshotLabel>, base: Option<Timestamp>, now: Timestamp) -> Vec<SnapshotId> {
    // One that is of a clock that was ahead lives, and makes no other look old.
    let last = labels.iter().map(|label| label.start_time).chain(base).map(|time| time.min(now)).max();
    let rank = |label: &SnapshotLabel| (!clock::was_wrong(label.start_time, now), label.start_time);
    let mut series: BTreeMap<String, SnapshotLabel> = BTreeMap::new();
    for label in labels {
        let lives = last.is_none_or(|last| is_dumped_again(label.start_time, last, now));
        let newer = series.get(&label.series).is_none_or(|known| rank(known) <= rank(&label));
        if lives && newer {
            series.insert(label.series.clone(), label);
        }
    }
    let mut ids: Vec<SnapshotId> = series.into_values().map(|label| label.id).collect();
    ids.sort();
    ids
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use walseal_common::seal::WriterKey;

    use super::*;

    fn label(day: u32, series: &str) -> SnapshotLabel {
        let time = format!("2026-11-{day:02}T02:00:00Z").parse().expect("a time");
        SnapshotLabel::sample(time, u32::from(series.as_bytes()[0]), series).expect("an id")
    }

    fn at(day: u32) -> Timestamp {
        format!("2026-11-{day:02}T03:00:00Z").parse().expect("a time")
    }

    #[test]
    fn the_newest_of_each_database_is_drilled_and_nothing_that_is_dumped_no_more() {
        let labels = || vec![label(1, "once"), label(10, "a"), label(11, "b"), label(12, "a"), label(9, "b")];
        let (a, b) = (label(12, "a").id, label(11, "b").id);
        assert_eq!(newest(labels(), None, at(12)), [b.clone(), a.clone()]);
        assert_eq!(newest(vec![label(1, "once")], None, at(12)).len(), 1, "however old it is, it is all there is");
        assert_eq!(newest(Vec::new(), None, at(12)), []);
        // Beside base backups that go on one that was taken once is not waited for, and what goes on is drilled.
        assert_eq!(newest(vec![label(1, "once")], Some(at(12)), at(12)), []);
        assert_eq!(newest(labels(), Some(at(17)), at(17)), [b.clone(), a.clone()]);
        // case 44: a clock that was ahead makes nothing else look old.
        let ahead = label(30, "ahead").id;
        assert_eq!(newest([labels(), vec![label(30, "ahead")]].concat(), None, at(12)), [b.clone(), a.clone(), ahead]);
        assert_eq!(newest(labels(), Some(at(30)), at(12)), [b.clone(), a.clone()]);
        assert_eq!(
            newest([labels(), vec![label(30, "a")]].concat(), None, at(12)),
            [b, a],
            "nor does it hide another one"
        );
    }

    #[test]
    fn case_44_a_drill_that_a_clock_recorded_that_was_ahead_holds_up_no_other() {
        let writer = WriterKey::generate().expect("random bytes").public();
        let other = WriterKey::generate().expect("random bytes").public();
        let drills = [(writer, at(10)), (writer, at(30)), (other, at(11))];
        assert_eq!(last_of(Some(writer), at(12), drills.into_iter()), Some(at(10)));
        assert_eq!(last_of(Some(writer), at(30), drills.into_iter()), Some(at(30)));
        assert_eq!(last_of(None, at(12), drills.into_iter()), None);
    }
}
