//! What the daemon shows on `http.listen`: `/metrics` for Prometheus, `/healthz` for whoever asks whether it works.
//! `docs/METRICS.md` has every name.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use walseal_common::lsn::LsnRange;
use walseal_common::repository::{Label, ObjectName, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::store::StoreErrorKind;
use walseal_common::telemetry::{AlertKind, Alerts, EXPOSITION_TYPE, Exposition, Labels, Page, Pages};
use walseal_common::timeline::Branch;

use crate::gaps::{self, GapStatus};
use crate::memory::Memory;
use crate::objectives::Kept;
use crate::retention::RetentionStatus;
use crate::snapshot;
use crate::stream::{Progress, ProgressWatch};
use crate::verify::Verified;

/// How long the store may take to show that it is there.
const GLANCE: Duration = Duration::from_secs(4);

/// Monitors that ask more often get the same answer.
const GLANCE_HOLDS: Duration = Duration::from_secs(5);

/// How often the repository is read for what others may have put there.
const REREAD: Duration = Duration::from_secs(600);

/// What lies in the repository, as last read.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    bases: usize,
    last: Option<Label>,
    gaps: usize,
    gap_bytes: u64,
}

/// Everything that is shown.
#[derive(Debug)]
pub struct Figures {
    /// Where the stream is.
    pub progress: ProgressWatch,
    /// What stands.
    pub alerts: Alerts,
    /// The repository.
    pub repository: Repository,
    /// What it is.
    pub identity: RepositoryIdentity,
    /// What pieces of WAL may take, and do.
    pub memory: Memory,
    /// Bytes of WAL that the server keeps for us, where the lookout sees that.
    pub kept: watch::Receiver<Option<u64>>,
    /// What retention came to.
    pub retention: watch::Receiver<Option<RetentionStatus>>,
    /// What verifications found.
    pub verified: watch::Receiver<Option<Verified>>,
    /// How far what was promised was kept.
    pub objectives: watch::Receiver<Option<Kept>>,
    /// What is known of snapshots, where this daemon takes them.
    pub snapshots: Option<Arc<snapshot::figures::Figures>>,
    holdings: watch::Sender<Option<Holdings>>,
    glance: Mutex<Option<(Instant, Option<String>)>>,
    started: Timestamp,
}

impl Figures {
    /// Nothing is read yet.
    pub fn new(
        progress: ProgressWatch,
        alerts: Alerts,
        repository: Repository,
        identity: RepositoryIdentity,
        memory: Memory,
        kept: watch::Receiver<Option<u64>>,
        verified: watch::Receiver<Option<Verified>>,
    ) -> Figures {
        Figures {
            progress,
            alerts,
            repository,
            identity,
            memory,
            kept,
            retention: watch::channel(None).1,
            verified,
            objectives: watch::channel(None).1,
            snapshots: None,
            holdings: watch::Sender::new(None),
            glance: Mutex::default(),
            started: Timestamp::now(),
        }
    }

    /// Where retention is kept to, what it comes to.
    pub fn keeping(self, retention: watch::Receiver<Option<RetentionStatus>>) -> Figures {
        Figures { retention, ..self }
    }

    /// Where it is looked at, how far what was promised was kept.
    pub fn measuring(self, objectives: watch::Receiver<Option<Kept>>) -> Figures {
        Figures { objectives, ..self }
    }

    /// Of a daemon that began then.
    pub fn since(self, started: Timestamp) -> Figures {
        Figures { started, ..self }
    }

    /// With what is known of snapshots.
    pub fn beside(self, snapshots: Option<Arc<snapshot::figures::Figures>>) -> Figures {
        Figures { snapshots, ..self }
    }

    /// Reads the repository at the start, after each gap and base backup of this process, when another branch is streamed, and now and
    /// then. `taken` changes
    /// when a base backup was taken. Returns when there are none to come.
    pub async fn follow(&self, mut taken: watch::Receiver<u64>) {
        let mut progress = self.progress.clone();
        loop {
            let now = progress.now();
            match self.read(now.branch).await {
                Ok(holdings) => {
                    self.holdings.send_replace(Some(holdings));
                }
                Err(error) => tracing::debug!(%error, "the repository was not read for the metrics"),
            }
            tokio::select! {
                changed = taken.changed() => if changed.is_err() { return },
                // Which gaps count depends on the branch.
                other = progress.once(|later| later.gaps > now.gaps || later.branch != now.branch) => {
                    if other.is_err() { return }
                }
                () = tokio::time::sleep(REREAD) => {}
            }
        }
    }

    async fn read(&self, streamed: Option<Branch>) -> Result<Holdings, RepositoryError> {
        let ids = self.repository.base_ids().await?;
        let mut holdings = Holdings { bases: ids.len(), ..Holdings::default() };
        for id in ids.iter().rev() {
            match self.repository.label(id).await {
                Ok(label) => {
                    holdings.last = Some(label);
                    break;
                }
                Err(error) if error.is_permanent() => tracing::debug!(%id, %error, "this base backup does not count"),
                Err(error) => return Err(error),
            }
        }
        for open in self.gaps(streamed).await? {
            holdings.gaps += 1;
            holdings.gap_bytes += open.end.bytes_since(open.start);
        }
        Ok(holdings)
    }

    /// What is missing, as `status` counts it.
    async fn gaps(&self, streamed: Option<Branch>) -> Result<Vec<LsnRange>, RepositoryError> {
        let repository = &self.repository;
        let branches = if streamed.is_some() { Vec::new() } else { repository.branches().await? };
        let way = gaps::way(repository, &repository.adoptions().await?, streamed, &branches).await?;
        let found = gaps::gaps(repository, self.identity.segment_size, way.as_deref()).await?;
        Ok(found.iter().filter_map(GapStatus::counts).collect())
    }

    /// Why the store does not do its part, in words; `None` where it does.
    async fn store_trouble(&self, now: &Progress) -> Option<String> {
        if now.store_trouble.is_some() {
            return now.store_trouble.clone();
        }
        let known = self.glance.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, seen)) = known
            && at.elapsed() < GLANCE_HOLDS
        {
            return seen;
        }
        let key = ObjectName::Identity.key(self.repository.cluster());
        let seen = match timeout(GLANCE, self.repository.store().get_range(&key, 0..1)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) if error.kind == StoreErrorKind::NotFound => {
                Some(format!("{error}: the repository is gone"))
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("{} did not answer within {} s", self.repository.describe(), GLANCE.as_secs())),
        };
        *self.glance.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), seen.clone()));
        seen
    }

    async fn health(&self) -> Page {
        let now = self.progress.now();
        let mut lines = Vec::new();
        if !now.connected {
            lines.push(format!("not streaming: {}", now.trouble.as_deref().unwrap_or("the stream has not begun")));
        }
        if let Some(why) = self.store_trouble(&now).await {
            lines.push(format!("store: {why}"));
        }
        let (status, lines) = if lines.is_empty() { (200, vec!["ok".to_owned()]) } else { (503, lines) };
        let lines: Vec<_> = lines.iter().map(|line| line.replace('\n', " ")).collect();
        Page::text(status, format!("{}\n", lines.join("\n")))
    }

    fn metrics(&self) -> String {
        let now = self.progress.now();
        let mut page = Exposition::of_daemon(env!("CARGO_PKG_VERSION"), self.started);
        page.memory();
        stream(&mut page, &now, self.started);
        page.gauge(
            "walseal_wal_retained_bytes",
            "WAL that the server keeps for the replication slot.",
            (*self.kept.borrow()).map(|bytes| bytes as f64),
        );
        let (used, most) = self.memory.in_use();
        page.gauge("walseal_wal_memory_used_bytes", "Memory that pieces of WAL on their way take.", used as f64);
        page.gauge("walseal_wal_memory_limit_bytes", "The bound on it.", most as f64);
        self.store(&mut page, &now);
        self.repository(&mut page);
        self.verification(&mut page);
        self.kept(&mut page);
        if let Some(snapshots) = &self.snapshots {
            snapshots.expose(&mut page);
        }
        page.alerts(&self.alerts, AlertKind::ALL);
        page.finish()
    }

    fn store(&self, page: &mut Exposition, now: &Progress) {
        store_failing(page, now.store_trouble.is_some());
        let Some(tally) = self.repository.store().tally() else { return };
        let calls: Vec<_> = tally.calls().map(|(operation, count)| ([("operation", operation)], count)).collect();
        page.counters(
            "walseal_store_requests_total",
            "Calls to the store, each attempt.",
            calls.iter().map(|(labels, count)| (labels as Labels<'_>, *count)),
        );
        let failures: Vec<_> = tally
            .failures()
            .map(|(operation, kind, count)| ([("operation", operation), ("kind", kind)], count))
            .collect();
        page.counters(
            "walseal_store_errors_total",
            "Attempts that failed.",
            failures.iter().map(|(labels, count)| (labels as Labels<'_>, *count)),
        );
        page.counter("walseal_store_put_bytes_total", "Bytes of objects that were created.", tally.put_bytes());
        let (buckets, beyond, sum) = tally.puts();
        page.histogram("walseal_store_put_duration_seconds", "How long puts took that worked.", buckets, beyond, sum);
    }

    fn kept(&self, page: &mut Exposition) {
        let kept = self.objectives.borrow();
        let objectives = kept.as_ref().map(|kept| &kept.objectives);
        page.gauge(
            "walseal_objective_loss_ratio",
            "Share of the measured time in which no more than the objective would have been lost, last 30 days.",
            objectives.and_then(|one| one.within_rpo),
        );
        page.gauge(
            "walseal_objective_loss_limit_seconds",
            "The objective: time that may be lost.",
            kept.as_ref().map(|kept| kept.rpo_seconds),
        );
        page.gauge(
            "walseal_objective_measured_seconds",
            "The measured time.",
            objectives.map(|one| one.measured_seconds),
        );
        page.gauge(
            "walseal_objective_backups_ratio",
            "Share of base backups that were finished, last 30 days.",
            objectives.and_then(|one| one.backups.share),
        );
        page.gauge(
            "walseal_objective_drills_ratio",
            "Share of drills that passed, last 30 days.",
            objectives.and_then(|one| one.drills.share),
        );
        page.gauge(
            "walseal_objective_detection_seconds",
            "From the beginning of an outage to the first entry that told of it, on average, last 30 days.",
            objectives.and_then(|one| one.mean_seconds_to_detect),
        );
    }

    fn verification(&self, page: &mut Exposition) {
        let verified = *self.verified.borrow();
        let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1e3;
        page.gauge(
            "walseal_verify_last_time_seconds",
            "When names and records of the repository were last compared, since 1970.",
            verified.and_then(|known| known.surveyed).map(seconds),
        );
        page.gauge(
            "walseal_verify_flaws",
            "What is known to be wrong with the repository.",
            verified.map(|known| known.flaws as f64),
        );
        page.gauge(
            "walseal_verify_round_start_time_seconds",
            "When the round over every object began that is under way or was the last, since 1970.",
            verified.and_then(|known| known.round_began).map(seconds),
        );
        page.gauge(
            "walseal_verify_round_objects",
            "Objects that it has read.",
            verified.filter(|known| known.round_began.is_some()).map(|known| known.objects as f64),
        );
    }

    fn repository(&self, page: &mut Exposition) {
        let holdings = self.holdings.borrow();
        let known = holdings.as_ref();
        let last = known.and_then(|known| known.last.as_ref());
        let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1e3;
        page.gauge(
            "walseal_gaps",
            "Gaps in the repository's WAL that nobody filled, and that the cluster did not go back to before.",
            known.map(|known| known.gaps as f64),
        );
        page.gauge("walseal_gap_bytes", "WAL that is missing in them.", known.map(|known| known.gap_bytes as f64));
        page.gauge("walseal_base_backups", "Base backups in the repository.", known.map(|known| known.bases as f64));
        page.gauge(
            "walseal_base_backup_last_time_seconds",
            "When the newest base backup ended, since 1970.",
            last.map(|label| seconds(label.stop_time)),
        );
        page.gauge(
            "walseal_base_backup_last_duration_seconds",
            "How long it took.",
            last.map(|label| seconds(label.stop_time) - seconds(label.start_time)),
        );
        page.gauge(
            "walseal_base_backup_last_cluster_bytes",
            "Bytes of the cluster in it.",
            last.map(|label| label.cluster_size as f64),
        );
        page.gauge(
            "walseal_base_backup_last_stored_bytes",
            "Bytes that it added to the repository.",
            last.map(|label| label.stored_size as f64),
        );
        let retention = self.retention.borrow();
        let retention = retention.as_ref();
        page.gauge(
            "walseal_oldest_restorable_time_seconds",
            "No state of the cluster is older that can be restored, since 1970.",
            retention.and_then(|one| one.oldest).map(seconds),
        );
        page.gauge(
            "walseal_retention_past_bytes",
            "What nothing promises any more, and is still there.",
            retention.map(|one| one.past.bytes as f64),
        );
        page.gauge(
            "walseal_retention_past_objects",
            "The number of its objects.",
            retention.map(|one| one.past.objects as f64),
        );
        page.gauge(
            "walseal_retention_locked_bytes",
            "What nothing promises any more, and object lock keeps.",
            retention.map(|one| one.locked.sum.bytes as f64),
        );
    }
}

/// Whether WAL is streamed.
pub(crate) fn streaming(page: &mut Exposition, is: bool) {
    page.gauge("walseal_streaming", "1 while WAL is streamed from the server.", f64::from(u8::from(is)));
}

/// Whether the store fails.
pub(crate) fn store_failing(page: &mut Exposition, is: bool) {
    let help = "1 while the store fails to do something that is tried again.";
    page.gauge("walseal_store_failing", help, f64::from(u8::from(is)));
}

fn stream(page: &mut Exposition, now: &Progress, started: Timestamp) {
    let position = |lsn: walseal_common::lsn::Lsn| (!lsn.is_invalid()).then_some(lsn.0 as f64);
    streaming(page, now.connected);
    page.gauge(
        "walseal_wal_timeline",
        "The timeline that is streamed, or was last.",
        now.branch.map(|branch| f64::from(branch.timeline.number())),
    );
    page.gauge(
        "walseal_wal_server_position_bytes",
        "End of WAL on the server, an LSN as a number.",
        position(now.server_end),
    );
    page.gauge("walseal_wal_received_position_bytes", "End of what was received.", position(now.received));
    page.gauge(
        "walseal_wal_frontier_position_bytes",
        "The frontier: end of what is durable without a hole, and confirmed.",
        position(now.frontier),
    );
    page.gauge(
        "walseal_wal_lag_bytes",
        "WAL that the server has and the repository has not.",
        now.not_durable() as f64,
    );
    let at = Timestamp::now();
    let behind = now.behind(at).as_secs_f64();
    page.gauge("walseal_wal_lag_seconds", "How long the oldest WAL that is not durable has been known.", behind);
    // Before the first stream nobody knows what is missing, and that is no better the longer it lasts.
    let blind = || Duration::try_from(at.duration_since(started)).unwrap_or_default();
    let lost = now.loss(at).map_or_else(blind, |loss| loss.time).as_secs_f64();
    page.gauge("walseal_rpo_seconds", "Time that would be lost, at most, if the primary died now.", lost);
    page.counter("walseal_wal_shipped_pieces_total", "Pieces of WAL that became durable.", now.shipped_pieces);
    page.counter("walseal_wal_shipped_bytes_total", "Bytes of WAL in them.", now.shipped_bytes);
    page.counter("walseal_gaps_found_total", "Gaps that this daemon found and recorded.", now.gaps);
}

/// What is served, shared with the task that follows the repository.
#[derive(Clone, Debug)]
pub struct FigurePages(pub Arc<Figures>);

#[async_trait::async_trait]
impl Pages for FigurePages {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page { status: 200, content_type: EXPOSITION_TYPE, body: self.0.metrics() }),
            "/healthz" => Some(self.0.health().await),
            _ => None,
        }
    }
}
