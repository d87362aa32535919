//! The lookout: looks at stream, store and server at intervals, and raises and clears the alerts that follow from what it sees.
//!
//! What one event tells (a gap, a conflict, a slot that was made anew) is raised where it happens.

mod backlog;
mod exposure;
mod forks;
mod jam;
mod kept;
mod recipients;
mod rivals;
mod server;
mod upstream;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use walseal_common::config::Config;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::Repository;
use walseal_common::segment::SegmentSize;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

use crate::doctor::synchronous;
use crate::stream::{Limit, Progress, ProgressWatch};
use exposure::ExposureWatch;
use forks::ForkWatch;
use jam::JamWatch;
pub(crate) use kept::KeptWatch;
pub use recipients::judge_recipients;
use rivals::RivalWatch;
use upstream::UpstreamWatch;

/// How often it looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// What the lookout needs.
#[derive(Debug)]
pub struct Lookout {
    /// Who hears of it.
    pub alerts: Alerts,
    /// Where the stream is.
    pub progress: ProgressWatch,
    /// The store below.
    pub repository: Repository,
    /// Size of the cluster's segments.
    pub segment_size: SegmentSize,
    /// The server.
    pub conninfo: Conninfo,
    /// The slot.
    pub slot: String,
    /// `wal.synchronous`: commits may wait for us.
    pub synchronous: bool,
    /// `alerts.store_after`.
    pub store_after: Duration,
    /// `alerts.backlog`, in bytes.
    pub backlog: u64,
    /// `alerts.rpo`.
    pub rpo: Duration,
    /// Bytes of WAL that the slot keeps, as last seen; `None` where that is not known.
    pub kept: watch::Sender<Option<u64>>,
    /// `wal.give_up_at`, which the stream keeps to.
    pub limit: Option<Limit>,
}

impl Lookout {
    /// As the configuration says.
    pub fn new(
        config: &Config,
        alerts: Alerts,
        progress: ProgressWatch,
        (repository, segment_size): (Repository, SegmentSize),
        conninfo: Conninfo,
        slot: String,
    ) -> Lookout {
        Lookout {
            alerts,
            progress,
            repository,
            segment_size,
            conninfo,
            slot,
            synchronous: config.wal.synchronous.value,
            store_after: config.alerts.store_after.value,
            backlog: config.alerts.backlog.value,
            rpo: config.alerts.rpo.value,
            kept: watch::Sender::new(None),
            limit: None,
        }
    }

    /// Tells the stream how much the server keeps for the slot.
    #[must_use]
    pub fn limiting(mut self, limit: Option<Limit>) -> Lookout {
        self.limit = limit;
        self
    }

    /// Looks until it is dropped.
    pub async fn keep(self) -> Infallible {
        let mut store = StoreWatch::default();
        let mut exposure = ExposureWatch::new(self.rpo);
        let (alerts, conninfo, slot) = (self.alerts.clone(), self.conninfo.clone(), self.slot.clone());
        let mut kept = KeptWatch::new(alerts, conninfo, slot, self.backlog, self.limit.clone());
        let mut jam = JamWatch::new(self.backlog);
        let mut rivals = RivalWatch::default();
        let mut forks = ForkWatch::new(self.repository.clone(), self.segment_size);
        let mut upstream = UpstreamWatch::new(self.rpo);
        loop {
            let now = self.progress.now();
            store.look(&self, &now, Instant::now());
            exposure.look(&self.alerts, &now, Timestamp::now());
            self.ask_again(&now).await;
            rivals.look(&self.conninfo, self.repository.cluster(), &self.alerts, &now, Instant::now()).await;
            let view = kept.look(&now).await;
            if let Some(names) = &view.synchronous_standby_names {
                self.judge_synchronous(names);
            }
            // Each look counts once.
            if view.fresh {
                upstream.look(&self.alerts, view.upstream, now.host.as_deref(), Instant::now());
            }
            jam.look(&self.alerts, &view.archiving, view.room.map(|room| room.free), Instant::now());
            self.kept.send_replace(view.kept());
            forks.look(&self.alerts, &now, Instant::now()).await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// What failed once and was given up would stand as trouble until somebody happens to ask the store for the same again.
    async fn ask_again(&self, now: &Progress) {
        let Some(failing) = self.repository.store().failing().filter(|_| now.store_trouble.is_some()) else { return };
        let operation = failing.borrow().worst().map(|error| error.operation);
        let store = self.repository.store();
        let asked = async {
            match operation {
                Some("list") => store.list("probe/", None, 1).await.map(|_| ()),
                Some("get") => store.get_range("probe/status", 0..1).await.map(|_| ()),
                // A put shows by itself whether it works: there is WAL to store, or nothing to worry about.
                _ => Ok(()),
            }
        };
        if let Ok(Err(error)) = tokio::time::timeout(INTERVAL, asked).await {
            tracing::debug!(%error, "the store was asked again");
        }
    }

    fn judge_synchronous(&self, names: &str) {
        const KIND: AlertKind = AlertKind::SynchronousUnasked;
        if !self.synchronous && synchronous::names_everybody(names) {
            let finding = synchronous::synchronous(names, &self.slot, false);
            let text = [finding.text].into_iter().chain(finding.fix).collect::<Vec<_>>().join("; ");
            self.alerts.raise(KIND, "", Severity::Warning, text);
        } else {
            let over = format!("synchronous_standby_names = '{names}' does not name everybody any more");
            self.alerts.clear(KIND, "", over);
        }
    }
}

/// What is found again within this time of streaming, or is over.
const SETTLED: Duration = Duration::from_secs(180);

/// What is noticed only when it happens: where the daemon before this one told of it, and it has not happened again, it is over.
/// Of slots, that may be one of another name.
const NOTICED: [AlertKind; 5] = [
    AlertKind::Conflict,
    AlertKind::ServerBehind,
    AlertKind::ConfirmedMissing,
    AlertKind::SlotLost,
    AlertKind::SlotAtRisk,
];

/// What stood before, and is not looked at by this configuration, is over. `dumps`: snapshots are taken.
pub fn dismiss_unwatched(config: &Config, alerts: &Alerts, dumps: bool) {
    let watched = |is: bool, kinds: &[AlertKind]| {
        if !is {
            alerts.clear_unfound(kinds, "nobody looks at it any more: the configuration does not ask for that");
        }
    };
    watched(config.base.schedule.value.is_some(), &[AlertKind::BackupFailed, AlertKind::BackupOverdue]);
    watched(!config.alerts.rpo.value.is_zero(), &[AlertKind::RpoExceeded]);
    watched(!config.alerts.proven_within.value.is_zero(), &[AlertKind::DrillOverdue]);
    watched(!config.verify.every.value.is_zero(), &[AlertKind::NotWhole]);
    watched(config.retention.prune.value, &[AlertKind::RetentionRefused]);
    watched(dumps, &[AlertKind::SnapshotFailed, AlertKind::TableShrank]);
}

/// Tells the end of what has not happened again since this daemon began. Returns then.
pub async fn settle(alerts: Alerts, mut progress: ProgressWatch) {
    loop {
        if progress.connected().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLED).await;
        if progress.now().connected {
            alerts.clear_unfound(&NOTICED, "it was not found again since the daemon was started");
            return;
        }
    }
}

/// What else follows with `wal.synchronous`.
const WAITING: &str = ". Where synchronous_standby_names names this archiver, commits wait until it is back; to let them go without it: ALTER \
                       SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();";

/// What the alert says of a store that has failed for so long, for this reason.
pub(crate) fn store_fails(lasted: Duration, trouble: &str, synchronous: bool) -> String {
    let lasted = units::duration(Duration::from_secs(lasted.as_secs()));
    let waiting = if synchronous { WAITING } else { "" };
    format!("the store has failed for {lasted}, and the server keeps the WAL meanwhile: {trouble}{waiting}")
}

/// Since when the store has failed.
#[derive(Debug, Default)]
struct StoreWatch {
    since: Option<Instant>,
}

impl StoreWatch {
    fn look(&mut self, lookout: &Lookout, now: &Progress, at: Instant) {
        const KIND: AlertKind = AlertKind::StoreUnreachable;
        let Some(trouble) = &now.store_trouble else {
            self.since = None;
            lookout.alerts.clear(KIND, "", "the store does what it is asked for again");
            return;
        };
        let since = *self.since.get_or_insert(at);
        let lasted = at.duration_since(since);
        if lasted >= lookout.store_after {
            let text = store_fails(lasted, trouble, lookout.synchronous);
            lookout.alerts.raise(KIND, "", Severity::Critical, text);
        }
    }
}
