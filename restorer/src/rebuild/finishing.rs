//! Files of which nothing is missing, made durable while others are still being written.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::target_file::TargetFile;
use super::{Owner, RebuildError};

/// Threads that wait for the disk. It writes what several of them wait for in one go.
const THREADS: usize = 8;

/// Files that one of them takes at a time.
const BATCH: usize = 16;

/// Batches that may wait until whoever writes waits, too.
const QUEUE: usize = 64;

/// Takes files that are whole by now.
#[derive(Clone)]
pub(super) struct Whole(mpsc::Sender<Vec<usize>>);

/// Where those files come out.
pub(super) struct Finishing(mpsc::Receiver<Vec<usize>>);

/// Both ends.
pub(super) fn finishing() -> (Whole, Finishing) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Whole(sender), Finishing(receiver))
}

impl Whole {
    /// These files are whole. Waits while too many are.
    pub(super) async fn take(&self, files: impl IntoIterator<Item = usize>) {
        let mut files = files.into_iter().peekable();
        while files.peek().is_some() {
            let batch = files.by_ref().take(BATCH).collect();
            // There is nobody to tell when finishing failed: that error is the rebuild's.
            if self.0.send(batch).await.is_err() {
                return;
            }
        }
    }
}

impl Finishing {
    /// Gives each of `files` its time, permissions and owner and makes it durable, once it is whole; returns when nobody can
    /// name one any more.
    pub(super) async fn run(self, files: &Arc<Vec<TargetFile>>, owner: &Owner) -> Result<(), RebuildError> {
        let batches =
            stream::unfold(self.0, |mut receiver| async { receiver.recv().await.map(|batch| (batch, receiver)) });
        let finish = |batch: Vec<usize>| {
            let (files, owner) = (files.clone(), owner.clone());
            let work =
                move || batch.iter().filter_map(|number| files.get(*number)).try_for_each(|file| file.finish(&owner));
            async {
                tokio::task::spawn_blocking(work)
                    .await
                    .unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string())))
            }
        };
        batches.map(finish).buffer_unordered(THREADS).try_collect::<()>().await
    }
}
