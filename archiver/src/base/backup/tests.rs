#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use walseal_common::postgres::Conninfo;
use walseal_common::repository::{ManifestEntry, RepositoryError};
use walseal_common::seal::{Identity, TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::directory::DirectoryStore;
use walseal_common::store::{ObjectMeta, ObjectStore, PutOutcome, RangeBody, StoreError, StoreErrorKind};
use walseal_common::timeline::SystemIdentifier;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::oracle;
use walseal_tests::pgbench::Pgbench;

use super::rebuilt::{entries, rebuild};
use super::*;
use crate::keys::ArchiveKeys;

/// WAL that is durable at once; it remembers what it was asked for.
#[derive(Default)]
struct Durable(Mutex<Vec<(Branch, LsnRange)>>);

const COMMIT_TIME: Timestamp = Timestamp::constant(1_795_228_200, 0);

#[async_trait::async_trait]
impl WaitDurable for Durable {
    async fn wait_durable(
        &self,
        branch: Branch,
        range: LsnRange,
    ) -> Result<DurableWal, Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().expect("not poisoned").push((branch, range));
        Ok(DurableWal { highest_time: Some(COMMIT_TIME) })
    }
}

/// WAL that never becomes durable.
struct Lost;

#[async_trait::async_trait]
impl WaitDurable for Lost {
    async fn wait_durable(
        &self,
        _: Branch,
        _: LsnRange,
    ) -> Result<DurableWal, Box<dyn std::error::Error + Send + Sync>> {
        Err("the slot is gone".into())
    }
}

/// A cluster, a repository for it, and keys.
struct Bed {
    cluster: Cluster,
    identity: Identity,
    writer: WriterKey,
    repository: Repository,
    store: PathBuf,
}

impl Bed {
    fn new(cluster: Cluster) -> Bed {
        Bed::with(cluster, |store| store)
    }

    /// With a store that `wrap` makes of a directory.
    fn with(cluster: Cluster, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Bed {
        let folder = cluster.scratch().dir("repository").expect("a folder");
        let id: SystemIdentifier = cluster.system_identifier().expect("an id").parse().expect("a number");
        let writer = WriterKey::generate().expect("a key");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = wrap(Arc::new(DirectoryStore::new(folder.clone())));
        let repository = Repository::new(store, id, trust);
        Bed { cluster, identity: Identity::generate().expect("a key"), writer, repository, store: folder }
    }

    fn options(&self) -> BackupOptions {
        let recipients = vec![self.identity.recipient().clone()];
        BackupOptions::by_hand(ArchiveKeys { recipients, writer: self.writer.clone() })
    }

    async fn connect(&self) -> ReplicationClient {
        let conninfo = Conninfo::parse(&self.cluster.conninfo(), &|_| None).expect("a connection string");
        ReplicationClient::connect(&conninfo, "walseal_test").await.expect("a connection")
    }

    async fn back_up(&self, progress: &mut dyn Progress, wal: &dyn WaitDurable) -> Result<Label, BaseError> {
        run(&mut self.connect().await, &self.repository, &self.options(), progress, wal).await
    }

    /// Rebuilds the backup and asks pg_verifybackup about it.
    fn verified(&self, label: &Label) -> PathBuf {
        let data = self.cluster.scratch().dir("r").expect("a folder").join("rebuilt");
        block_on(rebuild(&self.repository, label, &self.identity, &data, self.cluster.scratch().account()));
        oracle::verify_backup(self.cluster.scratch(), self.cluster.server(), &data).expect("pg_verifybackup -n");
        data
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn all_stages(log: &Arc<Mutex<Vec<Stage>>>) -> impl FnMut(Stage) + Send + use<> {
    let log = log.clone();
    move |stage| log.lock().expect("not poisoned").push(stage)
}

#[test]
fn case_28_a_backup_under_load_with_tablespaces_reads_back_verifies_and_starts() {
    let cluster = Cluster::builder().setting("wal_keep_size", "1GB").start().expect("a cluster");
    let spaces = ["plain", "with space"].map(|name| cluster.scratch().dir(name).expect("a folder"));
    let session = cluster.session().expect("a session");
    let statements = [
        format!("create tablespace one location '{}'", spaces[0].display()),
        format!("create tablespace \"two parts\" location '{}'", spaces[1].display()),
        "set allow_in_place_tablespaces = on".to_owned(),
        "create tablespace inside location ''".to_owned(),
        "create table one tablespace one as select generate_series(1, 20000) as n".to_owned(),
        "create table two tablespace \"two parts\" as select generate_series(1, 30000) as n".to_owned(),
        "create table inside tablespace inside as select generate_series(1, 40000) as n".to_owned(),
        "create unlogged table forgotten as select generate_series(1, 100000) as n".to_owned(),
    ];
    statements.iter().for_each(|statement| drop(session.rows(statement).expect(statement)));
    let odd = [OsStr::new("a file"), OsStr::new("empty"), OsStr::from_bytes(b"\xff\n"), OsStr::new("ümläut")];
    for (name, content) in odd.iter().zip(["mode", "", "bytes", "text"]) {
        let path = cluster.data().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("permissions");
        cluster.scratch().account().own(&path).expect("an owner");
    }
    Pgbench::initialise(&cluster, 4).expect("tables");
    let bed = Bed::new(cluster);
    let load = Pgbench::start(&bed.cluster, 2).expect("load");
    let (stages, wal) = (Arc::default(), Durable::default());
    let label = block_on(bed.back_up(&mut all_stages(&stages), &wal)).expect("a backup");
    load.stop().expect("it ran to here");

    // The label says what the server said.
    assert!(label.start < label.stop && label.start_time < label.stop_time);
    let range = LsnRange { start: label.start, end: label.stop };
    assert_eq!(*wal.0.lock().expect("not poisoned"), [(label.branch, range)]);
    assert_eq!(label.branch, TimelineHistory::root(TimelineId::FIRST).branch(bed.repository.cluster()));
    assert_eq!((label.tablespaces, label.suspect, label.highest_time), (3, 0, Some(COMMIT_TIME)));
    assert_eq!(label.postgres_version.to_string(), bed.cluster.value("show server_version_num").expect("a version"));
    assert!(label.objects.len() > 3 && label.stored_size < label.cluster_size);
    assert_eq!(block_on(bed.repository.label(&label.id)).expect("it is stored"), label);
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), std::slice::from_ref(&label.id));
    let stages: Vec<Stage> = std::mem::take(&mut *stages.lock().expect("not poisoned"));
    assert_eq!(stages.first(), Some(&Stage::Checkpoint { id: label.id.clone() }));
    let copied = stages.iter().filter(|stage| matches!(stage, Stage::Copying { total: Some(_), .. })).count();
    assert!(copied > 10, "{stages:?}");

    // The list of files begins with the tablespaces.
    let list = block_on(entries(&bed.repository, &label, &bed.identity));
    let locations: Vec<Option<&str>> = list
        .iter()
        .map_while(|entry| match entry {
            ManifestEntry::Tablespace { location, .. } => Some(location.as_deref()),
            _ => None,
        })
        .collect();
    let place = |n: usize| spaces[n].to_str();
    assert_eq!(locations, [place(0), place(1), None]);
    let sum: u64 = list.iter().map(|e| if let ManifestEntry::File(file) = e { file.size } else { 0 }).sum();
    assert_eq!(sum, label.cluster_size);

    // PostgreSQL agrees, down to starting it.
    let data = bed.verified(&label);
    for (name, content) in odd.iter().zip(["mode", "", "bytes", "text"]) {
        assert_eq!(fs::read(data.join(name)).expect("it is there"), content.as_bytes());
        assert_eq!(fs::metadata(data.join(name)).expect("it is there").permissions().mode() & 0o7777, 0o640);
    }
    for segment in fs::read_dir(bed.cluster.data().join("pg_wal")).expect("a folder") {
        let segment = segment.expect("an entry");
        if segment.file_type().expect("a type").is_file() {
            let copy = data.join("pg_wal").join(segment.file_name());
            fs::copy(segment.path(), &copy).expect("a copy");
            bed.cluster.scratch().account().own(&copy).expect("an owner");
        }
    }
    let mut rebuilt = Cluster::open(bed.cluster.scratch(), bed.cluster.server(), &data).expect("a cluster");
    // Without it a server does not leave recovery where there is an in-place tablespace.
    rebuilt.set_override("allow_in_place_tablespaces", "on");
    rebuilt.start().expect("it starts");
    for (table, rows) in [("one", "20000"), ("two", "30000"), ("inside", "40000"), ("forgotten", "0")] {
        assert_eq!(rebuilt.value(&format!("select count(*) from {table}")).expect(table), rows, "{table}");
    }
    oracle::amcheck(&rebuilt).expect("sound indexes");
    rebuilt.stop(Stop::Fast).expect("it stops");
    oracle::checksums(&rebuilt).expect("sound pages");
}

#[test]
fn i9_nothing_of_the_cluster_lies_open_in_the_repository() {
    let cluster = Cluster::builder().start().expect("a cluster");
    cluster.sql("create table marker as select 'orange-walrus-4711' as word").expect("a table");
    fs::write(cluster.data().join("purple-penguin.txt"), "x").expect("a file");
    cluster.scratch().account().own(&cluster.data().join("purple-penguin.txt")).expect("an owner");
    let bed = Bed::new(cluster);
    block_on(bed.back_up(&mut (), &Durable::default())).expect("a backup");
    let words = ["orange-walrus-4711", "purple-penguin", "START WAL LOCATION", "pg_control"];
    oracle::no_plaintext(bed.cluster.scratch(), &bed.store, &words).expect("all of it is sealed");
}

#[test]
fn case_31_a_backup_with_bad_pages_is_kept_and_marked() {
    let mut cluster = Cluster::builder().start().expect("a cluster");
    cluster.sql("create table t as select generate_series(1, 10000) as n").expect("a table");
    let file = cluster.data().join(cluster.value("select pg_relation_filepath('t')").expect("a path"));
    cluster.stop(Stop::Fast).expect("it stops");
    let page = fs::OpenOptions::new().write(true).open(file).expect("the table's file");
    for block in [1, 3, 4] {
        page.write_all_at(b"damage", block * 8192 + 4000).expect("a write");
    }
    cluster.start().expect("it starts");
    let bed = Bed::new(cluster);
    let stages = Arc::default();
    let label = block_on(bed.back_up(&mut all_stages(&stages), &Durable::default()));
    let label = label.expect("a backup all the same");
    assert_eq!(label.suspect, 3);
    let stages = stages.lock().expect("not poisoned");
    assert!(stages.iter().any(|s| matches!(s, Stage::ChecksumFailure { message } if message.contains("block"))));
    bed.verified(&label);
}

#[test]
fn one_connection_takes_several_backups() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    block_on(async {
        let mut client = bed.connect().await;
        for _ in 0..2 {
            let wal = Durable::default();
            run(&mut client, &bed.repository, &bed.options(), &mut (), &wal).await.expect("a backup");
        }
        assert_eq!(bed.repository.base_ids().await.expect("a listing").len(), 2);
    });
}

#[test]
fn i7_a_backup_whose_wal_is_lost_stays_invisible() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    let error = block_on(bed.back_up(&mut (), &Lost)).expect_err("no WAL");
    assert!(error.to_string().contains("the slot is gone") && !error.is_permanent(), "{error}");
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), []);
}

#[test]
fn case_36_a_backup_that_is_dropped_half_way_stays_invisible() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    block_on(async {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let mut progress = |stage| {
            if matches!(stage, Stage::Copying { done, .. } if done > 0) {
                tell.take().map(|tell| tell.send(()));
            }
        };
        let wal = Durable::default();
        tokio::select! {
            biased;
            _ = told => {}
            outcome = bed.back_up(&mut progress, &wal) => panic!("it ended: {outcome:?}"),
        }
        assert_eq!(bed.repository.base_ids().await.expect("a listing"), []);
    });
    block_on(bed.back_up(&mut (), &Durable::default())).expect("the next one does");
}

#[test]
fn i4_a_server_of_another_cluster_is_refused_before_anything_is_read() {
    let mut bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    let store = bed.repository.store().clone();
    bed.repository = Repository::new(store, SystemIdentifier(4711), TrustedWriters::default());
    let error = block_on(bed.back_up(&mut (), &Durable::default())).expect_err("another cluster");
    assert!(matches!(error, BaseError::WrongCluster { .. }) && error.is_permanent(), "{error}");
    let both = [bed.cluster.system_identifier().expect("an id"), "4711".to_owned()];
    assert!(both.iter().all(|id| error.to_string().contains(id)), "{error}");
    assert_eq!(fs::read_dir(&bed.store).expect("a folder").count(), 0);
}

/// A store that does something to every put.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    puts: AtomicU64,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    /// The third put is refused.
    Full,
    /// Every put succeeds, but its answer is that of a second attempt.
    AnswerLost,
    /// Names are taken by other bytes.
    Taken,
    /// Puts count the bytes that are durable and take their time.
    Slow { durable: Arc<AtomicU64>, most: Arc<AtomicU64> },
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let number = self.puts.fetch_add(1, Ordering::SeqCst);
        match &self.fault {
            Fault::Full if number == 2 => Err(StoreError {
                kind: StoreErrorKind::Full,
                operation: "put",
                key: key.to_owned(),
                store: self.describe(),
                reason: "no space left".to_owned(),
            }),
            Fault::Full => self.inner.put_new(key, body).await,
            Fault::AnswerLost => {
                self.inner.put_new(key, body).await?;
                Ok(PutOutcome::AlreadyExists)
            }
            Fault::Taken => {
                self.inner.put_new(key, Bytes::from_static(b"other")).await?;
                self.inner.put_new(key, body).await
            }
            Fault::Slow { durable, most } => {
                most.fetch_max(number + 1, Ordering::SeqCst);
                let size = body.len() as u64;
                for _ in 0..500 {
                    tokio::task::yield_now().await;
                }
                let outcome = self.inner.put_new(key, body).await;
                self.puts.fetch_sub(1, Ordering::SeqCst);
                durable.fetch_add(size, Ordering::SeqCst);
                outcome
            }
        }
    }
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &str, range: std::ops::Range<u64>) -> Result<RangeBody, StoreError> {
        self.inner.get_range(key, range).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    fn describe(&self) -> String {
        "faulty".to_owned()
    }
}

fn faulty(fault: Fault) -> impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    |inner| Arc::new(Faulty { inner, puts: AtomicU64::new(0), fault })
}

#[test]
fn i7_a_put_that_fails_ends_the_backup_without_a_label() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let bed = Bed::with(cluster, faulty(Fault::Full));
    let error = block_on(bed.back_up(&mut (), &Durable::default())).expect_err("the store is full");
    assert!(matches!(&error, BaseError::Repository(RepositoryError::Store(e)) if e.kind == StoreErrorKind::Full));
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), []);
}

#[test]
fn case_35_a_put_whose_answer_was_lost_is_judged_by_what_is_there() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let bed = Bed::with(cluster, faulty(Fault::AnswerLost));
    let label = block_on(bed.back_up(&mut (), &Durable::default())).expect("the bytes are there");
    bed.verified(&label);
}

#[test]
fn i3_a_name_that_is_taken_by_other_bytes_ends_the_backup() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let bed = Bed::with(cluster, faulty(Fault::Taken));
    let error = block_on(bed.back_up(&mut (), &Durable::default())).expect_err("taken");
    assert!(matches!(&error, BaseError::Taken(name) if name.starts_with("base/")), "{error}");
}

#[test]
fn i11_a_slow_store_slows_the_backup_instead_of_filling_memory() {
    let cluster = Cluster::builder().start().expect("a cluster");
    // Bytes that do not shrink, so that what is stored is as large as what was read.
    let mut noise = vec![0; 100 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(cluster.data().join("noise"), noise).expect("a file");
    cluster.scratch().account().own(&cluster.data().join("noise")).expect("an owner");
    let (durable, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let bed = Bed::with(cluster, faulty(Fault::Slow { durable: durable.clone(), most: most.clone() }));
    let effort = Effort { puts: 2, sealers: 2, memory: 33 << 20, level: 1 };
    let options = BackupOptions { effort, ..bed.options() };
    let worst = AtomicU64::new(0);
    let mut progress = |stage| {
        if let Stage::Copying { done, .. } = stage {
            worst.fetch_max(done.saturating_sub(durable.load(Ordering::SeqCst)), Ordering::SeqCst);
        }
    };
    let wal = Durable::default();
    let label = block_on(async {
        run(&mut bed.connect().await, &bed.repository, &options, &mut progress, &wal).await.expect("a backup")
    });
    assert!(label.stored_size > 100 << 20 && label.objects.len() > 6);
    assert!(most.load(Ordering::SeqCst) <= 2, "two puts at once at most");
    // The cluster's other files, some 25 MB, shrink: they count as read, and never as stored.
    let worst = worst.into_inner();
    assert!(worst < effort.memory + (40 << 20), "{} MiB were read and not stored", worst >> 20);
}
