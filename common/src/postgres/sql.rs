//! Ordinary connections: SQL with tokio-postgres, over the same transports and the same authentication as replication.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, NoTls, Row, SimpleQueryMessage};

use super::conninfo::{Conninfo, Host};
use super::error::{PostgresError, ServerError};
use super::session::{Purpose, Session};
use super::transport::Transport;

/// A connection for SQL. It ends when this is dropped.
pub struct SqlClient {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
    host: Host,
    version: u32,
    standby: bool,
}

impl std::fmt::Debug for SqlClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlClient").field("host", &self.host).finish_non_exhaustive()
    }
}

impl SqlClient {
    /// Connects to the first host that is up and fits `target_session_attrs`. Pin it for the replication connection:
    /// [`SqlClient::host`] with `ReplicationClient::connect_to` (case 16).
    ///
    /// Errors: as those of `ReplicationClient::connect`.
    pub async fn connect(conninfo: &Conninfo, application_name: &str) -> Result<SqlClient, PostgresError> {
        SqlClient::over(Session::connect(conninfo, Purpose::Sql, application_name).await?).await
    }

    /// Connects to this host, whatever its role.
    pub async fn connect_to(
        conninfo: &Conninfo,
        host: &Host,
        application_name: &str,
    ) -> Result<SqlClient, PostgresError> {
        SqlClient::over(Session::connect_to(conninfo, host, Purpose::Sql, application_name).await?).await
    }

    async fn over(session: Session) -> Result<SqlClient, PostgresError> {
        let host = session.host().clone();
        let version = session.version();
        let standby = session.parameters().get("in_hot_standby").is_some_and(|value| value == "on");
        let doing = format!("connection to {host}");
        // The session is authenticated already; tokio-postgres is shown a server that trusts it.
        let mut config = tokio_postgres::Config::new();
        config.user("authenticated").ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, mut connection) =
            config.connect_raw(Adopted::new(session), NoTls).await.map_err(|error| sql_error(&doing, &error))?;
        let place = host.to_string();
        let connection = tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => tracing::debug!(host = place, %notice, "notice"),
                    Some(Ok(_)) => {}
                    // Callers get the error of their own query; this says why the later ones find it closed.
                    Some(Err(error)) => {
                        tracing::debug!(host = place, %error, "the connection ended");
                        return;
                    }
                    None => return,
                }
            }
        });
        Ok(SqlClient { client, connection, host, version, standby })
    }

    /// The host that answered.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The server's version as its `server_version_num`: 150018 for 15.18.
    pub fn server_version_num(&self) -> u32 {
        self.version
    }

    /// Whether the server was in recovery when this connection was made.
    pub fn was_standby(&self) -> bool {
        self.standby
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The client itself, for what has no method here. Map its errors with [`SqlClient::error`].
    pub fn inner(&self) -> &tokio_postgres::Client {
        &self.client
    }

    /// The client itself, for transactions.
    pub fn inner_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }

    /// An error of [`SqlClient::inner`] as one of ours; `doing`: "reading pg_replication_slots failed".
    pub fn error(doing: &str, error: &tokio_postgres::Error) -> PostgresError {
        sql_error(doing, error)
    }

    /// Runs a query and returns its rows. `doing` begins the message of an error.
    pub async fn query(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.client.query(sql, parameters).await.map_err(|error| sql_error(doing, &error))
    }

    /// Runs a query that gives exactly one row.
    pub async fn query_one(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, PostgresError> {
        self.client.query_one(sql, parameters).await.map_err(|error| sql_error(doing, &error))
    }

    /// Runs a query that gives one row or none.
    pub async fn query_opt(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PostgresError> {
        self.client.query_opt(sql, parameters).await.map_err(|error| sql_error(doing, &error))
    }

    /// Runs a statement; returns the number of rows it touched.
    pub async fn execute(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, PostgresError> {
        self.client.execute(sql, parameters).await.map_err(|error| sql_error(doing, &error))
    }

    /// Runs one or several statements without parameters; values come as text.
    pub async fn simple_query(&self, doing: &str, sql: &str) -> Result<Vec<SimpleQueryMessage>, PostgresError> {
        self.client.simple_query(sql).await.map_err(|error| sql_error(doing, &error))
    }

    /// Says good-bye to the server and waits until the connection is closed.
    pub async fn close(self) {
        drop(self.client);
        if let Err(error) = self.connection.await {
            tracing::debug!(%error, "the connection's task ended badly");
        }
    }
}

/// A name as SQL writes it, whatever it holds.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sql_error(doing: &str, error: &tokio_postgres::Error) -> PostgresError {
    let doing = doing.to_owned();
    if let Some(db) = error.as_db_error() {
        let error = ServerError {
            severity: db.parsed_severity().map_or_else(|| db.severity().to_owned(), |severity| severity.to_string()),
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
            routine: db.routine().map(str::to_owned),
        };
        return PostgresError::Server { doing, error: Box::new(error) };
    }
    if error.is_closed() {
        return PostgresError::Closed { doing };
    }
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(io) => PostgresError::Io { doing, source: io::Error::new(io.kind(), io.to_string()) },
        None => {
            let why = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            PostgresError::Sql { doing, why }
        }
    }
}

/// A transport on which a session was started already. It swallows the startup message that tokio-postgres sends, and
/// answers it with what the server had said at the end of the real one.
struct Adopted {
    transport: Transport,
    /// What tokio-postgres reads first.
    answer: Bytes,
    /// The startup message as far as it came; `None` once it is whole.
    startup: Option<BytesMut>,
}

impl Adopted {
    fn new(session: Session) -> Adopted {
        let mut answer = BytesMut::new();
        let message = |answer: &mut BytesMut, tag: u8, body: &[u8]| {
            answer.put_u8(tag);
            answer.put_u32(body.len() as u32 + 4);
            answer.put_slice(body);
        };
        message(&mut answer, b'R', &[0; 4]);
        for (name, value) in session.parameters() {
            message(&mut answer, b'S', format!("{name}\0{value}\0").as_bytes());
        }
        // tokio-postgres takes keys of the protocol's version 3.0 only, which is what was asked for.
        if session.key().len() == 8 {
            message(&mut answer, b'K', session.key());
        }
        message(&mut answer, b'Z', b"I");
        let (transport, unread) = session.wire.into_parts();
        answer.put_slice(&unread);
        Adopted { transport, answer: answer.freeze(), startup: Some(BytesMut::new()) }
    }
}

impl AsyncRead for Adopted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.answer.has_remaining() {
            let count = self.answer.len().min(buf.remaining());
            buf.put_slice(&self.answer.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for Adopted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(startup) = &mut self.startup else {
            return Pin::new(&mut self.transport).poll_write(cx, buf);
        };
        // Up to the message's own length, which its first four bytes tell.
        let wanted = match startup.get(..4).and_then(|length| <[u8; 4]>::try_from(length).ok()) {
            None => 4 - startup.len(),
            Some(length) => (u32::from_be_bytes(length) as usize).saturating_sub(startup.len()),
        };
        let count = wanted.min(buf.len());
        startup.put_slice(buf.get(..count).unwrap_or_default());
        let whole = startup
            .get(..4)
            .and_then(|length| <[u8; 4]>::try_from(length).ok())
            .is_some_and(|length| startup.len() >= u32::from_be_bytes(length) as usize);
        if whole {
            self.startup = None;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
