//! The daemon: drills on schedule.
//!
//! When the last one was is read from the ledger, so that one that was missed while nothing ran is caught up by one; one that
//! is not recorded is remembered for as long as this runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use walseal_common::repository::{Proof, RepositoryError};
use walseal_common::schedule::Schedule;
use walseal_common::seal::WriterPublic;
use walseal_common::telemetry::{self, AlertCommand, AlertKind, Alerts, Outlet, Severity};

use crate::access::Access;
use crate::drill::report::Verdict;
use crate::drill::target::Choice;
use crate::drill::{Exercise, drill, evidence, render};
use crate::figures::Figures;
use crate::plan::Target;
use crate::record;

/// The longest sleep: clocks are set, and machines are suspended.
const NAP: Duration = Duration::from_secs(60);

/// First and longest pause after the ledger could not be read.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How long the end may wait for the alert's command.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// When drills are, and where they lead.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// When.
    pub schedule: Schedule,
    /// In which time zone.
    pub zone: TimeZone,
    /// A drill begins later by a random time up to this.
    pub jitter: Duration,
    /// Where to.
    pub target: Choice,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// This time has come, of those that were missed the first.
    Due(Timestamp),
    /// Nothing before this time.
    Wait(Timestamp),
    /// The schedule has no time left that a calendar knows.
    Never,
}

/// What is to be done, with the last drill judged at `last`.
fn turn(timetable: &Timetable, last: Timestamp, now: Timestamp) -> Turn {
    // One in the future was recorded by a clock that was wrong: it must not hold up the others until then.
    let since = last.min(now);
    let (schedule, zone) = (&timetable.schedule, &timetable.zone);
    match (schedule.due(since, now, zone), schedule.next(now, zone)) {
        (Some(due), _) => Turn::Due(due),
        (None, Some(next)) => Turn::Wait(next),
        (None, None) => Turn::Never,
    }
}

/// Drills by the timetable, until this is dropped. With `listener`, figures are served there.
///
/// Errors: the schedule has no further time.
pub async fn run(access: &Access, timetable: &Timetable, listener: Option<TcpListener>) -> Result<(), String> {
    let command = alert_command(access);
    let alerts = Alerts::to(command.iter().map(|command| Arc::clone(command) as Arc<dyn Outlet>).collect());
    let figures = Arc::new(Figures::new(alerts.clone()));
    let serving = async {
        match listener {
            Some(listener) => telemetry::serve(listener, figures.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = keep(access, timetable, &alerts, &figures) => {
            if let Some(command) = command {
                command.finish(LAST_WORDS).await;
            }
            ended
        }
        () = serving => Err("figures are not served any more".to_owned()),
    }
}

async fn keep(access: &Access, timetable: &Timetable, alerts: &Alerts, figures: &Figures) -> Result<(), String> {
    tracing::info!(schedule = %timetable.schedule, target = %timetable.target, "drills are held on schedule");
    // Without any drill before, the first one is at the schedule's next time.
    let mut last = Timestamp::now();
    let mut pause = PAUSES.0;
    match last_recorded(access, figures).await {
        Ok(Some(recorded)) => last = recorded,
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "when the last drill was cannot be seen; the next one is by schedule"),
    }
    loop {
        let now = Timestamp::now();
        let due = match turn(timetable, last, now) {
            Turn::Due(due) => due,
            Turn::Wait(next) => {
                figures.next(next);
                sleep_until(next).await;
                continue;
            }
            Turn::Never => return Err(format!("the schedule {} has no further time", timetable.schedule)),
        };
        sleep_until(due.saturating_add(draw(timetable.jitter)).unwrap_or(due)).await;
        // Another host may have drilled meanwhile with the same key; that is as good.
        match last_recorded(access, figures).await {
            Ok(recorded) if recorded.is_some_and(|recorded| recorded >= due) => {
                last = recorded.unwrap_or(last);
                continue;
            }
            Ok(_) => pause = PAUSES.0,
            Err(error) => {
                tracing::warn!(%error, "the repository cannot be read; looking again in {} s", pause.as_secs());
                let text = format!("a drill is due, and the repository cannot be read: {error}");
                alerts.raise(AlertKind::DrillFailed, "", Severity::Critical, text);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
        }
        hold(access, &timetable.target, alerts, figures).await;
        last = Timestamp::now();
    }
}

/// One drill, its record, and an alert where it is no full pass.
async fn hold(access: &Access, target: &Choice, alerts: &Alerts, figures: &Figures) {
    tracing::info!(target = %target, "a drill begins");
    figures.begun();
    let exercise = Exercise { target: target.clone(), base: None, timeline: None, seed: None, keep: false };
    let report = drill(&exercise, access).await.report;
    let recorded = evidence::record(access, &report, target.word()).await;
    figures.judged(&report, recorded.as_ref().err().map(ToString::to_string));
    let verdict = render::verdict(&report);
    let drawn = report.seed.map(|seed| format!(" (--to random --seed {seed})")).unwrap_or_default();
    match (report.verdict, recorded) {
        (Verdict::Passed, Ok(name)) => {
            tracing::info!(evidence = name, "the drill {verdict}{drawn}");
            alerts.clear(AlertKind::DrillFailed, "", format!("a drill {verdict}"));
        }
        (Verdict::Passed, Err(why)) => {
            let text = format!("the drill passed, not recorded: {why}");
            alerts.raise(AlertKind::DrillFailed, "", Severity::Warning, text);
        }
        (Verdict::Failed, recorded) => {
            let not = recorded.err().map(|why| format!("; not recorded: {why}")).unwrap_or_default();
            let text = format!("the drill failed{drawn}: {verdict}{not}");
            alerts.raise(AlertKind::DrillFailed, "", Severity::Critical, text);
        }
    }
}

/// When this host's writer last recorded a drill; `figures` hears of all.
async fn last_recorded(access: &Access, figures: &Figures) -> Result<Option<Timestamp>, RepositoryError> {
    let own: Option<WriterPublic> = record::signer(&access.config).ok().flatten().map(|signer| signer.writer.public());
    let drills = record::with_own(access).drills().await?;
    figures.read(&Proof::of(&drills));
    Ok(drills.iter().filter(|drill| Some(drill.writer) == own).map(|drill| drill.time).max())
}

fn alert_command(access: &Access) -> Option<Arc<AlertCommand>> {
    let alerts = &access.config.alerts;
    let command = alerts.command.as_ref()?.value.clone();
    let cluster = access.config.cluster.name.as_ref().map(|name| name.value.clone());
    let cluster = cluster.unwrap_or_else(|| access.repository.cluster().to_string());
    Some(AlertCommand::start(command, cluster, alerts.command_limit.value))
}

async fn sleep_until(moment: Timestamp) {
    loop {
        match Duration::try_from(moment.duration_since(Timestamp::now())) {
            Ok(rest) if !rest.is_zero() => tokio::time::sleep(rest.min(NAP)).await,
            _ => return,
        }
    }
}

fn draw(jitter: Duration) -> SignedDuration {
    let most = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    let random = RandomState::new().build_hasher().finish();
    let drawn = if most == 0 { 0 } else { random % most.saturating_add(1) };
    SignedDuration::from_millis(i64::try_from(drawn).unwrap_or(i64::MAX))
}

impl Timetable {
    /// The target that the configuration names.
    pub fn choice(random: bool) -> Choice {
        if random { Choice::Random } else { Choice::Given(Target::Latest) }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn drills_that_were_missed_are_caught_up_by_one_and_a_wrong_clock_holds_up_none() {
        let schedule = "30 4 * * *".parse().expect("a schedule");
        let timetable =
            Timetable { schedule, zone: TimeZone::UTC, jitter: Duration::ZERO, target: Timetable::choice(false) };
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = at("2026-11-21T12:00:00Z");
        let next = Turn::Wait(at("2026-11-22T04:30:00Z"));
        assert_eq!(turn(&timetable, at("2026-11-21T04:31:00Z"), now), next);
        assert_eq!(turn(&timetable, at("2026-11-18T04:31:00Z"), now), Turn::Due(at("2026-11-19T04:30:00Z")));
        assert_eq!(turn(&timetable, at("2027-01-01T00:00:00Z"), now), next);
    }
}
