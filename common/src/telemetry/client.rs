//! A small HTTP client, for what a daemon tells others of itself: one request to a connection, bounded in time and size (I11).
//!
//! No proxies and no redirects. TLS trusts what the system trusts (`SSL_CERT_FILE` names another file).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::WebAddress;

/// How long a request may take, all in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of an answer is read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// How much of an answer is told, in characters.
const TOLD: usize = 200;

/// A request that came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestError {
    /// Why, in words that show nothing of the address behind its host.
    pub why: String,
    /// Whether it may help to try again.
    pub passing: bool,
}

/// Sends `body`, a JSON document. Gives what was answered, in a few words.
///
/// Errors: not reached, not in time; an answer other than 2xx.
pub async fn post(address: &WebAddress, body: Vec<u8>) -> Result<String, RequestError> {
    let passing = |why: String| RequestError { why: without_secrets(address, &why), passing: true };
    match timeout(PATIENCE, send(address, body)).await {
        Ok(Ok((status, said))) => {
            let said = without_secrets(address, &said);
            let told = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
            match status.as_u16() {
                200..=299 => Ok(told),
                // Too slow, too many, or the server's own trouble.
                408 | 429 | 500..=599 => Err(RequestError { why: format!("it answered {told}"), passing: true }),
                _ => Err(RequestError { why: format!("it answered {told}"), passing: false }),
            }
        }
        Ok(Err(why)) => Err(passing(why)),
        Err(_) => Err(passing(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

async fn send(address: &WebAddress, body: Vec<u8>) -> Result<(StatusCode, String), String> {
    let stream =
        TcpStream::connect((address.host(), address.port())).await.map_err(|error| format!("not reached: {error}"))?;
    if !address.is_tls() {
        return exchange(address, stream, body).await;
    }
    let name = ServerName::try_from(address.host().to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(trust()?)).connect(name, stream).await;
    exchange(address, stream.map_err(|error| format!("no TLS: {error}"))?, body).await
}

async fn exchange<S>(address: &WebAddress, stream: S, body: Vec<u8>) -> Result<(StatusCode, String), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let request = Request::post(address.path())
        .header(HOST, address.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("walseal/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| "the URL cannot be asked for".to_owned())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(words)?;
        let status = answer.status();
        // A longer answer is as good; nothing depends on it.
        let said = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.map(|body| body.to_bytes());
        Ok::<_, String>((status, said.unwrap_or_default()))
    };
    let connection = async {
        // Its end is the answer's business.
        if let Err(error) = connection.await {
            tracing::debug!(%error, place = address.place(), "the connection broke");
        }
        std::future::pending::<Infallible>().await
    };
    let (status, said) = tokio::select! {
        answer = answer => answer?,
        never = connection => match never {},
    };
    let said = one_line(&String::from_utf8_lossy(&said));
    Ok((status, said))
}

/// Some servers repeat what they were asked for.
fn without_secrets(address: &WebAddress, text: &str) -> String {
    let path = address.path();
    let mut text = text.replace(address.expose(), &address.place());
    if path.len() > 1 {
        text = text.replace(path, "/…");
    }
    text
}

/// The beginning of what was said, without control characters.
fn one_line(said: &str) -> String {
    said.trim().chars().map(|one| if one.is_control() { ' ' } else { one }).take(TOLD).collect()
}

/// What the system trusts, read anew each time: authorities come and go while a daemon runs.
fn trust() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no certificate authorities to trust; install ca-certificates".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
