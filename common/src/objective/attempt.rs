//! Base backups and drills that were begun, and how each ended, by the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::repository::{BaseId, DrillFacts, LedgerEntry};

/// A base backup that was begun.
#[derive(Clone, PartialEq, Debug)]
pub struct BaseAttempt {
    /// Its id, where it got so far.
    pub id: Option<BaseId>,
    /// When its end was recorded, or, where it never was, when it began.
    pub time: Timestamp,
    /// How it ended.
    pub end: AttemptEnd,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Debug)]
pub enum AttemptEnd {
    /// It is whole.
    Finished(FinishedBase),
    /// It came to nothing. What failed, a word of the format; `interrupted` where no end was recorded, and another one began.
    Failed(String),
    /// Somebody stopped it, which counts as neither.
    Stopped,
}

/// What was recorded of a base backup that is whole.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct FinishedBase {
    /// Its id.
    pub id: BaseId,
    /// Bytes of the cluster.
    pub cluster_size: u64,
    /// Bytes that it added.
    pub stored_size: u64,
    /// Page checksum failures that the server reported.
    #[serde(default)]
    pub suspect: u64,
    /// How long it took.
    pub seconds: f64,
}

#[derive(Deserialize)]
struct FailedFacts {
    id: Option<BaseId>,
    class: String,
}

#[derive(Deserialize)]
struct StartedFacts {
    id: BaseId,
}

/// The base backups of all `entries` before `until` whose end is known, by time.
pub fn base_attempts(entries: &[LedgerEntry], until: Timestamp) -> Vec<BaseAttempt> {
    let (mut attempts, mut last_begun) = (Vec::new(), None);
    let mut open: BTreeMap<BaseId, Timestamp> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.body.time < until) {
        let time = entry.body.time;
        match entry.body.act.as_str() {
            "base-started" => {
                if let Some(StartedFacts { id }) = entry.facts() {
                    last_begun = Some(time).max(last_begun);
                    open.insert(id, time);
                }
            }
            "base-finished" => {
                let Some(finished) = entry.facts::<FinishedBase>() else { continue };
                open.remove(&finished.id);
                let id = Some(finished.id.clone());
                attempts.push(BaseAttempt { id, time, end: AttemptEnd::Finished(finished) });
            }
            "base-failed" => {
                let Some(FailedFacts { id, class }) = entry.facts() else { continue };
                if let Some(id) = &id {
                    open.remove(id);
                }
                let end = if class == "stopped" { AttemptEnd::Stopped } else { AttemptEnd::Failed(class) };
                attempts.push(BaseAttempt { id, time, end });
            }
            _ => {}
        }
    }
    // The last one may still go on.
    let interrupted = open.into_iter().filter(|(_, time)| last_begun.is_some_and(|last| *time < last));
    attempts.extend(interrupted.map(|(id, time)| {
        let end = AttemptEnd::Failed("interrupted".to_owned());
        BaseAttempt { id: Some(id), time, end }
    }));
    attempts.sort_by_key(|attempt| attempt.time);
    attempts
}

/// Every drill of `entries`, whether each of its checks ran and passed, and what was recorded of it.
pub fn held_drills(entries: &[LedgerEntry]) -> impl Iterator<Item = (&LedgerEntry, bool, DrillFacts)> {
    entries.iter().filter_map(|entry| {
        let passed = match entry.body.act.as_str() {
            "drill-passed" => true,
            "drill-failed" => false,
            _ => return None,
        };
        Some((entry, passed, entry.facts()?))
    })
}
