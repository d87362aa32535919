//! `report`: a month for somebody who audits.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use walseal_common::show;
use walseal_common::terminal::{Failure, Schema, printable, to_json};

use super::target::refusal;
use crate::access::Access;
use crate::report::{Facts, Figures, Period, html};

const SCHEMA: Schema = Schema { name: "report", version: 1 };

/// What `report` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The month, in UTC, such as 2026-11; by default the last one that is over
    #[arg(long, value_name = "MONTH")]
    month: Option<Period>,
    /// The file to write; by default walseal-<MONTH>.html here, and with --json the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write JSON in place of HTML
    #[arg(long)]
    json: bool,
}

/// Writes the report, and fails where something in the repository did not verify.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let now = Timestamp::now();
    let Some(period) = arguments.month.or_else(|| Period::before(now)) else {
        return Err(Failure::new("choose a month", "this host's clock is outside all calendars"));
    };
    if now <= period.from {
        return Err(Failure::new("report", format!("{} has not begun", period.words())));
    }
    let facts = Facts::gather(access, period, now).await.map_err(|error| refusal(&error))?;
    let figures = Figures::of(&facts);
    let (text, name) = if arguments.json {
        (to_json(SCHEMA, &figures).map_err(|error| Failure::from_error("print the report", &error))?, None)
    } else {
        (html::page(&figures), Some(PathBuf::from(format!("walseal-{period}.html"))))
    };
    match arguments.output.clone().or(name) {
        Some(file) => {
            write(&file, &text)
                .map_err(|error| Failure::from_error(format!("write the report to {}", file.display()), &error))?;
            if !arguments.json {
                show!("The report of {} is in {}", period.words(), printable(&file.to_string_lossy()));
            }
        }
        None => show!("{text}"),
    }
    if figures.verified() {
        return Ok(());
    }
    let words = figures.ledger_findings.iter().chain(&figures.unverified).cloned().collect::<Vec<_>>().join("\n");
    Err(Failure::new("verify what the report is made of", printable(&words))
        .next("what it is, and what to do about it: walseal-restorer ledger")
        .next("what of it cannot be restored any more: walseal-restorer list"))
}

/// Replaces the file as a whole: nobody finds half a report.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, file)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::sample::SampleRepository;

    #[tokio::test]
    async fn a_report_takes_the_place_of_the_one_before_as_a_whole() {
        let sample = SampleRepository::new().await;
        let config = walseal_common::config::Config::from_toml("").expect("a configuration");
        let access = Access {
            config: config.into(),
            repository: sample.repository.clone(),
            identities: sample.identities.clone(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let output = Some(folder.path().join("report"));
        let arguments = |month: &str, json| {
            let month = Some(month.parse().expect("a month"));
            Arguments { month, output: output.clone(), json }
        };
        run(&arguments("2026-10", false), &access).await.expect("written");
        let read = || std::fs::read_to_string(folder.path().join("report")).expect("a report");
        assert!(read().starts_with("<!DOCTYPE html>"));
        run(&arguments("2026-10", true), &access).await.expect("written");
        let document: serde_json::Value = serde_json::from_str(&read()).expect("JSON");
        assert_eq!((&document["schema"], &document["month"]), (&"walseal.report/1".into(), &"2026-10".into()));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
        let refused = run(&arguments("9999-10", false), &access).await.expect_err("the future");
        assert_eq!(refused.to_string(), "error: failed to report: October 9999 has not begun");
    }
}
