//! Objects go: lost by accident, removed by retention, or cut off by whoever controls the store.

use std::collections::BTreeSet;

use super::World;
use crate::repository::model::truth::{Backup, Piece, UNITS};
use crate::repository::{BaseId, ObjectName, Pruned, RunId};
use crate::timeline::Branch;

impl World {
    pub(super) async fn lose(&mut self, which: usize) {
        let all: Vec<(Branch, ObjectName)> = self
            .truth
            .wal
            .iter()
            .flat_map(|(branch, pieces)| pieces.keys().map(|name| (*branch, name.clone())))
            .collect();
        if let Some((branch, name)) = which.checked_rem(all.len()).and_then(|at| all.get(at)) {
            self.remove_wal(*branch, name).await;
        }
    }

    pub(super) async fn remove_wal(&mut self, branch: Branch, name: &ObjectName) {
        self.repository.remove(name).await.expect("a store of our own");
        self.truth.wal.get_mut(&branch).expect("a branch that is there").remove(name);
    }

    pub(super) async fn lose_data(&mut self, which: usize) {
        let all: Vec<ObjectName> = self.truth.data.iter().cloned().collect();
        if let Some(name) = which.checked_rem(all.len()).and_then(|at| all.get(at)) {
            self.repository.remove(name).await.expect("a store of our own");
            self.truth.data.remove(name);
        }
    }

    /// As retention does: written down first; labels, then data that no label needs, then WAL, oldest first.
    pub(super) async fn prune(&mut self, segments: u64, broken: bool) {
        let branch = self.server.branch;
        let numbers: BTreeSet<u64> = self.truth.pieces(branch).map(|(_, piece)| piece.start / UNITS).collect();
        let numbers: BTreeSet<u64> = numbers.into_iter().take(segments as usize).collect();
        let Some(last) = numbers.last().copied() else { return };
        let mut going = Pruned::default();
        for number in &numbers {
            let range = self.truth.range(number * UNITS, (number + 1) * UNITS);
            going.add_wal(branch, range);
            let units: Vec<u64> = self.truth.units(range).collect();
            self.truth.pruned.entry(branch).or_default().extend(units);
        }
        let needs = |base: &Backup| base.labelled && base.branch == branch && base.start < (last + 1) * UNITS;
        let bases: Vec<BaseId> =
            self.truth.bases.iter().filter(|(_, base)| needs(base)).map(|(id, _)| id.clone()).collect();
        bases.iter().for_each(|id| going.add_base(id.clone()));
        self.truth.pruned_bases.extend(bases.iter().cloned());
        let run = RunId::random().expect("random");
        self.repository.put_pruned(run, going, &Pruned::default(), &self.writer).await.expect("a store of our own");
        for id in &bases {
            self.repository.remove(&ObjectName::Label(id.clone())).await.expect("a store of our own");
            self.truth.bases.get_mut(id).expect("a base backup that is there").labelled = false;
        }
        let labelled = self.truth.bases.values().filter(|base| base.labelled);
        let needed: BTreeSet<ObjectName> = labelled.flat_map(|base| base.needs.iter().cloned()).collect();
        let free: Vec<ObjectName> = self.truth.data.difference(&needed).cloned().collect();
        for name in free {
            self.repository.remove(&name).await.expect("a store of our own");
            self.truth.data.remove(&name);
        }
        let goes = |piece: &Piece| numbers.contains(&(piece.start / UNITS));
        let mut names: Vec<(u64, ObjectName)> = self
            .truth
            .pieces(branch)
            .filter(|(_, piece)| goes(piece))
            .map(|(name, piece)| (piece.start, name.clone()))
            .collect();
        names.sort();
        let done = if broken { names.len() / 2 } else { names.len() };
        for (_, name) in names.into_iter().take(done) {
            self.remove_wal(branch, &name).await;
        }
    }

    /// The objects of the branch that is written, newest first.
    pub(super) fn newest(&self) -> Vec<ObjectName> {
        let mut all: Vec<(u64, ObjectName)> =
            self.truth.pieces(self.server.branch).map(|(name, piece)| (piece.start, name.clone())).collect();
        all.sort();
        all.into_iter().rev().map(|(_, name)| name).collect()
    }

    pub(super) async fn cut_off(&mut self, objects: usize, frontiers: usize, label: bool) {
        for name in self.newest().into_iter().take(objects) {
            self.remove_wal(self.server.branch, &name).await;
        }
        for (writer, key) in self.writers.iter().enumerate() {
            let words = self.truth.words.range((writer, 0)..(writer + 1, 0));
            let numbers: Vec<u64> = words.map(|((_, number), _)| *number).take(frontiers).collect();
            for number in numbers {
                let name = ObjectName::Frontier(Box::new(key.public()), number);
                self.repository.remove(&name).await.expect("a store of our own");
                self.truth.words.remove(&(writer, number));
            }
        }
        let newest = self.truth.bases.iter_mut().rfind(|(_, base)| base.labelled && label);
        if let Some((id, base)) = newest {
            base.labelled = false;
            self.repository.remove(&ObjectName::Label(id.clone())).await.expect("a store of our own");
        }
    }
}
