//! Stores that fail, lie or are slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use walseal_common::repository::RepositoryError;
use walseal_common::store::{Decorator, ObjectStore, PutOutcome, StoreError, StoreErrorKind};
use walseal_tests::cluster::Cluster;

use super::bed::{Bed, Durable, block_on};
use super::*;

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
impl Decorator for Faulty {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let number = self.puts.fetch_add(1, Ordering::SeqCst);
        match &self.fault {
            Fault::Full if number == 2 => Err(StoreError {
                kind: StoreErrorKind::Full,
                operation: "put",
                key: key.to_owned(),
                store: "faulty".to_owned(),
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
    let effort = Effort { puts: 2, sealers: 2, plaintext: 4 << 20, ciphertext: 33 << 20, level: 1 };
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
    assert!(worst < effort.plaintext + effort.ciphertext + (40 << 20), "{} MiB were read and not stored", worst >> 20);
}
