//! Base backups on schedule: when the next one is due, which is missed, what is overdue.
//!
//! Nothing is remembered here (I8): what is due follows from the newest label in the repository.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use walseal_common::clock;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::repository::{Repository, RepositoryError};
use walseal_common::schedule::{Schedule, UnknownZone, server_zone, zone};
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

use crate::aftermath::TakesBase;
use crate::base_backup::TakeError;
use crate::primary;
use crate::stream::ProgressWatch;
use crate::turns::{Occasion, Turns};

/// First and longest pause after an attempt that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// A backup that has been due for longer, and is not under way, is overdue; so is one that is still under way when the next one has
/// been due for so long.
const GRACE: Duration = Duration::from_secs(3600);

/// The longest sleep: clocks are set, and machines are suspended.
const NAP: Duration = Duration::from_secs(60);

/// What is known of the next backup, for `status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NextBackup {
    /// The schedule, as written.
    pub schedule: String,
    /// Its time zone.
    pub timezone: String,
    /// When the next backup begins; in the past where it is due and did not work yet.
    pub at: Timestamp,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// There is none at all: now.
    First,
    /// This time has come, of those that were missed the first.
    Due(Timestamp),
    /// Nothing before this time.
    Wait(Timestamp),
    /// The schedule has no time left that a calendar knows.
    Never,
}

/// What is to be done, with the newest backup begun at `newest`.
fn turn(schedule: &Schedule, zone: &TimeZone, newest: Option<Timestamp>, now: Timestamp) -> Turn {
    // Clocks may be apart a little.
    let Some(since) = newest.map(|newest| newest.min(now)) else { return Turn::First };
    match (schedule.due(since, now, zone), schedule.next(now, zone)) {
        (Some(due), _) => Turn::Due(due),
        (None, Some(next)) => Turn::Wait(next),
        (None, None) => Turn::Never,
    }
}

/// Since when a backup is missing, where it is overdue. `begun`: when this daemon began, from when on the first one is missing.
fn overdue(
    (schedule, zone): (&Schedule, &TimeZone),
    newest: Option<Timestamp>,
    begun: Timestamp,
    grace: Duration,
    under_way: bool,
    now: Timestamp,
) -> Option<Timestamp> {
    let due = match turn(schedule, zone, newest, now) {
        Turn::First => begun,
        Turn::Due(due) => due,
        Turn::Wait(_) | Turn::Never => return None,
    };
    let limit = if under_way { schedule.next(due, zone)? } else { due };
    let patience = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    (now.duration_since(limit) > patience).then_some(due)
}

/// A time zone, and what it was called.
#[derive(Clone, Debug)]
pub struct NamedZone {
    /// Its name.
    pub name: String,
    /// The zone.
    pub zone: TimeZone,
}

impl NamedZone {
    /// The one of that name.
    ///
    /// Errors: this host does not know it.
    pub fn of(name: &str) -> Result<NamedZone, UnknownZone> {
        Ok(NamedZone { name: name.to_owned(), zone: zone(name)? })
    }

    /// The server's, by its setting `TimeZone`; UTC where this host does not know it.
    fn of_server(setting: String) -> NamedZone {
        match server_zone(&setting) {
            Ok(zone) => NamedZone { name: setting, zone },
            Err(error) => {
                tracing::warn!(
                    "{error}; that is the server's TimeZone, and base.schedule is read in UTC: set base.timezone"
                );
                NamedZone { name: "UTC".to_owned(), zone: TimeZone::UTC }
            }
        }
    }
}

/// Keeps to a schedule.
pub struct Scheduler {
    /// When.
    pub schedule: Schedule,
    /// In which time zone; `None` for the server's.
    pub zone: Option<NamedZone>,
    /// A backup begins later by a random time up to this.
    pub jitter: Duration,
    /// The server, which is asked for its time zone.
    pub conninfo: Conninfo,
    /// Where the newest backup is looked for.
    pub repository: Repository,
    /// The stream, without which no backup's WAL becomes durable.
    pub progress: ProgressWatch,
    /// Whose turn it is.
    pub turns: Turns,
    /// How many backups there were, whoever asked.
    pub taken: watch::Receiver<u64>,
    /// Who takes them.
    pub taker: Arc<dyn TakesBase>,
    /// Who hears of what fails.
    pub alerts: Alerts,
    /// When the next one is.
    pub next: watch::Sender<Option<NextBackup>>,
    /// Since when every backup that is there is known to be of a clock that was wrong.
    pub only_wrong: Option<Timestamp>,
}

/// Nobody streams any more, or no backup may begin: the daemon ends.
struct Over;

impl Scheduler {
    /// Takes backups when they are due, until the stream's owner is gone.
    pub async fn keep(mut self) {
        let Ok(zone) = self.settled_zone().await else { return };
        tracing::info!(schedule = %self.schedule, timezone = zone.name, "base backups are taken on schedule");
        let newest = watch::Sender::new(None);
        let seen = newest.subscribe();
        let (schedule, jitter) = (self.schedule.clone(), self.jitter);
        let (alerts, turns, of_watch) = (self.alerts.clone(), self.turns.clone(), zone.clone());
        tokio::select! {
            Over = self.take_turns(&zone, &newest) => {}
            () = watch_overdue(&schedule, &of_watch.zone, GRACE.saturating_add(jitter), seen, &turns, &alerts) => {}
        }
    }

    async fn take_turns(&mut self, zone: &NamedZone, newest: &watch::Sender<Option<Option<Timestamp>>>) -> Over {
        let mut pause = PAUSES.0;
        let mut drawn: Option<(Timestamp, Duration)> = None;
        loop {
            // Its WAL can only become durable while a stream runs.
            if self.progress.connected().await.is_err() {
                return Over;
            }
            self.taken.mark_unchanged();
            let begun = match self.newest().await {
                Ok(begun) => begun,
                Err(error) => {
                    tracing::warn!(%error, "whether a base backup is due cannot be seen; looking again in {} s", pause.as_secs());
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                    continue;
                }
            };
            newest.send_replace(Some(begun));
            let now = Timestamp::now();
            let occasion = match turn(&self.schedule, &zone.zone, begun, now) {
                Turn::First => {
                    self.tell(zone, now);
                    Occasion::First
                }
                Turn::Due(due) => {
                    let by = match drawn {
                        Some((of, by)) if of == due => by,
                        _ => drawn.insert((due, self.draw())).1,
                    };
                    let at =
                        due.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::ZERO)).unwrap_or(due);
                    self.tell(zone, at);
                    if now < at {
                        self.wait_until(at).await;
                        continue;
                    }
                    Occasion::Schedule
                }
                Turn::Wait(next) => {
                    self.tell(zone, next);
                    self.settled();
                    self.wait_until(next).await;
                    continue;
                }
                Turn::Never => {
                    self.next.send_replace(None);
                    tracing::warn!(schedule = %self.schedule, "this schedule has no further time");
                    std::future::pending().await
                }
            };
            if self.turns.now().is_some() {
                // Perhaps it is as good.
                self.turns.free().await;
                continue;
            }
            match self.take(occasion).await {
                Ok(()) => pause = PAUSES.0,
                Err(TakeError::Busy(Some(_))) => {}
                Err(TakeError::Busy(None) | TakeError::Stopped) => return Over,
                Err(error) => {
                    let again = units::duration(pause);
                    let text =
                        format!("the base backup ({}) failed, and is tried again in {again}: {error}", word(occasion));
                    self.alerts.raise(AlertKind::BackupFailed, "", Severity::Warning, text);
                    tokio::select! {
                        () = sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                        // Somebody else's worked.
                        changed = self.taken.changed() => if changed.is_err() { return Over },
                    }
                }
            }
        }
    }

    async fn take(&self, occasion: Occasion) -> Result<(), TakeError> {
        match occasion {
            Occasion::First => tracing::info!(
                "there is no base backup yet, and nothing can be restored without one: taking the first one now (base.schedule = \
                 \"off\" leaves that to you)"
            ),
            _ => tracing::info!(schedule = %self.schedule, "a base backup is due: taking it now"),
        }
        self.taker.take_base(occasion).await.map(|_| ())
    }

    /// A backup is there, and nothing is due.
    fn settled(&self) {
        self.alerts.clear(AlertKind::BackupFailed, "", "a base backup was taken since");
        self.alerts.clear(AlertKind::BackupOverdue, "", "a base backup was taken since");
    }

    fn tell(&self, zone: &NamedZone, at: Timestamp) {
        let next = NextBackup { schedule: self.schedule.to_string(), timezone: zone.name.clone(), at };
        self.next.send_if_modified(|known| known.replace(next.clone()).is_none_or(|before| before != next));
    }

    /// Sleeps until then, a nap at a time, or until somebody takes a backup, or the clock is put back: what is due has to be found out
    /// anew then.
    async fn wait_until(&mut self, at: Timestamp) {
        let mut now = Timestamp::now();
        while now < at && !self.nap_until(at, now).await {
            let later = Timestamp::now();
            if later < now {
                return;
            }
            now = later;
        }
    }

    /// One nap; says whether a backup was taken meanwhile.
    async fn nap_until(&mut self, at: Timestamp, now: Timestamp) -> bool {
        let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        tokio::select! {
            () = sleep(left.min(NAP)) => false,
            changed = self.taken.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                true
            }
        }
    }

    /// When the newest backup was begun that has a label. Those of a clock that was wrong do not count beside others; where there are
    /// no others, this is when that was seen first: so that they hold up none of those to come.
    async fn newest(&mut self) -> Result<Option<Timestamp>, RepositoryError> {
        let now = Timestamp::now();
        let mut wrong = false;
        for id in self.repository.base_ids().await?.iter().rev() {
            match self.repository.label(id).await {
                Ok(label) if clock::was_wrong(label.start_time, now) => wrong = true,
                Ok(label) => return Ok(Some(label.start_time)),
                Err(error) if error.is_permanent() => tracing::warn!(%id, %error, "this base backup does not count"),
                Err(error) => return Err(error),
            }
        }
        Ok(wrong.then(|| *self.only_wrong.get_or_insert(now)))
    }

    /// The time zone of the schedule; the server is asked until it answers.
    async fn settled_zone(&mut self) -> Result<NamedZone, Over> {
        if let Some(zone) = &self.zone {
            return Ok(zone.clone());
        }
        let mut pause = PAUSES.0;
        loop {
            self.progress.connected().await.map_err(|_| Over)?;
            match self.servers_zone().await {
                Ok(setting) => return Ok(NamedZone::of_server(setting)),
                Err(error) => {
                    let text = format!(
                        "no base backup is taken on schedule yet: the server was not asked for its time zone, and is asked again in {}: \
                         {error}; base.timezone = \"UTC\", or another one, spares the question",
                        units::duration(pause)
                    );
                    self.alerts.raise(AlertKind::BackupFailed, "", Severity::Warning, text);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn servers_zone(&self) -> Result<String, PostgresError> {
        const DOING: &str = "reading TimeZone failed";
        match SqlClient::connect(&self.conninfo, "walseal schedule").await {
            Ok(sql) => {
                let row = sql.query_one(DOING, "SELECT current_setting('TimeZone')", &[]).await?;
                row.try_get(0).map_err(|error| SqlClient::error(DOING, &error))
            }
            // The role may only stream.
            Err(error) if error.sqlstate().is_some_and(|state| state.starts_with("28")) => {
                let mut client = primary::connect(&self.conninfo, "walseal schedule").await?;
                let setting = client.show("TimeZone").await?;
                client.close().await;
                Ok(setting)
            }
            Err(error) => Err(error),
        }
    }

    fn draw(&self) -> Duration {
        let most = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        // Without random bytes every daemon begins at the same moment, which is what jitter is to avoid, and no more.
        let random = getrandom::u64().unwrap_or_default();
        Duration::from_millis(if most == 0 { 0 } else { random % most.saturating_add(1) })
    }
}

fn word(occasion: Occasion) -> &'static str {
    if occasion == Occasion::First { "the first one" } else { "by schedule" }
}

/// Raises the alert of a backup that is overdue, until somebody takes one. Never ends.
async fn watch_overdue(
    schedule: &Schedule,
    zone: &TimeZone,
    grace: Duration,
    newest: watch::Receiver<Option<Option<Timestamp>>>,
    turns: &Turns,
    alerts: &Alerts,
) {
    let begun = Timestamp::now();
    loop {
        let known = *newest.borrow();
        let under_way = turns.now();
        let now = Timestamp::now();
        if let Some(newest) = known
            && let Some(due) = overdue((schedule, zone), newest, begun, grace, under_way.is_some(), now)
        {
            let last =
                newest.map_or_else(|| "there is none yet".to_owned(), |at| format!("the newest one was begun at {at}"));
            let why = match under_way {
                Some(one) => format!("one has been under way for longer than the time between two: {one}"),
                None => "none is under way: see the log, and try: walseal-archiver backup".to_owned(),
            };
            let text = format!("no base backup since one was due at {due} ({schedule}); {last}; {why}");
            alerts.raise(AlertKind::BackupOverdue, "", Severity::Critical, text);
        }
        sleep(NAP).await;
    }
}

#[cfg(test)]
mod tests;
