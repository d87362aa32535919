//! Adoptions: two servers wrote the same timeline, and somebody has said which of them is alive (case 17).
//!
//! The first of the two to store WAL holds its write-once names. Where the living one came second, its WAL goes on on a branch of its
//! own, from the segment on in which the two part: a fork within one number of a timeline.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ObjectName, Repository, RepositoryError};
use crate::lsn::Lsn;
use crate::seal::{Kind, WriterKey};
use crate::store::PutOutcome;
use crate::timeline::{Branch, Leg, SystemIdentifier, TimelineHistory};

/// From where on the WAL of a timeline lies on another branch; the body of an `adopt` object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Adoption {
    /// The branch that is left.
    pub branch: Branch,
    /// Where: the start of the segment in which the two servers' WAL first differs.
    pub from: Lsn,
    /// The branch that goes on: of the same timeline. It holds a piece of the segment at `from`, or of the first one behind a gap
    /// that begins there, before this is written.
    pub to: Branch,
    /// The public key of the living server's writer.
    pub writer: String,
    /// When somebody said so, by the archiver's clock.
    pub found: Timestamp,
    /// Branches of later timelines that were there then, and that the living server does not come from: where they left `branch`
    /// beyond `from`, they come from the other server.
    #[serde(default)]
    pub apart: Vec<Branch>,
}

/// One branch on the way of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The branch.
    pub branch: Branch,
    /// Where the way comes to it: the switch point from its parent, or where it was adopted; 0/0 for the first.
    pub begin: Lsn,
    /// Where the way leaves it; `None` for the last step. `begin <= switch`.
    pub switch: Option<Lsn>,
}

/// Every adoption in a repository: on which branches the WAL of a history lies.
#[derive(Clone, Debug)]
pub struct Adoptions {
    cluster: SystemIdentifier,
    /// By the branch that is left, in the order of their numbers; the last one counts.
    by_branch: BTreeMap<Branch, Vec<(u32, Adoption)>>,
}

/// Names that one call lists.
const PER_PAGE: usize = 1000;

impl Adoptions {
    /// Those of a cluster that has none.
    pub fn none(cluster: SystemIdentifier) -> Adoptions {
        Adoptions { cluster, by_branch: BTreeMap::new() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_branch.is_empty()
    }

    /// All of them, by branch and number.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectName, &Adoption)> {
        self.by_branch.iter().flat_map(|(branch, all)| {
            all.iter().map(|(number, adoption)| (ObjectName::Adopt(*branch, *number), adoption))
        })
    }

    /// The branches on which the WAL of `history` lies, oldest first: those that its entries name, and where WAL of one of its
    /// timelines was adopted, the branch that was adopted from there on.
    pub fn way(&self, history: &TimelineHistory) -> Vec<Step> {
        self.steps(history, None)
    }

    /// The same up to `end`, a branch of the history's own timeline: also one that was left since.
    pub fn way_to(&self, history: &TimelineHistory, end: Branch) -> Vec<Step> {
        self.steps(history, Some(end))
    }

    /// The branch on which the WAL of `history` goes on.
    pub fn branch_of(&self, history: &TimelineHistory) -> Branch {
        self.way(history).last().map_or_else(|| history.branch(self.cluster), |step| step.branch)
    }

    /// The branch on which the byte at `lsn` lies of the timeline whose branch by its history is `origin`.
    pub fn at(&self, origin: Branch, lsn: Lsn) -> Branch {
        let mut branch = origin;
        while let Some((_, next)) = self.last(branch).filter(|(_, next)| next.from <= lsn) {
            branch = next.to;
        }
        branch
    }

    /// The branch by its history alone from which `branch` was adopted; itself where it was not.
    pub fn origin(&self, branch: Branch) -> Branch {
        self.lineage(branch).first().map_or(branch, |(_, first)| first.branch)
    }

    /// The adoption by which WAL came to `branch`, where it did.
    pub fn leading_to(&self, branch: Branch) -> Option<(ObjectName, &Adoption)> {
        self.iter().find(|(_, adoption)| adoption.to == branch)
    }

    /// Whether the way `steps` goes along a branch beyond the place where its WAL was adopted to another: it leads to the server that
    /// is not the living one.
    pub fn is_abandoned(&self, steps: &[Step]) -> bool {
        steps.iter().any(|step| {
            let left = self.by_branch.get(&step.branch).into_iter().flatten();
            // A way that comes to the branch beyond that place leaves it where it comes.
            let at = |adoption: &Adoption| adoption.from.max(step.begin);
            left.into_iter().any(|(_, adoption)| step.switch.is_none_or(|switch| switch > at(adoption)))
        })
    }

    /// The next adoption by which WAL leaves `branch`, which lies on the way of `history`: its number, and the branch to which WAL
    /// goes from `from` on.
    pub fn next_of(&self, history: &TimelineHistory, branch: Branch, from: Lsn, writer: &str) -> (u32, Branch) {
        let number = self.last(branch).map_or(0, |(last, _)| last.saturating_add(1));
        let mut lines: Vec<String> =
            self.lineage(branch).iter().map(|(number, before)| line(*number, before)).collect();
        lines.push(words(from, number, writer));
        let own = history.ancestor(branch.timeline).unwrap_or_else(|| TimelineHistory::root(branch.timeline));
        (number, own.branch_after(self.cluster, &lines))
    }

    fn last(&self, branch: Branch) -> Option<(u32, &Adoption)> {
        self.by_branch.get(&branch)?.last().map(|(number, adoption)| (*number, adoption))
    }

    /// The adoptions by which WAL came to `branch`, from the branch by its history on.
    fn lineage(&self, branch: Branch) -> Vec<(u32, &Adoption)> {
        let mut lineage = Vec::new();
        let mut at = branch;
        let into = |at: Branch| self.by_branch.values().flatten().find(|(_, adoption)| adoption.to == at);
        while let Some((number, adoption)) = into(at) {
            lineage.push((*number, adoption));
            at = adoption.branch;
        }
        lineage.reverse();
        lineage
    }

    /// The way to `end`, a branch that may have been adopted, of a timeline whose ancestors by its history alone are `ancestors`,
    /// oldest first: for who does not have the history itself.
    pub fn way_along(&self, ancestors: &[Leg], end: Branch) -> Vec<Step> {
        self.along(ancestors, self.origin(end), Some(end))
    }

    fn steps(&self, history: &TimelineHistory, end: Option<Branch>) -> Vec<Step> {
        self.along(&history.legs(self.cluster), history.branch(self.cluster), end)
    }

    fn along(&self, ancestors: &[Leg], origin: Branch, end: Option<Branch>) -> Vec<Step> {
        let lineage = end.map(|end| self.lineage(end));
        let children = ancestors.iter().skip(1).map(|leg| leg.branch).chain([origin]).map(Some);
        let timelines = ancestors.iter().map(|leg| (leg.branch, Some(leg.end)));
        let timelines = timelines.zip(children).chain([((origin, None), None)]);
        let mut begin = Lsn::INVALID;
        let mut steps = Vec::new();
        for ((origin, switch), child) in timelines {
            let mut branch = origin;
            loop {
                let next = match &lineage {
                    Some(lineage) if child.is_none() => {
                        lineage.iter().map(|(_, adoption)| *adoption).find(|next| next.branch == branch)
                    }
                    _ => self.leaving(branch, switch, child),
                };
                let Some(next) = next else { break };
                // A segment in which a timeline begins holds what lies before, too.
                let at = next.from.max(begin);
                steps.push(Step { branch, begin, switch: Some(at) });
                (branch, begin) = (next.to, at);
            }
            steps.push(Step { branch, begin, switch });
            begin = switch.unwrap_or(begin);
        }
        steps
    }

    /// The adoption that counts for who went along `branch` up to `switch`, and on to `child`.
    fn leaving(&self, branch: Branch, switch: Option<Lsn>, child: Option<Branch>) -> Option<&Adoption> {
        let all = self.by_branch.get(&branch)?.iter().rev().map(|(_, adoption)| adoption);
        let mut counting = all.filter(|adoption| {
            switch.is_none_or(|switch| adoption.from < switch)
                && child.is_none_or(|child| !adoption.apart.contains(&child))
        });
        counting.next()
    }

    /// Takes one more in.
    ///
    /// Errors: why it cannot be true.
    fn add(&mut self, number: u32, adoption: Adoption) -> Result<(), String> {
        let Adoption { branch, to, .. } = &adoption;
        if to.timeline != branch.timeline {
            return Err(format!("it leads from branch {branch} to {to}, which is another timeline"));
        }
        if let Some((other, _)) = self.leading_to(*to) {
            return Err(format!("it leads to branch {to}, and so does {other}"));
        }
        if self.origin(*branch) == *to || branch == to {
            return Err(format!("it leads to branch {to}, from which it comes"));
        }
        self.by_branch.entry(*branch).or_default().push((number, adoption));
        Ok(())
    }
}

/// What stands for an adoption in the digest of the branch to which it leads.
fn line(number: u32, adoption: &Adoption) -> String {
    words(adoption.from, number, &adoption.writer)
}

fn words(from: Lsn, number: u32, writer: &str) -> String {
    format!("adopted\t{from}\t{number}\t{writer}")
}

impl Repository {
    /// Every adoption. Cost: a listing, and a small read for each.
    ///
    /// Errors: the store's; [`RepositoryError::Adoption`] for one that cannot be used: none is passed over, because WAL would land
    /// on another branch without it.
    pub async fn adoptions(&self) -> Result<Adoptions, RepositoryError> {
        let mut adoptions = Adoptions::none(self.cluster());
        let mut pages = self.pages("adopt/", None, PER_PAGE);
        while let Some(page) = pages.next().await? {
            for meta in &page {
                // Other names are somebody else's.
                if let Ok(name @ ObjectName::Adopt(_, number)) = meta.key.parse::<ObjectName>() {
                    let unusable = |why: String| RepositoryError::Adoption { name: name.to_string(), why };
                    let adoption = self.adoption(&name).await.map_err(|error| match error {
                        RepositoryError::Object { source, .. } => unusable(source.to_string()),
                        other => other,
                    })?;
                    adoptions.add(number, adoption).map_err(unusable)?;
                }
            }
        }
        Ok(adoptions)
    }

    async fn adoption(&self, name: &ObjectName) -> Result<Adoption, RepositoryError> {
        let body = self.read(name).await?.trailer.body();
        let adoption: Adoption = body.map_err(|source| self.refused(name, source))?;
        if matches!(name, ObjectName::Adopt(branch, _) if *branch == adoption.branch) {
            return Ok(adoption);
        }
        let why = format!("it stands under the name of another branch than {}, which it is about", adoption.branch);
        Err(RepositoryError::Adoption { name: name.to_string(), why })
    }

    /// Writes an adoption under its number. It counts from now on.
    ///
    /// Errors: the store's; [`RepositoryError::Adoption`] when somebody else was faster.
    pub async fn put_adoption(
        &self,
        number: u32,
        adoption: &Adoption,
        writer: &WriterKey,
    ) -> Result<ObjectName, RepositoryError> {
        let name = ObjectName::Adopt(adoption.branch, number);
        let object = self.signed(Kind::Adopt, &name, adoption, writer)?;
        match self.put(&object).await? {
            PutOutcome::Created => Ok(name),
            PutOutcome::AlreadyExists => {
                let why = "somebody else adopted WAL of this branch at the same time; look what it says".to_owned();
                Err(RepositoryError::Adoption { name: name.to_string(), why })
            }
        }
    }
}

impl Adoptions {
    /// Branches to which WAL was adopted, and those that it left.
    pub fn branches(&self) -> BTreeSet<Branch> {
        self.iter().flat_map(|(_, adoption)| [adoption.branch, adoption.to]).collect()
    }
}

#[cfg(test)]
mod tests;
