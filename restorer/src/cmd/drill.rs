//! `drill`: prove a backup by restoring it.

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use walseal_common::repository::BaseId;
use walseal_common::show;
use walseal_common::terminal::{Exit, Failure, Look, to_json};

use super::target::parse_target;
use crate::access::Access;
use crate::drill::evidence::Unrecorded;
use crate::drill::report::{Report, SCHEMA, Verdict};
use crate::drill::target::Choice;
use crate::drill::{Exercise, Outcome, drill, evidence, render};
use crate::plan::TimelineChoice;

/// What `drill` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// As for restore, or random: a second somewhere in the windows
    #[arg(long, value_name = "T", default_value = "latest")]
    to: String,
    /// The base backup to begin from [default: the newest that fits]
    #[arg(long, value_name = "ID")]
    base: Option<BaseId>,
    /// The timeline to end on, by number or branch [default: the one with the newest WAL]
    #[arg(long, value_name = "TIMELINE")]
    timeline: Option<TimelineChoice>,
    /// Draw the same random time as the drill that printed this
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Leave the restored data directory where it is, with its server stopped
    #[arg(long)]
    keep: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What is to be drilled.
    ///
    /// Errors: wrong usage.
    pub fn exercise(&self) -> Result<Exercise, Failure> {
        let target = match self.to.as_str() {
            "random" => Choice::Random,
            other => Choice::Given(parse_target(other)?),
        };
        if self.seed.is_some() && target != Choice::Random {
            return Err(Failure::saying("--seed draws a random time, and goes with --to random only").exit(Exit::Usage));
        }
        let (base, timeline) = (self.base.clone(), self.timeline);
        Ok(Exercise { target, base, timeline, seed: self.seed, keep: self.keep })
    }
}

/// The report, and what became of it.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// The evidence in the repository.
    recorded: Option<&'a str>,
    /// Why there is none.
    not_recorded: Option<String>,
    /// Where the restored directory is.
    kept: Option<String>,
}

/// Drills, records and shows; fails unless all passed and that is recorded.
pub async fn run(arguments: &Arguments, exercise: &Exercise, access: &Access) -> Result<(), Failure> {
    let Some(Outcome { report, kept }) = until_told_to_end(drill(exercise, access)).await? else {
        return Err(interrupted());
    };
    let recorded = evidence::record(access, &report, exercise.target.word()).await;
    if arguments.json {
        let document = Document {
            report: &report,
            recorded: recorded.as_deref().ok(),
            not_recorded: recorded.as_ref().err().map(ToString::to_string),
            kept: kept.as_ref().map(|folder| folder.display().to_string()),
        };
        let text = to_json(SCHEMA, &document).map_err(|error| Failure::from_error("print the report", &error))?;
        show!("{text}");
    } else {
        print!("{}", render::render(&report, Look::of_stdout()));
        if let Some(folder) = &kept {
            show!("Kept: {}; remove it when it is not needed any more", folder.display());
        }
    }
    conclude(report.verdict, &render::verdict(&report), recorded, arguments.json)
}

/// Why there is no report.
pub(super) fn interrupted() -> Failure {
    Failure::saying("the drill was interrupted; nothing of it is left on this host, and nothing is recorded")
}

/// The last line of a drill: fails unless all passed and that is recorded.
pub(super) fn conclude(
    verdict: Verdict,
    words: &str,
    recorded: Result<String, Unrecorded>,
    json: bool,
) -> Result<(), Failure> {
    match (verdict, recorded) {
        (Verdict::Passed, Ok(evidence)) => {
            if !json {
                show!("Proven. The drill {words}; recorded with {evidence}");
            }
            Ok(())
        }
        (Verdict::Passed, Err(why)) => Err(Failure::saying(format!("the drill passed, not recorded: {why}"))
            .next("make a key on this host (walseal-archiver keygen), name it in keys.writer_key_file, let it put below ledger/ and evidence/, and \
                   trust it elsewhere: { key = \"walsealw1…\", roles = [\"drill\"] }")),
        (Verdict::Failed, recorded) => {
            let not = recorded.err().map(|why| format!("; not recorded: {why}")).unwrap_or_default();
            Err(Failure::saying(format!("the drill failed: {words}{not}")))
        }
    }
}

/// Lets `work` go on until a person or the system asks this program to end; what it holds is then given up, and the answer is
/// `None`.
///
/// Errors: signals cannot be listened for.
pub async fn until_told_to_end<T>(work: impl Future<Output = T>) -> Result<Option<T>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::from_error("listen for signals", &error));
    let (mut terminated, mut interrupted) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        done = work => Ok(Some(done)),
        _ = terminated.recv() => Ok(None),
        _ = interrupted.recv() => Ok(None),
    }
}
