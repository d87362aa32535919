//! The way to a server: a Unix socket or TCP, with or without TLS.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::conninfo::{Conninfo, Host, HostAddress, Keepalives};
use super::error::PostgresError;
use super::tls::{self, Rung};

/// What a connection is made of.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// Who could listen on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Privacy {
    /// A Unix socket: nobody outside this machine.
    Local,
    /// TLS, and the data that binds SCRAM to the server's certificate (RFC 5929), if its signature has a digest.
    Encrypted {
        /// `tls-server-end-point`.
        binding: Option<Vec<u8>>,
    },
    /// TCP in the clear.
    Plain,
}

/// An open connection, before or after authentication.
pub(super) struct Transport {
    stream: Box<dyn Stream>,
    privacy: Privacy,
}

impl Transport {
    pub(super) fn new(stream: impl Stream + 'static, privacy: Privacy) -> Transport {
        Transport { stream: Box::new(stream), privacy }
    }

    pub(super) fn privacy(&self) -> &Privacy {
        &self.privacy
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("privacy", &self.privacy).finish_non_exhaustive()
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Opens a connection to `host` on one rung of the `sslmode` ladder.
pub(super) async fn connect(conninfo: &Conninfo, host: &Host, rung: Rung) -> Result<Transport, PostgresError> {
    let failed = |source| PostgresError::Connect { host: host.to_string(), source };
    match &host.address {
        HostAddress::Unix(_) => {
            let stream = UnixStream::connect(host.socket_path()).await.map_err(failed)?;
            Ok(Transport::new(stream, Privacy::Local))
        }
        HostAddress::Tcp { name, address } => {
            let stream = tcp(name, *address, host.port).await.map_err(failed)?;
            configure(&stream, conninfo.keepalives()).map_err(failed)?;
            match rung {
                Rung::Plain => Ok(Transport::new(stream, Privacy::Plain)),
                Rung::TlsIfOffered | Rung::Tls => negotiate(conninfo, host, stream, rung).await,
            }
        }
    }
}

async fn tcp(name: &str, address: Option<std::net::IpAddr>, port: u16) -> io::Result<TcpStream> {
    if let Some(address) = address {
        return TcpStream::connect((address, port)).await;
    }
    let mut last = None;
    for address in tokio::net::lookup_host((name, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            // An address that stands for itself would be said twice.
            Err(error) if address.ip().to_string() == name => last = Some(error),
            Err(error) => last = Some(io::Error::new(error.kind(), format!("{address}: {error}"))),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

fn configure(stream: &TcpStream, keepalives: &Keepalives) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, keepalives.enabled)?;
    if keepalives.enabled {
        let seconds = |value: Option<u32>| value.filter(|v| *v > 0).map(|v| Duration::from_secs(u64::from(v)));
        if let Some(idle) = seconds(keepalives.idle) {
            sockopt::set_tcp_keepidle(stream, idle)?;
        }
        if let Some(interval) = seconds(keepalives.interval) {
            sockopt::set_tcp_keepintvl(stream, interval)?;
        }
        if let Some(count) = keepalives.count.filter(|count| *count > 0) {
            sockopt::set_tcp_keepcnt(stream, count)?;
        }
    }
    if let Some(milliseconds) = keepalives.user_timeout.filter(|timeout| *timeout > 0) {
        sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    }
    Ok(())
}

/// Sends SSLRequest and does what the answer allows (PostgreSQL documentation, chapter 55.2.10).
async fn negotiate(
    conninfo: &Conninfo,
    host: &Host,
    mut stream: TcpStream,
    rung: Rung,
) -> Result<Transport, PostgresError> {
    let failed = |source| PostgresError::Connect { host: host.to_string(), source };
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(failed)?;
    // Exactly one byte is read, so that nothing sent in the clear after it can pass for encrypted (CVE-2021-23222).
    let answer = stream.read_u8().await.map_err(failed)?;
    match (answer, rung) {
        (b'S', _) => {
            let (stream, binding) = tls::handshake(conninfo, host, stream).await?;
            Ok(Transport::new(stream, Privacy::Encrypted { binding }))
        }
        (b'N', Rung::TlsIfOffered) => Ok(Transport::new(stream, Privacy::Plain)),
        (b'N', _) => Err(PostgresError::Tls {
            host: host.to_string(),
            why: format!(
                "the server does not offer it and sslmode is {}; set ssl = on in its postgresql.conf",
                conninfo.ssl_mode().as_str()
            ),
        }),
        // The text of an error at this place is not authenticated and is never shown (CVE-2024-10977).
        (other, _) => Err(PostgresError::Protocol {
            doing: format!("asking {host} for TLS"),
            why: format!("the answer is '{}', neither S nor N", other.escape_ascii()),
        }),
    }
}
