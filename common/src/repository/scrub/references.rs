//! What labels and the ledger say of other objects: their sizes and digests. About 30 bytes for each object of a base backup or of a
//! snapshot, which is some 16 MiB.

use std::collections::BTreeMap;

use super::flaw::{Flaw, FlawKind};
use crate::repository::{
    BaseId, Label, ObjectName, ObjectReference, Repository, RepositoryError, SnapshotId, SnapshotLabel,
};
use crate::seal::ObjectDigest;
use crate::store::LONGEST_PAGE;

/// An object below `base/<id>/`: which kind, and its number.
type Place = (u8, u32);

/// What is said of one object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) size: u64,
    /// The first bytes of its digest: enough to tell it from any other.
    digest: [u8; 12],
    /// Whether it is there, by name.
    pub(super) seen: bool,
}

impl Told {
    fn by(reference: &ObjectReference) -> Told {
        Told { size: reference.size, digest: short(&reference.digest), seen: false }
    }

    fn is_as(&self, other: &Told) -> bool {
        (self.size, self.digest) == (other.size, other.digest)
    }

    pub(super) fn is(&self, digest: &ObjectDigest) -> bool {
        short(digest) == self.digest
    }
}

/// Everything that is referred to.
#[derive(Clone, Debug, Default)]
pub(super) struct References {
    of_bases: BTreeMap<BaseId, BTreeMap<Place, Told>>,
    /// By number: these refer to nothing but their own.
    of_snapshots: BTreeMap<SnapshotId, BTreeMap<u32, Told>>,
    /// Evidence of drills, which the ledger names.
    evidence: BTreeMap<String, ObjectDigest>,
}

fn short(digest: &ObjectDigest) -> [u8; 12] {
    let mut short = [0; 12];
    for (to, from) in short.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    short
}

fn place(name: &ObjectName) -> Option<(&BaseId, Place)> {
    Some(match name {
        ObjectName::Manifest(id, number) => (id, (0, *number)),
        ObjectName::Data(id, number) => (id, (1, *number)),
        ObjectName::Resume(id, number) => (id, (2, *number)),
        ObjectName::Names(id, number) => (id, (3, *number)),
        ObjectName::Config(id, number) => (id, (4, *number)),
        _ => return None,
    })
}

fn name(id: &BaseId, (kind, number): Place) -> ObjectName {
    let id = id.clone();
    match kind {
        0 => ObjectName::Manifest(id, number),
        1 => ObjectName::Data(id, number),
        2 => ObjectName::Resume(id, number),
        3 => ObjectName::Names(id, number),
        _ => ObjectName::Config(id, number),
    }
}

/// Everything that a label refers to.
pub(super) fn all_of(label: &Label) -> impl Iterator<Item = &ObjectReference> {
    let resume = label.resume.iter().flat_map(|pages| pages.list.iter().chain(&pages.server_manifest));
    label.manifest.iter().chain(&label.objects).chain(&label.names).chain(&label.config).chain(resume)
}

impl References {
    /// Takes what a label refers to. Returns references that no object can have, and those of which another label says something
    /// else.
    pub(super) fn add(&mut self, label: &Label) -> Vec<(String, &'static str)> {
        let mut wrong = Vec::new();
        for reference in all_of(label) {
            let parsed = reference.name.parse::<ObjectName>();
            let Some((id, place)) = parsed.as_ref().ok().and_then(place) else {
                wrong.push((reference.name.clone(), "it is no object of a base backup"));
                continue;
            };
            let told = Told::by(reference);
            // An entry for each object costs no copy of the id.
            let of_base = match self.of_bases.get_mut(id) {
                Some(known) => known,
                None => self.of_bases.entry(id.clone()).or_default(),
            };
            if !of_base.entry(place).or_insert(told).is_as(&told) {
                wrong.push((reference.name.clone(), "another label that refers to it means other bytes"));
            }
        }
        wrong
    }

    /// Takes what the label of a snapshot refers to. Returns references that none can have, and those that do not agree.
    pub(super) fn add_snapshot(&mut self, label: &SnapshotLabel) -> Vec<(String, &'static str)> {
        let mut wrong = Vec::new();
        let of_snapshot = self.of_snapshots.entry(label.id.clone()).or_default();
        for reference in label.dump.iter().chain(&label.globals).chain(&label.facts) {
            let told = Told::by(reference);
            match reference.name.parse() {
                Ok(ObjectName::Dump(id, number)) if id == label.id => {
                    if !of_snapshot.entry(number).or_insert(told).is_as(&told) {
                        wrong.push((reference.name.clone(), "means other bytes elsewhere"));
                    }
                }
                _ => wrong.push((reference.name.clone(), "it is no object of that snapshot")),
            }
        }
        wrong
    }

    /// Takes what an entry of the ledger says of a drill's evidence.
    pub(super) fn add_evidence(&mut self, name: String, digest: ObjectDigest) {
        self.evidence.insert(name, digest);
    }

    /// Notes that an object is there, by name, and tells what is said of it.
    pub(super) fn see(&mut self, name: &ObjectName) -> Option<Told> {
        let told = match name {
            ObjectName::Dump(id, number) => self.of_snapshots.get_mut(id)?.get_mut(number)?,
            name => {
                let (id, place) = place(name)?;
                self.of_bases.get_mut(id)?.get_mut(&place)?
            }
        };
        told.seen = true;
        Some(*told)
    }

    /// What is said of an object of a base backup, or of a snapshot.
    pub(super) fn get(&self, name: &ObjectName) -> Option<Told> {
        if let ObjectName::Dump(id, number) = name {
            return self.of_snapshots.get(id)?.get(number).copied();
        }
        let (id, place) = place(name)?;
        self.of_bases.get(id)?.get(&place).copied()
    }

    /// The digest that the evidence of a drill has.
    pub(super) fn evidence(&self, name: &str) -> Option<&ObjectDigest> {
        self.evidence.get(name)
    }

    /// The names of all evidence that the ledger speaks of.
    pub(super) fn all_evidence(&self) -> impl Iterator<Item = &String> {
        self.evidence.keys()
    }

    /// The base backups of which something is referred to, in order.
    pub(super) fn bases(&self) -> impl Iterator<Item = &BaseId> {
        self.of_bases.keys()
    }

    /// Lists what lies below `prefix`, and compares sizes. Returns what is not as a label says, without a cure.
    ///
    /// Errors: the store's.
    pub(super) async fn see_below(
        &mut self,
        repository: &Repository,
        prefix: &str,
    ) -> Result<Vec<Flaw>, RepositoryError> {
        let mut wrong = Vec::new();
        let mut pages = repository.pages(prefix, None, LONGEST_PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                let Ok(name) = meta.key.parse::<ObjectName>() else { continue };
                let told = self.see(&name).filter(|told| told.size != meta.size);
                wrong.extend(told.map(|told| {
                    let what = format!("it has {} bytes, and a label says {}", meta.size, told.size);
                    Flaw::new(FlawKind::Replaced, name, what)
                }));
            }
        }
        Ok(wrong)
    }

    /// The flaw of what was not seen, without a cure.
    pub(super) fn missing(name: ObjectName) -> Flaw {
        Flaw::new(FlawKind::Missing, name, "a label refers to it, and it is not there")
    }

    /// What was not seen of base backups, in order.
    pub(super) fn unseen(&self) -> impl Iterator<Item = ObjectName> {
        self.of_bases
            .iter()
            .flat_map(|(id, places)| places.iter().filter(|(_, told)| !told.seen).map(|(place, _)| name(id, *place)))
    }

    /// What was not seen of the snapshot `id`, in order.
    pub(super) fn unseen_of(&self, id: &SnapshotId) -> impl Iterator<Item = ObjectName> {
        let places = self.of_snapshots.get(id).into_iter().flatten();
        places.filter(|(_, told)| !told.seen).map(|(number, _)| ObjectName::Dump(id.clone(), *number))
    }
}
