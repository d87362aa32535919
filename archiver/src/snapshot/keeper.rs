//! Snapshots by themselves: taken when they are due, compared with the last ones, and removed when they have had their time.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::sleep;
use walseal_common::clock;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Act, Ledger, RepositoryError, SnapshotId};
use walseal_common::schedule::UnknownZone;
use walseal_common::telemetry::{AlertKind, Alerts, DeadManSwitch, Severity, watch_proof};

use super::earlier::{Earlier, Shrunk};
use super::figures::Figures;
use super::retention::Keep;
use super::timetable::{Timetable, Turn};
use super::{Databases, Home, Order, Round, SnapshotError, Taken, removal};
use crate::archive::Archive;

/// First and longest pause after an attempt that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How long a removal waits until it is on record.
const RECORDED: Duration = Duration::from_secs(60);

/// The longest sleep: clocks are set, and machines are suspended.
const NAP: Duration = Duration::from_secs(60);

/// Keeps to a timetable.
pub struct Keeper {
    /// Store and keys.
    pub archive: Archive,
    /// The server.
    pub conninfo: Conninfo,
    /// When.
    pub timetable: Timetable,
    /// Which databases.
    pub databases: Databases,
    /// What of each.
    pub order: Order,
    /// How many at a time.
    pub jobs: usize,
    /// What is kept of what was taken.
    pub keep: Keep,
    /// Percent of its rows that a table may lose.
    pub shrink: u32,
    /// What was counted last time.
    pub earlier: Earlier,
    /// Who hears of what fails.
    pub alerts: Alerts,
    /// The ledger of this process, once it is known where it lies.
    pub ledger: Arc<OnceLock<Ledger>>,
    /// What is shown.
    pub figures: Arc<Figures>,
    /// Who misses this, where somebody does.
    pub dead_man: Option<DeadManSwitch>,
    /// Time without a drill that passed before that is an alert, where nobody else looks for that; zero is never.
    pub proven_within: Duration,
    watching: JoinSet<()>,
}

impl Keeper {
    /// What the configuration asks for; `None` where that is nothing.
    ///
    /// Errors: the time zone is not known on this host.
    pub fn of(
        archive: &Archive,
        conninfo: Conninfo,
        alerts: Alerts,
        ledger: Option<Ledger>,
    ) -> Result<Option<Keeper>, UnknownZone> {
        let config = &archive.config.snapshot;
        let Some(timetable) = Timetable::of(config)? else { return Ok(None) };
        let databases = match config.databases.as_ref().map(|setting| setting.value.as_slice()) {
            None | Some([]) => Databases::Connected,
            Some([all]) if all == "*" => Databases::All,
            Some(names) => Databases::Named(names.to_vec()),
        };
        let mut selection = Vec::new();
        for (word, patterns) in [("schema", &config.exclude_schemas), ("table", &config.exclude_tables)] {
            let patterns = patterns.iter().flat_map(|setting| &setting.value);
            selection.extend(patterns.map(|pattern| format!("--exclude-{word}={pattern}")));
        }
        let keep = Keep {
            within: config.within.as_ref().map(|setting| setting.value),
            last: config.last.value,
            daily: config.daily.value,
            weekly: config.weekly.value,
            monthly: config.monthly.value,
        };
        // Without a folder that is configured nothing is written on this host.
        let folder = archive.config.cluster.state_dir.as_ref().map(|setting| setting.value.as_path());
        Ok(Some(Keeper {
            conninfo,
            timetable,
            databases,
            order: Order { selection, label: None, hold_until: None },
            jobs: config.jobs.value,
            keep,
            shrink: config.shrink.value,
            earlier: Earlier::of(folder),
            figures: Arc::new(Figures::new(alerts.clone())),
            alerts,
            ledger: Arc::new(ledger.map(OnceLock::from).unwrap_or_default()),
            archive: archive.clone(),
            dead_man: None,
            proven_within: Duration::ZERO,
            watching: JoinSet::new(),
        }))
    }

    /// Tells `switch` whenever every database was looked after.
    #[must_use]
    pub fn telling(mut self, switch: Option<DeadManSwitch>) -> Keeper {
        self.dead_man = switch;
        self
    }

    /// Looks for drills as well: there is nobody else who does.
    #[must_use]
    pub fn expecting_proof(mut self, within: Duration) -> Keeper {
        self.proven_within = within;
        self
    }

    /// Takes snapshots when they are due, until this is dropped.
    pub async fn keep(mut self) {
        let mut pause = PAUSES.0;
        loop {
            match self.look().await {
                Ok(Some(next)) => {
                    pause = PAUSES.0;
                    self.figures.next(next);
                    sleep_until(next).await;
                }
                Ok(None) => {
                    tracing::error!("the schedule of snapshots has no further time");
                    return std::future::pending().await;
                }
                Err(()) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Takes what is due. Gives the next time; none where there is none.
    ///
    /// Errors: something failed, and was told.
    async fn look(&mut self) -> Result<Option<Timestamp>, ()> {
        let found = Home::find(&self.archive, self.conninfo.clone(), &self.databases).await;
        let home = match found {
            Ok(home) => home,
            Err(error) => {
                self.failed("", &error);
                return Err(());
            }
        };
        self.alerts.clear(AlertKind::SnapshotFailed, "", "the server and the repository are there");
        let ledger = self.ledger.get_or_init(|| {
            let ledger = home.ledger(&self.archive);
            ledger.record(Act::DaemonStarted {});
            ledger
        });
        let ledger = ledger.clone();
        if self.watching.is_empty() && !self.proven_within.is_zero() {
            let watch = watch_proof(home.repository.clone(), self.alerts.clone(), self.proven_within);
            self.watching.spawn(async move { match watch.await {} });
        }
        let begun = match removal::labels(&home.repository).await {
            Ok(labels) => {
                self.figures.holds(&labels);
                let mut newest: BTreeMap<String, Timestamp> = BTreeMap::new();
                let now = Timestamp::now();
                for label in labels {
                    if clock::was_wrong(label.start_time, now) {
                        // It must not hold up the others until then.
                        continue;
                    }
                    let time = newest.entry(label.series).or_insert(label.start_time);
                    *time = (*time).max(label.start_time);
                }
                newest
            }
            Err(error) => {
                self.failed("", &error.into());
                return Err(());
            }
        };
        let (mut times, mut due, mut databases) = (Vec::new(), Vec::new(), Vec::new());
        for database in &home.databases {
            let series = self.order.series(database, home.keys.writer.compare());
            match self.timetable.turn(begun.get(&series).copied(), Timestamp::now()) {
                Turn::Never => {}
                Turn::Wait(next) => times.push(next),
                Turn::Due(at) => {
                    due.push(at);
                    databases.push(database.clone());
                }
            }
        }
        if let Some(first) = due.into_iter().min() {
            sleep_until(first.saturating_add(draw(self.timetable.jitter)).unwrap_or(first)).await;
        }
        let (mut failures, mut stored) = (0_usize, Vec::new());
        let order = self.order.clone();
        let round = Round::new(&home, &order, &ledger, self.jobs);
        let mut dumps = std::pin::pin!(round.take(&databases, |_| ()));
        while let Some((place, outcome)) = dumps.next().await {
            match outcome {
                Ok(done) => {
                    self.done(&done);
                    stored.push(done.label.id.to_string());
                    match self.timetable.turn(Some(done.label.start_time), Timestamp::now()) {
                        Turn::Due(at) | Turn::Wait(at) => times.push(at),
                        Turn::Never => {}
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.failed(databases.get(place).map_or("", String::as_str), &error);
                }
            }
        }
        stored.sort();
        if !stored.is_empty()
            && let Err(error) = self.remove(&home, &ledger).await
        {
            tracing::warn!(%error, "snapshots that have had their time could not be removed; tried again after the next one");
        }
        if failures > 0 {
            return Err(());
        }
        if let (Some(switch), true) = (&mut self.dead_man, !stored.is_empty()) {
            let witness = serde_json::json!({ "snapshots": stored });
            switch.tell("snapshots-stored", witness, ledger.head()).await;
        }
        Ok(times.into_iter().min())
    }

    fn done(&mut self, taken: &Taken) {
        let database = taken.database.as_str();
        tracing::info!(
            id = %taken.label.id,
            database,
            dump_size = taken.label.dump_size,
            stored_size = taken.label.stored_size,
            seconds = taken.took.as_secs_f64(),
            "took a snapshot"
        );
        let text = format!("a snapshot of {database} was taken: {}", taken.label.id);
        self.alerts.clear(AlertKind::SnapshotFailed, database, text);
        self.figures.took(taken);
        let shrunk = self.earlier.compare(&taken.label.series, &taken.facts, self.shrink);
        let subject = |table: &str| format!("{database} {table}");
        let of_others = self.alerts.standing().into_iter().filter(|alert| alert.kind == AlertKind::TableShrank);
        let mut stand: Vec<String> = of_others.map(|alert| alert.subject).collect();
        stand.retain(|known| !known.starts_with(&subject("")));
        stand.extend(shrunk.iter().map(|shrunk| subject(&shrunk.table)));
        self.alerts.clear_all_but(
            AlertKind::TableShrank,
            &stand,
            "it lost no more since; earlier snapshots still have the rows",
        );
        for Shrunk { table, before, now } in shrunk {
            let text = match now {
                Some(now) => {
                    format!("table {table} of {database} has {now} rows, and had {before} in the snapshot before")
                }
                None => format!("table {table} of {database} is gone, and had {before} rows in the snapshot before"),
            };
            self.alerts.raise(AlertKind::TableShrank, subject(&table), Severity::Warning, text);
        }
        self.earlier.save();
    }

    fn failed(&self, database: &str, error: &SnapshotError) {
        let of = if database.is_empty() { String::new() } else { format!(" of {database}") };
        let text = format!("no snapshot{of} could be taken, and it is tried again: {error}");
        self.alerts.raise(AlertKind::SnapshotFailed, database, Severity::Critical, text);
        self.figures.failed();
    }

    /// Removes what has had its time.
    async fn remove(&self, home: &Home, ledger: &Ledger) -> Result<(), RepositoryError> {
        let now = removal::now(&home.repository).await?;
        let labels = removal::labels(&home.repository).await?;
        let gone: Vec<SnapshotId> = self.keep.plan(&labels, &self.timetable.zone, now);
        for id in &gone {
            // On record first: what went and is not there would be missed for good.
            if !ledger.record_first(Act::SnapshotRemoved { id: id.clone() }, RECORDED).await {
                tracing::warn!(%id, "a snapshot that had its time stays until the ledger can be written");
                return Ok(());
            }
            removal::remove(&home.repository, id).await?;
            tracing::info!(%id, "removed a snapshot that had its time");
        }
        let debris = removal::remove_debris(&home.repository, now).await?;
        if debris > 0 {
            tracing::info!(debris, "removed what dumps left that came to nothing");
        }
        self.figures.holds(&labels.into_iter().filter(|label| !gone.contains(&label.id)).collect::<Vec<_>>());
        Ok(())
    }
}

/// Sleeps until then, a nap at a time, or until the clock is put back: what is due has to be found out anew then.
async fn sleep_until(moment: Timestamp) {
    let mut now = Timestamp::now();
    while now < moment {
        sleep(Duration::try_from(moment.duration_since(now)).unwrap_or_default().min(NAP)).await;
        let later = Timestamp::now();
        if later < now {
            return;
        }
        now = later;
    }
}

/// A random time up to this one.
fn draw(jitter: Duration) -> SignedDuration {
    let most = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 8];
    // Without random bytes it begins at once.
    let drawn = getrandom::fill(&mut random).map_or(0, |()| u64::from_le_bytes(random));
    let by = if most == 0 { 0 } else { drawn % most.saturating_add(1) };
    SignedDuration::from_millis(i64::try_from(by).unwrap_or(i64::MAX))
}
