//! What a scrub finds: which object, what that costs, and what cures it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cure;
use crate::lsn::Lsn;
use crate::repository::{BaseId, ObjectName, RepositoryError, SnapshotId};
use crate::seal::SealError;
use crate::store::StoreErrorKind;
use crate::timeline::Branch;

/// What is wrong, in a word. The words are an interface: scripts and monitors match on them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlawKind {
    /// Something says that it was there, and it is not.
    Missing,
    /// WAL between other WAL, or before the end that something vouches for, is not there, and nobody recorded that it was lost.
    Hole,
    /// The newest end of what a witness outside the repository has seen is not there any more.
    CutOff,
    /// Its bytes are not what its writer signed.
    Damaged,
    /// It was signed under another name, for another cluster, or as another kind of object.
    Misplaced,
    /// It was signed under this name, and is not the one that others speak of.
    Replaced,
    /// It was signed by a writer that is not trusted, or not with such objects.
    Untrusted,
    /// The store does not give it.
    Unreadable,
    /// The ledger is not as its writers wrote it.
    Ledger,
    /// A file of a base backup is not what its list of files, or the server's manifest, says. Seen with keys only.
    File,
    /// Records of WAL do not follow one another. Seen with keys only.
    Record,
}

impl FlawKind {
    /// The word for people and machines.
    pub const fn word(self) -> &'static str {
        match self {
            FlawKind::Missing => "missing",
            FlawKind::Hole => "hole",
            FlawKind::CutOff => "cut-off",
            FlawKind::Damaged => "damaged",
            FlawKind::Misplaced => "misplaced",
            FlawKind::Replaced => "replaced",
            FlawKind::Untrusted => "untrusted",
            FlawKind::Unreadable => "unreadable",
            FlawKind::Ledger => "ledger",
            FlawKind::File => "file",
            FlawKind::Record => "record",
        }
    }
}

impl fmt::Display for FlawKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Positions that cannot be restored to any more, on one branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LostWindow {
    /// The branch.
    pub branch: Branch,
    /// From here on.
    pub from: Lsn,
    /// Up to here, where the next base backup begins to serve; `None`: to the branch's end, and on the timelines that come of it.
    pub to: Option<Lsn>,
}

impl fmt::Display for LostWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) => write!(f, "{} to {to} on branch {}", self.from, self.branch),
            None => write!(f, "everything from {} on, on branch {} and what comes of it", self.from, self.branch),
        }
    }
}

/// Something that is wrong with a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Flaw {
    /// What it is, in a word.
    pub kind: FlawKind,
    /// The object's name; of what has none, where it would be: `wal/<branch>` and positions.
    pub object: String,
    /// What is wrong, in words.
    pub what: String,
    /// Base backups that cannot be restored because of it.
    pub bases: Vec<BaseId>,
    /// Snapshots that cannot be restored because of it.
    #[serde(default)]
    pub snapshots: Vec<SnapshotId>,
    /// What cannot be restored to because of it.
    pub lost: Vec<LostWindow>,
    /// What to do, the best first.
    pub cure: Vec<String>,
}

impl Flaw {
    /// One of which nobody has said yet what it costs.
    pub fn new(kind: FlawKind, object: impl fmt::Display, what: impl Into<String>) -> Flaw {
        let (bases, snapshots, lost, cure) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Flaw { kind, object: object.to_string(), what: what.into(), bases, snapshots, lost, cure }
    }

    /// What an error says about one object; `None` where it is about the store, and nothing is known of the object.
    pub fn of(name: &ObjectName, error: &RepositoryError) -> Option<Flaw> {
        let (kind, what) = match error {
            RepositoryError::Object { source, .. } => (kind_of(source), source.to_string()),
            RepositoryError::Adoption { why, .. } => (FlawKind::Damaged, why.clone()),
            RepositoryError::Store(error) => match error.kind {
                StoreErrorKind::NotFound => (FlawKind::Missing, "it is not there".to_owned()),
                StoreErrorKind::Denied | StoreErrorKind::Protocol => (FlawKind::Unreadable, error.reason.clone()),
                _ => return None,
            },
            _ => return None,
        };
        Some(Flaw::new(kind, name, what))
    }

    /// With what to do.
    #[must_use]
    pub fn cured_by(mut self, cure: impl IntoIterator<Item = String>) -> Flaw {
        self.cure = cure.into_iter().collect();
        self
    }

    /// As one of an object of the snapshot `id`, or of its label: what it costs, and what to do.
    #[must_use]
    pub(super) fn costing_snapshot(mut self, id: &SnapshotId) -> Flaw {
        self.snapshots = vec![id.clone()];
        self.cured_by(cure::of_snapshot())
    }
}

fn kind_of(error: &SealError) -> FlawKind {
    match error {
        SealError::UntrustedWriter(_) | SealError::WrongRole { .. } => FlawKind::Untrusted,
        SealError::WrongIdentity(_) => FlawKind::Unreadable,
        SealError::WrongName { .. } | SealError::WrongCluster { .. } => FlawKind::Misplaced,
        _ => FlawKind::Damaged,
    }
}

/// One line, without cost and cure.
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.object, self.what)
    }
}
