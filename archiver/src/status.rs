//! How far back and how close to now the cluster can be restored: what the daemon knows, and what lies in the repository.
//!
//! Neither needs the other: with the store gone the daemon still tells where it is, and without a daemon the repository
//! still tells what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::config::{Config, OpenError, StoreUse};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{
    Adoption, BaseId, BaseType, Gap, Label, Lineage, Proof, Repository, RepositoryError, RepositoryIdentity,
    SnapshotId, SnapshotProof, Step, WalListing, extents_along, lies_on,
};
use walseal_common::store::{ObjectStore, RetryPolicy, StoreErrorKind};
use walseal_common::telemetry::{OpenAlert, Severity};
use walseal_common::terminal::{CheckExit, units};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use crate::archive::{Archive, ArchiveError};
use crate::arrival;
use crate::gaps::{self, GapStatus};
use crate::lock::StateLock;
use crate::objectives::Kept;
use crate::requests::Requests;
use crate::retention::RetentionStatus;
use crate::scheduler::NextBackup;
use crate::stream::{Loss, Progress};
use crate::told::Told;
use crate::turns::UnderWay;
use crate::verify::Verified;

/// How long the store may take to show that it is there at all.
const GLANCE: Duration = Duration::from_secs(4);

/// Time's worth of WAL that may wait for the store before monitors hear of it.
const LAG_LIMIT: Duration = Duration::from_secs(60);

/// The same while the store refuses to take it.
const LAG_LIMIT_IN_TROUBLE: Duration = Duration::from_secs(5);

/// What is known of the archive.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The repository's URL.
    pub repository: String,
    /// The cluster's system identifier; `None` when the repository could not be read, or is none yet.
    pub cluster: Option<String>,
    /// The daemon's process id; `None` when no daemon runs.
    pub daemon_pid: Option<u32>,
    /// Where the daemon's stream is; `None` when no daemon runs.
    pub stream: Option<Progress>,
    /// What the daemon has alerted of and still stands; `None` when no daemon runs.
    pub alerts: Option<Vec<OpenAlert>>,
    /// The base backup that the daemon is taking.
    pub backup: Option<UnderWay>,
    /// When the daemon takes the next one; `None` when no daemon runs, or it has no schedule.
    pub next_backup: Option<NextBackup>,
    /// What retention came to; `None` when no daemon runs, and before it was looked at.
    pub retention: Option<RetentionStatus>,
    /// How far what was promised was kept in the last 30 days; `None` when no daemon runs, and before it was looked at.
    pub objectives: Option<Kept>,
    /// How often the daemon asked its store in the last day; `None` when no daemon runs.
    pub requests: Option<Requests>,
    /// Seconds of committed work that would be lost if the primary died now ([`Progress::loss`]); `None` when no daemon runs, or
    /// it has not reached the server yet.
    pub rpo_seconds: Option<f64>,
    /// Whether that is what is lost at most, because the server is not heard at the moment.
    pub rpo_at_most: bool,
    /// The WAL in the repository; `None` when it could not be read.
    pub branches: Option<Vec<BranchStatus>>,
    /// The base backups in the repository, oldest first; `None` when it could not be read.
    pub bases: Option<Vec<BaseStatus>>,
    /// What drills of base backups found; `None` when the repository could not be read.
    pub drills: Option<DrillStatus>,
    /// The snapshots in the repository; `None` when it could not be read.
    pub snapshots: Option<SnapshotStatus>,
    /// What verifications of this host found; `None` before the first.
    pub verified: Option<Verified>,
    /// WAL that was lost, as recorded; `None` when the repository could not be read.
    pub gaps: Option<Vec<GapStatus>>,
    /// Where two servers wrote the same timeline, and which of them is the living one; `None` when the repository could not be read.
    pub adoptions: Option<Vec<Adoption>>,
    /// Why something could not be read, in words.
    pub error: Option<String>,
}

/// The WAL of a branch.
#[derive(Debug, Serialize)]
pub struct BranchStatus {
    /// The branch.
    pub branch: Branch,
    /// Runs of whole segments.
    pub runs: Vec<LsnRange>,
    /// End of the contiguous WAL of the last run, by name.
    pub end: Lsn,
}

/// A base backup.
#[derive(Debug, Serialize)]
pub struct BaseStatus {
    /// Its id.
    pub id: BaseId,
    /// Whether it refers to others.
    #[serde(rename = "type")]
    pub kind: BaseType,
    /// What it was compared with.
    pub parent: Option<BaseId>,
    /// The branch that it was taken on.
    pub branch: Branch,
    /// Where it began.
    pub start: Lsn,
    /// From here on it is consistent.
    pub stop: Lsn,
    /// When that was.
    pub stop_time: Timestamp,
    /// Bytes of the cluster.
    pub cluster_size: u64,
    /// Bytes that it added to the repository.
    pub stored_size: u64,
    /// Bytes of earlier backups' objects that it needs as well.
    pub referenced_size: u64,
    /// Page checksum failures that the server reported.
    pub suspect: u64,
    /// Whether a drill passed; `None` before one has run.
    pub proven: Option<bool>,
    /// When one last did.
    pub proven_at: Option<Timestamp>,
    /// What it comes from, where a drill made it.
    pub derived: Option<Lineage>,
    /// Whether its WAL does not reach the next base backup of its branch, as of those that retention keeps beyond the window.
    pub alone: bool,
    /// Whether the cluster went back to before it, or failed over without it: it does not lie on the way to the branch that is streamed.
    pub given_up: bool,
    /// Whether WAL is missing between it and what the daemon knows to be durable, recorded as a gap or not.
    pub cut_off: bool,
}

/// What drills found.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DrillStatus {
    /// When a drill last passed, of whichever backup.
    pub last_passed: Option<Timestamp>,
    /// When the last one was judged.
    pub last: Option<Timestamp>,
    /// Whether it passed.
    pub passed: Option<bool>,
}

/// Snapshots.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SnapshotStatus {
    /// How many.
    pub count: usize,
    /// When the newest was begun, by its name.
    pub newest: Option<Timestamp>,
    /// What drills of them found.
    pub drills: DrillStatus,
}

impl SnapshotStatus {
    /// In a few words; `None` where there are none.
    pub fn words(&self, now: Timestamp) -> Option<String> {
        let newest = self.newest.map(|newest| format!(", the newest taken {}", ago(now, newest))).unwrap_or_default();
        (self.count > 0).then(|| format!("{}{newest}; proven{}", self.count, self.drills.words(now)))
    }
}

impl DrillStatus {
    fn of(last_passed: Option<Timestamp>, last: Option<(Timestamp, bool)>) -> DrillStatus {
        let (last, passed) = last.unzip();
        DrillStatus { last_passed, last, passed }
    }

    /// In a few words, after "Proven".
    fn words(&self, now: Timestamp) -> String {
        match (self.last_passed, self.last, self.passed) {
            (None, None, _) => ": never (no drill has run)".to_owned(),
            (None, Some(last), _) => format!(": never (the last drill failed {})", ago(now, last)),
            (Some(passed), Some(last), Some(false)) => {
                format!(" {}; the last drill failed {}", ago(now, passed), ago(now, last))
            }
            (Some(passed), ..) => format!(" {}", ago(now, passed)),
        }
    }
}

impl BaseStatus {
    fn of(label: &Label, proof: &Proof, way: Option<&[Step]>) -> BaseStatus {
        BaseStatus {
            id: label.id.clone(),
            kind: label.kind,
            parent: label.parent.clone(),
            branch: label.branch,
            start: label.start,
            stop: label.stop,
            stop_time: label.stop_time,
            cluster_size: label.cluster_size,
            stored_size: label.stored_size,
            referenced_size: label.referenced_size(),
            suspect: label.suspect,
            proven: proof.of_base(&label.id),
            proven_at: proof.proven.get(&label.id).copied(),
            derived: label.derived.clone(),
            alone: false,
            given_up: way.is_some_and(|way| !lies_on(way, label.branch, label.stop)),
            cut_off: false,
        }
    }
}

/// What the repository told.
#[derive(Default)]
struct Holdings {
    cluster: Option<String>,
    branches: Vec<BranchStatus>,
    bases: Vec<BaseStatus>,
    drills: DrillStatus,
    snapshots: SnapshotStatus,
    gaps: Vec<GapStatus>,
    adoptions: Vec<Adoption>,
}

/// The repository could not be read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("{store} did not answer within {} s{}", GLANCE.as_secs(), why.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    Silent { store: String, why: Option<String> },
}

/// Asks the daemon, then the repository. A store that is gone costs a few seconds.
///
/// Errors: the configuration; everything else is said in the answer.
pub async fn gather(config: Config) -> Result<Status, OpenError> {
    let state_dir = config.need_state_dir()?;
    let verified = Verified::load(&state_dir);
    let (daemon_pid, told, unheard) = match Told::ask(&state_dir).await {
        // It begins, or ends, and nothing is wrong with that.
        None => (StateLock::holder(&state_dir), None, None),
        Some((pid, Ok(told))) => (Some(pid), Some(told), None),
        Some((pid, Err(why))) => (Some(pid), None, Some(why)),
    };
    let (backup, next_backup) =
        told.as_ref().map(|told| (told.backup.clone(), told.next_backup.clone())).unwrap_or_default();
    let retention = told.as_ref().and_then(|told| told.retention.clone());
    let objectives = told.as_ref().and_then(|told| told.objectives.clone());
    let requests = told.as_ref().and_then(|told| told.requests);
    let (stream, alerts) = told.map(|told| (told.progress, told.alerts)).unzip();
    // One that begins answers nobody, and may have told somebody already.
    let alerts = alerts.or_else(|| daemon_pid.map(|_| arrival::told(&state_dir)));
    let repository = config.need_repository()?.value.to_string();
    let streamed = stream.as_ref().and_then(|stream: &Progress| Some((stream.branch?, stream.frontier)));
    let (holdings, unread) = match read(config, streamed).await {
        Ok(holdings) => (Some(holdings), None),
        // What is wrong with the configuration is not the store's doing.
        Err(Unread::Open(error)) if !matches!(error, OpenError::Store(_)) => return Err(error),
        // It was read, and holds nothing.
        Err(error @ Unread::Archive(ArchiveError::Repository(RepositoryError::Empty { .. }))) => {
            (Some(Holdings::default()), Some(error.to_string()))
        }
        Err(error) => (None, Some(error.to_string())),
    };
    let error = [unheard, unread].into_iter().flatten().collect::<Vec<_>>().join("; ");
    let (cluster, branches, bases, drills, snapshots, gaps, adoptions) = match holdings {
        Some(Holdings { cluster, branches, bases, drills, snapshots, gaps, adoptions }) => {
            (cluster, Some(branches), Some(bases), Some(drills), Some(snapshots), Some(gaps), Some(adoptions))
        }
        None => (None, None, None, None, None, None, None),
    };
    let error = Some(error).filter(|error| !error.is_empty());
    let loss = stream.as_ref().and_then(|stream| stream.loss(Timestamp::now()));
    let (rpo_seconds, rpo_at_most) = (loss.map(|loss| loss.time.as_secs_f64()), loss.is_some_and(|loss| loss.at_most));
    Ok(Status {
        repository,
        cluster,
        daemon_pid,
        stream,
        alerts,
        backup,
        next_backup,
        retention,
        objectives,
        requests,
        rpo_seconds,
        rpo_at_most,
        branches,
        bases,
        drills,
        snapshots,
        verified,
        gaps,
        adoptions,
        error,
    })
}

/// `streamed` is the branch that the daemon streams, and up to where it knows WAL to be durable.
async fn read(config: Config, streamed: Option<(Branch, Lsn)>) -> Result<Holdings, Unread> {
    // A large listing may take longer than a glance: only the first answer must come soon.
    let patience = RetryPolicy { attempt_limit: None, ..RetryPolicy::while_a_person_waits() };
    let archive = Archive::open_with(config, StoreUse::Conditional, patience).await?;
    answers(archive.store.as_ref()).await?;
    let conninfo = archive.config.open_conninfo()?;
    let (repository, identity) = archive.repository(&conninfo).await?;
    let listings = listings(&repository, &identity).await?;
    let branches = branches(&repository, &listings).await?;
    let adoptions = repository.adoptions().await?;
    let held: Vec<Branch> = branches.iter().map(|status| status.branch).collect();
    let way = gaps::way(&repository, &adoptions, streamed.map(|(branch, _)| branch), &held).await?;
    let (of_bases, of_snapshots) = repository.drills_of_both_kinds().await?;
    let now = Timestamp::now();
    let (proof, of_snapshots) = (Proof::of(&of_bases, now), SnapshotProof::of(&of_snapshots, now));
    let mut bases = Vec::new();
    for id in repository.base_ids().await? {
        bases.push(BaseStatus::of(&repository.label(&id).await?, &proof, way.as_deref()));
    }
    find_alone(&repository, &listings, &mut bases).await?;
    if let (Some(way), Some((_, durable))) = (&way, streamed) {
        find_cut_off(&repository, &listings, way, durable, &mut bases).await?;
    }
    let gaps = gaps::gaps(&repository, identity.segment_size, way.as_deref()).await?;
    let adoptions = adoptions.iter().map(|(_, adoption)| adoption.clone()).collect();
    let (cluster, drills) = (Some(repository.cluster().to_string()), DrillStatus::of(proof.last_passed(), proof.last));
    let ids = repository.snapshot_ids().await?;
    let snapshots = SnapshotStatus {
        count: ids.len(),
        newest: ids.last().and_then(SnapshotId::begun),
        drills: DrillStatus::of(of_snapshots.last_passed(), of_snapshots.last),
    };
    Ok(Holdings { cluster, branches, bases, drills, snapshots, gaps, adoptions })
}

/// Marks the base backups whose WAL ends before the newest one of their branch begins.
async fn find_alone(
    repository: &Repository,
    listings: &BTreeMap<Branch, WalListing>,
    bases: &mut [BaseStatus],
) -> Result<(), RepositoryError> {
    let branches: BTreeSet<Branch> = bases.iter().map(|base| base.branch).collect();
    for branch in branches {
        let on_it = || bases.iter().filter(|base| base.branch == branch).map(|base| base.start);
        let Some(newest) = on_it().max() else { continue };
        for base in bases.iter_mut().filter(|base| base.branch == branch && base.start < newest) {
            let end = match listings.get(&branch) {
                Some(listing) => repository.contiguous_end(listing, base.start).await?,
                None => base.start,
            };
            base.alone = end < newest;
        }
    }
    Ok(())
}

/// Marks the base backups from which the WAL on the way does not reach what is known to be durable. Where retention removed what follows, the
/// backup is kept for itself, and nothing is missing.
async fn find_cut_off(
    repository: &Repository,
    listings: &BTreeMap<Branch, WalListing>,
    way: &[Step],
    durable: Lsn,
    bases: &mut [BaseStatus],
) -> Result<(), RepositoryError> {
    let mut held = BTreeMap::new();
    for listing in way.iter().filter_map(|step| listings.get(&step.branch)) {
        let known = listing.highest().unwrap_or(Lsn::INVALID);
        held.insert(listing.branch, (repository.extents(listing).await?, known));
    }
    let Some(size) = listings.values().next().map(|listing| listing.segment_size) else { return Ok(()) };
    let of = |step: &Step| held.get(&step.branch).map(|(extents, known)| (extents.as_slice(), *known));
    let extents = extents_along(way, size, of);
    let holder = |base: &BaseStatus| extents.iter().rfind(|extent| extent.start <= base.start);
    let short = |base: &&mut BaseStatus| {
        !base.given_up && !base.alone && holder(base).is_none_or(|extent| extent.end < durable)
    };
    let mut short: Vec<&mut BaseStatus> = bases.iter_mut().filter(short).collect();
    if short.is_empty() {
        return Ok(());
    }
    let pruned = repository.pruned().await?;
    let went = |at: Lsn| {
        let mut ranges = way.iter().flat_map(|step| pruned.on(step.branch));
        ranges.any(|range| range.start <= at && at < range.end)
    };
    for base in &mut short {
        base.alone = holder(base).is_some_and(|extent| went(extent.end));
        base.cut_off = !base.alone;
    }
    Ok(())
}

/// Whether the store answers at all: one small read of what need not be there.
async fn answers(store: &dyn ObjectStore) -> Result<(), Unread> {
    match tokio::time::timeout(GLANCE, store.get_range("probe/status", 0..1)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind == StoreErrorKind::NotFound => Ok(()),
        Ok(Err(error)) => Err(RepositoryError::from(error).into()),
        Err(_) => {
            let why = store.failing().and_then(|failing| failing.borrow().worst().map(|error| error.reason.clone()));
            Err(Unread::Silent { store: store.describe(), why })
        }
    }
}

async fn listings(
    repository: &Repository,
    identity: &RepositoryIdentity,
) -> Result<BTreeMap<Branch, WalListing>, RepositoryError> {
    let mut listings = BTreeMap::new();
    for branch in repository.branches().await? {
        listings.insert(branch, repository.wal_listing(branch, identity.segment_size, None).await?);
    }
    Ok(listings)
}

async fn branches(
    repository: &Repository,
    listings: &BTreeMap<Branch, WalListing>,
) -> Result<Vec<BranchStatus>, RepositoryError> {
    let mut found = Vec::new();
    for (branch, listing) in listings {
        if let Some(highest) = listing.highest() {
            let last = listing.runs.last().map_or(highest, |run| run.start);
            let end = repository.contiguous_end(listing, last).await?;
            found.push(BranchStatus { branch: *branch, runs: listing.runs.clone(), end });
        }
    }
    Ok(found)
}

/// Whether a restore to now can begin from the base: it is sound, the cluster comes from it, and no gap and nothing that was pruned
/// lies behind it.
fn serves(base: &BaseStatus, gap: Option<&Gap>) -> bool {
    base.suspect == 0 && !base.alone && !base.given_up && !base.cut_off && gap.is_none_or(|gap| base.start >= gap.to)
}

/// What the death of the primary would cost, as a sentence that goes before others; nothing where that is not known.
fn lost(loss: Option<Loss>) -> String {
    let Some(loss) = loss else { return String::new() };
    let time = units::duration(loss.time);
    format!(" If the primary died now: {}{time} lost.", if loss.at_most { "up to " } else { "" })
}

/// How long ago, in one unit.
pub fn ago(now: Timestamp, moment: Timestamp) -> String {
    units::ago(PgTimestamp::from_jiff(now), PgTimestamp::from_jiff(moment))
}

impl Status {
    /// The one line that says it all.
    pub fn first_line(&self, now: Timestamp) -> String {
        let stream = self.stream.as_ref();
        let streaming = stream.filter(|stream| stream.connected);
        let until = |stream: &Progress| match stream.frontier_moved {
            _ if stream.frontier >= stream.server_end => "now".to_owned(),
            Some(moved) => ago(now, moved),
            None => "the last durable WAL".to_owned(),
        };
        let lost = lost(stream.and_then(|stream| stream.loss(now)));
        let waiting = match stream.map_or(0, Progress::not_durable) {
            0 => String::new(),
            bytes => format!(" At least {} of WAL waits on the server.", units::size(bytes)),
        };
        let gap = self.last_gap();
        let base = self.bases.as_ref().map(|bases| bases.iter().find(|base| serves(base, gap)));
        let from = |base: &BaseStatus| units::time_argument(PgTimestamp::from_jiff(base.stop_time));
        let window = match (base, streaming) {
            (Some(None), _) if gap.is_some() => {
                let (from, to) = gap.map_or((Lsn::INVALID, Lsn::INVALID), |gap| (gap.from, gap.to));
                format!(
                    "Nothing after {from} can be restored: the WAL up to {to} is lost, and no base backup was taken since."
                )
            }
            (Some(None), _) if self.bases.as_ref().is_some_and(|bases| !bases.is_empty()) => {
                "Nothing up to now can be restored: no base backup is sound and has its WAL up to here.".to_owned()
            }
            (Some(None), _) => "Nothing can be restored yet: there is no base backup.".to_owned(),
            (Some(Some(base)), Some(stream)) => format!("Any second from {} to {}.{lost}", from(base), until(stream)),
            (Some(Some(base)), None) => format!(
                "Any second from {} to the end of the WAL in the repository; no WAL is being streamed \
                 now.{waiting}{lost}",
                from(base)
            ),
            (None, Some(stream)) => format!(
                "The repository cannot be read: from when on can be restored is not known; to {}.{lost}",
                until(stream)
            ),
            (None, None) => format!(
                "The repository cannot be read: what can be restored is not known; no WAL is being streamed \
                 now.{waiting}{lost}"
            ),
        };
        let proven = self.drills.map_or_else(|| ": not known".to_owned(), |drills| drills.words(now));
        format!("{window} Proven{proven}.")
    }

    /// The last gap that nobody filled, of those that the cluster did not go back to before.
    fn last_gap(&self) -> Option<&Gap> {
        let counting = self.gaps.iter().flatten().filter(|gap| gap.counts().is_some());
        counting.map(|gap| &gap.gap).max_by_key(|gap| gap.goes_on())
    }

    /// What is wrong, a clause each, the same thing once.
    pub fn troubles(&self) -> Vec<&str> {
        let stream = self.stream.as_ref();
        let trouble = stream.and_then(|stream| stream.trouble.as_deref());
        let of_store = stream.and_then(|stream| stream.store_trouble.as_deref());
        let of_store = of_store.filter(|store| trouble.is_none_or(|trouble| !trouble.contains(store)));
        [trouble, of_store].into_iter().flatten().collect()
    }

    /// Alerts that stand, and the text of each unless something else on the page says the same.
    pub fn standing(&self) -> impl Iterator<Item = (&OpenAlert, Option<&str>)> {
        let troubles = self.troubles();
        self.alerts.iter().flatten().map(move |alert| {
            let said = troubles.iter().any(|trouble| alert.text.contains(trouble) || trouble.contains(&alert.text));
            (alert, Some(alert.text.as_str()).filter(|_| !said))
        })
    }

    /// The status on one line, and how a monitor should take it.
    pub fn check(&self, now: Timestamp) -> (String, CheckExit) {
        let gap = self.last_gap();
        let restorable = self.bases.as_ref().is_some_and(|bases| bases.iter().any(|base| serves(base, gap)));
        let exit = match &self.stream {
            _ if !restorable || self.error.is_some() => CheckExit::Critical,
            None => CheckExit::Critical,
            Some(stream) if !stream.connected => CheckExit::Critical,
            Some(_) if self.alerts.iter().flatten().any(|alert| alert.severity == Severity::Critical) => {
                CheckExit::Critical
            }
            Some(stream) if stream.behind(now) > LAG_LIMIT => CheckExit::Warning,
            Some(stream) if stream.loss(now).is_some_and(|loss| loss.time > LAG_LIMIT) => CheckExit::Warning,
            Some(stream) if stream.store_trouble.is_some() && stream.behind(now) > LAG_LIMIT_IN_TROUBLE => {
                CheckExit::Warning
            }
            Some(_) if self.alerts.iter().flatten().next().is_some() => CheckExit::Warning,
            Some(_) if self.drills.is_some_and(|drills| drills.passed == Some(false)) => CheckExit::Warning,
            Some(_) => CheckExit::Fine,
        };
        let mut line = self.first_line(now);
        let alerts = self.standing().filter_map(|(_, text)| text);
        for trouble in self.error.as_deref().into_iter().chain(self.troubles()).chain(alerts) {
            line.push(' ');
            line.push_str(trouble);
        }
        (line.replace('\n', " "), exit)
    }
}

#[cfg(test)]
mod tests;
