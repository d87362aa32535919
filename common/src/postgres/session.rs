//! A session: connected, authenticated, and ready for commands.

use std::collections::BTreeMap;

use bytes::Bytes;
use postgres_protocol::message::backend::{
    COMMAND_COMPLETE_TAG, DATA_ROW_TAG, EMPTY_QUERY_RESPONSE_TAG, READY_FOR_QUERY_TAG, ROW_DESCRIPTION_TAG,
};
use postgres_protocol::message::frontend;

use super::auth;
use super::conninfo::{Conninfo, Host, TargetSessionAttrs};
use super::error::{Attempt, Notice, PostgresError};
use super::tls::{Ladder, Rung};
use super::transport::{self, Transport};
use super::wire::{Fields, Frame, Wire, malformed, unexpected};

/// Rows that one command may answer with; a cluster's tablespaces are the most that is asked for.
const ROW_LIMIT: usize = 100_000;
/// Bytes that the rows of one command may have.
const ROWS_LIMIT: usize = 64 << 20;

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Physical replication commands.
    Replication,
    /// SQL in a database.
    Sql,
}

/// One result set of a simple query, as text.
#[derive(Debug, Default)]
pub(super) struct ResultSet {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<Bytes>>>,
}

impl ResultSet {
    /// A value of the first row, as text; `None` when there is none or it is null.
    pub(super) fn first(&self, column: usize) -> Option<String> {
        self.value(0, column)
    }

    /// A value as text; `None` when there is none or it is null.
    pub(super) fn value(&self, row: usize, column: usize) -> Option<String> {
        let value = self.rows.get(row)?.get(column)?.as_ref()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// A connection that is ready for commands.
pub(super) struct Session {
    pub(super) wire: Wire,
    host: Host,
    /// Process id and secret of the server's process, as sent.
    key: Bytes,
    /// Between a command and its ReadyForQuery; stays set when a stream is dropped in its middle.
    pub(super) busy: bool,
}

impl Session {
    /// Tries the hosts in order until one is up and fits `target_session_attrs`.
    pub(super) async fn connect(
        conninfo: &Conninfo,
        purpose: Purpose,
        application_name: &str,
    ) -> Result<Session, PostgresError> {
        let mut attempts = Vec::new();
        let passes: &[TargetSessionAttrs] = match conninfo.target_session_attrs() {
            TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
            TargetSessionAttrs::Any => &[TargetSessionAttrs::Any],
            TargetSessionAttrs::ReadWrite => &[TargetSessionAttrs::ReadWrite],
            TargetSessionAttrs::ReadOnly => &[TargetSessionAttrs::ReadOnly],
            TargetSessionAttrs::Primary => &[TargetSessionAttrs::Primary],
            TargetSessionAttrs::Standby => &[TargetSessionAttrs::Standby],
        };
        for target in passes {
            for host in conninfo.hosts() {
                let tried = Session::connect_to(conninfo, host, purpose, application_name).await;
                match tried.and_then(|session| session.check_role(*target)) {
                    Ok(session) => return Ok(session),
                    // A wrong password or certificate is the same mistake everywhere: libpq stops there, too.
                    Err(error) if error.is_permanent() => return Err(error),
                    Err(error) => attempts.push(Attempt { host: host.to_string(), error }),
                }
            }
        }
        match attempts.len() {
            1 => Err(attempts.remove(0).error),
            _ => Err(PostgresError::NoHost(attempts)),
        }
    }

    /// Connects to this host, whatever its role is.
    pub(super) async fn connect_to(
        conninfo: &Conninfo,
        host: &Host,
        purpose: Purpose,
        application_name: &str,
    ) -> Result<Session, PostgresError> {
        let whole = Session::climb(conninfo, host, purpose, application_name);
        match conninfo.connect_timeout() {
            None => whole.await,
            Some(limit) => tokio::time::timeout(limit, whole)
                .await
                .unwrap_or_else(|_| Err(PostgresError::Timeout { host: host.to_string(), seconds: limit.as_secs() })),
        }
    }

    /// Takes the rungs of the `sslmode` ladder, next when one does not hold.
    async fn climb(
        conninfo: &Conninfo,
        host: &Host,
        purpose: Purpose,
        application_name: &str,
    ) -> Result<Session, PostgresError> {
        let mut ladder = Ladder::new(conninfo.ssl_mode(), host.is_unix());
        loop {
            let rung = ladder.rung();
            match Session::attempt(conninfo, host, rung, purpose, application_name).await {
                Err(error) if ladder.next(&error) => {
                    tracing::debug!(%host, ?rung, %error, "connecting again, the other way about TLS");
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(
        conninfo: &Conninfo,
        host: &Host,
        rung: Rung,
        purpose: Purpose,
        application_name: &str,
    ) -> Result<Session, PostgresError> {
        let transport = transport::connect(conninfo, host, rung).await?;
        Session::start(transport, conninfo, host, purpose, application_name).await
    }

    /// Startup and authentication on an open transport.
    pub(super) async fn start(
        transport: Transport,
        conninfo: &Conninfo,
        host: &Host,
        purpose: Purpose,
        application_name: &str,
    ) -> Result<Session, PostgresError> {
        let mut wire = Wire::new(transport);
        let key = auth::start(&mut wire, conninfo, host, purpose, application_name).await?;
        Ok(Session { wire, host: host.clone(), key, busy: false })
    }

    fn check_role(self, target: TargetSessionAttrs) -> Result<Session, PostgresError> {
        if target == TargetSessionAttrs::Any {
            return Ok(self);
        }
        // Both are reported at the start by every server from 14 on (guc_tables.c, GUC_REPORT).
        let on = |name: &str| self.parameters().get(name).map(|value| value == "on");
        let Some(standby) = on("in_hot_standby") else {
            let has = self.parameters().get("server_version").cloned().unwrap_or_default();
            return Err(PostgresError::Unsupported { what: "target_session_attrs", needs: 14, has });
        };
        let read_only = standby || on("default_transaction_read_only").unwrap_or(false);
        let refused = match target {
            TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => None,
            TargetSessionAttrs::Primary => standby.then_some("is in recovery (a standby)"),
            TargetSessionAttrs::Standby => (!standby).then_some("is not in recovery (a primary)"),
            TargetSessionAttrs::ReadWrite => read_only.then_some("is read-only"),
            TargetSessionAttrs::ReadOnly => (!read_only).then_some("is read-write"),
        };
        match refused {
            None => Ok(self),
            Some(what) => Err(PostgresError::WrongRole { host: self.host.to_string(), what, wanted: target.as_str() }),
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) fn parameters(&self) -> &BTreeMap<String, String> {
        self.wire.parameters()
    }

    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        self.wire.take_notices()
    }

    /// The server's version as `server_version_num`: 150018 for 15.18; 0 when it was not told.
    pub(super) fn version(&self) -> u32 {
        self.parameters().get("server_version").map_or(0, |text| version_number(text))
    }

    /// Sends a command; its answer is read with `receive` until ReadyForQuery.
    pub(super) async fn send(&mut self, doing: &str, command: &str) -> Result<(), PostgresError> {
        if self.busy {
            return Err(PostgresError::Abandoned(doing.to_owned()));
        }
        self.wire.queue(doing, |buffer| frontend::query(command, buffer))?;
        self.busy = true;
        self.wire.flush(doing).await
    }

    /// Runs a command and returns its result sets.
    ///
    /// Errors: what the server refused; the session stays usable then.
    pub(super) async fn query(&mut self, doing: &str, command: &str) -> Result<Vec<ResultSet>, PostgresError> {
        self.send(doing, command).await?;
        let mut sets = ResultSets::default();
        loop {
            let frame = match self.wire.receive(doing).await {
                Ok(frame) => frame,
                Err(error) => return Err(self.recover(doing, error).await),
            };
            match frame.tag {
                READY_FOR_QUERY_TAG => {
                    self.busy = false;
                    return Ok(sets.done);
                }
                _ => sets.take(doing, &frame)?,
            }
        }
    }

    /// After an ErrorResponse: reads on to ReadyForQuery, so that the session can be used again, and gives the
    /// error back. A FATAL error has no ReadyForQuery.
    pub(super) async fn recover(&mut self, doing: &str, error: PostgresError) -> PostgresError {
        if error.server().is_none_or(|server| server.severity != "ERROR") {
            return error;
        }
        loop {
            match self.wire.receive(doing).await {
                Ok(frame) if frame.tag == READY_FOR_QUERY_TAG => {
                    self.busy = false;
                    return error;
                }
                Ok(_) => {}
                // The first error says more than the end of the connection; `busy` stays set.
                Err(_) => return error,
            }
        }
    }

    /// Says good-bye and closes the connection.
    pub(super) async fn close(mut self) {
        let said = self.wire.queue("closing", |buffer| {
            frontend::terminate(buffer);
            Ok(())
        });
        if said.is_ok() {
            // The connection is over either way; the server notices the closed socket if not the message.
            let _ = self.wire.flush("closing").await;
        }
    }
}

/// Collects result sets from messages.
#[derive(Default)]
pub(super) struct ResultSets {
    /// Sets whose CommandComplete has come, and the one that is being read.
    pub done: Vec<ResultSet>,
    rows: usize,
    bytes: usize,
}

impl ResultSets {
    /// Takes a message that belongs to a result set.
    ///
    /// Errors: any other message, or more rows than a command can honestly have.
    pub(super) fn take(&mut self, doing: &str, frame: &Frame) -> Result<(), PostgresError> {
        match frame.tag {
            ROW_DESCRIPTION_TAG => {
                let columns = columns(frame.body.clone()).ok_or_else(|| malformed(doing, frame))?;
                self.rows += 1;
                self.done.push(ResultSet { columns, rows: Vec::new() });
            }
            DATA_ROW_TAG => {
                let set = self.done.last_mut().ok_or_else(|| unexpected(doing, frame))?;
                let row = row(frame.body.clone()).ok_or_else(|| malformed(doing, frame))?;
                if row.len() != set.columns.len() {
                    return Err(malformed(doing, frame));
                }
                self.rows += 1;
                self.bytes += frame.body.len();
                set.rows.push(row);
            }
            COMMAND_COMPLETE_TAG | EMPTY_QUERY_RESPONSE_TAG => {}
            _ => return Err(unexpected(doing, frame)),
        }
        if self.rows > ROW_LIMIT || self.bytes > ROWS_LIMIT {
            let why = format!("more than {ROW_LIMIT} rows or {ROWS_LIMIT} bytes in an answer");
            return Err(PostgresError::Protocol { doing: doing.to_owned(), why });
        }
        Ok(())
    }
}

fn columns(body: Bytes) -> Option<Vec<String>> {
    let mut fields = Fields::new(body);
    let count = fields.u16()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(fields.text()?);
        // Table, column, type, its size and modifier, and the format.
        fields.bytes(18)?;
    }
    Some(names)
}

fn row(body: Bytes) -> Option<Vec<Option<Bytes>>> {
    let mut fields = Fields::new(body);
    let count = fields.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match fields.i32()? {
            -1 => None,
            // A copy, so that a small value does not keep the whole read buffer alive.
            length => Some(Bytes::copy_from_slice(&fields.bytes(usize::try_from(length).ok()?)?)),
        });
    }
    Some(values)
}

/// `server_version_num` from `server_version`: "15.18 (Debian 15.18-1)" is 150018, "19devel" is 190000.
pub(super) fn version_number(text: &str) -> u32 {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let major = parts.next().flatten().unwrap_or(0).min(9_999);
    let minor = if text.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.') {
        parts.next().flatten().unwrap_or(0).min(9_999)
    } else {
        0
    };
    major * 10_000 + minor
}

#[cfg(test)]
mod session_tests {
    use super::version_number;

    #[test]
    fn server_versions_become_numbers() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version_number("14.23"), 140_023);
        assert_eq!(version_number("19devel"), 190_000);
        assert_eq!(version_number("18beta2 (x 3.4)"), 180_000);
        assert_eq!(version_number(""), 0);
        assert_eq!(version_number("99999999999.1"), 1);
    }
}
