//! Looking ahead: segments that PostgreSQL will push next are shipped during the call for an earlier one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio::task::JoinSet;
use walseal_common::segment::{SegmentName, SegmentNumber, WalFileName};

use super::archivist::{Archivist, Errand, folder_of, wal_name};
use super::lineage::Lineage;

/// Most segments that are looked at ahead of the one that PostgreSQL asks for.
const FURTHEST: u64 = 16;

/// Segments shipped ahead at once; each has at most one part in memory, for which it waits until there is room. So many that both
/// sealing and the store always have something to do.
const AT_ONCE: usize = 4;

impl Archivist {
    /// Ships the segments that follow `pushed` in PostgreSQL's queue, oldest first, until `enough` says so; those that were
    /// begun are finished. Goes on from what PostgreSQL asks for meanwhile. What has a name in the repository is compared at most, so
    /// that the call for it need not, and failures are not told: PostgreSQL will call for each of these files, and that call says
    /// what is wrong.
    pub async fn look_ahead(self: Arc<Self>, pushed: PathBuf, enough: watch::Receiver<bool>) {
        let Ok(WalFileName::Segment(segment)) = wal_name(&pushed) else { return };
        let Some(first) = segment.number(self.identity.segment_size) else { return };
        let folder = folder_of(&pushed);
        let mut flights = JoinSet::new();
        let mut next = first.0.saturating_add(1);
        loop {
            let asked = self.asked.load(Ordering::Relaxed);
            // What PostgreSQL asks for is behind this, unless it was a hand.
            let from = if (first.0..next).contains(&asked) { asked } else { first.0 };
            if flights.len() >= AT_ONCE || next > from.saturating_add(FURTHEST) {
                match flights.join_next().await {
                    Some(_) => continue,
                    None => break,
                }
            }
            let number = SegmentNumber(next);
            let name = SegmentName::new(segment.timeline, number, self.identity.segment_size);
            if *enough.borrow() || !is_ready(&folder, name).await {
                break;
            }
            next += 1;
            if self.verified.knows(name) {
                continue;
            }
            let (archivist, folder) = (self.clone(), folder.clone());
            flights.spawn(async move { archivist.push_ahead(&folder, name, number).await });
        }
        while flights.join_next().await.is_some() {}
    }

    async fn push_ahead(&self, folder: &Path, name: SegmentName, number: SegmentNumber) {
        let range = number.range(self.identity.segment_size);
        let Ok(adoptions) = self.adoptions().await else { return };
        let size = self.identity.segment_size;
        let Ok(lineage) = Lineage::of(folder, name, size, &self.repository, &adoptions).await else { return };
        if self.is_streaming(lineage.branch, range) {
            return;
        }
        match self.push_on(&folder.join(name.to_string()), Errand::Ahead).await {
            Ok(outcome) => tracing::debug!(%name, ?outcome, "shipped ahead"),
            // PostgreSQL will ask for this file, and then the reason is told.
            Err(error) => tracing::debug!(%name, %error, "not shipped ahead"),
        }
    }
}

/// Whether PostgreSQL has queued this segment (`archive_status/<name>.ready`, see `pgarch.c`). Segments are queued in order,
/// so asking for one name after the other finds them without reading a folder that may hold very many.
async fn is_ready(folder: &Path, name: SegmentName) -> bool {
    let ready = folder.join("archive_status").join(format!("{name}.ready"));
    tokio::fs::try_exists(&ready).await.unwrap_or(false)
}
