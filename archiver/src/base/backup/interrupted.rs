//! Backups that are interrupted at a page of their choice: a cluster, and a store that stops there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::oneshot;
use walseal_common::repository::ResumeEntry;
use walseal_common::seal::{Envelope, TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::{Decorator, ObjectStore, PutOutcome, StoreError};
use walseal_tests::cluster::Cluster;
use walseal_tests::settings::ClusterBuilder;

use super::bed::{Bed, block_on};
use super::*;

/// A cluster with a dozen tables of some 3 MB each.
pub fn cluster_of_many(builder: ClusterBuilder) -> Cluster {
    let cluster = builder.setting("wal_keep_size", "1GB").setting("autovacuum", "off").start();
    let cluster = cluster.expect("a cluster");
    let session = cluster.session().expect("a session");
    for table in TABLES {
        let rows = format!("md5((n * {table})::text) || md5((n * 7 * {table})::text) || md5((n * 11)::text)");
        for statement in [
            format!("create table t{table} (n int, v text) with (fillfactor = 85)"),
            format!("insert into t{table} select n, {rows} from generate_series(1, 18000) n"),
        ] {
            session.rows(&statement).expect(&statement);
        }
    }
    for statement in ["create view t as select * from t1", "vacuum (freeze, analyze)", "checkpoint"] {
        session.rows(statement).expect(statement);
    }
    drop(session);
    cluster
}

/// Its tables are t1 to t12.
pub const TABLES: std::ops::RangeInclusive<u32> = 1..=12;

/// Changes the first row of each block of `table` of which this is true.
pub fn change_table(cluster: &Cluster, table: &str, blocks: &str) {
    let block = "((ctid::text::point)[0])::int";
    let first = "((ctid::text::point)[1])::int = 1";
    cluster
        .sql(&format!("update {table} set v = reverse(v) where {first} and {}", blocks.replace("block", block)))
        .expect("rows");
    cluster.sql("checkpoint").expect("a checkpoint");
}

/// Objects in the store's folder, below `base/` of the backup.
pub fn files(bed: &Bed, id: &BaseId, kind: &str) -> Vec<PathBuf> {
    let folder = bed.store.join(bed.repository.cluster().to_string()).join("base").join(id.as_str()).join(kind);
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// Begins a backup, lets it store `pages` resume pages and nothing more, and drops it.
pub fn interrupt(bed: &Bed, store: &Watchful, options: &BackupOptions, pages: u64) -> BaseId {
    let begun: Mutex<Option<BaseId>> = Mutex::default();
    let stopped = store.stop_after(pages);
    block_on(async {
        let mut progress = |stage| {
            if let Stage::Checkpoint { id } = stage {
                *begun.lock().expect("not poisoned") = Some(id);
            }
        };
        tokio::select! {
            biased;
            told = stopped => told.expect("the store is there"),
            outcome = bed.back_up_with(options, &mut progress) => panic!("it ended: {outcome:?}"),
        }
    });
    drop(store.stop_after(u64::MAX));
    begun.into_inner().expect("not poisoned").expect("it began")
}

/// Bytes of all its data objects.
pub fn stored(bed: &Bed, id: &BaseId) -> u64 {
    files(bed, id, "data").iter().map(|file| fs::metadata(file).expect("an object").len()).sum()
}

/// A store that takes its time over data objects, and looks whether what a resume page names is there when the page comes.
#[derive(Debug)]
pub struct Watchful {
    inner: Arc<dyn ObjectStore>,
    writer: Mutex<Option<WriterKey>>,
    /// Resume pages that came.
    pub pages: AtomicU64,
    /// After so many more pages nothing is stored any more.
    rest: AtomicU64,
    /// Pages that are being stored.
    under_way: AtomicU64,
    stopped: Mutex<Option<oneshot::Sender<()>>>,
    /// Objects that came later than a page that names them.
    pub early: Mutex<Vec<String>>,
}

/// A bed with such a store.
pub fn watched(cluster: Cluster) -> (Bed, Arc<Watchful>) {
    let watchful: Mutex<Option<Arc<Watchful>>> = Mutex::default();
    let bed = Bed::with(cluster, |inner| {
        let (writer, pages, early, stopped) =
            (Mutex::default(), AtomicU64::default(), Mutex::default(), Mutex::default());
        let (rest, under_way) = (AtomicU64::new(u64::MAX), AtomicU64::default());
        let store = Arc::new(Watchful { inner, writer, pages, early, rest, under_way, stopped });
        *watchful.lock().expect("not poisoned") = Some(store.clone());
        store
    });
    let store = watchful.into_inner().expect("not poisoned").expect("it was made");
    *store.writer.lock().expect("not poisoned") = Some(bed.writer.clone());
    (bed, store)
}

impl Watchful {
    /// Stores so many more pages, and then nothing; tells when it does not, and those are stored.
    fn stop_after(&self, pages: u64) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        *self.stopped.lock().expect("not poisoned") = Some(tell);
        self.rest.store(pages, Ordering::SeqCst);
        told
    }

    async fn look(&self, key: &str, body: Bytes) {
        let Some(writer) = self.writer.lock().expect("not poisoned").clone() else { return };
        let (cluster, name) = key.split_once('/').expect("a cluster's folder");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let envelope = Envelope::read(body, &trust, cluster.parse().expect("a number"), name).expect("a page");
        let plain = writer.resume().expect("a key").open(&envelope).expect("its own");
        for line in plain.split(|byte| *byte == b'\n') {
            if let Ok(ResumeEntry::Object(object)) = serde_json::from_slice(line) {
                let named = format!("{cluster}/{}", object.reference.name);
                if self.inner.get_range(&named, 0..1).await.is_err() {
                    self.early.lock().expect("not poisoned").push(named);
                }
            }
        }
        self.pages.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Decorator for Watchful {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let step = u64::from(key.contains("/resume/"));
        let left = |rest: u64| if rest == 0 { None } else { Some(rest - step) };
        self.under_way.fetch_add(step, Ordering::SeqCst);
        if self.rest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            self.under_way.fetch_sub(step, Ordering::SeqCst);
            while self.under_way.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
            let told = self.stopped.lock().expect("not poisoned").take();
            told.map(|told| told.send(()));
            return std::future::pending().await;
        }
        if key.contains("/resume/") {
            self.look(key, body.clone()).await;
        } else if key.contains("/data/") {
            for _ in 0..2000 {
                tokio::task::yield_now().await;
            }
        }
        let put = self.inner.put_new(key, body).await;
        self.under_way.fetch_sub(step, Ordering::SeqCst);
        put
    }
}
