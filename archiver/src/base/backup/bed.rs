//! A cluster with a repository and keys, to back it up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use walseal_common::postgres::Conninfo;
use walseal_common::seal::{Identity, TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::ObjectStore;
use walseal_common::store::directory::DirectoryStore;
use walseal_common::timeline::SystemIdentifier;
use walseal_tests::cluster::Cluster;
use walseal_tests::oracle;

use super::rebuilt::rebuild;
use super::*;
use crate::keys::ArchiveKeys;

/// WAL that is durable at once; it remembers what it was asked for.
#[derive(Default)]
pub struct Durable(pub Mutex<Vec<(Branch, LsnRange)>>);

/// The highest commit time that it claims to have seen.
pub const COMMIT_TIME: Timestamp = Timestamp::constant(1_795_228_200, 0);

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
pub struct Lost;

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
pub struct Bed {
    pub cluster: Cluster,
    pub identity: Identity,
    pub writer: WriterKey,
    pub repository: Repository,
    pub store: PathBuf,
}

impl Bed {
    pub fn new(cluster: Cluster) -> Bed {
        Bed::with(cluster, |store| store)
    }

    /// With a store that `wrap` makes of a directory.
    pub fn with(cluster: Cluster, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Bed {
        let folder = cluster.scratch().dir("repository").expect("a folder");
        let id: SystemIdentifier = cluster.system_identifier().expect("an id").parse().expect("a number");
        let writer = WriterKey::generate().expect("a key");
        let trust = TrustedWriters::new(vec![TrustedWriter::archiver(writer.public())]);
        let store = wrap(Arc::new(DirectoryStore::new(folder.clone())));
        let repository = Repository::new(store, id, trust);
        Bed { cluster, identity: Identity::generate().expect("a key"), writer, repository, store: folder }
    }

    pub fn options(&self) -> BackupOptions {
        let recipients = vec![self.identity.recipient().clone()];
        BackupOptions::by_hand(ArchiveKeys { recipients, writer: self.writer.clone() })
    }

    pub async fn connect(&self) -> ReplicationClient {
        let conninfo = Conninfo::parse(&self.cluster.conninfo(), &|_| None).expect("a connection string");
        ReplicationClient::connect(&conninfo, "walseal_test").await.expect("a connection")
    }

    pub async fn back_up(&self, progress: &mut dyn Progress, wal: &dyn WaitDurable) -> Result<Label, BaseError> {
        run(&mut self.connect().await, &self.repository, &self.options(), progress, wal).await
    }

    pub async fn back_up_with(&self, options: &BackupOptions, progress: &mut dyn Progress) -> Result<Label, BaseError> {
        run(&mut self.connect().await, &self.repository, options, progress, &Durable::default()).await
    }

    /// Rebuilds the backup and asks pg_verifybackup about it.
    pub fn verified(&self, label: &Label) -> PathBuf {
        let data = self.cluster.scratch().dir(&format!("r-{}", label.id)).expect("a folder").join("rebuilt");
        block_on(rebuild(&self.repository, label, &self.identity, &data, self.cluster.scratch().account()));
        oracle::verify_backup(self.cluster.scratch(), self.cluster.server(), &data).expect("pg_verifybackup -n");
        data
    }

    /// The rebuilt backup with the WAL of its server, ready to start.
    pub fn rebuilt(&self, data: &Path) -> Cluster {
        for segment in fs::read_dir(self.cluster.data().join("pg_wal")).expect("a folder") {
            let segment = segment.expect("an entry");
            if segment.file_type().expect("a type").is_file() {
                let copy = data.join("pg_wal").join(segment.file_name());
                fs::copy(segment.path(), &copy).expect("a copy");
                self.cluster.scratch().account().own(&copy).expect("an owner");
            }
        }
        Cluster::open(self.cluster.scratch(), self.cluster.server(), data).expect("a cluster")
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
