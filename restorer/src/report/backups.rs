//! The base backups of a month, by the ledger, with what their labels add.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::objective::{AttemptEnd, BaseAttempt, FinishedBase, base_attempts, held_drills};
use walseal_common::repository::BaseId;

use super::Facts;

/// A base backup that is whole.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finished {
    /// Its id.
    pub id: BaseId,
    /// When that was recorded.
    pub time: Timestamp,
    /// `full` or `incremental`; null where it is not there any more.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// How long it took.
    pub seconds: f64,
    /// Bytes of the cluster.
    pub cluster_size: u64,
    /// Bytes that it added.
    pub stored_size: u64,
    /// Page checksum failures that the server reported.
    pub suspect: u64,
    /// Whether a drill proved it, by the end of the report.
    pub proven: bool,
}

/// A base backup that came to nothing.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FailedBackup {
    /// Its id, where it got so far.
    pub id: Option<BaseId>,
    /// When that was recorded, or, where it never was, when it began.
    pub time: Timestamp,
    /// What failed, a word of the format; `interrupted` where no end was recorded, and another one began.
    pub class: String,
}

/// The base backups of a month.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Backups {
    /// Those that are whole.
    pub finished: Vec<Finished>,
    /// Those that came to nothing, unless somebody stopped them.
    pub failed: Vec<FailedBackup>,
    /// How many somebody stopped.
    pub stopped: usize,
}

impl Backups {
    pub(super) fn of(facts: &Facts) -> Backups {
        let mut backups = Backups::default();
        let kinds: BTreeMap<_, _> = facts.labels.iter().map(|label| (&label.id, label.kind.word())).collect();
        let entries = &facts.ledger.entries;
        let passed = held_drills(entries).filter(|(entry, passed, _)| *passed && entry.body.time < facts.until());
        let proven: BTreeSet<BaseId> = passed.filter_map(|(_, _, drill)| drill.base).collect();
        for BaseAttempt { id, time, end } in base_attempts(entries, facts.until()) {
            if !facts.period.contains(time) {
                continue;
            }
            match end {
                AttemptEnd::Stopped => backups.stopped += 1,
                AttemptEnd::Failed(class) => backups.failed.push(FailedBackup { id, time, class }),
                AttemptEnd::Finished(FinishedBase { id, cluster_size, stored_size, suspect, seconds }) => {
                    let (kind, proven) = (kinds.get(&id).copied(), proven.contains(&id));
                    let finished = Finished { id, time, kind, seconds, cluster_size, stored_size, suspect, proven };
                    backups.finished.push(finished);
                }
            }
        }
        backups
    }
}
