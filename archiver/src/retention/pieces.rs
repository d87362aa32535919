//! The objects below `base/<id>/` beside the label, by number.

use std::collections::BTreeMap;

use walseal_common::repository::{BaseId, Label, ObjectName, ObjectReference};

/// The objects below `base/<id>/`, beside the label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PieceKind {
    /// Frames of files.
    Data,
    /// Pages of the list of files.
    Manifest,
    /// What the next backup has to know.
    Resume,
    /// Which relation each file is.
    Names,
    /// Configuration files.
    Config,
}

impl PieceKind {
    /// The object's name.
    pub fn name(self, id: &BaseId, number: u32) -> ObjectName {
        let id = id.clone();
        match self {
            PieceKind::Data => ObjectName::Data(id, number),
            PieceKind::Manifest => ObjectName::Manifest(id, number),
            PieceKind::Resume => ObjectName::Resume(id, number),
            PieceKind::Names => ObjectName::Names(id, number),
            PieceKind::Config => ObjectName::Config(id, number),
        }
    }

    /// Which piece of which backup the object is.
    pub fn of(name: &ObjectName) -> Option<(&BaseId, PieceKind, u32)> {
        Some(match name {
            ObjectName::Data(id, number) => (id, PieceKind::Data, *number),
            ObjectName::Manifest(id, number) => (id, PieceKind::Manifest, *number),
            ObjectName::Resume(id, number) => (id, PieceKind::Resume, *number),
            ObjectName::Names(id, number) => (id, PieceKind::Names, *number),
            ObjectName::Config(id, number) => (id, PieceKind::Config, *number),
            _ => return None,
        })
    }
}

/// Pieces by the backup in whose folder they lie, as runs of numbers, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pieces(BTreeMap<(BaseId, PieceKind), Vec<(u32, u32)>>);

impl Pieces {
    /// Those of a label: data objects, its own and others', and pages.
    ///
    /// Errors: the name of one that is no piece of a base backup.
    pub fn of_label(label: &Label) -> Result<Pieces, String> {
        let mut pieces = Pieces::default();
        let resume = label.resume.iter().flat_map(|pages| pages.list.iter().chain(&pages.server_manifest));
        let pages = label.manifest.iter().chain(&label.names).chain(&label.config).chain(resume);
        for ObjectReference { name, .. } in label.objects.iter().chain(pages) {
            let parsed: ObjectName = name.parse().map_err(|_| name.clone())?;
            let (id, kind, number) = PieceKind::of(&parsed).ok_or_else(|| name.clone())?;
            pieces.add(id, kind, number);
        }
        pieces.settle();
        Ok(pieces)
    }

    /// Takes one in; [`Pieces::settle`] has to follow before anything is asked.
    pub fn add(&mut self, id: &BaseId, kind: PieceKind, number: u32) {
        let runs = self.0.entry((id.clone(), kind)).or_default();
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }

    /// Takes in all of `other`.
    pub fn merge(&mut self, other: &Pieces) {
        for (key, runs) in &other.0 {
            self.0.entry(key.clone()).or_default().extend(runs);
        }
        self.settle();
    }

    /// Puts runs in order, and joins those that touch.
    pub fn settle(&mut self) {
        for runs in self.0.values_mut() {
            runs.sort_unstable();
            let mut joined: Vec<(u32, u32)> = Vec::with_capacity(runs.len());
            for (first, last) in runs.drain(..) {
                match joined.last_mut() {
                    Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                    _ => joined.push((first, last)),
                }
            }
            *runs = joined;
        }
    }

    /// Whether it is among them.
    pub fn has(&self, id: &BaseId, kind: PieceKind, number: u32) -> bool {
        let runs = self.0.get(&(id.clone(), kind)).map_or(&[][..], Vec::as_slice);
        let at = runs.partition_point(|(first, _)| *first <= number);
        at.checked_sub(1).and_then(|at| runs.get(at)).is_some_and(|(_, last)| number <= *last)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&BaseId, PieceKind, u32)> {
        self.0.iter().flat_map(|((id, kind), runs)| {
            runs.iter().flat_map(move |(first, last)| (*first..=*last).map(move |number| (id, *kind, number)))
        })
    }
}
