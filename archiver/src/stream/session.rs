//! One connection's stream: a task that only reads the socket and answers, a bounded buffer, and the shipping behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
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
    /// WAL that follows what came before; the permit keeps its bytes within the buffer's bound. The last ones of a stream
    /// that ended come without.
    Wal(Bytes, Option<OwnedSemaphorePermit>),
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
    /// Commits wait for us: each is cut at once, as far as the ones before have landed.
    pub synchronous: bool,
    /// A buffer full for longer closes the connection.
    pub stall_limit: Duration,
    /// How long the server may wait for what it has sent, when it asks.
    pub shutdown_wait: Duration,
    /// How often the server hears from us, whether or not anything is read.
    pub status_interval: Duration,
    /// A server that says nothing for so long, although it is asked, is taken for gone.
    pub silence_limit: Duration,
    /// How long one object may take to become durable, with all retries.
    pub put_limit: Duration,
    /// How often is looked whether somebody adopted WAL of the branch that is streamed.
    pub adoptions_every: Duration,
}

/// Why a stream ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEnd {
    /// We were asked to stop; everything received is durable and confirmed.
    Asked,
    /// We were asked to stop, and this many bytes of WAL that the server was known to have could not be made durable in
    /// time; the slot keeps them.
    AskedWithRest(u64),
    /// The timeline ended and is durable to its end.
    Timeline(TimelineId),
    /// The server shut down, with everything it had sent durable.
    ServerShutdown,
}

/// Bytes that may lie between the socket and the shipping (I11).
const BUFFER: usize = 2 << 20;

/// What the receiving task needs beside the stream itself.
pub(super) struct Receiver<'a> {
    pub(super) stream: WalStream<'a>,
    pub(super) timing: Timing,
    /// Follows the frontier, which the shipping advances. Invalid until what was durable before this stream has been
    /// compared with what the server sends.
    pub(super) frontier: watch::Receiver<Lsn>,
    /// End of what was durable when the stream began: received before, by an earlier one.
    pub(super) resumed: Lsn,
    /// Nothing below it is ever reported: what the slot had confirmed before (I1, never decreasing).
    pub(super) floor: Lsn,
    /// What was read and did not fit into the buffer yet.
    pub(super) pending: Option<Bytes>,
    pub(super) feed: mpsc::UnboundedSender<Feed>,
    pub(super) progress: super::ProgressSender,
}

/// A stream whose connection is over.
pub(super) struct Ended {
    pub(super) outcome: Result<SessionEnd, StreamError>,
    /// What was received and is still on its way into the repository.
    pub(super) rest: Option<Rest>,
    /// Up to where it is durable, now and when the rest has landed; invalid when nothing is known.
    pub(super) frontier: watch::Receiver<Lsn>,
}

impl Ended {
    pub(super) fn before_it_began(outcome: Result<SessionEnd, StreamError>) -> Ended {
        Ended { outcome, rest: None, frontier: watch::channel(Lsn::INVALID).1 }
    }
}

type Shipping = JoinHandle<Result<(), StreamError>>;

impl Receiver<'_> {
    /// Reads until the stream ends, fails, or `stop` says so.
    pub(super) async fn run(mut self, mut shipping: Shipping, stop: &mut watch::Receiver<bool>) -> Ended {
        let outcome = self.receive(&mut shipping, stop).await;
        let frontier = self.frontier.clone();
        if outcome.is_ok() {
            close(self.stream, CLOSE_LIMIT).await;
            return Ended { outcome, rest: None, frontier };
        }
        if shipping.is_finished() {
            return Ended { outcome, rest: None, frontier };
        }
        // The server may be gone for good, and then nothing else holds what it had sent.
        self.end_feed();
        let (received, resumed) = (self.stream.received(), self.resumed);
        let shutdown_wait = self.timing.shutdown_wait;
        let rest = Rest { shipping, received, frontier: self.frontier, resumed, shutdown_wait };
        Ended { outcome, rest: Some(rest), frontier }
    }

    async fn receive(
        &mut self,
        shipping: &mut Shipping,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<SessionEnd, StreamError> {
        let budget = Arc::new(Semaphore::new(BUFFER));
        let mut stalled = Instant::now();
        let mut heard = Instant::now();
        // Since when the server has waited for an answer, and for what it wants to hear is durable.
        let mut asked: Option<(Instant, Lsn)> = None;
        let mut ticks = interval(self.timing.status_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut followed = true;
        loop {
            let need = self.pending.as_ref().map_or(0, |bytes| bytes.len().min(BUFFER)) as u32;
            tokio::select! {
                biased;
                () = asked_to_stop(stop) => return self.finish(shipping, stop, None).await,
                ended = &mut *shipping => return Err(ended_early(ended)),
                // Without a frontier the shipping is about to end, and says why.
                changed = self.frontier.changed(), if followed => {
                    followed = changed.is_ok();
                    self.confirm(false).await?;
                    let frontier = *self.frontier.borrow();
                    asked = asked.filter(|(_, until)| frontier < *until);
                }
                _ = ticks.tick() => {
                    if self.pending.is_some() {
                        // It is this side that does not listen.
                        heard = Instant::now();
                    }
                    if heard.elapsed() > self.timing.silence_limit {
                        return Err(StreamError::Silent(self.timing.silence_limit));
                    }
                    // An idle server says nothing unasked, and what it has not said for a while nobody knows.
                    let quiet = (self.timing.silence_limit / 2).min(self.timing.status_interval * 4);
                    self.confirm(heard.elapsed() > quiet).await?;
                }
                () = sleep_until(asked.map_or(stalled, |(since, _)| since) + self.timing.shutdown_wait), if asked.is_some() => {
                    return Err(StreamError::ShutdownWait { waiting: self.rest(), limit: self.timing.shutdown_wait });
                }
                () = sleep_until(stalled + self.timing.stall_limit), if self.pending.is_some() => {
                    return Err(StreamError::Stalled(self.timing.stall_limit));
                }
                permit = budget.clone().acquire_many_owned(need), if self.pending.is_some() => {
                    let permit = permit.map_err(|error| StreamError::Task(error.to_string()))?;
                    if let Some(bytes) = self.pending.take() {
                        self.hand_over(Feed::Wal(bytes, Some(permit)));
                    }
                }
                event = self.stream.next(), if self.pending.is_none() => {
                    heard = Instant::now();
                    match event? {
                        StreamEvent::Wal { server_end, data, .. } => {
                            let received = self.stream.received();
                            self.progress.update(|progress| progress.arrived(received, server_end, Timestamp::now()));
                            stalled = heard;
                            self.pending = Some(data);
                        }
                        StreamEvent::Keepalive { server_end, reply_requested } => {
                            self.progress.update(|progress| progress.heard(server_end, Timestamp::now()));
                            if reply_requested {
                                // Answered at once when all is durable. Otherwise the answer goes with the frontier:
                                // the server would only ask again, as fast as we answer (case 12).
                                if *self.frontier.borrow() >= self.stream.received() {
                                    self.confirm(false).await?;
                                } else if asked.is_none() {
                                    asked = Some((heard, self.stream.received()));
                                    self.hand_over(Feed::Flush);
                                }
                            }
                        }
                        StreamEvent::TimelineEnd { next, .. } => {
                            self.hand_over(Feed::EndOfBranch);
                            return self.finish(shipping, stop, Some(SessionEnd::Timeline(next))).await;
                        }
                        StreamEvent::EndOfStream => {
                            return self.finish(shipping, stop, Some(SessionEnd::ServerShutdown)).await;
                        }
                    }
                }
            }
        }
    }

    fn hand_over(&self, feed: Feed) {
        if self.feed.send(feed).is_err() {
            // Whoever awaits the shipping hears why.
            tracing::debug!("the shipping has ended");
        }
    }

    /// Nothing more comes; what was read is handed over, whether or not there is room for it.
    fn end_feed(&mut self) {
        if let Some(bytes) = self.pending.take() {
            self.hand_over(Feed::Wal(bytes, None));
        }
        self.feed = mpsc::unbounded_channel().0;
    }

    /// Bytes received that are not durable.
    fn rest(&self) -> u64 {
        self.stream.received().bytes_since((*self.frontier.borrow()).max(self.resumed))
    }

    /// Reports the frontier, and nothing but the frontier (I1): write, flush and apply alike. As long as that would be less
    /// than what the slot had confirmed before, or nothing was compared yet, the server hears that nothing is known: three
    /// zeros, at which it leaves the slot as it is. (A zero for flush alone would make it take write instead.)
    async fn confirm(&mut self, reply: bool) -> Result<(), StreamError> {
        let frontier = *self.frontier.borrow_and_update();
        debug_assert!(self.stream.received() >= frontier, "the frontier is never beyond what was received");
        let reported = if frontier >= self.floor { frontier } else { Lsn::INVALID };
        self.floor = self.floor.max(reported);
        Ok(self.stream.send_status(reported, reported, reported, reply).await?)
    }

    /// Ships what is left, confirms it, and says good-bye. The server waits for none of this if it was the server that
    /// ended the stream; who asks us to stop waits for `shutdown_wait`.
    async fn finish(
        &mut self,
        shipping: &mut Shipping,
        stop: &mut watch::Receiver<bool>,
        end: Option<SessionEnd>,
    ) -> Result<SessionEnd, StreamError> {
        self.end_feed();
        let mut deadline = None;
        let mut ticks = interval(self.timing.status_interval);
        let mut followed = true;
        loop {
            tokio::select! {
                biased;
                ended = &mut *shipping => {
                    ended.map_err(|error| StreamError::Task(error.to_string()))??;
                    break;
                }
                changed = self.frontier.changed(), if followed => {
                    followed = changed.is_ok();
                    self.confirm(false).await?;
                }
                _ = ticks.tick() => self.confirm(false).await?,
                () = asked_to_stop(stop), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.timing.shutdown_wait);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    shipping.abort();
                    self.confirm(false).await?;
                    return Ok(asked_with(self.rest()));
                }
            }
        }
        self.confirm(false).await?;
        Ok(end.unwrap_or_else(|| asked_with(self.rest())))
    }
}

pub(super) fn asked_with(rest: u64) -> SessionEnd {
    if rest == 0 { SessionEnd::Asked } else { SessionEnd::AskedWithRest(rest) }
}

/// What was received before a connection ended, and is still on its way into the repository.
pub(super) struct Rest {
    shipping: Shipping,
    received: Lsn,
    frontier: watch::Receiver<Lsn>,
    resumed: Lsn,
    shutdown_wait: Duration,
}

impl Rest {
    /// Waits until it is durable, or cannot become so now, and says how that ended: with what `stop`, asked for meanwhile,
    /// left over, or why it has to come again.
    ///
    /// The connection must be closed by then, so that no server waits for this. What cannot be made durable was never
    /// confirmed: the slot keeps it.
    pub(super) async fn land(mut self, stop: &mut watch::Receiver<bool>) -> Result<Option<SessionEnd>, StreamError> {
        let mut deadline = None;
        let mut landed = Ok(());
        loop {
            tokio::select! {
                biased;
                ended = &mut self.shipping => {
                    landed = ended.map_err(|error| StreamError::Task(error.to_string())).flatten();
                    break;
                }
                () = asked_to_stop(stop), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.shutdown_wait);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.shipping.abort();
                    break;
                }
            }
        }
        let durable = (*self.frontier.borrow()).max(self.resumed);
        let asked = (*stop.borrow()).then(|| asked_with(self.received.bytes_since(durable)));
        if asked.is_some() { Ok(asked) } else { landed.map(|()| None) }
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
