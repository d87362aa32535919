//! The drill: restore to a target, start a private instance, check, judge, record, destroy.
//!
//! Whatever cannot be seen is a failure (I12): a [`Check`] whose look ended in an error has not run, and a report with one does
//! not pass.
//!
//! | module | holds |
//! | --- | --- |
//! | [`target`] | where it leads; a random second |
//! | [`course`] | one drill, from the choice of a target to an instance that answers |
//! | [`inspection`] | all checks on that instance |
//! | [`check`] | the checks |
//! | [`dumps`] | snapshots that are taken of the instance |
//! | [`next_base`] | the base backup that is made of the instance |
//! | [`report`] | what was found: the document that becomes evidence |
//! | [`evidence`] | the record, and what the drill before left |
//! | [`render`] | the report for people |

pub mod check;
mod course;
mod dumps;
pub mod evidence;
mod inspection;
mod next_base;
pub mod render;
pub mod report;
pub mod target;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use walseal_common::repository::BaseId;

use self::course::Course;
use self::report::{Report, Verdict};
use self::target::Choice;
use crate::access::Access;
use crate::plan::TimelineChoice;

/// What is to be drilled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exercise {
    /// Where to.
    pub target: Choice,
    /// The base backup; by default the newest that fits.
    pub base: Option<BaseId>,
    /// The timeline; by default the one with the newest frontier.
    pub timeline: Option<TimelineChoice>,
    /// What a random target is drawn with; by default a fresh one.
    pub seed: Option<u64>,
    /// Whether the restored directory stays, with its server stopped.
    pub keep: bool,
}

/// A drill that came to a verdict.
#[derive(Debug)]
pub struct Outcome {
    /// What was found.
    pub report: Report,
    /// Where the restored directory is, where it was to stay.
    pub kept: Option<PathBuf>,
}

/// Drills. What was restored is gone again when this returns, and when it is dropped.
///
/// Errors: none; what fails stands in the report.
pub async fn drill(exercise: &Exercise, access: &Access) -> Outcome {
    let begun = Instant::now();
    let report = blank(exercise, access);
    let mut course = Course { exercise, access, restoring: begun, report, scratch: None, making: Duration::ZERO };
    // Broken off or not: what was found until then is judged.
    let _ = course.carry_out().await;
    course.report.seconds = begun.elapsed().as_secs_f64();
    course.report.judge();
    let kept = course.give_up();
    Outcome { report: course.report, kept }
}

fn blank(exercise: &Exercise, access: &Access) -> Report {
    Report {
        verdict: Verdict::Failed,
        cluster: access.repository.cluster(),
        repository: access.repository.describe(),
        began: Timestamp::now(),
        seconds: 0.0,
        first_query_seconds: None,
        asked: exercise.target.to_string(),
        target: None,
        seed: None,
        program: concat!("walseal-restorer ", env!("CARGO_PKG_VERSION")).to_owned(),
        postgres: None,
        base: None,
        drilled: None,
        bytes: 0,
        preload: None,
        stages: Vec::new(),
        checks: Vec::new(),
        tables: Vec::new(),
        tables_left_out: 0,
        unlogged: Vec::new(),
        log: String::new(),
        made: None,
    }
}
