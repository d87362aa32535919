//! Shipping: what was received is cut, sealed and stored, several pieces at once, and the frontier follows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::Repository;

use super::remains::Remains;
use super::session::Feed;
use super::{Cutter, Frontier, OverlapDiffers, ProgressSender, StreamError};
use crate::index::Index;
use crate::keys::ArchiveKeys;
use crate::landed::Landed;
use crate::memory::Memory;
use crate::shipment::{Piece, PieceKind};
use crate::summarist::FinishedRun;

/// So many tails for which commits wait are on their way at the same time; what commits meanwhile goes with the next one. More of
/// them would make waiting hardly shorter, and each is paid for.
const AWAITED_AT_ONCE: usize = 2;

/// So many are on their way that were cut on the ship interval: a store that takes longer gets larger ones, instead of more and more
/// that wait for each other.
const TAILS_AT_ONCE: usize = 8;

/// So many bytes are cut although more are there to be read.
const AWAITED_MOST: u64 = 1 << 20;

/// The side of a stream behind the buffer.
pub(super) struct Shipping {
    pub(super) repository: Repository,
    pub(super) keys: Arc<ArchiveKeys>,
    pub(super) cutter: Cutter,
    pub(super) frontier: Arc<Mutex<Frontier>>,
    /// Where the stream begins.
    pub(super) start: Lsn,
    /// End of what was durable before. It counts once it has been compared with what the server sends.
    pub(super) resumed: Lsn,
    /// Nothing beyond it was confirmed before this stream: the slot's position, and what was durable.
    pub(super) confirmed: Lsn,
    pub(super) index: Arc<dyn Index>,
    /// Remembers whole segments.
    pub(super) landed: Landed,
    pub(super) ship_interval: Duration,
    /// Commits wait for us.
    pub(super) synchronous: bool,
    pub(super) put_limit: Duration,
    /// For pieces on their way into the repository.
    pub(super) memory: Memory,
    pub(super) progress: ProgressSender,
    /// Takes what is left of the segment when the stream ends, however it ends.
    pub(super) remains: Remains,
    /// Takes what the transactions of a run of segments did.
    pub(super) summaries: Option<mpsc::Sender<FinishedRun>>,
}

/// What a piece covers, and whether somebody may wait for it.
#[derive(Clone, Copy)]
struct Flight {
    range: LsnRange,
    awaited: bool,
}

/// Pieces on their way into the repository.
#[derive(Default)]
struct Flights {
    all: JoinSet<Result<Flight, StreamError>>,
    awaited: usize,
}

impl Flights {
    /// Whether one more tail may be cut on the interval.
    fn have_room(&self) -> bool {
        self.awaited < TAILS_AT_ONCE
    }

    /// Waits for the next one to land; `None` when there is none.
    async fn landed(&mut self) -> Option<Result<Flight, StreamError>> {
        let landed = self.all.join_next().await?;
        let flight = landed.map_err(|error| StreamError::Task(error.to_string())).flatten();
        self.awaited -= usize::from(flight.as_ref().is_ok_and(|flight| flight.awaited));
        Some(flight)
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        if !self.cutter.is_comparing() {
            self.remains.leave(self.cutter.partial());
        }
    }
}

impl Shipping {
    /// Runs until the feed is closed and everything is durable, or something fails.
    pub(super) async fn run(mut self, mut feed: mpsc::UnboundedReceiver<Feed>) -> Result<(), StreamError> {
        let mut flights = Flights::default();
        let mut pieces = Vec::new();
        let mut due = Due { interval: self.ship_interval, at: None };
        self.durable_before(LsnRange { start: Lsn::INVALID, end: self.start });
        loop {
            tokio::select! {
                biased;
                Some(landed) = flights.landed() => self.cutter.landed(landed?.range),
                fed = feed.recv() => match fed {
                    Some(Feed::Wal(bytes, permit)) => {
                        self.remains.forget();
                        let comparing = self.cutter.is_comparing();
                        let compared = self.cutter.push(&bytes, &mut pieces);
                        // The bytes are copied: their place in the buffer is free again.
                        drop((bytes, permit));
                        self.tell_summaries();
                        if let Some((read, commits)) = self.cutter.commits() {
                            self.progress.update(|progress| progress.read_to(read, commits));
                        }
                        match compared {
                            Ok(()) if comparing && !self.cutter.is_comparing() => {
                                self.durable_before(self.cutter.compared(self.resumed));
                            }
                            Ok(()) => {}
                            Err(differs) => return Err(self.refuse(differs).await),
                        }
                    }
                    Some(Feed::Flush) => pieces.extend(self.cutter.cut_tail()),
                    Some(Feed::EndOfBranch) => {
                        pieces.extend(self.cutter.cut_tail());
                        pieces.extend(self.cutter.partial());
                    }
                    None => {
                        pieces.extend(self.cutter.cut_tail());
                        self.launch(&mut pieces, &mut flights).await?;
                        while let Some(landed) = flights.landed().await {
                            landed?;
                        }
                        return Ok(());
                    }
                },
                () = sleep_until(due.at.unwrap_or_else(Instant::now)), if due.at.is_some() && flights.have_room() => {}
            }
            let is_due = flights.have_room() && due.has_come(Instant::now());
            if is_due || (self.synchronous && self.is_awaited(&flights, &feed)) {
                pieces.extend(self.cutter.cut_tail());
            }
            pieces.extend(self.cutter.join_tails());
            self.launch(&mut pieces, &mut flights).await?;
            due.follow(self.cutter.uncut(), Instant::now());
        }
    }

    /// Nobody waits for a summary: where its writer is behind, a reader reads the WAL.
    fn tell_summaries(&mut self) {
        let (branch, size) = (self.cutter.branch(), self.cutter.segment_size());
        for (first, summary) in self.cutter.summaries() {
            let run = FinishedRun { branch, size, first, summary };
            if self.summaries.as_ref().is_some_and(|writer| writer.try_send(run).is_err()) {
                tracing::debug!(%branch, ?first, "no summary: the ones before are not stored yet");
            }
        }
    }

    /// Whether somebody waits for what is uncut, and it is time to cut it. What is there to be read by now goes with it.
    fn is_awaited(&self, flights: &Flights, feed: &mpsc::UnboundedReceiver<Feed>) -> bool {
        let complete = feed.is_empty() || self.cutter.uncut() >= AWAITED_MOST;
        flights.awaited < AWAITED_AT_ONCE && complete && self.cutter.is_awaited()
    }

    /// The repository holds these bytes of this server since before the stream.
    fn durable_before(&self, range: LsnRange) {
        let end = self.frontier.lock().unwrap_or_else(PoisonError::into_inner).complete(range);
        self.progress.update(|progress| progress.proven_to(end));
    }

    /// The server's WAL contradicts the repository's: its bytes are kept (case 17), and nothing is confirmed.
    async fn refuse(&mut self, differs: OverlapDiffers) -> StreamError {
        let ours = self.keys.writer.public();
        let Some(piece) = self.cutter.partial() else { return differs.into() };
        let name = piece.name();
        match piece.keep_conflicting(name, &self.repository, &self.keys).await {
            Ok(()) => StreamError::Conflict { name: differs.name, there: differs.writer, ours: ours.to_string() },
            Err(error) => StreamError::of_shipping(error, &ours),
        }
    }

    /// Starts shipping the pieces, in order, as soon as there is room for each.
    async fn launch(&mut self, pieces: &mut Vec<Piece>, flights: &mut Flights) -> Result<(), StreamError> {
        for piece in pieces.drain(..) {
            let room = loop {
                tokio::select! {
                    biased;
                    // A failure must be seen while waiting: nobody else would give the room free.
                    Some(landed) = flights.landed() => self.cutter.landed(landed?.range),
                    room = self.memory.room(piece.footprint()) => break room,
                }
            };
            let (repository, keys) = (self.repository.clone(), self.keys.clone());
            let (frontier, progress) = (self.frontier.clone(), self.progress.clone());
            let (index, landed) = (self.index.clone(), self.landed.clone());
            let (limit, confirmed) = (self.put_limit, self.confirmed);
            let range = piece.range();
            let flight = Flight { range, awaited: piece.kind == PieceKind::Tail && !self.cutter.is_joining(range) };
            flights.awaited += usize::from(flight.awaited);
            flights.all.spawn(async move {
                // As late as can be: what is confirmed from here on, the object cannot know.
                let end = frontier.lock().unwrap_or_else(PoisonError::into_inner).end();
                let piece = Piece { durable: Some(end.max(confirmed)), ..piece };
                let (name, branch, kind) = (piece.name(), piece.branch, piece.kind);
                let (size, highest, digest) = (piece.segment_size, piece.transactions.highest, piece.digest_end);
                let put = timeout(limit, piece.ship(&repository, &keys, &room)).await;
                let put = put.map_err(|_| StreamError::Stuck { range, limit })?;
                let put = put.map_err(|error| StreamError::of_shipping(error, &keys.writer.public()))?;
                tracing::debug!(piece = %name, ?put, "durable");
                if kind != PieceKind::Partial {
                    // The bytes of a .partial are durable as tails already.
                    confirm(range, highest, &frontier, &progress);
                }
                if kind == PieceKind::Whole && range.end.bytes_since(range.start) == size.bytes() {
                    index.record(branch, range);
                    landed.note(branch, size.number(range.start), digest);
                }
                Ok(flight)
            });
        }
        Ok(())
    }
}

/// When the oldest byte that was not cut yet has to be.
#[derive(Debug)]
struct Due {
    interval: Duration,
    at: Option<Instant>,
}

impl Due {
    /// Whether the moment has come. Asked after whatever woke the task: WAL that comes without a pause must not put it off.
    fn has_come(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// So many bytes are uncut now.
    fn follow(&mut self, uncut: u64, now: Instant) {
        self.at = if uncut == 0 { None } else { self.at.or(Some(now + self.interval)) };
    }
}

/// The range is durable: the frontier advances as far as there is no hole (I2). Only from here on may its LSNs be
/// confirmed (I1).
fn confirm(range: LsnRange, highest: Option<Timestamp>, frontier: &Mutex<Frontier>, progress: &ProgressSender) {
    let mut frontier = frontier.lock().unwrap_or_else(PoisonError::into_inner);
    let end = frontier.complete(range);
    progress.update(|progress| {
        progress.durable_to(end, Timestamp::now());
        progress.proven_to(end);
        progress.highest_time = progress.highest_time.max(highest);
        progress.shipped_pieces += 1;
        progress.shipped_bytes += range.end.bytes_since(range.start);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_that_comes_without_a_pause_is_cut_on_the_interval_all_the_same() {
        let (interval, step) = (Duration::from_secs(1), Duration::from_millis(7));
        let mut due = Due { interval, at: None };
        let (mut now, mut oldest, mut cuts) = (Instant::now(), None::<Instant>, 0);
        // The timer itself never wakes anybody: something else always does.
        for _ in 0..1000 {
            if due.has_come(now) {
                (oldest, cuts) = (None, cuts + 1);
            }
            due.follow(u64::from(oldest.is_some()), now);
            let begun = *oldest.get_or_insert(now);
            due.follow(1, now);
            assert!(now - begun <= interval, "a byte waited for {:?}", now - begun);
            now += step;
        }
        assert_eq!(cuts, 6);
    }
}
