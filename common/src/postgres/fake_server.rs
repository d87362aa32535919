//! A scripted server: says what a test tells it to, byte by byte if wished, and shows what it was sent.

use std::future::Future;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::conninfo::Conninfo;
use super::error::PostgresError;
use super::replication::ReplicationClient;
use super::session::{Purpose, Session};
use super::transport::{Privacy, Transport};

/// The server's end of a connection.
pub(super) struct FakeServer {
    reader: DuplexStream,
    writer: DuplexStream,
}

/// A client and a scripted server, on a pipe that brings the client `capacity` bytes at a time: with 1, every message
/// arrives in single bytes. Returns what the client's side returned, once the script is through, too.
pub(super) async fn with_server<S, C, F, G, T>(capacity: usize, privacy: Privacy, script: S, client: C) -> T
where
    S: FnOnce(FakeServer) -> F,
    F: Future<Output = ()>,
    C: FnOnce(Transport) -> G,
    G: Future<Output = T>,
{
    // Real servers read while they write; a script does one after the other, so its input never fills up.
    let (read, writer) = tokio::io::duplex(capacity);
    let (write, reader) = tokio::io::duplex(1 << 20);
    let transport = Transport::new(tokio::io::join(read, write), privacy);
    let both = async { tokio::join!(script(FakeServer { reader, writer }), client(transport)) };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, both).await.expect("neither side waits for ever").1
}

/// The connection string of the scripted tests.
pub(super) fn conninfo(more: &str) -> Conninfo {
    Conninfo::parse(&format!("host=fake user=u {more}"), &|_| None).expect("a legal connection string")
}

/// Logs in for replication.
pub(super) async fn login(transport: Transport, conninfo: &Conninfo) -> Result<ReplicationClient, PostgresError> {
    let host = conninfo.hosts().first().expect("there is one");
    let session = Session::start(transport, conninfo, host, Purpose::Replication, "walseal_test").await?;
    Ok(ReplicationClient { session })
}

impl FakeServer {
    /// Reads the startup message: its parameters.
    pub(super) async fn startup(&mut self) -> Vec<String> {
        let length = self.reader.read_u32().await.expect("a startup message") as usize;
        let mut body = vec![0; length - 4];
        self.reader.read_exact(&mut body).await.expect("a whole startup message");
        assert_eq!(body[..4], [0, 3, 0, 0], "protocol 3.0");
        body[4..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// Reads a message; `None` when the client has gone.
    pub(super) async fn try_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let tag = self.reader.read_u8().await.ok()?;
        let length = self.reader.read_u32().await.ok()? as usize;
        let mut body = vec![0; length - 4];
        self.reader.read_exact(&mut body).await.ok()?;
        Some((tag, body))
    }

    pub(super) async fn message(&mut self) -> (u8, Vec<u8>) {
        self.try_message().await.expect("the client sends a message")
    }

    /// Reads a command.
    pub(super) async fn command(&mut self) -> String {
        let (tag, body) = self.message().await;
        assert_eq!(tag, b'Q');
        String::from_utf8_lossy(&body[..body.len() - 1]).into_owned()
    }

    /// Sends bytes; a client that has gone is not this side's fault.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok()
    }

    /// Says no more, and reads until the client has nothing more to say.
    pub(super) async fn hang_up(mut self) {
        drop(self.writer);
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).await.expect("the client's last words");
    }

    /// A login without a password, as a server of this version.
    pub(super) async fn trust(&mut self, version: &str) {
        self.startup().await;
        self.send(&[authentication(0, b""), greeting(version)].concat()).await;
    }
}

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.put_u32(body.len() as u32 + 4);
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn authentication(code: u32, more: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), more].concat())
}

/// What follows a login.
pub(super) fn greeting(version: &str) -> Vec<u8> {
    [
        message(b'S', format!("server_version\0{version}\0").as_bytes()),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
        ready(),
    ]
    .concat()
}

pub(super) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

/// A result set with its CommandComplete.
pub(super) fn rows(columns: &[&str], rows: &[&[Option<&str>]]) -> Vec<u8> {
    let mut description = Vec::new();
    description.put_u16(columns.len() as u16);
    for column in columns {
        description.extend_from_slice(format!("{column}\0").as_bytes());
        description.extend_from_slice(&[0; 18]);
    }
    let mut bytes = message(b'T', &description);
    for row in rows {
        let mut body = Vec::new();
        body.put_u16(row.len() as u16);
        for value in *row {
            match value {
                None => body.put_i32(-1),
                Some(text) => {
                    body.put_i32(text.len() as i32);
                    body.extend_from_slice(text.as_bytes());
                }
            }
        }
        bytes.extend(message(b'D', &body));
    }
    bytes.extend(complete("SELECT"));
    bytes
}

fn report(tag: u8, severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

pub(super) fn error(severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
    report(b'E', severity, sqlstate, text)
}

pub(super) fn notice(sqlstate: &str, text: &str) -> Vec<u8> {
    report(b'N', "WARNING", sqlstate, text)
}

/// CopyBothResponse (`W`) or CopyOutResponse (`H`).
pub(super) fn copy(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 0])
}

pub(super) fn copy_data(body: &[u8]) -> Vec<u8> {
    message(b'd', body)
}

pub(super) fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

pub(super) fn wal(start: u64, data: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.put_u64(start);
    body.put_u64(start + data.len() as u64);
    body.put_u64(0);
    body.extend_from_slice(data);
    copy_data(&body)
}

pub(super) fn keepalive(end: u64, reply: u8) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.put_u64(end);
    body.put_u64(0);
    body.put_u8(reply);
    copy_data(&body)
}
