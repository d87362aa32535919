//! Which timeline to end on.

use walseal_common::lsn::Lsn;
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory};

use super::inventory::Inventory;
use super::refusal::PlanError;
use super::target::TimelineChoice;

/// Every branch that the repository knows, also ancestors of which only histories speak, in order.
pub fn known(inventory: &Inventory) -> Vec<Branch> {
    let cluster = inventory.identity.cluster;
    let mut all: Vec<Branch> = inventory.branches.keys().copied().collect();
    for history in inventory.branches.values().filter_map(|facts| facts.history.as_ref().ok()) {
        all.extend(history.entries.iter().filter_map(|entry| ancestor(history, entry.timeline, cluster)));
    }
    all.sort();
    all.dedup();
    all
}

fn ancestor(
    history: &TimelineHistory,
    timeline: walseal_common::timeline::TimelineId,
    cluster: SystemIdentifier,
) -> Option<Branch> {
    history.ancestor(timeline).map(|ancestor| ancestor.branch(cluster))
}

/// The history of the branch that was chosen.
///
/// Errors: no such timeline, several, or its history is not readable.
pub fn chosen(inventory: &Inventory, choice: TimelineChoice) -> Result<TimelineHistory, PlanError> {
    let all = known(inventory);
    let fits = |branch: &&Branch| match choice {
        TimelineChoice::Number(number) => branch.timeline == number,
        TimelineChoice::Branch(wanted) => **branch == wanted,
    };
    let found: Vec<Branch> = all.iter().filter(fits).copied().collect();
    match found.as_slice() {
        [] => Err(PlanError::NoSuchTimeline { asked: choice.to_string(), known: all }),
        [branch] => history(inventory, *branch),
        _ => Err(PlanError::AmbiguousTimeline { asked: choice.to_string(), branches: found }),
    }
}

/// The history of a branch: its own, or one derived from a descendant's (case 2).
fn history(inventory: &Inventory, branch: Branch) -> Result<TimelineHistory, PlanError> {
    let cluster = inventory.identity.cluster;
    let own = inventory.branches.get(&branch).map(|facts| &facts.history);
    if let Some(Ok(history)) = own {
        return Ok(history.clone());
    }
    inventory
        .branches
        .values()
        .filter_map(|facts| facts.history.as_ref().ok()?.ancestor(branch.timeline))
        .find(|derived| derived.branch(cluster) == branch)
        .ok_or_else(|| {
            let why = own.and_then(|own| own.as_ref().err()).cloned();
            let why = why.unwrap_or_else(|| "it is not in the repository".to_owned());
            let others = known(inventory).into_iter().filter(|other| *other != branch).collect();
            PlanError::HistoryMissing { branch, why, others }
        })
}

/// Where a cluster may have lived on.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// The branches that nothing grows on, by name.
    pub histories: Vec<TimelineHistory>,
    /// A refusal for each branch whose history is not readable: nobody can tell whether it is the newest.
    pub unreadable: Vec<PlanError>,
}

/// The branches that nothing grows on. An ancestor counts when it holds WAL from after the point where its child left it:
/// after a failover, what the old primary had shipped more than the new one has.
pub fn ends(inventory: &Inventory) -> Ends {
    let cluster = inventory.identity.cluster;
    let mut ends = Ends::default();
    for facts in inventory.branches.values() {
        let lives_on = inventory.branches.values().filter_map(|other| other.history.as_ref().ok()).any(|other| {
            let switch = other.end_of(facts.branch.timeline).unwrap_or(Lsn::INVALID);
            ancestor(other, facts.branch.timeline, cluster) == Some(facts.branch)
                && other.timeline != facts.branch.timeline
                && facts.known_end <= switch
        });
        if lives_on {
            continue;
        }
        match history(inventory, facts.branch) {
            Ok(history) => ends.histories.push(history),
            Err(error) => ends.unreadable.push(error),
        }
    }
    ends
}
