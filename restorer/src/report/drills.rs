//! The drills of a month, by the ledger.

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::objective::held_drills;
use walseal_common::repository::BaseId;

use super::Facts;

/// A drill that was held.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct HeldDrill {
    /// When it was judged.
    pub time: Timestamp,
    /// Who held it.
    pub actor: String,
    /// Whether every check ran and passed.
    pub passed: bool,
    /// The base backup; null where none was found to begin from.
    pub base: Option<BaseId>,
    /// The kind of the target.
    pub target: String,
    /// Bytes of files that were restored.
    pub bytes: u64,
    /// Checks that passed.
    pub checks_passed: u32,
    /// Of them, those that have something to say.
    pub checks_warned: u32,
    /// What failed, or could not run.
    pub failed: Vec<String>,
    /// From the beginning to the verdict.
    pub seconds: f64,
    /// From the beginning to the answer to the first query, where there was one.
    pub first_query_seconds: Option<f64>,
    /// The object with all that was found.
    pub evidence: Option<String>,
}

/// The drills of a month.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Drills {
    /// All of them, by time.
    pub held: Vec<HeldDrill>,
}

impl Drills {
    pub(super) fn of(facts: &Facts) -> Drills {
        let mut drills = Drills::default();
        for (entry, passed, found) in held_drills(&facts.ledger.entries) {
            if !facts.period.contains(entry.body.time) {
                continue;
            }
            drills.held.push(HeldDrill {
                time: entry.body.time,
                actor: entry.body.actor.clone(),
                passed,
                base: found.base,
                target: found.target,
                bytes: found.bytes,
                checks_passed: found.passed,
                checks_warned: found.warned,
                failed: found.failed,
                seconds: found.seconds,
                first_query_seconds: found.first_query_seconds,
                evidence: found.evidence.map(|evidence| evidence.name),
            });
        }
        drills.held.sort_by_key(|drill| drill.time);
        drills
    }
}
