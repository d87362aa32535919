//! What was promised, and how far it was kept: follows from what trusted writers signed, the ledger and the frontiers, without I/O.
//! The report of a month and the archiver's `status` and metrics say the same of the same time.

mod attempt;
mod loss;
mod promise;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::repository::{FrontierRecord, LedgerEntry};

pub use attempt::{AttemptEnd, BaseAttempt, FinishedBase, base_attempts, held_drills};
pub use loss::{Loss, Outage, Trouble, Word, kept_from};
pub use promise::Promises;

/// What is known of a time.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end, which does not belong to it.
    pub until: Timestamp,
    /// The ledger, by time; entries of other times tell what was under way.
    pub entries: &'a [LedgerEntry],
    /// What the writers said in it of how far WAL was durable, and of each the last word before, by time.
    pub frontiers: &'a [FrontierRecord],
}

impl Observed<'_> {
    /// Whether `time` lies in it.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from <= time && time < self.until
    }
}

/// A share of attempts that went well.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Success {
    /// Those that did.
    pub good: usize,
    /// All of them.
    pub all: usize,
    /// From 0 to 1; null where there was none.
    pub share: Option<f64>,
}

impl Success {
    fn of(good: usize, all: usize) -> Success {
        Success { good, all, share: (all > 0).then(|| good as f64 / all as f64) }
    }
}

/// How far what was promised was kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Objectives {
    /// Share of the measured time in which no more than the objective would have been lost; null where nothing was measured.
    pub within_rpo: Option<f64>,
    /// Seconds for which that is known.
    pub measured_seconds: f64,
    /// Drills that passed.
    pub drills: Success,
    /// Of the drills that passed, those whose first query was answered in time; null without an objective.
    pub within_rto: Option<Success>,
    /// Base backups that were finished.
    pub backups: Success,
    /// Times in which more than the objective would have been lost.
    pub outages: usize,
    /// Those of which no alert told.
    pub undetected: usize,
    /// From the beginning of an outage to the first alert, on average over those that one told of; null where none was.
    pub mean_seconds_to_detect: Option<f64>,
}

impl Objectives {
    /// How far `promises` were kept in the time that was observed, in which `loss` would have been lost.
    pub fn of(promises: &Promises, observed: &Observed<'_>, loss: &Loss) -> Objectives {
        let detected: Vec<f64> = loss.outages.iter().filter_map(|outage| outage.seconds_to_detect).collect();
        let drills: Vec<_> =
            held_drills(observed.entries).filter(|(entry, ..)| observed.contains(entry.body.time)).collect();
        let passed = || drills.iter().filter(|(_, passed, _)| *passed);
        let within_rto = promises.rto_seconds.map(|limit| {
            let times: Vec<f64> = passed().filter_map(|(_, _, facts)| facts.first_query_seconds).collect();
            Success::of(times.iter().filter(|seconds| **seconds <= limit).count(), times.len())
        });
        let attempts = base_attempts(observed.entries, observed.until);
        let ended = |good: fn(&AttemptEnd) -> bool| {
            let attempts = attempts.iter().filter(|attempt| observed.contains(attempt.time));
            attempts.filter(|attempt| good(&attempt.end)).count()
        };
        let finished = ended(|end| matches!(end, AttemptEnd::Finished(_)));
        let failed = ended(|end| matches!(end, AttemptEnd::Failed(_)));
        Objectives {
            within_rpo: (loss.measured_seconds > 0.0).then(|| loss.within_seconds / loss.measured_seconds),
            measured_seconds: loss.measured_seconds,
            drills: Success::of(passed().count(), drills.len()),
            within_rto,
            backups: Success::of(finished, finished + failed),
            outages: loss.outages.len(),
            undetected: loss.outages.len() - detected.len(),
            mean_seconds_to_detect: (!detected.is_empty())
                .then(|| detected.iter().sum::<f64>() / detected.len() as f64),
        }
    }
}
