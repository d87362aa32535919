//! What a drill found: the document that becomes its evidence.

use std::future::Future;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use walseal_common::lsn::Lsn;
use walseal_common::repository::BaseId;
use walseal_common::seal::ObjectDigest;
use walseal_common::terminal::Schema;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::{Branch, SystemIdentifier};

use crate::instance::Preload;
use crate::plan::TransactionPoint;

/// Name and version of [`Report`] as JSON.
pub const SCHEMA: Schema = Schema { name: "drill", version: 1 };

/// What a check is about. The words stand in the ledger (section 9 of the format).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A target was found.
    Target,
    /// The repository leads there.
    Plan,
    /// The files could be restored.
    Restore,
    /// Recovery came to its end.
    Recovery,
    /// It ended exactly where it should.
    Precision,
    /// The canary's rows.
    Canary,
    /// How much would be lost, and how long it would take.
    Freshness,
    /// Libraries that the cluster's functions are in.
    Extensions,
    /// Indexes that PostgreSQL does not use.
    Indexes,
    /// Collations that sort otherwise here.
    Collations,
    /// Tables and indexes fit together.
    Structure,
    /// Tables and their rows are there.
    Counts,
    /// Rows that refer to others have them.
    ForeignKeys,
    /// The user's own questions.
    Assertions,
    /// Every page is what it says.
    Pages,
    /// The next base backup was made of it.
    Base,
    /// Its databases were dumped.
    Snapshot,
}

impl Kind {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Target => "target",
            Kind::Plan => "plan",
            Kind::Restore => "restore",
            Kind::Recovery => "recovery",
            Kind::Precision => "precision",
            Kind::Canary => "canary",
            Kind::Freshness => "freshness",
            Kind::Extensions => "extensions",
            Kind::Indexes => "indexes",
            Kind::Collations => "collations",
            Kind::Structure => "structure",
            Kind::Counts => "counts",
            Kind::ForeignKeys => "foreign-keys",
            Kind::Assertions => "assertions",
            Kind::Pages => "pages",
            Kind::Base => "base",
            Kind::Snapshot => "snapshot",
        }
    }
}

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As expected.
    Passed,
    /// As expected, and there is something to know.
    Warned,
    /// Not as expected.
    Failed,
    /// It could not be seen, which is no pass.
    NotRun,
}

impl Outcome {
    /// Whether the drill can pass with it.
    pub const fn is_pass(self) -> bool {
        matches!(self, Outcome::Passed | Outcome::Warned)
    }

    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Warned => "warning",
            Outcome::Failed => "FAILED",
            Outcome::NotRun => "NOT RUN",
        }
    }
}

/// One check.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What it is about.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What should be.
    pub expected: String,
    /// What is, or why it could not be seen.
    pub found: String,
    /// What there is to say beyond that, a line each.
    pub details: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// How it went.
    pub outcome: Outcome,
    /// What is.
    pub found: String,
    /// What there is to say beyond that.
    pub details: Vec<String>,
}

impl Found {
    /// As expected.
    pub fn good(found: impl Into<String>) -> Found {
        Found { outcome: Outcome::Passed, found: found.into(), details: Vec::new() }
    }

    /// Not as expected.
    pub fn bad(found: impl Into<String>) -> Found {
        Found { outcome: Outcome::Failed, found: found.into(), details: Vec::new() }
    }

    /// As expected, with something to know.
    pub fn odd(found: impl Into<String>) -> Found {
        Found { outcome: Outcome::Warned, found: found.into(), details: Vec::new() }
    }

    /// With details.
    #[must_use]
    pub fn with(mut self, details: Vec<String>) -> Found {
        self.details = details;
        self
    }
}

impl Check {
    /// Runs a check. What ends in an error was not seen, and that is a failure (I12).
    pub async fn run<E: std::fmt::Display>(
        kind: Kind,
        name: impl Into<String>,
        expected: impl Into<String>,
        look: impl Future<Output = Result<Found, E>>,
    ) -> Check {
        let begun = Instant::now();
        let found = match look.await {
            Ok(found) => found,
            Err(why) => Found { outcome: Outcome::NotRun, found: why.to_string(), details: Vec::new() },
        };
        let Found { outcome, found, details } = found;
        let (name, expected, seconds) = (name.into(), expected.into(), begun.elapsed().as_secs_f64());
        Check { kind, name, outcome, expected, found, details, seconds }
    }

    /// A step without which there is nothing to check.
    pub fn broke_off(kind: Kind, expected: &str, why: impl std::fmt::Display, begun: Instant) -> Check {
        Check {
            kind,
            name: kind.word().to_owned(),
            outcome: Outcome::Failed,
            expected: expected.to_owned(),
            found: why.to_string(),
            details: Vec::new(),
            seconds: begun.elapsed().as_secs_f64(),
        }
    }
}

/// The verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every check ran and passed.
    Passed,
    /// Anything else.
    Failed,
}

/// A part of the drill, and how long it took.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// Which.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// How rows were counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Every one.
    All,
    /// In a part of the pages.
    Sample,
    /// By the planner's figure.
    Estimate,
}

/// A table and its rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableRows {
    /// Its database.
    pub database: String,
    /// Its schema and name, quoted as SQL wants them.
    pub table: String,
    /// Its size in bytes, without indexes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// How they were counted.
    pub counted: Counted,
}

/// The base backup that was restored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrilledBase {
    /// Its id.
    pub id: BaseId,
    /// Digest of its label, which has those of all its objects.
    pub label: Option<ObjectDigest>,
    /// Where it is complete.
    pub stop: Lsn,
    /// When it was.
    pub stop_time: Timestamp,
    /// How many objects were read for it.
    pub objects: u64,
}

/// Where recovery was to end, and did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Drilled {
    /// The branch.
    pub branch: Branch,
    /// Where on it, as planned.
    pub stop: Lsn,
    /// The last transaction before, by the WAL.
    pub last_before: Option<TransactionPoint>,
    /// The first one after it, by the WAL.
    pub first_after: Option<TransactionPoint>,
    /// When the last one ended that was replayed, by the server.
    pub last_time: Option<PgTimestamp>,
    /// Start of the last record that was read, by the server: the last one replayed, or the first one not.
    pub last_record: Option<Lsn>,
}

/// Everything that a drill found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// The cluster.
    pub cluster: SystemIdentifier,
    /// The repository's URL, without secrets.
    pub repository: String,
    /// When it began, by this host's clock.
    pub began: Timestamp,
    /// How long it took, to the verdict.
    pub seconds: f64,
    /// From the beginning of the restore to the answer to the first query.
    pub first_query_seconds: Option<f64>,
    /// What was asked for: `random`, or a target as after `--to`.
    pub asked: String,
    /// The target, as after `--to`.
    pub target: Option<String>,
    /// What a random target was drawn with.
    pub seed: Option<u64>,
    /// This program and its version.
    pub program: String,
    /// PostgreSQL's version, as it says itself.
    pub postgres: Option<String>,
    /// The base backup.
    pub base: Option<DrilledBase>,
    /// Where recovery ended.
    pub drilled: Option<Drilled>,
    /// Bytes of files that were restored.
    pub bytes: u64,
    /// What became of the cluster's libraries.
    pub preload: Option<Preload>,
    /// The parts, in order.
    pub stages: Vec<Stage>,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// Every table and its rows.
    pub tables: Vec<TableRows>,
    /// Tables that are not in the list, which is too long.
    pub tables_left_out: u64,
    /// Unlogged tables: they come back empty, and were not counted.
    pub unlogged: Vec<String>,
    /// The end of the server's log.
    pub log: String,
    /// The base backup that was made of the instance.
    #[serde(default)]
    pub made: Option<BaseId>,
}

impl Report {
    /// Judges: a pass needs at least one check, and each to pass.
    pub fn judge(&mut self) {
        self.verdict = if self.is_good_so_far() { Verdict::Passed } else { Verdict::Failed };
    }

    /// Whether all that was checked until now passed.
    pub fn is_good_so_far(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.outcome.is_pass())
    }

    /// How many checks passed, and how many of them warned.
    pub fn passes(&self) -> (u32, u32) {
        let count =
            |wanted: fn(&&Check) -> bool| u32::try_from(self.checks.iter().filter(wanted).count()).unwrap_or(u32::MAX);
        (count(|check| check.outcome.is_pass()), count(|check| check.outcome == Outcome::Warned))
    }

    /// What failed or did not run, each kind once.
    pub fn failed(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> =
            self.checks.iter().filter(|check| !check.outcome.is_pass()).map(|check| check.kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn report(outcomes: &[Outcome]) -> Report {
        let check = |outcome: &Outcome| {
            serde_json::json!({
                "kind": "counts", "name": "rows", "outcome": outcome, "expected": "", "found": "", "details": [], "seconds": 0.0,
            })
        };
        let checks: Vec<_> = outcomes.iter().map(check).collect();
        let document = serde_json::json!({
            // As it is printed: members that this version does not know are read over.
            "schema": "walseal.drill/1", "recorded": null,
            "verdict": "passed", "cluster": "7", "repository": "file:///srv/walseal", "began": "2026-11-21T02:30:00Z",
            "seconds": 1.0, "first_query_seconds": null, "asked": "latest", "target": null, "seed": null, "program": "test",
            "postgres": null, "base": null, "drilled": null, "bytes": 0, "preload": null, "stages": [], "checks": checks,
            "tables": [], "tables_left_out": 0, "unlogged": [], "log": "",
        });
        let mut report: Report = serde_json::from_value(document).expect("a report");
        report.judge();
        report
    }

    #[test]
    fn i12_what_did_not_run_or_was_not_there_at_all_is_no_pass() {
        use Outcome::{Failed, NotRun, Passed, Warned};
        assert_eq!(report(&[Passed, Warned]).verdict, Verdict::Passed);
        for outcomes in [&[][..], &[NotRun], &[Passed, NotRun], &[Passed, Failed, Warned]] {
            assert_eq!(report(outcomes).verdict, Verdict::Failed, "{outcomes:?}");
        }
        let mixed = report(&[Passed, Warned, NotRun, Failed]);
        assert_eq!((mixed.passes(), mixed.failed()), ((2, 1), vec![Kind::Counts]));
    }

    #[tokio::test]
    async fn i12_a_look_that_ends_in_an_error_has_not_run() {
        let check = Check::run(Kind::Pages, "pages", "sound", async { Err::<Found, _>("no such program") }).await;
        assert_eq!((check.outcome, check.found.as_str()), (Outcome::NotRun, "no such program"));
    }
}
