//! Whole segments: stored under their name only when they are finished.
//!
//! PostgreSQL pushes a segment once it is finished. A hand, a script or a standby may push one before: accepted, its bytes
//! would take the name that belongs to the full ones, which would then be a conflict for ever. So whatever is not durable yet
//! is walked to its end first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use walseal_common::lsn::LsnRange;
use walseal_common::repository::WalPut;
use walseal_common::segment::{SegmentName, WalFileName};
use walseal_common::timeline::Branch;
use walseal_common::wal::{Doubt, Finish};

use super::archivist::{Archivist, Errand, Load, blocking};
use super::freight::Freight;
use super::lineage::{Lineage, fork_within};
use super::stored::Stored;
use super::witness::Witness;
use super::{PushError, Pushed};

/// How long a push waits for the daemon's own stream to bring the segment. A healthy stream needs far less; with one that
/// is stuck, the segment is shipped from its file.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits before it looks whether the stream can bring the segment at all.
const STREAM_GLANCE: Duration = Duration::from_millis(250);

/// A segment's file that is to be stored under the segment's name.
struct Whole {
    freight: Arc<Freight>,
    lineage: Lineage,
    folder: PathBuf,
    segment: SegmentName,
    range: LsnRange,
}

impl Archivist {
    /// Makes a whole segment durable.
    pub(super) async fn push_segment(
        &self,
        path: &Path,
        folder: &Path,
        segment: SegmentName,
        errand: Errand<'_>,
    ) -> Result<Pushed, PushError> {
        let name = WalFileName::Segment(segment);
        if let (Errand::Asked(_), Some(number)) = (errand, segment.number(self.identity.segment_size)) {
            self.asked.store(number.0, Ordering::Relaxed);
        }
        let lineage = self.lineage(folder, segment).await?;
        let freight = Arc::new(self.open(path, name, segment, lineage.clone()).await?);
        let range = freight.number().range(self.identity.segment_size);
        self.prove_kinship(&freight, &lineage, folder, segment, name).await?;
        let whole = Whole { freight, lineage, folder: folder.to_owned(), segment, range };
        if let Errand::Asked(_) = errand
            && self.verified.take(segment, whole.lineage.branch, whole.freight.print())
        {
            return Ok(Pushed::AlreadyThere);
        }
        if !self.is_brought(whole.lineage.branch, range, STREAM_GLANCE).await {
            if !self.is_finished(&whole, whole.walk().await?).await? {
                return self.push_left(whole).await;
            }
            if !self.is_brought(whole.lineage.branch, range, STREAM_PATIENCE).await {
                tracing::debug!(%segment, "the stream has not brought it in time; shipping it from its file");
            }
        }
        let alone = self.berth(&segment.to_string()).await;
        let ahead = matches!(errand, Errand::Ahead);
        // Whoever is asked again and again compares ahead.
        let known = self.find_stored(&whole, !ahead || self.stream.is_some()).await?;
        match known {
            Stored::Same => {
                if ahead {
                    self.remember(&whole);
                }
                return Ok(Pushed::AlreadyThere);
            }
            Stored::Something => return Ok(Pushed::AlreadyThere),
            Stored::Other if ahead => return Ok(Pushed::AlreadyThere),
            Stored::Nothing => errand.tell(),
            Stored::Other | Stored::Unknown => {}
        }
        match self.ship_whole(&whole, known, errand).await? {
            Some(outcome) => {
                if ahead {
                    self.remember(&whole);
                }
                Ok(outcome)
            }
            None => {
                drop(alone);
                self.push_left(whole).await
            }
        }
    }

    /// Looks for the segment, first among what the stream has brought; with `compare`, reads the file where something is there.
    async fn find_stored(&self, whole: &Whole, compare: bool) -> Result<Stored, PushError> {
        let (key, branch) = (self.keys.writer.compare(), whole.lineage.branch);
        if let Some(digest) = self.landed.digest(branch, whole.freight.number()) {
            let (freight, key, size) = (whole.freight.clone(), key.clone(), self.identity.segment_size.bytes());
            if blocking(move || freight.digest(&key, size)).await? == digest {
                return Ok(Stored::Same);
            }
        }
        Stored::find(&self.repository, key, branch, &whole.freight, compare).await
    }

    /// The segment is durable with the bytes of this file.
    fn remember(&self, whole: &Whole) {
        self.verified.remember(whole.segment, whole.lineage.branch, whole.freight.print());
    }

    /// Makes every part of a segment durable that is not yet. `None`: it is the last one of a timeline that was left within it.
    async fn ship_whole(&self, whole: &Whole, known: Stored, errand: Errand<'_>) -> Result<Option<Pushed>, PushError> {
        let mut load = Load::whole(whole.freight.clone(), whole.lineage.branch, &self.identity, &self.keys);
        let (mut outcome, mut proven) = (Pushed::AlreadyThere, false);
        while !load.is_done() {
            let (room, rest, pieces) = self.next_part(load).await?;
            load = rest;
            for piece in pieces {
                if known != Stored::Nothing && piece.is_there(&self.repository, &self.keys).await? {
                    continue;
                }
                errand.tell();
                // A segment in one part was walked as it was read. Of larger ones nothing may be stored before the end was
                // seen; then the walk of what is shipped must say so again.
                if load.is_done() || !proven {
                    let finish = match load.finish() {
                        Some(finish) if load.is_done() => finish,
                        _ => whole.walk().await?,
                    };
                    proven = self.is_finished(whole, finish).await?;
                    if !proven {
                        return Ok(None);
                    }
                }
                let shipped = match known {
                    Stored::Nothing => piece.ship_to_free_name(&self.repository, &self.keys, &room).await?,
                    _ => piece.ship(&self.repository, &self.keys, &room).await?,
                };
                if shipped == WalPut::Stored {
                    outcome = Pushed::Shipped;
                }
            }
            drop(room);
        }
        Ok(Some(outcome))
    }

    /// Whether the segment is finished. `false`: it is the last one of its timeline, which was left within it.
    ///
    /// Where the bytes do not prove it, what lies beside the file may. Where nothing there tells, as beside a copy, they are
    /// believed if they look finished: a file that was refused for ever would block whoever archives through a copy, and of
    /// what they leave open, a part of a record in the last page that the server completes within the moment, a copy would
    /// have to catch that moment.
    ///
    /// Errors: it is not finished, or it is damaged.
    async fn is_finished(&self, whole: &Whole, finish: Finish) -> Result<bool, PushError> {
        if finish == Finish::Proven {
            return Ok(true);
        }
        let (folder, segment, range, branch) = (whole.folder.clone(), whole.segment, whole.range, whole.lineage.origin);
        let (size, system) = (self.identity.segment_size, self.repository.cluster());
        let broken = matches!(finish, Finish::Broken(_));
        let (witness, fork) = blocking(move || {
            let fork = if broken { fork_within(&folder, branch, range, system)? } else { None };
            Ok((Witness::find(&folder, segment, size, system), fork))
        })
        .await?;
        let name = WalFileName::Segment(segment);
        match (finish, witness) {
            (Finish::Proven, _) | (Finish::Unproven(_), Witness::Finished) => Ok(true),
            (Finish::Unproven(Doubt::Unchecked { .. }), Witness::None) => Ok(true),
            (Finish::Unproven(doubt), _) => {
                let why = format!("{doubt}, and nothing beside the file says that it is finished");
                Err(PushError::Unfinished { name, why })
            }
            (Finish::Broken(end), _) if fork.is_some_and(|fork| fork <= end.at) => Ok(false),
            (Finish::Broken(end), Witness::Finished) => Err(PushError::Damaged { name, why: end.to_string() }),
            (Finish::Broken(end), _) => Err(PushError::Unfinished { name, why: end.to_string() }),
        }
    }

    /// Makes the last segment of a timeline durable that was pushed under the whole name: a standby with
    /// `archive_mode = always` does so with what it streamed or fetched of the old timeline before it followed the new one
    /// (`WalReceiverMain` in `walreceiver.c`, `CleanupAfterArchiveRecovery` in `xlog.c`). It is what a `.partial` is, and kept
    /// as one: refused, it would block that standby's archiving for ever.
    async fn push_left(&self, whole: Whole) -> Result<Pushed, PushError> {
        let name = WalFileName::Segment(whole.segment);
        tracing::debug!(%name, "its timeline was left within it; storing it as .partial");
        self.ship_partial(whole.freight, whole.lineage, whole.folder, whole.segment, name).await
    }

    /// Gives the stream of this process time to bring `range`, so that it is not sent twice. Returns whether there is nothing
    /// more to wait for.
    async fn is_brought(&self, branch: Branch, range: LsnRange, within: Duration) -> bool {
        let Some(mut stream) = self.stream.clone() else { return true };
        let brought = async { while self.is_streaming(branch, range) && stream.changed().await.is_ok() {} };
        tokio::time::timeout(within, brought).await.is_ok()
    }
}

impl Whole {
    /// What a walk through the file says.
    async fn walk(&self) -> Result<Finish, PushError> {
        let freight = self.freight.clone();
        blocking(move || freight.finish()).await
    }
}
