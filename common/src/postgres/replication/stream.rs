//! The WAL stream: START_REPLICATION and what follows.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use postgres_protocol::message::backend::{
    COMMAND_COMPLETE_TAG, COPY_DATA_TAG, COPY_DONE_TAG, READY_FOR_QUERY_TAG, ROW_DESCRIPTION_TAG,
};
use postgres_protocol::message::frontend::{self, CopyData};

use super::{lsn, not_understood, slot, timeline};
use crate::lsn::Lsn;
use crate::postgres::error::PostgresError;
use crate::postgres::session::{ResultSets, Session};
use crate::postgres::wire::{COPY_BOTH_RESPONSE_TAG, Fields, Frame, malformed, unexpected};
use crate::timeline::TimelineId;

/// Seconds from 1970 to 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH: u64 = 946_684_800;

/// What a stream brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamEvent {
    /// WAL, without a hole to what came before.
    Wal {
        /// Position of the first byte.
        start: Lsn,
        /// End of WAL on the server when it sent this.
        server_end: Lsn,
        /// The bytes, at most 128 KiB from real servers. They share a read buffer of some 256 KiB, which lives as
        /// long as any slice of it: copy what is kept for long.
        data: Bytes,
    },
    /// The server is there.
    Keepalive {
        /// End of WAL on the server: what was sent, not more.
        server_end: Lsn,
        /// It wants a status at once; at its shutdown it waits for the flush position to reach `server_end`
        /// (case 12).
        reply_requested: bool,
    },
    /// The timeline has ended, and the server said where the next one begins (case 11). The client may be used for
    /// other commands now.
    TimelineEnd {
        /// The timeline to go on with; not always the next number.
        next: TimelineId,
        /// Where it begins; may lie before what was received.
        start: Lsn,
    },
    /// The server shuts down and has sent all it has; the connection is over. Comes again with every further call.
    EndOfStream,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// WAL and keepalives come.
    Streaming,
    /// The copy is over on both sides; the result set and ReadyForQuery come.
    Ending,
    /// Nothing comes any more.
    Ended,
}

/// Streaming WAL. Dropping it in its middle leaves its client without use; [`WalStream::stop`] does not.
pub struct WalStream<'a> {
    session: &'a mut Session,
    timeline: TimelineId,
    /// End of what was received without a hole; the next WAL must start here.
    received: Lsn,
    state: State,
    /// What has come of the result set that names the next timeline.
    ending: ResultSets,
    /// Why nothing can be sent any more. The server has gone, but what it said last may still be there to read.
    unsent: Option<PostgresError>,
}

impl std::fmt::Debug for WalStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("WalStream");
        debug.field("timeline", &self.timeline).field("received", &self.received).field("state", &self.state);
        debug.finish_non_exhaustive()
    }
}

const STREAMING: &str = "streaming WAL failed";

impl<'a> WalStream<'a> {
    pub(super) async fn start(
        session: &'a mut Session,
        slot: Option<&str>,
        start: Lsn,
        timeline: TimelineId,
    ) -> Result<WalStream<'a>, PostgresError> {
        let doing = format!("START_REPLICATION at {start} on timeline {} failed", timeline.number());
        let slot = slot.map(slot::quote).transpose()?.map(|slot| format!("SLOT {slot} ")).unwrap_or_default();
        let command = format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {}", timeline.number());
        session.send(&doing, &command).await?;
        let frame = match session.wire.receive(&doing).await {
            Ok(frame) => frame,
            Err(error) => return Err(session.recover(&doing, error).await),
        };
        let mut stream = WalStream {
            session,
            timeline,
            received: start,
            state: State::Streaming,
            ending: ResultSets::default(),
            unsent: None,
        };
        match frame.tag {
            COPY_BOTH_RESPONSE_TAG => Ok(stream),
            // At the very end of an old timeline the server starts no copy at all.
            ROW_DESCRIPTION_TAG => {
                stream.state = State::Ending;
                stream.ending.take(&doing, &frame)?;
                Ok(stream)
            }
            _ => Err(unexpected(&doing, &frame)),
        }
    }

    /// The timeline that is streamed.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// End of the WAL that came so far.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// The next event. Cancel-safe: it may be dropped at any await, as in `select!` beside timers, and loses nothing.
    ///
    /// Errors: what the server says, such as [`PostgresError::is_wal_removed`]; a broken connection; WAL that does not
    /// follow what came before.
    pub async fn next(&mut self) -> Result<StreamEvent, PostgresError> {
        // Something of an earlier, cancelled call may be left to send.
        self.flush().await;
        loop {
            if self.state == State::Ended {
                return Ok(StreamEvent::EndOfStream);
            }
            let frame = match self.session.wire.receive(STREAMING).await {
                Ok(frame) => frame,
                Err(error) => return Err(self.failed(error).await),
            };
            match (self.state, frame.tag) {
                (State::Streaming, COPY_DATA_TAG) => return self.copy_data(&frame),
                (State::Streaming, COPY_DONE_TAG) => {
                    self.state = State::Ending;
                    self.queue_copy_done()?;
                    self.flush().await;
                }
                // walsender.c, WalSndDone: all is sent and confirmed, and the process exits.
                (State::Streaming, COMMAND_COMPLETE_TAG) => self.state = State::Ended,
                (State::Ending, READY_FOR_QUERY_TAG) => {
                    self.state = State::Ended;
                    self.session.busy = false;
                    return self.timeline_end();
                }
                (State::Ending, _) => self.ending.take(STREAMING, &frame)?,
                _ => return Err(unexpected(STREAMING, &frame)),
            }
        }
    }

    /// After an error nothing more comes; the client can be used again if the server stays.
    async fn failed(&mut self, error: PostgresError) -> PostgresError {
        self.state = State::Ended;
        if error.server().is_none() {
            // When sending failed first, that is the cause.
            return self.unsent.take().unwrap_or(error);
        }
        self.session.recover(STREAMING, error).await
    }

    /// Sends what is queued. That it fails is told by the next read, after all that the server had sent before.
    async fn flush(&mut self) {
        if self.unsent.is_none() {
            self.unsent = self.session.wire.flush(STREAMING).await.err();
        }
    }

    fn queue_copy_done(&mut self) -> Result<(), PostgresError> {
        self.session.wire.queue(STREAMING, |buffer| {
            frontend::copy_done(buffer);
            Ok(())
        })
    }

    fn copy_data(&mut self, frame: &Frame) -> Result<StreamEvent, PostgresError> {
        let event = read_event(frame.body.clone()).ok_or_else(|| malformed(STREAMING, frame))?;
        if let StreamEvent::Wal { start, data, .. } = &event {
            if *start != self.received {
                let why = format!("WAL came from {start} on, and {} was due", self.received);
                return Err(PostgresError::Protocol { doing: STREAMING.to_owned(), why });
            }
            self.received = start.advance(data.len() as u64);
        }
        Ok(event)
    }

    fn timeline_end(&mut self) -> Result<StreamEvent, PostgresError> {
        let Some(set) = self.ending.done.first() else {
            // Our own wish to stop was answered; there is no next timeline to tell.
            return Ok(StreamEvent::EndOfStream);
        };
        match (timeline(set, 0), lsn(set, 1)) {
            (Some(next), Some(start)) => Ok(StreamEvent::TimelineEnd { next, start }),
            _ => Err(not_understood(STREAMING, set)),
        }
    }

    /// Tells the server how far we are. All three are ends of ranges: everything before them is written, durable,
    /// applied. Positions must never decrease and `flush` must never pass what is durable (I1).
    ///
    /// Cancel-safe: a status that was not sent whole is finished by the next call of any kind. A connection that broke is
    /// told by [`WalStream::next`], once everything that had arrived before is read.
    pub async fn send_status(
        &mut self,
        write: Lsn,
        flush: Lsn,
        apply: Lsn,
        reply_requested: bool,
    ) -> Result<(), PostgresError> {
        if self.state != State::Streaming || self.unsent.is_some() {
            // Nobody reads statuses any more.
            return Ok(());
        }
        let mut message = Vec::with_capacity(34);
        message.put_u8(b'r');
        message.put_u64(write.0);
        message.put_u64(flush.0);
        message.put_u64(apply.0);
        message.put_i64(postgres_now());
        message.put_u8(u8::from(reply_requested));
        self.session.wire.queue(STREAMING, |buffer| {
            CopyData::new(&message[..])?.write(buffer);
            Ok(())
        })?;
        self.flush().await;
        Ok(())
    }

    /// Ends the stream politely: says so, and throws away what the server had sent before it heard. The client may be
    /// used for other commands then. Bound it in time: a server that hangs lets it wait.
    pub async fn stop(mut self) -> Result<(), PostgresError> {
        if self.state == State::Streaming {
            self.queue_copy_done()?;
            self.flush().await;
        }
        let mut copying = self.state == State::Streaming;
        while self.state != State::Ended {
            let frame = match self.session.wire.receive(STREAMING).await {
                Ok(frame) => frame,
                Err(error) => return Err(self.failed(error).await),
            };
            match frame.tag {
                COPY_DATA_TAG if copying => {}
                COPY_DONE_TAG if copying => copying = false,
                READY_FOR_QUERY_TAG => {
                    self.state = State::Ended;
                    self.session.busy = false;
                }
                _ => self.ending.take(STREAMING, &frame)?,
            }
        }
        Ok(())
    }
}

/// XLogData and primary keepalive messages.
fn read_event(body: Bytes) -> Option<StreamEvent> {
    let mut fields = Fields::new(body);
    match fields.u8()? {
        b'w' => {
            let (start, server_end, _sent) = (Lsn(fields.u64()?), Lsn(fields.u64()?), fields.u64()?);
            let data = fields.rest();
            // The end must be a position, too.
            start.0.checked_add(data.len() as u64)?;
            Some(StreamEvent::Wal { start, server_end, data })
        }
        b'k' => {
            let (server_end, _sent, reply) = (Lsn(fields.u64()?), fields.u64()?, fields.u8()?);
            Some(StreamEvent::Keepalive { server_end, reply_requested: reply != 0 })
        }
        _ => None,
    }
}

/// Microseconds since 2000; only for the server's own statistics.
fn postgres_now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = since_1970.as_micros().saturating_sub(u128::from(POSTGRES_EPOCH) * 1_000_000);
    i64::try_from(micros).unwrap_or(0)
}
