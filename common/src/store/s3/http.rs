//! The HTTP client beneath the SDK: HTTP/1.1 only, a connection for each call that is under way.
//!
//! The SDK's own offers HTTP/2 first, and what stands behind a TLS library of today takes it. All calls then share one connection and
//! its flow control: of a server that lets 1 MiB be under way, as Go's does, 20 MB/s come back to who is 50 ms away, and one packet
//! that is lost holds up all of them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::super::failure::Failure;
use super::options::{S3Credentials, S3Options};

/// For the name, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the idle times of usual servers, so that a connection they closed is rarely tried.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// A client that trusts what `options` say.
///
/// Errors: no authorities to trust where TLS may be spoken; a file of them that cannot be used.
pub(super) fn client(options: &S3Options) -> Result<SharedHttpClient, Failure> {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .build(connect(options, CONNECT_TIMEOUT)?);
    Ok(http_client_fn(move |settings, _| {
        // Who asks the machine for its role sets a limit, because most machines have nobody who answers; the store's calls have deadlines.
        let limit = settings.read_timeout().map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Connector { client: client.clone(), limit })
    }))
}

/// What connects within this time.
fn connect(options: &S3Options, within: Duration) -> Result<Connect, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|error| Failure::protocol(format!("could not set up TLS: {error}")))?;
    let mut tls = tls.with_root_certificates(authorities(options)?).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut tcp = legacy::connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(within));
    Ok(Connect { inner: HttpsConnector::from((tcp, tls)), within })
}

#[derive(Debug)]
struct Connector {
    client: Client<Connect, SdkBody>,
    /// For the beginning of an answer.
    limit: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let connection = legacy::connect::capture_connection(&mut request);
        if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
            capture.set_connection_retriever(move || metadata(&connection));
        }
        let (answer, limit) = (self.client.request(request), self.limit);
        HttpConnectorFuture::new(async move {
            let answer = match limit {
                Some(limit) => timeout(limit, answer).await.map_err(|late| ConnectorError::timeout(late.into()))?,
                None => answer.await,
            };
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// How the SDK closes a connection after a server's failure: behind a balancer the next one may lead to another server.
fn metadata(connection: &legacy::connect::CaptureConnection) -> Option<ConnectionMetadata> {
    connection.connection_metadata().as_ref()?;
    let connection = connection.clone();
    let poison = move || {
        if let Some(connection) = connection.connection_metadata().as_ref() {
            connection.poison();
        }
    };
    Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
}

/// Connects, or fails in time.
#[derive(Clone, Debug)]
struct Connect {
    inner: HttpsConnector<legacy::connect::HttpConnector>,
    within: Duration,
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Box<dyn Error + Send + Sync>>> + Send>>;

impl Service<Uri> for Connect {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let (connecting, within) = (self.inner.call(address), self.within);
        Box::pin(async move {
            match timeout(within, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    let why = format!("no connection within {within:?}");
                    Err(io::Error::new(io::ErrorKind::TimedOut, why).into())
                }
            }
        })
    }
}

/// Whom to trust.
fn authorities(options: &S3Options) -> Result<RootCertStore, Failure> {
    let from_environment = || std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = options.ca_file.clone().or_else(from_environment) {
        return read_authorities(&path);
    }
    let mut roots = RootCertStore::empty();
    let plain = options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if plain && matches!(options.credentials, S3Credentials::Static { .. }) {
        // Nothing is reached by TLS, so a machine without certificates will do.
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::protocol(
            "this machine has no certificate authorities to trust; install ca-certificates or name a PEM file in AWS_CA_BUNDLE",
        ));
    }
    Ok(roots)
}

/// The authorities of a PEM file.
fn read_authorities(path: &Path) -> Result<RootCertStore, Failure> {
    let failed = |why: String| Failure::protocol(format!("could not use the CA bundle {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::secret::Secret;
    use crate::store::ObjectStore;
    use crate::store::s3::S3Store;

    /// Of an authority that has signed nothing.
    const NOBODY: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBejCCAR+gAwIBAgIUCaZTq5ZEKhahvkalhavISLa7DJgwCgYIKoZIzj0EAwIw\n\
        ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyODEzMzQ0MloYDzIxMjYxMTA0MTMz\n\
        NDQyWjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
        AAQA9KD9HU6vitF1BAgvetz24p0AP7e1tIFKUg3stLTRt1NeANCwuYVRat+wCLkN\n\
        ZwVCUoZzPqv5DuX0wtYe07woo1MwUTAdBgNVHQ4EFgQU+B/BhwQPjgRTlqZOBnqK\n\
        LiZkRqwwHwYDVR0jBBgwFoAU+B/BhwQPjgRTlqZOBnqKLiZkRqwwDwYDVR0TAQH/\n\
        BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAoiD3ReD3ksXQNn3wRI82pHTDHhzB\n\
        O1diuClcta84B6wCIQC+mfS6WgB0WuaXQ8RhBs3d99MZCVAssAXVah4R9Zo9DA==\n\
        -----END CERTIFICATE-----\n";

    /// For an address that takes connections, and says nothing.
    async fn silent() -> (S3Options, TcpListener, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authorities = folder.path().join("nobody.pem");
        std::fs::write(&authorities, NOBODY).expect("write");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("https://{}", listener.local_addr().expect("an address"));
        let secret = Secret::new("secret");
        let key =
            S3Credentials::Static { access_key_id: "id".to_owned(), secret_access_key: secret, session_token: None };
        let options = S3Options {
            endpoint: Some(endpoint),
            ca_file: Some(authorities),
            ..S3Options::new("bucket", "prefix", key)
        };
        (options, listener, folder)
    }

    #[tokio::test]
    async fn no_more_than_http_1_1_is_offered() {
        let (options, listener, _folder) = silent().await;
        let store = S3Store::new(options).await.expect("usable");
        let call = tokio::spawn(async move { store.get("a").await });
        let (mut socket, _) = listener.accept().await.expect("a caller");
        let mut record = [0; 5];
        socket.read_exact(&mut record).await.expect("the head of a record");
        let mut hello = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
        socket.read_exact(&mut hello).await.expect("what the client offers");
        let offers = |protocol: &[u8]| hello.windows(protocol.len()).any(|part| part == protocol);
        assert!(offers(b"\x08http/1.1") && !offers(b"\x02h2"), "{hello:?}");
        drop(socket);
        let error = call.await.expect("no panic").expect_err("nobody answers");
        assert_eq!(error.kind, crate::store::StoreErrorKind::Unreachable, "{error}");
    }

    #[tokio::test]
    async fn case_43_who_takes_a_connection_and_says_nothing_is_not_waited_for_longer_than_to_connect() {
        let (options, _listener, _folder) = silent().await;
        let address = options.endpoint.as_deref().and_then(|endpoint| endpoint.parse().ok()).expect("an address");
        let mut connect = connect(&options, Duration::from_millis(50)).expect("usable");
        let error = connect.call(address).await.expect_err("nobody speaks TLS there");
        assert!(error.to_string().contains("no connection within 50ms"), "{error}");
    }
}
