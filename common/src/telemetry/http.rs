//! The HTTP side of a daemon: a few pages, to be read by monitors on the same host or network.
//!
//! GET and HEAD of a fixed set of paths, one request to a connection; nothing of a request's headers or body is used. Whatever comes
//! in is bounded in size, time and number (I11).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest head of a request, in bytes.
const LONGEST_HEAD: usize = 8 << 10;

/// How long a connection may take, all in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are served at a time; others wait in the listener's queue.
const CONNECTIONS: usize = 16;

/// A page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// HTTP's status: 200, 503.
    pub status: u16,
    /// Its media type.
    pub content_type: &'static str,
    /// What it says.
    pub body: String,
}

impl Page {
    /// A page of plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Page {
        Page { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Who makes the pages.
#[async_trait::async_trait]
pub trait Pages: Send + Sync + 'static {
    /// The page at `path` (without a query); `None` when there is none.
    async fn page(&self, path: &str) -> Option<Page>;
}

/// Takes the address, before anybody asks.
///
/// Errors: the address is taken, or not of this host.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves pages until it is dropped.
pub async fn serve(listener: &TcpListener, pages: Arc<dyn Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Only a closed semaphore gives an error, and nobody closes this one.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that is gone already: the next may work.
                tracing::debug!(%error, "no connection taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            match timeout(PATIENCE, connection(stream, pages)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request was not answered"),
                Err(_) => tracing::debug!("a request took too long"),
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, pages: Arc<dyn Pages>) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(response(answer(&request, pages.as_ref()).await)) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false).max_buf_size(LONGEST_HEAD);
    server.serve_connection(TokioIo::new(stream), service).await
}

async fn answer<B>(request: &Request<B>, pages: &dyn Pages) -> Page {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Page::text(405, "only GET and HEAD\n");
    }
    pages.page(request.uri().path()).await.unwrap_or_else(|| Page::text(404, "there is no such page\n"))
}

fn response(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(page.body));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Two;

    #[async_trait::async_trait]
    impl Pages for Two {
        async fn page(&self, path: &str) -> Option<Page> {
            match path {
                "/metrics" => Some(Page { status: 200, content_type: "text/x", body: "a 1\n".to_owned() }),
                "/healthz" => Some(Page::text(503, "no\n")),
                _ => None,
            }
        }
    }

    /// What the server answers to these bytes.
    fn answer_to(request: &[u8]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            let serving = tokio::spawn(async move { serve(&listener, Arc::new(Two)).await });
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let mut answer = Vec::new();
            // It may close before all was written, having read enough.
            if stream.write_all(request).await.is_ok() && stream.shutdown().await.is_ok() {
                stream.read_to_end(&mut answer).await.ok();
            }
            serving.abort();
            answer
        })
    }

    fn text(request: &str) -> String {
        String::from_utf8(answer_to(request.as_bytes())).expect("text")
    }

    #[test]
    fn pages_are_served_with_their_status_type_and_length() {
        let answer = text("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/x\r\n"), "{answer}");
        assert!(answer.contains("content-length: 4\r\n") && answer.contains("cache-control: no-store\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\na 1\n"), "{answer}");
        let head = text("HEAD /metrics HTTP/1.0\r\n\r\n");
        assert!(head.contains("content-length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(text("GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    }

    #[test]
    fn what_is_no_request_for_a_page_is_refused() {
        for (request, status) in [
            ("GET /other HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET metrics HTTP/1.1\r\n\r\n", "404"),
            ("GET /me\u{1}trics HTTP/1.1\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "400"),
        ] {
            let answer = text(request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(LONGEST_HEAD));
        assert!(text(&long).starts_with("HTTP/1.1 431 "));
        // Cut off: there is nobody to answer.
        assert_eq!(text("GET /metrics HTTP/1.1\r\n"), "");
    }

    #[tokio::test]
    async fn i11_connections_that_say_nothing_keep_nobody_out_for_ever() {
        let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serving = tokio::spawn(async move { serve(&listener, Arc::new(Two)).await });
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.expect("connected"));
        }
        let mut late = TcpStream::connect(address).await.expect("queued");
        late.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.expect("written");
        drop(silent);
        let mut answer = String::new();
        late.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        serving.abort();
    }
}
