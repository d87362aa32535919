//! The daemon: drills on schedule.
//!
//! On each occasion of both kinds of backup, base backups and snapshots, where there are both: they share no byte, and the proof of the one
//! is none of the other. When the last one was is read from the ledger, so that one that was missed while nothing ran is caught up by one; one that
//! is not recorded is remembered for as long as this runs.

mod subject;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Ledger, Provable, RepositoryError, SnapshotId};
use walseal_common::schedule::Schedule;
use walseal_common::seal::WriterPublic;
use walseal_common::telemetry::{
    self, AlertKind, AlertMemory, Alerts, Couriers, DeadManSwitch, Severity, overdue_subject,
};

use self::subject::Past;
use crate::access::Access;
use crate::drill::evidence::Unrecorded;
use crate::drill::report::Verdict;
use crate::drill::target::Choice;
use crate::drill::{Exercise, drill, evidence, render};
use crate::figures::{Figures, Measured};
use crate::plan::Target;
use crate::record;
use crate::snapshot;

/// The longest sleep: clocks are set, and machines are suspended.
const NAP: Duration = Duration::from_secs(60);

/// First and longest pause after the ledger could not be read.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// What stands, in `cluster.state_dir`.
const STANDING: &str = "restorer-alerts.json";

/// How long the end may wait for those who hear of alerts.
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
    /// Where snapshots are restored; none for a new cluster.
    pub server: Option<Conninfo>,
}

/// The subject of the alert that the repository cannot be read.
const REPOSITORY: &str = "repository";

/// That of a drill of a snapshot that does not tell its database.
const UNNAMED: &str = "snapshots";

/// What is to be done; what comes first is less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
    let cluster = cluster(access);
    // A drill is recorded by a run of its own, which this daemon's alerts do not know the head of.
    let couriers = Couriers::start(&access.config, &cluster, &Ledger::none()).map_err(|error| error.to_string())?;
    let heartbeat = access.config.heartbeat_url().map_err(|error| error.to_string())?;
    let switch = heartbeat.map(|address| DeadManSwitch::new(address, cluster));
    let alerts = Alerts::to(couriers.outlets());
    let remembering = remember(access, &alerts);
    let figures = Arc::new(Figures::new(alerts.clone()));
    let serving = async {
        match listener {
            Some(listener) => telemetry::serve(&listener, figures.clone()).await,
            None => std::future::pending().await,
        }
    };
    let settings = &access.config.alerts;
    let (within, remind_after) = (settings.proven_within.value, settings.remind_after.value);
    tokio::select! {
        ended = keep(access, timetable, &alerts, &figures, switch) => {
            couriers.finish(LAST_WORDS).await;
            ended
        }
        never = telemetry::watch_proof(record::with_own(access), alerts.clone(), within) => match never {},
        never = alerts.remind(remind_after) => match never {},
        never = remembering => match never {},
        () = serving => Err("figures are not served any more".to_owned()),
    }
}

/// Puts back the alerts that stood when the last daemon ended, and keeps them, where there is a folder for that.
fn remember(access: &Access, alerts: &Alerts) -> impl Future<Output = Infallible> + use<> {
    let of = format!("{} in {}", access.repository.cluster(), access.repository.describe());
    let folder = access.config.need_state_dir().ok();
    let memory = folder.map(|folder| AlertMemory::new(folder.join(STANDING), of));
    if let Some(memory) = &memory {
        memory.recall(alerts);
    }
    let alerts = alerts.clone();
    async move {
        match memory {
            Some(memory) => memory.keep(alerts).await,
            None => std::future::pending().await,
        }
    }
}

async fn keep(
    access: &Access,
    timetable: &Timetable,
    alerts: &Alerts,
    figures: &Figures,
    mut switch: Option<DeadManSwitch>,
) -> Result<(), String> {
    tracing::info!(schedule = %timetable.schedule, target = %timetable.target, "drills are held on schedule");
    // Without any drill before, the first one is at the schedule's next time.
    let started = Timestamp::now();
    let mut last: BTreeMap<Provable, Timestamp> = BTreeMap::new();
    let mut pause = PAUSES.0;
    match look(access, figures).await {
        Ok(kinds) => last.extend(kinds.into_iter().map(|(what, past)| (what, past.own.unwrap_or(started)))),
        Err(error) => tracing::warn!(%error, "when the last drill was cannot be seen; the next one is by schedule"),
    }
    loop {
        let now = Timestamp::now();
        let turns = last.values().map(|last| turn(timetable, *last, now));
        let due = match turns.min().unwrap_or_else(|| turn(timetable, started, now)) {
            Turn::Due(due) => due,
            Turn::Wait(next) => {
                figures.next(next);
                sleep_until(next).await;
                continue;
            }
            Turn::Never => return Err(format!("the schedule {} has no further time", timetable.schedule)),
        };
        sleep_until(due.saturating_add(draw(timetable.jitter)).unwrap_or(due)).await;
        let kinds = match look(access, figures).await {
            Ok(kinds) => kinds,
            Err(error) => {
                tracing::warn!(%error, "the repository cannot be read; looking again in {} s", pause.as_secs());
                let text = format!("a drill is due, and the repository cannot be read: {error}");
                alerts.raise(AlertKind::DrillFailed, REPOSITORY, Severity::Critical, text);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
        };
        pause = PAUSES.0;
        alerts.clear(AlertKind::DrillFailed, REPOSITORY, "the repository can be read");
        let (mut evidence, mut missing) = (None, false);
        // What is not there any more is not waited for.
        last.retain(|what, _| kinds.iter().any(|(there, _)| there == what));
        for (what, past) in kinds {
            // Another host may have drilled meanwhile with the same key; that is as good.
            let known = last.entry(what).or_insert(started);
            *known = past.own.map_or(*known, |own| own.max(*known));
            if !matches!(turn(timetable, *known, Timestamp::now()), Turn::Due(_)) {
                continue;
            }
            let proven = match what {
                Provable::BaseBackups => hold(access, &timetable.target, alerts, figures).await,
                // Named only now: the drill before may have dumped some, and taken long.
                Provable::Snapshots => match subject::snapshots(&record::with_own(access), Timestamp::now()).await {
                    Ok(ids) => hold_of_snapshots(access, timetable, &ids, alerts, figures).await,
                    Err(error) => {
                        // Still due: looked for again at once, and with pauses if that fails, too.
                        tracing::warn!(%error, "the snapshots cannot be read");
                        missing = true;
                        continue;
                    }
                },
            };
            missing |= proven.is_none();
            evidence = proven.or(evidence);
            last.insert(what, Timestamp::now());
        }
        if let (Some(switch), Some(evidence), false) = (&mut switch, evidence, missing) {
            switch.tell("drill-passed", serde_json::json!({ "object": evidence }), None).await;
        }
    }
}

/// One drill, its record, and an alert where it is no full pass. Gives the name of the evidence where it is one.
async fn hold(access: &Access, target: &Choice, alerts: &Alerts, figures: &Figures) -> Option<String> {
    const KIND: Provable = Provable::BaseBackups;
    tracing::info!(target = %target, "a drill begins");
    figures.begun(KIND);
    let exercise = Exercise { target: target.clone(), base: None, timeline: None, seed: None, keep: false };
    let report = drill(&exercise, access).await.report;
    let recorded = evidence::record(access, &report, target.word()).await;
    figures.judged(KIND, Measured::of(&report), recorded.as_ref().err().map(ToString::to_string));
    let drawn = report.seed.map(|seed| format!(" (--to random --seed {seed})")).unwrap_or_default();
    let words = format!("{}{drawn}", render::verdict(&report));
    tell(alerts, KIND, "", "the drill", report.verdict, &words, recorded)
}

/// Likewise of each of these snapshots, one after another: one that fails keeps no other away. Gives the evidence of the last where all
/// of them are full passes.
async fn hold_of_snapshots(
    access: &Access,
    timetable: &Timetable,
    ids: &[SnapshotId],
    alerts: &Alerts,
    figures: &Figures,
) -> Option<String> {
    const KIND: Provable = Provable::Snapshots;
    if ids.is_empty() {
        tracing::info!("there is no snapshot any more of which a drill would be due");
        return None;
    }
    figures.begun(KIND);
    let (mut measured, mut unrecorded) = (Measured::default(), None);
    let (mut proven, mut missing) = (None, false);
    for id in ids {
        tracing::info!(%id, "a drill of a snapshot begins");
        let report = snapshot::drill::drill(access, id, timetable.server.as_ref()).await;
        let recorded = evidence::record_snapshot(access, &report).await;
        measured.add(Measured::of_snapshot(&report));
        unrecorded = unrecorded.or_else(|| recorded.as_ref().err().map(ToString::to_string));
        let database = report.database.clone().unwrap_or_else(|| UNNAMED.to_owned());
        let of = report.database.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        let (drill, words) = (format!("the drill of snapshot {id}{of}"), render::words(report.verdict, &report.checks));
        match tell(alerts, KIND, &database, &drill, report.verdict, &words, recorded) {
            Some(evidence) => proven = Some(evidence),
            None => missing = true,
        }
    }
    figures.judged(KIND, measured, unrecorded);
    if !missing {
        alerts.clear(AlertKind::DrillFailed, UNNAMED, "the newest snapshot of each database passed its drill");
    }
    proven.filter(|_| !missing)
}

/// Raises an alert where a drill is no full pass, and clears it where it is: then gives the name of the evidence.
fn tell(
    alerts: &Alerts,
    what: Provable,
    subject: &str,
    drill: &str,
    verdict: Verdict,
    words: &str,
    recorded: Result<String, Unrecorded>,
) -> Option<String> {
    match (verdict, recorded) {
        (Verdict::Passed, Ok(name)) => {
            tracing::info!(evidence = name, "{drill} {words}");
            alerts.clear(AlertKind::DrillFailed, subject, format!("{drill} {words}"));
            alerts.clear(AlertKind::DrillOverdue, overdue_subject(what), format!("{drill} {words}"));
            return Some(name);
        }
        (Verdict::Passed, Err(why)) => {
            let text = format!("{drill} {words}; not recorded: {why}");
            alerts.raise(AlertKind::DrillFailed, subject, Severity::Warning, text);
        }
        (Verdict::Failed, recorded) => {
            let not = recorded.err().map(|why| format!("; not recorded: {why}")).unwrap_or_default();
            alerts.raise(AlertKind::DrillFailed, subject, Severity::Critical, format!("{drill} failed: {words}{not}"));
        }
    }
    None
}

/// What is drilled next, and what was recorded of that; `figures` hears of it.
async fn look(access: &Access, figures: &Figures) -> Result<Vec<(Provable, Past)>, RepositoryError> {
    let own: Option<WriterPublic> = record::signer(&access.config).ok().flatten().map(|signer| signer.writer.public());
    let kinds = subject::due(&record::with_own(access), own, Timestamp::now()).await?;
    figures.read(kinds.iter().map(|(what, past)| (*what, past.proven, past.last)));
    Ok(kinds)
}

/// What others know the cluster by.
fn cluster(access: &Access) -> String {
    let name = access.config.cluster.name.as_ref().map(|name| name.value.clone());
    name.unwrap_or_else(|| access.repository.cluster().to_string())
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
        let timetable = Timetable {
            schedule,
            zone: TimeZone::UTC,
            jitter: Duration::ZERO,
            target: Timetable::choice(false),
            server: None,
        };
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = at("2026-11-21T12:00:00Z");
        let next = Turn::Wait(at("2026-11-22T04:30:00Z"));
        assert_eq!(turn(&timetable, at("2026-11-21T04:31:00Z"), now), next);
        assert_eq!(turn(&timetable, at("2026-11-18T04:31:00Z"), now), Turn::Due(at("2026-11-19T04:30:00Z")));
        assert_eq!(turn(&timetable, at("2027-01-01T00:00:00Z"), now), next);
    }
}
