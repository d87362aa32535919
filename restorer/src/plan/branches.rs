//! Which timeline to end on.

use walseal_common::repository::Step;
use walseal_common::timeline::{Branch, TimelineHistory};

use super::inventory::Inventory;
use super::refusal::PlanError;
use super::target::TimelineChoice;

/// A branch that recovery may end on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The history of its timeline.
    pub history: TimelineHistory,
    /// The branch: that of the history, or one to which its WAL was adopted.
    pub branch: Branch,
}

impl End {
    /// The branches on the way to it, oldest first.
    pub fn way(&self, inventory: &Inventory) -> Vec<Step> {
        inventory.adoptions.way_to(&self.history, self.branch)
    }

    /// Whether the server whose WAL lies there was not the living one of two that wrote the same timeline (case 17).
    pub fn is_abandoned(&self, inventory: &Inventory) -> bool {
        inventory.adoptions.is_abandoned(&self.way(inventory))
    }
}

/// Every branch that the repository knows, also ancestors of which only histories speak, in order.
pub fn known(inventory: &Inventory) -> Vec<Branch> {
    let mut all: Vec<Branch> = inventory.branches.keys().copied().collect();
    for facts in inventory.branches.values() {
        if let Ok(history) = &facts.history {
            let end = End { history: history.clone(), branch: facts.branch };
            all.extend(end.way(inventory).iter().map(|step| step.branch));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// The branch that was chosen. Where a number means two servers' WAL of one timeline, it is the living one's.
///
/// Errors: no such timeline, several, or its history is not readable.
pub fn chosen(inventory: &Inventory, choice: TimelineChoice) -> Result<End, PlanError> {
    let all = known(inventory);
    let fits = |branch: &&Branch| match choice {
        TimelineChoice::Number(number) => branch.timeline == number,
        TimelineChoice::Branch(wanted) => **branch == wanted,
    };
    let found: Vec<Branch> = all.iter().filter(fits).copied().collect();
    match found.as_slice() {
        [] => Err(PlanError::NoSuchTimeline { asked: choice.to_string(), known: all }),
        [branch] => end(inventory, *branch),
        _ => {
            let ends = found.iter().filter_map(|branch| end(inventory, *branch).ok());
            let living: Vec<End> = ends.filter(|end| !end.is_abandoned(inventory)).collect();
            match living.as_slice() {
                [one]
                    if found.len() > 1
                        && found.iter().all(|other| *other == one.branch || is_left(inventory, *other)) =>
                {
                    Ok(one.clone())
                }
                _ => Err(PlanError::AmbiguousTimeline { asked: choice.to_string(), branches: found }),
            }
        }
    }
}

/// Whether the branch is known to lead to a server that is not the living one.
fn is_left(inventory: &Inventory, branch: Branch) -> bool {
    end(inventory, branch).is_ok_and(|end| end.is_abandoned(inventory))
}

/// The branch with its history: its own, or one derived from a descendant's (case 2).
fn end(inventory: &Inventory, branch: Branch) -> Result<End, PlanError> {
    let cluster = inventory.identity.cluster;
    let own = inventory.branches.get(&branch).map(|facts| &facts.history);
    if let Some(Ok(history)) = own {
        return Ok(End { history: history.clone(), branch });
    }
    let origin = inventory.adoptions.origin(branch);
    let derived = inventory
        .branches
        .values()
        .filter_map(|facts| facts.history.as_ref().ok()?.ancestor(branch.timeline))
        .find(|derived| derived.branch(cluster) == origin);
    derived.map(|history| End { history, branch }).ok_or_else(|| {
        let why = own.and_then(|own| own.as_ref().err()).cloned();
        let why = why.unwrap_or_else(|| "it is not in the repository".to_owned());
        let others = known(inventory).into_iter().filter(|other| *other != branch).collect();
        PlanError::HistoryMissing { branch: origin, why, others }
    })
}

/// Where a cluster may have lived on.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// The branches that nothing grows on, by name.
    pub ends: Vec<End>,
    /// A refusal for each branch whose history is not readable: nobody can tell whether it is the newest.
    pub unreadable: Vec<PlanError>,
}

/// The branches that nothing grows on. An ancestor counts when it holds WAL from after the point where its child left it:
/// after a failover, what the old primary had shipped more than the new one has; and where two servers wrote the same timeline, what
/// is not the living one's.
pub fn ends(inventory: &Inventory) -> Ends {
    let mut ends = Ends::default();
    let readable = inventory.branches.values().filter_map(|facts| {
        let history = facts.history.as_ref().ok()?.clone();
        Some(End { history, branch: facts.branch }.way(inventory))
    });
    let ways: Vec<Vec<Step>> = readable.collect();
    for facts in inventory.branches.values() {
        let lives_on = ways
            .iter()
            .flatten()
            .any(|step| step.branch == facts.branch && step.switch.is_some_and(|switch| facts.known_end <= switch));
        if lives_on {
            continue;
        }
        match end(inventory, facts.branch) {
            Ok(end) => ends.ends.push(end),
            Err(error) => ends.unreadable.push(error),
        }
    }
    ends
}
