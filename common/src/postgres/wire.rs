//! Messages on a connection: framing, bounds, and what arrives unasked.
//!
//! PostgreSQL documentation, chapter 55 "Frontend/Backend Protocol".

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::{
    ERROR_RESPONSE_TAG, Header, NOTICE_RESPONSE_TAG, NOTIFICATION_RESPONSE_TAG, PARAMETER_STATUS_TAG,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{Notice, PostgresError, ServerError};
use super::transport::Transport;

/// Largest message before the server has shown who it is, in bytes; nothing legal comes near.
pub(super) const STARTUP_MESSAGE_LIMIT: usize = 64 << 10;
/// Largest message of a session, in bytes. WAL comes in at most 128 KiB, a backup in less.
pub(super) const MESSAGE_LIMIT: usize = 16 << 20;
/// Size of a read buffer, in bytes. What is handed out of it keeps it alive.
const READ_CHUNK: usize = 256 << 10;
/// With less room than this a new buffer is begun, in bytes.
const READ_LEAST: usize = 32 << 10;
/// Settings and notices that are kept; a server reports about 15 settings.
const KEPT_LIMIT: usize = 1_000;

/// CopyBothResponse, which `postgres-protocol` does not know.
pub(super) const COPY_BOTH_RESPONSE_TAG: u8 = b'W';
/// NegotiateProtocolVersion, which `postgres-protocol` does not know.
pub(super) const NEGOTIATE_PROTOCOL_VERSION_TAG: u8 = b'v';

/// One message of the server.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its type.
    pub tag: u8,
    /// What follows the length; shares the read buffer.
    pub body: Bytes,
}

impl Frame {
    /// The type in words for a message.
    pub(super) fn describe(&self) -> String {
        format!("message '{}' of {} bytes", self.tag.escape_ascii(), self.body.len())
    }
}

/// A connection as messages. Reads and writes are cancel-safe: what arrived stays in the buffer, what could not be
/// sent yet is sent with the next flush.
pub(super) struct Wire {
    transport: Transport,
    input: BytesMut,
    output: BytesMut,
    limit: usize,
    parameters: BTreeMap<String, String>,
    notices: Vec<Notice>,
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Wire {
        Wire {
            transport,
            input: BytesMut::new(),
            output: BytesMut::new(),
            limit: STARTUP_MESSAGE_LIMIT,
            parameters: BTreeMap::new(),
            notices: Vec::new(),
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The transport, and what was read from it and not yet taken.
    pub(super) fn into_parts(self) -> (Transport, BytesMut) {
        (self.transport, self.input)
    }

    /// Ends the stricter bound of the time before authentication.
    pub(super) fn authenticated(&mut self) {
        self.limit = MESSAGE_LIMIT;
    }

    /// Settings that the server reported.
    pub(super) fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// Notices since the last call; the first thousand.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Puts a message into the output buffer.
    ///
    /// Errors: when it can not be encoded, as with a zero byte in a text.
    pub(super) fn queue(
        &mut self,
        doing: &str,
        encode: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), PostgresError> {
        let before = self.output.len();
        encode(&mut self.output).map_err(|error| {
            self.output.truncate(before);
            PostgresError::Argument(format!("{doing}: {error}"))
        })
    }

    /// Sends the output buffer. Cancel-safe.
    pub(super) async fn flush(&mut self, doing: &str) -> Result<(), PostgresError> {
        let fail = |source| PostgresError::Io { doing: doing.to_owned(), source };
        while self.output.has_remaining() {
            let written = self.transport.write_buf(&mut self.output).await.map_err(fail)?;
            if written == 0 {
                return Err(PostgresError::Closed { doing: doing.to_owned() });
            }
        }
        self.transport.flush().await.map_err(fail)
    }

    /// A whole message from the buffer, if there is one.
    fn buffered(&mut self, doing: &str) -> Result<Option<Frame>, PostgresError> {
        let protocol = |why: String| PostgresError::Protocol { doing: doing.to_owned(), why };
        let Some(header) = Header::parse(&self.input).map_err(|error| protocol(error.to_string()))? else {
            return Ok(None);
        };
        let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if length > self.limit {
            let tag = header.tag().escape_ascii().to_string();
            return Err(protocol(format!("message '{tag}' says it has {length} bytes; at most {} fit", self.limit)));
        }
        if self.input.len() <= length {
            return Ok(None);
        }
        let mut whole = self.input.split_to(length + 1).freeze();
        whole.advance(5);
        Ok(Some(Frame { tag: header.tag(), body: whole }))
    }

    /// The next message, whatever it is; `None` when the server closed the connection between two messages.
    /// Cancel-safe. Reported settings are kept on the way, notices are handed out as messages.
    async fn read(&mut self, doing: &str) -> Result<Option<Frame>, PostgresError> {
        loop {
            while let Some(frame) = self.buffered(doing)? {
                match frame.tag {
                    PARAMETER_STATUS_TAG => self.keep_parameter(doing, &frame)?,
                    NOTIFICATION_RESPONSE_TAG => {}
                    _ => return Ok(Some(frame)),
                }
            }
            // Never by the length that the other side names: memory grows only with bytes that arrived.
            if self.input.capacity() - self.input.len() < READ_LEAST {
                self.input.reserve(READ_CHUNK);
            }
            let read = self.transport.read_buf(&mut self.input).await;
            match read {
                Ok(0) if self.input.is_empty() => return Ok(None),
                Ok(0) => return Err(PostgresError::Closed { doing: format!("{doing} (in the middle of a message)") }),
                Ok(_) => {}
                Err(source) => return Err(PostgresError::Io { doing: doing.to_owned(), source }),
            }
        }
    }

    /// The next message; notices are kept for [`Wire::take_notices`].
    ///
    /// Errors: ErrorResponse becomes [`PostgresError::Server`]; the end of the connection is an error, too.
    pub(super) async fn receive(&mut self, doing: &str) -> Result<Frame, PostgresError> {
        loop {
            let frame = self.receive_with_notices(doing).await?;
            if frame.tag != NOTICE_RESPONSE_TAG {
                return Ok(frame);
            }
            if self.notices.len() < KEPT_LIMIT {
                self.notices.push(Notice(ServerError::read(&frame.body)));
            }
        }
    }

    /// As [`Wire::receive`], with notices in their place between the other messages.
    pub(super) async fn receive_with_notices(&mut self, doing: &str) -> Result<Frame, PostgresError> {
        let frame = self.read(doing).await?.ok_or_else(|| PostgresError::Closed { doing: doing.to_owned() })?;
        if frame.tag == ERROR_RESPONSE_TAG {
            let error = Box::new(ServerError::read(&frame.body));
            return Err(PostgresError::Server { doing: doing.to_owned(), error });
        }
        Ok(frame)
    }

    fn keep_parameter(&mut self, doing: &str, frame: &Frame) -> Result<(), PostgresError> {
        let mut fields = Fields::new(frame.body.clone());
        match (fields.text(), fields.text()) {
            (Some(name), Some(value)) => {
                if self.parameters.len() < KEPT_LIMIT || self.parameters.contains_key(&name) {
                    self.parameters.insert(name, value);
                }
                Ok(())
            }
            _ => Err(malformed(doing, frame)),
        }
    }
}

/// The error for a message whose inside does not fit its type.
pub(super) fn malformed(doing: &str, frame: &Frame) -> PostgresError {
    PostgresError::Protocol { doing: doing.to_owned(), why: format!("{} is malformed", frame.describe()) }
}

/// The error for a message that may not come at this place.
pub(super) fn unexpected(doing: &str, frame: &Frame) -> PostgresError {
    PostgresError::Protocol { doing: doing.to_owned(), why: format!("{} was not expected here", frame.describe()) }
}

/// Reads the inside of a message; every step says `None` instead of reading beyond the end.
pub(super) struct Fields(Bytes);

impl Fields {
    pub(super) fn new(body: Bytes) -> Fields {
        Fields(body)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.0.try_get_i32().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.0.len()).then(|| self.0.split_to(count))
    }

    /// A text up to its zero byte; what is not UTF-8 in it is replaced.
    pub(super) fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(&self.0.split_to(end)).into_owned();
        self.0.advance(1);
        Some(text)
    }

    /// All that is left.
    pub(super) fn rest(self) -> Bytes {
        self.0
    }
}
