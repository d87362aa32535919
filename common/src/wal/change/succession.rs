//! Which removed files others took the place of, and which went with their relations: what `TRUNCATE` and `DROP TABLE` differ in.
//!
//! A commit lists the files that it removes from the one that was given up last to the first (`smgrGetPendingDeletes`). Whoever gives
//! one up changes the relation's row of `pg_class` next: `TRUNCATE`, `REINDEX` and `ALTER TABLE … SET TABLESPACE` make a new file and
//! update the row (`RelationSetNewRelfilenumber`, `ATExecSetTableSpace`), `DROP` deletes it (`heap_drop_with_catalog`, `index_drop`).
//! So both lists pair, but for rows of relations that have no file of their own, as views have none.

use serde::{Deserialize, Serialize};

use super::super::record::RelationFile;
use crate::lsn::Lsn;

/// A row of `pg_class` that was deleted, or updated to another file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClassChange {
    /// Start of its record.
    pub(super) at: Lsn,
    /// The new file; none where the row was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<RelationFile>,
}

/// A file that took another's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replaced {
    /// The one that was removed.
    pub old: RelationFile,
    /// The one that the relation has since.
    pub new: RelationFile,
}

/// Those of `removed`, as the commit lists them, in whose place others came; of which that cannot be told are left out. `None` where
/// `changes`, in their order, do not fit.
pub(super) fn replaced(changes: &[ClassChange], removed: &[RelationFile]) -> Option<Vec<Replaced>> {
    let updates = changes.iter().filter(|change| change.file.is_some()).count();
    let all_deletes = changes.len() - updates;
    // Of the deleted rows so many had a file.
    let with_file = removed.len().checked_sub(updates).filter(|count| *count <= all_deletes)?;
    let given_up: Vec<RelationFile> = removed.iter().rev().copied().collect();
    let (mut found, mut deletes) = (Vec::new(), 0);
    for (number, change) in changes.iter().enumerate() {
        let Some(new) = change.file else {
            deletes += 1;
            continue;
        };
        // Of those before this one at least, and at most, so many had a file.
        let (least, most) = (with_file.saturating_sub(all_deletes - deletes), deletes.min(with_file));
        if let (true, Some(old)) = (least == most, given_up.get(number - deletes + least)) {
            found.push(Replaced { old: *old, new });
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(number: usize) -> RelationFile {
        RelationFile { tablespace: 1663, database: 5, number: u32::try_from(number).unwrap_or_default() }
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Done {
        Truncated,
        Dropped,
        DroppedWithoutFile,
    }

    /// What a transaction would write that did all that, and the files that were really replaced.
    fn written(all: &[Done]) -> (Vec<ClassChange>, Vec<RelationFile>, Vec<Replaced>) {
        let (mut changes, mut removed, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        for (number, done) in all.iter().enumerate() {
            let (old, new) = (file(number), file(number + 1_000));
            let made = (*done == Done::Truncated).then_some(new);
            changes.push(ClassChange { at: Lsn(number as u64), file: made });
            removed.extend((*done != Done::DroppedWithoutFile).then_some(old));
            truth.extend(made.map(|new| Replaced { old, new }));
        }
        removed.reverse();
        (changes, removed, truth)
    }

    #[test]
    fn a_view_that_is_dropped_beside_leaves_open_only_what_it_must() {
        use Done::{Dropped, DroppedWithoutFile, Truncated};
        let found = |all: &[Done]| {
            let (changes, removed, _) = written(all);
            replaced(&changes, &removed).map(|found| found.iter().map(|one| one.old.number).collect::<Vec<_>>())
        };
        assert_eq!(found(&[Truncated, DroppedWithoutFile, Truncated]), Some(vec![0, 2]));
        assert_eq!(found(&[Truncated, Dropped, DroppedWithoutFile]), Some(vec![0]));
        assert_eq!(found(&[Dropped, Truncated, DroppedWithoutFile]), Some(vec![]));
        assert_eq!(found(&[DroppedWithoutFile]), Some(vec![]));
    }

    #[test]
    fn lists_that_do_not_fit_tell_nothing() {
        let (changes, removed, _) = written(&[Done::Dropped, Done::Truncated]);
        assert_eq!(replaced(&changes[..1], &removed), None);
        assert_eq!(replaced(&changes, &[]), None);
        assert_eq!(replaced(&[], &removed), None);
    }

    fn done(some_have_no_file: bool) -> impl Strategy<Value = Vec<Done>> {
        let all = vec![Done::Truncated, Done::Dropped, Done::DroppedWithoutFile];
        prop::collection::vec(prop::sample::select(if some_have_no_file { all } else { all[..2].to_vec() }), 0..20)
    }

    proptest! {
        #[test]
        fn what_is_told_is_true(all in done(true)) {
            let (changes, removed, truth) = written(&all);
            let found = replaced(&changes, &removed);
            prop_assert!(found.as_ref().is_some_and(|found| found.iter().all(|one| truth.contains(one))), "{:?}", found);
        }

        #[test]
        fn where_every_relation_has_a_file_all_is_told(all in done(false)) {
            let (changes, removed, truth) = written(&all);
            prop_assert_eq!(replaced(&changes, &removed), Some(truth));
        }
    }
}
