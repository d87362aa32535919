//! The newest that somebody outside the repository has seen of it. Whoever controls the bucket can take its newest end away, and what is
//! left looks whole: every signature and every chain in it verifies. Only against a witness outside does it show.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::repository::{BaseId, BranchFrontier, Head, SnapshotId};
use crate::timeline::{Branch, SystemIdentifier};

/// Runs of the ledger that are remembered, those with the newest entries.
const MOST_RUNS: usize = 1000;

/// The newest of a repository, as it was seen once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heads {
    /// The cluster.
    pub cluster: SystemIdentifier,
    /// When it was last seen, by the clock of whoever saw it.
    pub seen: Timestamp,
    /// Up to where the WAL of each branch was there.
    pub branches: Vec<BranchFrontier>,
    /// The last entry of each run of the ledger.
    pub runs: Vec<Head>,
    /// The newest base backup.
    pub base: Option<BaseId>,
    /// The newest snapshot.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
}

impl Heads {
    /// Nothing was seen yet.
    pub fn none(cluster: SystemIdentifier, seen: Timestamp) -> Heads {
        Heads { cluster, seen, branches: Vec::new(), runs: Vec::new(), base: None, snapshot: None }
    }

    /// Up to where the WAL of `branch` was there.
    pub fn end_of(&self, branch: Branch) -> Option<Lsn> {
        self.branches.iter().find(|one| one.branch == branch).map(|one| one.frontier)
    }

    /// Notes that the WAL of `branch` was there up to `frontier`. What was seen once stays seen: a lower position changes nothing.
    pub fn note(&mut self, branch: Branch, frontier: Lsn) {
        match self.branches.iter_mut().find(|one| one.branch == branch) {
            Some(known) => known.frontier = known.frontier.max(frontier),
            None => self.branches.push(BranchFrontier { branch, frontier }),
        }
    }

    /// What `newer` saw as well. Nothing that was seen once is forgotten, so that what is cut off stays missed until somebody says
    /// that it is known.
    pub fn merge(&mut self, newer: &Heads) {
        self.seen = newer.seen;
        for BranchFrontier { branch, frontier } in &newer.branches {
            self.note(*branch, *frontier);
        }
        for head in &newer.runs {
            let same = |known: &Head| (known.writer, known.run) == (head.writer, head.run);
            match self.runs.iter_mut().find(|known| same(known)) {
                Some(known) if known.sequence < head.sequence => *known = head.clone(),
                Some(_) => {}
                None => self.runs.push(head.clone()),
            }
        }
        // Newer ones were added last.
        let old = self.runs.len().saturating_sub(MOST_RUNS);
        self.runs.drain(..old);
        self.base = newer.base.clone().max(self.base.take());
        self.snapshot = newer.snapshot.clone().max(self.snapshot.take());
    }
}

/// Heads, and where they come from.
#[derive(Clone, Debug)]
pub struct Witness {
    /// What was seen.
    pub heads: Heads,
    /// By whom, for messages: "this host remembers", "the daemon says".
    pub who: String,
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::repository::RunId;
    use crate::seal::{ObjectDigest, WriterKey};

    #[test]
    fn what_was_seen_once_is_never_forgotten() {
        let branch: Branch = "00000001-a2dd04c7".parse().expect("a branch");
        let (writer, run) = (WriterKey::generate().expect("random bytes").public(), RunId::random().expect("random"));
        let head = |sequence| Head { writer, run, sequence, digest: ObjectDigest::of(&[sequence as u8]) };
        let mut heads = Heads::none(SystemIdentifier(7), Timestamp::UNIX_EPOCH);
        let newest: BaseId = "20261121T023000Z-0000002a".parse().expect("an id");
        let dumped: SnapshotId = "20261121T033000Z-0000002b".parse().expect("an id");
        let (base, snapshot) = (Some(newest.clone()), Some(dumped.clone()));
        let mut seen = Heads { base, snapshot, runs: vec![head(3)], ..heads.clone() };
        seen.note(branch, Lsn(0x300));
        heads.merge(&seen);
        let mut cut = Heads { seen: Timestamp::MAX, runs: vec![head(2)], ..Heads::none(heads.cluster, heads.seen) };
        cut.note(branch, Lsn(0x200));
        heads.merge(&cut);
        assert_eq!((heads.end_of(branch), heads.base.as_ref()), (Some(Lsn(0x300)), Some(&newest)));
        assert_eq!((heads.snapshot.as_ref(), &heads.runs[..]), (Some(&dumped), &[head(3)][..]));
        let text = serde_json::to_string(&heads).expect("serialises");
        assert_eq!(serde_json::from_str::<Heads>(&text).expect("parses"), heads);
        // A file of an earlier version does not speak of snapshots.
        let mut old = serde_json::to_value(&heads).expect("JSON");
        old.as_object_mut().expect("an object").remove("snapshot");
        assert_eq!(serde_json::from_value::<Heads>(old).expect("still read").snapshot, None);
    }
}
