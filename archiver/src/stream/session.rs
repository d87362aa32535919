//! One connection's stream: a task that only reads the socket and answers, a bounded buffer, and the shipping behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use walseal_common::lsn::Lsn;
use walseal_common::postgres::replication::{StreamEvent, WalStream};
use walseal_common::timeline::TimelineId;

use super::StreamError;

/// What the socket's task hands to the shipping.
#[derive(Debug)]
pub(super) enum Feed {
    /// WAL that follows what came before; the permit keeps its bytes within the buffer's bound.
    Wal(Bytes, OwnedSemaphorePermit),
    /// Somebody waits: cut what is there at once.
    Flush,
    /// The timeline has ended here: its last segment is kept as `.partial`.
    EndOfBranch,
}

/// How a stream behaves.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest time that received WAL waits before it is cut into a tail.
    pub ship_interval: Duration,
    /// A buffer full for longer closes the connection.
    pub stall_limit: Duration,
    /// How long the server may wait for what it has sent, when it asks.
    pub shutdown_wait: Duration,
    /// How often the server hears from us, whether or not anything is read.
    pub status_interval: Duration,
}

/// Why a stream ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEnd {
    /// We were asked to stop; everything received is durable and confirmed.
    Asked,
    /// We were asked to stop, and this many bytes received could not be made durable in time; the slot keeps them.
    AskedWithRest(u64),
    /// The timeline ended and is durable to its end.
    Timeline(TimelineId),
    /// The server shut down, with everything it had sent durable.
    ServerShutdown,
}

/// Bytes that may lie between the socket and the shipping (I11).
const BUFFER: usize = 8 << 20;

/// What the receiving task needs beside the stream itself.
pub(super) struct Receiver<'a> {
    pub(super) stream: WalStream<'a>,
    pub(super) timing: Timing,
    /// Follows the frontier, which the shipping advances.
    pub(super) frontier: watch::Receiver<Lsn>,
    /// End of what was durable when the stream began: received before, by an earlier one.
    pub(super) resumed: Lsn,
    /// Nothing below it is ever reported: what the slot had confirmed before (I1, never decreasing).
    pub(super) floor: Lsn,
    pub(super) feed: mpsc::UnboundedSender<Feed>,
    pub(super) shipping: JoinHandle<Result<(), StreamError>>,
    pub(super) progress: super::ProgressSender,
}

impl Receiver<'_> {
    /// Reads until the stream ends, fails, or `stop` says so. The shipping has ended when this returns.
    pub(super) async fn run(mut self, stop: &mut watch::Receiver<bool>) -> Result<SessionEnd, StreamError> {
        let outcome = self.receive(stop).await;
        match &outcome {
            Ok(_) => close(self.stream, CLOSE_LIMIT).await,
            // What is not durable by now was never confirmed: the slot keeps it, and the next stream brings it again.
            Err(_) => self.shipping.abort(),
        }
        outcome
    }

    async fn receive(&mut self, stop: &mut watch::Receiver<bool>) -> Result<SessionEnd, StreamError> {
        let budget = Arc::new(Semaphore::new(BUFFER));
        let mut pending: Option<Bytes> = None;
        let mut stalled = Instant::now();
        // Since when the server has waited for an answer, and for what it wants to hear is durable.
        let mut asked: Option<(Instant, Lsn)> = None;
        let mut ticks = interval(self.timing.status_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let need = pending.as_ref().map_or(0, |bytes| bytes.len().min(BUFFER)) as u32;
            tokio::select! {
                biased;
                () = asked_to_stop(stop) => return self.finish(None).await,
                ended = &mut self.shipping => return Err(ended_early(ended)),
                changed = self.frontier.changed() => {
                    if changed.is_err() {
                        return Err(StreamError::Task("the frontier's owner is gone".to_owned()));
                    }
                    self.confirm().await?;
                    let frontier = *self.frontier.borrow();
                    asked = asked.filter(|(_, until)| frontier < *until);
                }
                _ = ticks.tick() => self.confirm().await?,
                () = sleep_until(asked.map_or(stalled, |(since, _)| since) + self.timing.shutdown_wait), if asked.is_some() => {
                    return Err(StreamError::ShutdownWait { waiting: self.unconfirmed(), limit: self.timing.shutdown_wait });
                }
                () = sleep_until(stalled + self.timing.stall_limit), if pending.is_some() => {
                    return Err(StreamError::Stalled(self.timing.stall_limit));
                }
                permit = budget.clone().acquire_many_owned(need), if pending.is_some() => {
                    let permit = permit.map_err(|error| StreamError::Task(error.to_string()))?;
                    if let Some(bytes) = pending.take() {
                        self.hand_over(Feed::Wal(bytes, permit))?;
                    }
                }
                event = self.stream.next(), if pending.is_none() => match event? {
                    StreamEvent::Wal { server_end, data, .. } => {
                        let received = self.stream.received();
                        self.progress.update(|progress| {
                            progress.server_end = progress.server_end.max(server_end).max(received);
                            progress.received = progress.received.max(received);
                            if progress.received > progress.frontier && progress.behind_since.is_none() {
                                progress.behind_since = Some(jiff::Timestamp::now());
                            }
                        });
                        stalled = Instant::now();
                        pending = Some(data);
                    }
                    StreamEvent::Keepalive { server_end, reply_requested } => {
                        self.progress.update(|progress| progress.server_end = progress.server_end.max(server_end));
                        if reply_requested {
                            // Answered at once when all is durable. Otherwise the answer goes with the frontier: the
                            // server would only ask again, as fast as we answer (case 12).
                            if self.unconfirmed() == 0 {
                                self.confirm().await?;
                            } else if asked.is_none() {
                                asked = Some((Instant::now(), self.stream.received()));
                                self.hand_over(Feed::Flush)?;
                            }
                        }
                    }
                    StreamEvent::TimelineEnd { next, .. } => {
                        self.hand_over(Feed::EndOfBranch)?;
                        return self.finish(Some(SessionEnd::Timeline(next))).await;
                    }
                    StreamEvent::EndOfStream => return self.finish(Some(SessionEnd::ServerShutdown)).await,
                },
            }
        }
    }

    fn hand_over(&self, feed: Feed) -> Result<(), StreamError> {
        self.feed.send(feed).map_err(|_| StreamError::Task("the shipping is gone".to_owned()))
    }

    /// Bytes received that are not durable.
    fn unconfirmed(&self) -> u64 {
        self.stream.received().bytes_since(*self.frontier.borrow())
    }

    /// Reports the frontier, and nothing but the frontier (I1): write, flush and apply alike, never 0, never less than
    /// before.
    async fn confirm(&mut self) -> Result<(), StreamError> {
        let frontier = *self.frontier.borrow_and_update();
        debug_assert!(
            self.stream.received().max(self.resumed) >= frontier,
            "the frontier is never beyond what was received"
        );
        let reported = frontier.max(self.floor);
        if reported.is_invalid() {
            return Ok(());
        }
        self.floor = reported;
        Ok(self.stream.send_status(reported, reported, reported, false).await?)
    }

    /// Ships what is left, confirms it, and says good-bye.
    async fn finish(&mut self, end: Option<SessionEnd>) -> Result<SessionEnd, StreamError> {
        let (closed, _) = mpsc::unbounded_channel();
        drop(std::mem::replace(&mut self.feed, closed));
        let deadline = Instant::now() + self.timing.shutdown_wait;
        let mut ticks = interval(self.timing.status_interval);
        let rest = loop {
            tokio::select! {
                biased;
                ended = &mut self.shipping => {
                    ended.map_err(|error| StreamError::Task(error.to_string()))??;
                    break 0;
                }
                _ = self.frontier.changed() => self.confirm().await?,
                _ = ticks.tick() => self.confirm().await?,
                () = sleep_until(deadline) => {
                    self.shipping.abort();
                    break self.unconfirmed();
                }
            }
        };
        self.confirm().await?;
        let end = match (end, rest) {
            (Some(_), rest) if rest > 0 => {
                return Err(StreamError::ShutdownWait { waiting: rest, limit: self.timing.shutdown_wait });
            }
            (Some(end), _) => end,
            (None, 0) => SessionEnd::Asked,
            (None, rest) => SessionEnd::AskedWithRest(rest),
        };
        Ok(end)
    }
}

/// Returns once `stop` says so, or nobody is left to say it.
pub(super) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: then nobody waits for this stream any more.
    drop(stop.wait_for(|stop| *stop).await);
}

/// How long the server may take to hear that the stream ends.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Ends the stream politely, so that the server frees the slot at once.
async fn close(stream: WalStream<'_>, limit: Duration) {
    match tokio::time::timeout(limit, stream.stop()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the stream did not end politely"),
        Err(_) => tracing::debug!("the server did not answer the end of the stream in time"),
    }
}

fn ended_early(ended: Result<Result<(), StreamError>, tokio::task::JoinError>) -> StreamError {
    match ended {
        Ok(Ok(())) => StreamError::Task("the shipping ended while WAL was coming".to_owned()),
        Ok(Err(error)) => error,
        Err(error) => StreamError::Task(error.to_string()),
    }
}
