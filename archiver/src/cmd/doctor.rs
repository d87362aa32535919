//! `doctor`: every precondition, one line each, with its fix.

use serde::Serialize;
use walseal_common::config::Config;
use walseal_common::show;
use walseal_common::terminal::{Failure, Schema, printable, to_json};

use crate::doctor::{self, Diagnosis, Finding, Message};

/// What `doctor` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    findings: &'a [Finding],
    message: Option<Message>,
}

/// Looks at everything and tells it as it goes. Fails where something does not work, or could not be looked at.
pub async fn run(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    let json = arguments.json;
    let mut tell = |finding: &Finding| {
        if !json {
            show!("{}", lines(finding));
        }
    };
    let diagnosis = doctor::examine(config, &mut tell).await;
    if json {
        let Diagnosis { findings, message } = &diagnosis;
        let document = Document { healthy: diagnosis.is_healthy(), findings, message: *message };
        let text = to_json(Schema { name: "doctor", version: 1 }, &document)
            .map_err(|error| Failure::from_error("print the findings", &error))?;
        show!("{text}");
    } else if let Some(message) = &diagnosis.message {
        show!("{}", message.line());
    }
    if diagnosis.is_healthy() {
        return Ok(());
    }
    let bad = diagnosis.findings.iter().filter(|finding| !finding.passes());
    let names: Vec<&str> = bad.map(|finding| finding.check).collect();
    Err(Failure::saying(format!("not everything works: {}", names.join(", "))))
}

/// A finding, and below it what to do.
fn lines(finding: &Finding) -> String {
    let indented = |text: &str, indent: usize| printable(text).replace('\n', &format!("\n{:indent$}", ""));
    let mut text = format!("{:<8} {:<15} {}", finding.verdict.word(), finding.check, indented(&finding.text, 25));
    for (index, step) in finding.fix.iter().enumerate() {
        let label = if index == 0 { "to fix" } else { "or" };
        text.push_str(&format!("\n{label:>31}: {}", indented(step, 33)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_its_fixes_below() {
        let finding = Finding::warning("kept WAL", "unlimited").fix("set a limit\nthen reload").fix("wait\u{1b}[2J");
        assert_eq!(
            lines(&finding),
            "WARNING  kept WAL        unlimited\n                         to fix: set a limit\n                                 then \
             reload\n                             or: wait\\u{1b}[2J"
        );
        assert_eq!(lines(&Finding::fine("wal_level", "replica")), "ok       wal_level       replica");
    }
}
