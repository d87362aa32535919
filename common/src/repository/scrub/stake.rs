//! What it costs that an object is not there: which base backups cannot be restored, and which positions cannot be reached.

use std::collections::{BTreeMap, BTreeSet};

use super::flaw::{Flaw, LostWindow};
use super::references::all_of;
use crate::lsn::{Lsn, LsnRange};
use crate::repository::{BaseId, Label, Repository, RepositoryError, WalListing};
use crate::segment::SegmentSize;
use crate::timeline::Branch;

/// A base backup, as far as its place goes.
#[derive(Clone, Debug)]
pub(super) struct Stake {
    pub(super) id: BaseId,
    pub(super) branch: Branch,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) segment_size: SegmentSize,
}

impl Stake {
    pub(super) fn of(label: &Label) -> Stake {
        let Label { id, branch, start, stop, segment_size, .. } = label;
        let (branch, start, stop, segment_size) = (*branch, *start, *stop, *segment_size);
        Stake { id: id.clone(), branch, start, stop, segment_size }
    }

    /// The WAL without which it cannot be restored, whole segments.
    pub(super) fn segments(&self) -> LsnRange {
        self.segment_size.around(self.start, self.stop)
    }
}

/// All of them, and the WAL that leads on from them.
#[derive(Clone, Debug)]
pub(super) struct Stakes {
    /// Oldest first.
    pub(super) bases: Vec<Stake>,
    pub(super) listings: BTreeMap<Branch, WalListing>,
}

impl Stakes {
    /// Tells what it costs that WAL of `branch` is not there.
    pub(super) fn of_wal(&self, branch: Branch, range: LsnRange, mut flaw: Flaw) -> Flaw {
        let on_branch = || self.bases.iter().filter(|base| base.branch == branch);
        let broken = on_branch().filter(|base| base.start < range.end && base.stop > range.start);
        flaw.bases.extend(broken.map(|base| base.id.clone()));
        // From base backups of earlier timelines one comes here, too.
        let led_here = |base: &Stake| {
            base.branch.timeline < branch.timeline || (base.branch == branch && base.start <= range.start)
        };
        if self.bases.iter().any(led_here) {
            let to = on_branch().filter(|base| base.start >= range.end).map(|base| base.stop).min();
            flaw.lost.push(LostWindow { branch, from: range.start, to });
        }
        flaw
    }

    /// What cannot be reached without the base backups `gone`: from the stop point of each to that of the next, where no earlier one
    /// leads there.
    fn without(&self, gone: &BTreeSet<BaseId>) -> Vec<LostWindow> {
        let mut lost: Vec<LostWindow> = Vec::new();
        for base in self.bases.iter().filter(|base| gone.contains(&base.id)) {
            let others = || self.bases.iter().filter(|other| other.branch == base.branch && !gone.contains(&other.id));
            let listing = self.listings.get(&base.branch);
            let leads = |other: &Stake| {
                other.stop <= base.stop && listing.is_some_and(|wal| wal.contiguous_end(other.start) >= base.stop)
            };
            if others().any(leads) {
                continue;
            }
            let to = others().filter(|other| other.stop > base.stop).map(|other| other.stop).min();
            let window = LostWindow { branch: base.branch, from: base.stop, to };
            // One before it, lost as well, reaches as far and begins sooner.
            let within = |known: &LostWindow| {
                known.branch == window.branch && known.to == window.to && known.from <= window.from
            };
            if !lost.iter().any(within) {
                lost.push(window);
            }
        }
        lost
    }

    /// Finds out which base backups need the objects of these flaws, in one pass over the labels. Returns which of the objects
    /// any label speaks of at all: some are there for the next backup, and for people.
    ///
    /// Errors: the store's.
    pub(super) async fn attribute(
        &self,
        repository: &Repository,
        flaws: &mut [Flaw],
    ) -> Result<BTreeSet<String>, RepositoryError> {
        let mut spoken_of = BTreeSet::new();
        let mut by_object: BTreeMap<String, BTreeSet<BaseId>> =
            flaws.iter().map(|flaw| (flaw.object.clone(), BTreeSet::new())).collect();
        for base in &self.bases {
            let label = match repository.label(&base.id).await {
                Ok(label) => label,
                // It went, or is a flaw of its own.
                Err(RepositoryError::Object { .. }) => continue,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            spoken_of.extend(all_of(&label).map(|one| &one.name).filter(|name| by_object.contains_key(*name)).cloned());
            for needed in label.manifest.iter().chain(&label.objects) {
                if let Some(bases) = by_object.get_mut(&needed.name) {
                    bases.insert(base.id.clone());
                }
            }
        }
        let all: BTreeSet<BaseId> = by_object.values().flatten().cloned().collect();
        for flaw in flaws {
            let bases = by_object.remove(&flaw.object).unwrap_or_default();
            // Together they may cost more than each of them.
            flaw.lost = if bases.is_empty() { Vec::new() } else { self.without(&all) };
            flaw.lost.retain(|lost| bases.iter().any(|id| self.serves(id, lost)));
            flaw.bases = bases.into_iter().collect();
        }
        Ok(spoken_of)
    }

    /// Whether a base backup would lead into a window.
    fn serves(&self, id: &BaseId, lost: &LostWindow) -> bool {
        let base = self.bases.iter().find(|base| base.id == *id);
        base.is_some_and(|base| base.branch == lost.branch && lost.to.is_none_or(|to| base.stop < to))
    }
}
