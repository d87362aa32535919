//! A real server, a repository behind a store that fails on request, and a witness of everything that is confirmed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{Beyond, Cover, ObjectName, Repository, RepositoryIdentity, WalListing};
use walseal_common::seal::{Identity, WriterKey};
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::store::fault::Faulty;
use walseal_common::store::{Capabilities, DirectoryStore, ObjectStore, Retry, RetryPolicy};
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::settings::ClusterBuilder;

use crate::index::MemoryIndex;
use crate::keys::ArchiveKeys;
use crate::stream::{Progress, ProgressWatch, SessionEnd, StreamError, Streamer, Timing};

pub const SLOT: &str = "walseal_orders";

/// Short times, so that every limit is met within a test.
pub const TIMING: Timing = Timing {
    ship_interval: Duration::from_millis(50),
    synchronous: false,
    stall_limit: Duration::from_millis(300),
    shutdown_wait: Duration::from_secs(2),
    status_interval: Duration::from_millis(50),
    silence_limit: Duration::from_secs(10),
    put_limit: Duration::from_secs(3),
    adoptions_every: Duration::from_millis(200),
};

/// A cluster, its repository, and the keys of an archiver and of a restorer.
pub struct Live {
    pub cluster: Cluster,
    pub store: Arc<Faulty>,
    pub repository: Repository,
    pub keys: Arc<ArchiveKeys>,
    pub identity: RepositoryIdentity,
    pub timing: Timing,
    pub conninfo: String,
    /// Opens what was sealed.
    restorer: Identity,
    /// Where the slot stood when it was made: from its segment on everything must be kept.
    pub begin: Lsn,
}

/// A cluster whose WAL stays, in segments of 1 MiB.
pub fn cluster() -> ClusterBuilder {
    Cluster::builder().segment_mib(1).setting("wal_keep_size", "2GB").setting("max_wal_size", "1GB")
}

fn segment_size(cluster: &Cluster) -> Result<SegmentSize> {
    let bytes = cluster.value("select setting from pg_settings where name = 'wal_segment_size'")?;
    Ok(SegmentSize::new(bytes.parse()?)?)
}

impl Live {
    pub fn start(builder: ClusterBuilder) -> Result<Live> {
        Live::around(builder.start()?)
    }

    pub fn around(cluster: Cluster) -> Result<Live> {
        let id = cluster.system_identifier()?.parse().map_err(anyhow::Error::msg)?;
        let folder = cluster.scratch().dir("repository")?;
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder))));
        let policy = RetryPolicy {
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_millis(50),
            give_up_after: Duration::from_millis(400),
            attempt_limit: None,
            deadline: None,
        };
        let retried: Arc<dyn ObjectStore> = Arc::new(Retry::new(store.clone(), policy));
        let restorer = Identity::generate()?;
        let recipients = vec![restorer.recipient().clone()];
        let keys = Arc::new(ArchiveKeys { recipients, writer: WriterKey::generate()? });
        let repository = Repository::new(retried, id, keys.trust(Vec::new()));
        let identity = RepositoryIdentity {
            format: 1,
            cluster: id,
            postgres_major: 15,
            segment_size: segment_size(&cluster)?,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        let made = format!("select lsn from pg_create_physical_replication_slot('{SLOT}', true)");
        let begin = cluster.value(&made)?.parse()?;
        let conninfo = cluster.conninfo();
        Ok(Live { cluster, store, repository, keys, identity, timing: TIMING, conninfo, restorer, begin })
    }

    pub fn streamer(&self) -> Result<Streamer> {
        let conninfo = Conninfo::parse(&self.conninfo, &|_| None)?;
        let (repository, identity, keys) = (self.repository.clone(), self.identity.clone(), self.keys.clone());
        Ok(Streamer::new(
            conninfo,
            SLOT.to_owned(),
            repository,
            identity,
            keys,
            Arc::new(MemoryIndex::default()),
            self.timing,
        ))
    }

    /// Starts the stream.
    pub fn stream(&self) -> Result<Running> {
        Running::start(self.streamer()?)
    }

    /// What the slot keeps WAL from: what was confirmed last.
    pub fn slot(&self) -> Result<Lsn> {
        let sql = format!("select restart_lsn from pg_replication_slots where slot_name = '{SLOT}'");
        Ok(self.cluster.value(&sql)?.parse()?)
    }

    /// Waits until everything that the server has flushed by now is confirmed.
    pub fn settle(&self) -> Result<Lsn> {
        let flushed = self.cluster.flush_lsn()?;
        eventually(&format!("{flushed} to be confirmed"), PATIENCE, || Ok((self.slot()? >= flushed).then_some(flushed)))
    }

    /// Some MiB of WAL at once.
    pub fn fill(&self, mebibytes: u32) -> Result<()> {
        let sql = format!(
            "select pg_logical_emit_message(false, 'filler', repeat(md5(g::text), 32768)) from generate_series(1, {mebibytes}) g"
        );
        self.cluster.sql(&sql).map(|_| ())
    }

    pub fn branch(&self) -> Branch {
        TimelineHistory::root(TimelineId::FIRST).branch(self.repository.cluster())
    }

    fn listing(&self, branch: Branch) -> Result<WalListing> {
        // Past the faults.
        let clean = Arc::new(DirectoryStore::new(self.folder()));
        let repository = Repository::new(clean, self.repository.cluster(), self.keys.trust(Vec::new()));
        block_on(async { Ok(repository.wal_listing(branch, self.identity.segment_size, None).await?) })
    }

    pub fn folder(&self) -> PathBuf {
        self.cluster.scratch().path().join("repository")
    }

    /// Up to where the branch lies in the repository without a hole, from the slot's first position on, by name.
    pub fn covered(&self, branch: Branch) -> Result<Lsn> {
        covered(&self.listing(branch)?, self.begin)
    }

    /// Where the branch ends in the repository without a hole, and what a reader makes of what lies beyond.
    pub fn beyond(&self, branch: Branch) -> Result<(Lsn, Beyond)> {
        let clean = Arc::new(DirectoryStore::new(self.folder()));
        let repository = Repository::new(clean, self.repository.cluster(), self.keys.trust(Vec::new()));
        let listing = self.listing(branch)?;
        let end = covered(&listing, self.begin)?;
        Ok((end, block_on(repository.beyond(&listing, end))?))
    }

    /// Opens every object of the branch and compares it with the server's own `pg_wal`; everything up to `confirmed` must
    /// be there without a hole.
    pub fn holds(&self, branch: Branch, confirmed: Lsn) -> Result<()> {
        let size = self.identity.segment_size;
        let clean = Arc::new(DirectoryStore::new(self.folder()));
        let repository = Repository::new(clean, self.repository.cluster(), self.keys.trust(Vec::new()));
        let listing = self.listing(branch)?;
        let mut names: Vec<ObjectName> = Vec::new();
        for run in &listing.runs {
            let mut at = run.start;
            while at < run.end {
                names.push(ObjectName::Wal(branch, SegmentName::new(branch.timeline, size.number(at), size), None));
                at = at.advance(size.bytes());
            }
        }
        for (number, tails) in &listing.tails {
            let segment = SegmentName::new(branch.timeline, *number, size);
            names.extend(tails.iter().map(|tail| ObjectName::Tail(branch, segment, *tail)));
        }
        names.extend(listing.partials.iter().map(|segment| ObjectName::Partial(branch, *segment)));
        let mut served = BTreeMap::new();
        let mut held = Vec::new();
        for name in names {
            let envelope = block_on(repository.read(&name))?;
            let section = envelope.header().wal.clone().with_context(|| format!("{name} says which WAL it holds"))?;
            let plain = envelope.read_all(std::slice::from_ref(&self.restorer))?;
            let file = self.cluster.data().join("pg_wal").join(section.segment.to_string());
            let own = match served.entry(section.segment.to_string()) {
                std::collections::btree_map::Entry::Occupied(own) => own.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?)
                }
            };
            let (from, to) = (size.offset(section.start) as usize, size.offset(section.start) as usize + plain.len());
            ensure!(own[from..to] == plain[..], "{name} differs from the server's own bytes");
            ensure!(section.end == section.start.advance(plain.len() as u64), "{name} is not as long as it says");
            held.push(LsnRange { start: section.start, end: section.end });
        }
        let cover = Cover::of(size.align_down(self.begin), &held);
        ensure!(cover.end >= confirmed, "{confirmed} was confirmed, and the repository ends at {}", cover.end);
        Ok(())
    }

    /// Begins to watch what is confirmed.
    pub fn witness(&self) -> Result<Witness> {
        Witness::start(self)
    }
}

fn covered(listing: &WalListing, begin: Lsn) -> Result<Lsn> {
    let size: SegmentSize = listing.segment_size;
    let mut held = listing.runs.clone();
    held.extend(listing.tails.values().flatten().copied());
    Ok(Cover::of(size.align_down(begin), &held).end)
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A stream in a runtime of its own.
pub struct Running {
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<SessionEnd, StreamError>>,
    progress: ProgressWatch,
}

impl Running {
    pub fn start(streamer: Streamer) -> Result<Running> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let progress = streamer.progress();
        let task = runtime.spawn(async move { streamer.run(stopped).await });
        Ok(Running { runtime: Some(runtime), stop, task, progress })
    }

    pub fn progress(&self) -> Progress {
        self.progress.now()
    }

    /// Waits until the progress is as `like` says.
    pub fn until(&self, what: &str, like: impl Fn(&Progress) -> bool) -> Result<Progress> {
        eventually(what, PATIENCE, || {
            let now = self.progress();
            ensure!(!self.task.is_finished(), "the stream ended while the test waited for {what}: {now:?}");
            Ok(like(&now).then_some(now))
        })
        .with_context(|| format!("the stream is at {:?}", self.progress()))
    }

    /// Waits until the trouble that it reports contains these words.
    pub fn troubled_by(&self, words: &str) -> Result<String> {
        let progress = self.until(&format!("trouble: {words}"), |progress| {
            progress.trouble.as_ref().is_some_and(|trouble| trouble.contains(words))
        })?;
        Ok(progress.trouble.unwrap_or_default())
    }

    /// Asks it to stop.
    pub fn ask(&self) {
        self.stop.send_replace(true);
    }

    /// Asks it to stop, and waits for that.
    pub fn stop(mut self) -> Result<SessionEnd> {
        self.ask();
        eventually("the stream to end", PATIENCE, || Ok(self.task.is_finished().then_some(())))?;
        let runtime = self.runtime.take().context("it runs")?;
        let ended = runtime.block_on(&mut self.task).context("the stream's task")?;
        runtime.shutdown_background();
        Ok(ended?)
    }

    /// Ends it between two steps, as a kill does.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Samples what the server was told, and compares each sample with what lies in the repository at that moment.
pub struct Witness {
    gone: Arc<AtomicBool>,
    highest: Arc<Mutex<Lsn>>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Witness {
    fn start(live: &Live) -> Result<Witness> {
        let session = live.cluster.session()?;
        let (gone, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Lsn::INVALID)));
        let (over, most, begin, branch) = (gone.clone(), highest.clone(), live.begin, live.branch());
        let clean = Arc::new(DirectoryStore::new(live.folder()));
        let repository = Repository::new(clean, live.repository.cluster(), live.keys.trust(Vec::new()));
        let size = live.identity.segment_size;
        let sql = format!(
            "select s.restart_lsn, r.write_lsn, r.flush_lsn, r.replay_lsn from pg_replication_slots s \
             left join pg_stat_replication r on r.pid = s.active_pid where s.slot_name = '{SLOT}'"
        );
        let thread = std::thread::spawn(move || {
            let mut samples = 0;
            let (mut slot_before, mut told_before) = (begin, Lsn::INVALID);
            while !over.load(Ordering::Relaxed) {
                let row = session.rows(&sql)?.into_iter().next().context("the slot is there")?;
                let lsn = |column: usize| -> Result<Lsn> {
                    row.get(column).cloned().flatten().map_or(Ok(Lsn::INVALID), |text| Ok(text.parse()?))
                };
                let (slot, told) = (lsn(0)?, lsn(2)?);
                ensure!(slot >= slot_before, "the slot moved back from {slot_before} to {slot}");
                ensure!(lsn(1)? == told && lsn(3)? == told, "write, flush and apply differ: {row:?}");
                ensure!(told.is_invalid() || told >= told_before, "{told} was reported after {told_before}");
                let confirmed = if slot > begin { slot.max(told) } else { told };
                if confirmed > *most.lock().expect("not poisoned") {
                    let listing = block_on(repository.wal_listing(branch, size, None))?;
                    let held = covered(&listing, begin)?;
                    ensure!(confirmed <= held, "{confirmed} was confirmed, and the repository ends at {held}");
                    *most.lock().expect("not poisoned") = confirmed;
                }
                (slot_before, told_before) = (slot, told.max(told_before));
                samples += 1;
            }
            Ok(samples)
        });
        Ok(Witness { gone, highest, thread: Some(thread) })
    }

    /// The highest position that was confirmed while it looked.
    pub fn ends(mut self) -> Result<Lsn> {
        self.gone.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it looks")?;
        let samples = thread.join().map_err(|_| anyhow::anyhow!("the witness panicked"))??;
        ensure!(samples > 0, "nothing was looked at");
        Ok(*self.highest.lock().expect("not poisoned"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}
