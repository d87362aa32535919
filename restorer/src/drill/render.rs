//! The report for people.

use std::time::Duration;

use walseal_common::terminal::{Align, Look, Table, printable, units};

use super::report::{Check, Outcome, Report, Stage, Verdict};

/// Details of a check that are shown; all are in the evidence.
const MOST: usize = 10;

/// The report, without its last line.
pub fn render(report: &Report, look: Look) -> String {
    let mut text = String::new();
    let target = report.target.as_deref().unwrap_or(&report.asked);
    let drawn = report.seed.map(|seed| format!(" (random, --seed {seed})")).unwrap_or_default();
    text.push_str(&format!("Drill of cluster {} in {}, to {target}{drawn}\n", report.cluster, report.repository));
    if let Some(base) = &report.base {
        text.push_str(&format!("Base backup {}, complete at {}\n", base.id, base.stop));
    }
    checks(&mut text, &report.checks, look);
    took(&mut text, report.seconds, &report.stages);
    printable(&text)
}

/// The checks as a table, and what those have to say that did not simply pass.
pub fn checks(text: &mut String, checks: &[Check], look: Look) {
    let mut table = Table::new([
        ("check", Align::Left),
        ("", Align::Left),
        ("expected", Align::Left),
        ("found", Align::Left),
        ("took", Align::Right),
    ]);
    for check in checks {
        table.row([
            check.name.clone(),
            check.outcome.word().to_owned(),
            check.expected.clone(),
            check.found.clone(),
            units::duration(Duration::from_secs_f64(check.seconds)),
        ]);
    }
    text.push_str(&format!("\n{}\n", table.render(look)));
    for check in checks.iter().filter(|check| check.outcome != Outcome::Passed && !check.details.is_empty()) {
        text.push_str(&format!("\n{}:\n", check.name));
        for line in check.details.iter().take(MOST) {
            text.push_str(&format!("  {line}\n"));
        }
        if check.details.len() > MOST {
            text.push_str(&format!("  and {} more, in the evidence\n", check.details.len() - MOST));
        }
    }
}

/// How long it took, and its parts.
pub fn took(text: &mut String, seconds: f64, stages: &[Stage]) {
    let stages: Vec<String> = stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, units::duration(Duration::from_secs_f64(stage.seconds))))
        .collect();
    text.push_str(&format!("\nTook {}", units::duration(Duration::from_secs_f64(seconds))));
    if !stages.is_empty() {
        text.push_str(&format!(": {}", stages.join(", ")));
    }
    text.push('\n');
}

/// What the verdict rests on, in a clause.
pub fn verdict(report: &Report) -> String {
    words(report.verdict, &report.checks)
}

/// Likewise of any checks.
pub fn words(verdict: Verdict, checks: &[Check]) -> String {
    let passed = checks.iter().filter(|check| check.outcome.is_pass()).count();
    let warned = checks.iter().filter(|check| check.outcome == Outcome::Warned).count();
    match verdict {
        Verdict::Passed if warned > 0 => format!("passed: {passed} checks, {warned} with a warning"),
        Verdict::Passed => format!("passed: {passed} checks"),
        Verdict::Failed => {
            let failed: Vec<String> = checks
                .iter()
                .filter(|check| !check.outcome.is_pass())
                .map(|check| {
                    let how = if check.outcome == Outcome::NotRun { " could not run" } else { "" };
                    format!("{}{how}: {}", check.name, check.found)
                })
                .collect();
            if failed.is_empty() { "nothing was checked".to_owned() } else { failed.join("; ") }
        }
    }
}
