//! A plan in words.

use walseal_common::repository::BaseType;
use walseal_common::terminal::{printable, units};
use walseal_common::wal::TransactionOutcome;

use super::{PathStep, Plan, RecoverySetting, Target, TransactionPoint};

const OUTCOMES: [(TransactionOutcome, &str); 4] = [
    (TransactionOutcome::Commit, "committed"),
    (TransactionOutcome::Abort, "rolled back"),
    (TransactionOutcome::CommitPrepared, "committed after it was prepared"),
    (TransactionOutcome::AbortPrepared, "rolled back after it was prepared"),
];

impl Plan {
    /// The plan in calm words, for a terminal: lines that end in a line end.
    pub fn explain(&self) -> String {
        let mut lines = vec![format!(
            "Restore cluster {} from {} to {}{}.",
            self.cluster,
            self.repository,
            if self.request.exclusive { "just before " } else { "" },
            self.request.target
        )];
        lines.push(String::new());
        lines.push(entry("base backup", &self.base_words()));
        lines.push(entry("WAL", &self.wal_words()));
        if self.path.len() > 1 {
            // Two branches of one timeline follow each other where two servers wrote it.
            let is_split =
                self.path.windows(2).any(|pair| matches!(pair, [one, next] if one.timeline == next.timeline));
            let word = |step: &PathStep| match is_split {
                true => format!("{} (branch {})", step.timeline.number(), step.branch),
                false => step.timeline.number().to_string(),
            };
            let steps: Vec<String> = self.path.iter().map(word).collect();
            lines.push(entry("timelines", &format!("{}{}", steps.join(" -> "), self.histories_words())));
        }
        lines.push(entry("recovery", &self.recovery_words()));
        if let Some(last) = &self.last_before {
            lines.push(entry("last in it", &transaction(last)));
        }
        if let Some(first) = &self.first_after {
            lines.push(entry("first after", &transaction(first)));
        }
        lines.push(entry(
            "to fetch",
            &format!(
                "{} in {} objects of the base backup, and the WAL, in about {} requests; about {} on disk",
                units::size(self.cost.base_bytes),
                self.cost.base_objects,
                self.cost.requests,
                units::size(self.cost.disk_bytes)
            ),
        ));
        lines.push(entry("expected", &self.estimate().words()));
        lines.push(String::new());
        lines.push("Recovery settings:".to_owned());
        lines.extend(self.recovery.iter().map(|setting| format!("  {}", RecoverySetting::line(setting))));
        if !self.passed_over.is_empty() {
            lines.push(String::new());
            lines.push("Newer base backups that are not taken:".to_owned());
            lines.extend(self.passed_over.iter().map(|base| format!("  {}: {}", base.id, base.why)));
        }
        if !self.gaps.is_empty() {
            lines.push(String::new());
            lines.push("Missing elsewhere on the way, and not needed:".to_owned());
            lines.extend(self.gaps.iter().map(|hole| format!("  {}", hole.words())));
        }
        if !self.warnings.is_empty() {
            lines.push(String::new());
            lines.extend(self.warnings.iter().map(|warning| format!("Warning: {warning}")));
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        printable(&text)
    }

    fn base_words(&self) -> String {
        let major = self.base.postgres_version / 10_000;
        let minor = self.base.postgres_version % 10_000;
        let tablespaces = match self.base.tablespaces {
            0 => String::new(),
            1 => ", one tablespace".to_owned(),
            more => format!(", {more} tablespaces"),
        };
        let kind = match self.base.kind {
            BaseType::Full => "full",
            BaseType::Incremental => "incremental",
        };
        format!("{}, {kind}, PostgreSQL {major}.{minor}{tablespaces}, complete at {}", self.base.id, self.base.stop)
    }

    fn wal_words(&self) -> String {
        format!(
            "{} from {} to {}, in {} segment{}, without a gap",
            units::size(self.cost.wal_bytes),
            self.base.start,
            self.stop,
            self.cost.wal_segments,
            if self.cost.wal_segments == 1 { "" } else { "s" }
        )
    }

    /// Which history files are there.
    fn histories_words(&self) -> String {
        let numbers: Vec<String> = self.histories.iter().map(|branch| branch.timeline.number().to_string()).collect();
        match numbers.split_last() {
            None => String::new(),
            Some((only, [])) => format!(", with the history file of timeline {only}"),
            Some((last, others)) => format!(", with the history files of timelines {} and {last}", others.join(", ")),
        }
    }

    fn recovery_words(&self) -> String {
        let timeline = self.timeline().number();
        match (&self.request.target, self.request.exclusive) {
            (Target::Latest, _) => format!("to the end of the WAL of timeline {timeline}, now {}", self.stop),
            (Target::Immediate, _) => format!("stops as soon as the backup is consistent, at {}", self.stop),
            (Target::Time(_), _) => match &self.first_after {
                Some(first) => {
                    format!("stops at {} on timeline {timeline}, just before transaction {}", self.stop, first.xid)
                }
                None => format!("stops at {} on timeline {timeline}", self.stop),
            },
            (_, true) => format!("stops at {} on timeline {timeline}, just before the target", self.stop),
            (_, false) => format!("stops at {} on timeline {timeline}, with the target", self.stop),
        }
    }
}

fn entry(name: &str, text: &str) -> String {
    format!("  {name:<12} {text}")
}

fn transaction(point: &TransactionPoint) -> String {
    let outcome = OUTCOMES.iter().find(|(outcome, _)| *outcome == point.outcome).map_or("ended", |(_, words)| *words);
    format!("transaction {}, {outcome} {} at {}", point.xid, point.time, point.lsn)
}
