//! Somebody who is posted to: an HTTP server on loopback, with or without TLS, that keeps what it got.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::tls::Certificates;

/// One request.
#[derive(Clone, PartialEq, Debug)]
pub struct Post {
    /// Path and query.
    pub path: String,
    /// The body, which is JSON.
    pub body: Value,
}

/// A server on a port of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Inbox {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    posts: Mutex<Vec<Post>>,
    status: AtomicU16,
    gone: AtomicBool,
}

impl Inbox {
    /// Takes everything with status 200.
    pub fn start() -> Result<Inbox> {
        Inbox::listen(None)
    }

    /// Likewise, with TLS and the server's certificate, which an authority signed that no system trusts.
    pub fn start_tls(certificates: &Certificates) -> Result<Inbox> {
        let chain = CertificateDer::pem_file_iter(certificates.server())?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(certificates.server_key())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Inbox::listen(Some(Arc::new(config.with_no_client_auth().with_single_cert(chain, key)?)))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> Result<Inbox> {
        let listener = TcpListener::bind("127.0.0.1:0").context("opening a port for an inbox")?;
        let address = listener.local_addr().context("asking for the port of an inbox")?;
        let shared =
            Arc::new(Shared { posts: Mutex::default(), status: AtomicU16::new(200), gone: AtomicBool::new(false) });
        let kept = shared.clone();
        let scheme = if tls.is_some() { "https" } else { "http" };
        std::thread::spawn(move || {
            for incoming in listener.incoming() {
                if kept.gone.load(Ordering::Relaxed) {
                    break;
                }
                // Whoever breaks off has posted nothing.
                let taken = match (incoming, &tls) {
                    (Ok(stream), None) => take(stream, &kept),
                    (Ok(stream), Some(tls)) => take_tls(stream, tls, &kept),
                    (Err(error), _) => Err(error.into()),
                };
                if let Err(error) = taken {
                    eprintln!("inbox: {error:#}");
                }
            }
        });
        Ok(Inbox { address, scheme, shared })
    }

    /// A URL below it.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Answers with this status from now on.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// What was posted to a path, oldest first.
    pub fn posts(&self, path: &str) -> Vec<Value> {
        let posts = self.shared.posts.lock().unwrap_or_else(PoisonError::into_inner);
        posts.iter().filter(|post| post.path == path).map(|post| post.body.clone()).collect()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Relaxed);
        // Wakes the thread, which then ends.
        drop(TcpStream::connect(self.address));
    }
}

fn take_tls(stream: TcpStream, tls: &Arc<ServerConfig>, shared: &Shared) -> Result<()> {
    take(StreamOwned::new(ServerConnection::new(tls.clone())?, stream), shared)
}

fn take(stream: impl Read + Write, shared: &Shared) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    reader.read_line(&mut head)?;
    let path = head.split(' ').nth(1).context("a path")?.to_owned();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).context("a body of JSON")?;
    let status = shared.status.load(Ordering::Relaxed);
    // Kept before it is answered, so that whoever heard the answer finds it; what is refused was not taken.
    if status == 200 {
        shared.posts.lock().unwrap_or_else(PoisonError::into_inner).push(Post { path: path.clone(), body });
    }
    // As some servers do, with what was asked for.
    let said = format!("seen {path}");
    let length = said.len();
    write!(reader.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{said}")?;
    Ok(())
}
