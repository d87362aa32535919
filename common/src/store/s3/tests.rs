//! What a real server does not do on demand: a scripted one.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::{Retry, RetryPolicy, Secret};
use super::*;

/// What the server does with one request; each comes on a connection of its own.
enum Turn {
    /// Sends this and closes.
    Answer(String),
    /// Sends this and nothing more, with the connection open.
    Stall(String),
}

fn answer(status: &str, headers: &str, body: &str) -> Turn {
    Turn::Answer(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    ))
}

fn refusal(status: &str, code: &str) -> Turn {
    answer(status, "", &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>because</Message></Error>"))
}

/// The answer to a HEAD request, which has no body.
fn head(status: &str) -> Turn {
    Turn::Answer(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\nConnection: close\r\n{ETAG}\r\n"))
}

struct Scripted {
    store: S3Store,
    requests: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scripted {
    async fn new(turns: Vec<Turn>, change: impl FnOnce(&mut S3Options)) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            for turn in turns {
                let (mut connection, _) = listener.accept().await.expect("a connection");
                let request = read_request(&mut connection).await;
                seen.lock().expect("no panic").push(request);
                let (Turn::Answer(bytes) | Turn::Stall(bytes)) = &turn;
                connection.write_all(bytes.as_bytes()).await.expect("the client listens");
                if matches!(turn, Turn::Stall(_)) {
                    open.push(connection);
                }
            }
            // Keeps stalled connections, and refuses none, until the test ends.
            std::future::pending::<()>().await;
        });
        let credentials = S3Credentials::Static {
            access_key_id: "id".to_owned(),
            secret_access_key: Secret::new("secret"),
            session_token: None,
        };
        let mut options = S3Options { endpoint: Some(endpoint), ..S3Options::new("bucket", "pre/fix", credentials) };
        change(&mut options);
        Scripted { store: S3Store::new(options).await.expect("usable options"), requests, server }
    }

    /// First lines of the requests so far.
    fn lines(&self) -> Vec<String> {
        let requests = self.requests.lock().expect("no panic");
        requests.iter().map(|request| request.lines().next().unwrap_or_default().to_owned()).collect()
    }

    fn request(&self, number: usize) -> String {
        self.requests.lock().expect("no panic")[number].to_lowercase()
    }
}

async fn read_request(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert!(connection.read_buf(&mut bytes).await.expect("a request") > 0, "cut off: {text}");
    }
}

const PLAIN: fn(&mut S3Options) = |_| {};

/// MD5 of "body".
const ETAG: &str = "ETag: \"841a2d689ad86bd1611447453c22c6fc\"\r\n";

#[tokio::test]
async fn case_43_a_server_that_does_not_answer_misses_the_deadline() {
    let silent = vec![Turn::Stall(String::new())];
    let scripted = Scripted::new(silent, |options| options.deadline = Duration::from_millis(200)).await;
    let error = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect_err("too late");
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.reason.contains("within 0.2 s"), "{error}");
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn case_43_a_body_that_stalls_is_broken_off() {
    let half = format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{ETAG}\r\nhalf");
    let scripted = Scripted::new(vec![Turn::Stall(half)], |options| {
        options.stall = Duration::from_millis(200);
    })
    .await;
    let error = scripted.store.get("a").await.expect_err("stalled");
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.reason.contains("nothing came for 0.2 s"), "{error}");
}

#[tokio::test]
async fn case_43_a_body_that_stalls_is_asked_for_again() {
    let half = format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{ETAG}\r\nhalf");
    let turns = vec![Turn::Stall(half), answer("200 OK", ETAG, "all of it")];
    let scripted = Scripted::new(turns, |options| options.stall = Duration::from_millis(200)).await;
    let store = Retry::new(Arc::new(scripted.store.clone()), RetryPolicy::default());
    assert_eq!(store.get("a").await.expect("at the second try"), "all of it");
    assert_eq!(scripted.lines().len(), 2);
}

#[tokio::test]
async fn a_body_that_is_cut_is_no_object() {
    let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n{ETAG}\r\nhalf");
    let scripted = Scripted::new(vec![Turn::Answer(cut)], PLAIN).await;
    let error = scripted.store.get("a").await.expect_err("cut");
    assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn an_answer_that_is_no_objects_is_none_and_may_be_asked_for_again() {
    for body in ["", "<html>Please sign in</html>"] {
        let turns = vec![answer("200 OK", "", body), answer("200 OK", ETAG, "body"), answer("200 OK", "", "")];
        let scripted = Scripted::new(turns, PLAIN).await;
        let error = scripted.store.get("a").await.expect_err("nobody's object");
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
        assert!(error.reason.contains("nobody speaks S3 there"), "{error}");
        assert_eq!(scripted.store.get("a").await.expect("an object"), Bytes::from_static(b"body"));
        let error = scripted.store.get_range("a", 0..0).await.expect_err("its size is not known either");
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
    }
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_none_and_may_be_asked_for_again() {
    let entry = "<IsTruncated>false</IsTruncated><Contents><Key>pre/fix/a</Key><Size>1</Size></Contents>";
    let begun = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>{entry}");
    let whole = format!("{begun}</ListBucketResult>");
    for broken in ["", "<?xml version=\"1.0\"", "starting", &begun] {
        let turns = vec![answer("200 OK", "", broken), answer("200 OK", "", &whole)];
        let scripted = Scripted::new(turns, PLAIN).await;
        let error = scripted.store.list("", None, 10).await.expect_err("it is not whole");
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
        assert!(error.reason.contains("answered 200, and what it sent cannot be read"), "{error}");
        assert_eq!(scripted.store.list("", None, 10).await.expect("it is whole").objects.len(), 1);
    }
}

#[tokio::test]
async fn a_listing_that_has_more_is_never_taken_for_the_whole() {
    let page = |rest: &str, keys: &[&str]| {
        let entries = keys.iter().map(|key| format!("<Contents><Key>pre/fix/{key}</Key><Size>1</Size></Contents>"));
        let body = format!("<ListBucketResult>{rest}{}</ListBucketResult>", entries.collect::<String>());
        answer("200 OK", "", &body)
    };
    // Where it goes on is not said.
    for nowhere in ["", "<NextContinuationToken></NextContinuationToken>"] {
        let silent = format!("<IsTruncated>true</IsTruncated>{nowhere}");
        for keys in [&["a", "b"][..], &[]] {
            let scripted = Scripted::new(vec![page(&silent, keys)], PLAIN).await;
            let error = scripted.store.list("", None, 10).await.expect_err("there is more");
            assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
            assert!(error.reason.contains("there is more, and not where it goes on"), "{error}");
        }
    }
    // A page without objects is not the last one, nor is one that is as long as was asked for.
    let token = "<IsTruncated>true</IsTruncated><NextContinuationToken>here</NextContinuationToken>";
    let last = "<IsTruncated>false</IsTruncated>";
    let turns = vec![page(token, &[]), page(last, &["a"]), page(last, &["a", "b"])];
    let scripted = Scripted::new(turns, PLAIN).await;
    let listed = scripted.store.list("", None, 10).await.expect("a page");
    assert_eq!((listed.objects.len(), listed.more), (1, false));
    assert!(scripted.request(1).contains("continuation-token=here"), "{}", scripted.request(1));
    let listed = scripted.store.list("", None, 2).await.expect("a page");
    assert_eq!((listed.objects.len(), listed.more), (2, true));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let scripted = Scripted::new(Vec::new(), |options| options.endpoint = Some(endpoint.clone())).await;
    let error = scripted.store.get("a").await.expect_err("nobody there");
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.reason.contains(&endpoint), "{error}");
}

#[tokio::test]
async fn case_35_a_throttled_put_is_a_failure_that_passes() {
    let turns = vec![refusal("503 Slow Down", "SlowDown"), refusal("429 Too Many Requests", "")];
    let scripted = Scripted::new(turns, PLAIN).await;
    for _ in 0..2 {
        let error = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect_err("throttled");
        assert_eq!(error.kind, StoreErrorKind::Throttled, "{error}");
        assert!(!error.is_permanent());
    }
    assert_eq!(scripted.lines().len(), 2, "the SDK itself does not retry");
}

#[tokio::test]
async fn a_put_is_conditional_has_its_length_and_its_checksum_in_headers() {
    let scripted = Scripted::new(vec![answer("200 OK", ETAG, "")], PLAIN).await;
    let outcome = scripted.store.put_new("a/b c", Bytes::from_static(b"body")).await.expect("put");
    assert_eq!(outcome, PutOutcome::Created);
    let request = scripted.request(0);
    for part in [
        "put /bucket/pre/fix/a/b%20c?x-id=putobject http/1.1\r\n",
        "\r\nif-none-match: *\r\n",
        "\r\ncontent-length: 4\r\n",
        "\r\ncontent-md5: hbotajrya9fhfedfpclg/a==\r\n",
        "\r\n\r\nbody",
    ] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
    assert!(!request.contains("chunked"), "{request}");
}

#[tokio::test]
async fn case_35_a_put_that_the_answer_does_not_confirm_is_read_back() {
    let other = "ETag: \"made up\"\r\n";
    let turns = vec![answer("200 OK", other, ""), answer("200 OK", ETAG, "body")];
    let scripted = Scripted::new(turns, PLAIN).await;
    let outcome = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect("put");
    assert_eq!(outcome, PutOutcome::Created);
    assert_eq!(scripted.lines().len(), 2);

    let turns = vec![answer("200 OK", other, ""), answer("200 OK", ETAG, "bode")];
    let scripted = Scripted::new(turns, PLAIN).await;
    let error = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect_err("other bytes");
    assert_eq!(error.kind, StoreErrorKind::Protocol);
    assert!(error.reason.contains("other bytes than were sent"), "{error}");
}

/// CRC-32C of "body".
const CRC: &str = "x-amz-checksum-crc32c: Jj/JUA==\r\n";

#[tokio::test]
async fn the_checksum_that_a_store_answers_with_is_the_one_that_is_sent_from_then_on() {
    let both = format!("{ETAG}{CRC}");
    let scripted = Scripted::new(vec![answer("200 OK", &both, ""), answer("200 OK", CRC, "")], PLAIN).await;
    let old = Scripted::new(vec![answer("200 OK", ETAG, ""), answer("200 OK", ETAG, "")], PLAIN).await;
    for name in ["a", "b"] {
        for store in [&scripted.store, &old.store] {
            let outcome = store.put_new(name, Bytes::from_static(b"body")).await.expect("put");
            assert_eq!(outcome, PutOutcome::Created);
        }
    }
    let sent = |request: String| (request.contains("content-md5"), request.contains("x-amz-checksum-crc32c"));
    assert_eq!([sent(scripted.request(0)), sent(scripted.request(1))], [(true, true), (false, true)]);
    assert_eq!([sent(old.request(0)), sent(old.request(1))], [(true, true), (true, false)]);
}

#[tokio::test]
async fn a_store_that_refuses_the_newer_checksum_is_asked_with_the_older_one() {
    let turns = vec![refusal("501 Not Implemented", "NotImplemented"), answer("200 OK", ETAG, "")];
    let scripted = Scripted::new(turns, PLAIN).await;
    let outcome = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect("put");
    assert_eq!(outcome, PutOutcome::Created);
    assert!(scripted.request(1).contains("content-md5") && !scripted.request(1).contains("x-amz-checksum-crc32c"));

    let bad = || refusal("400 Bad Request", "BadDigest");
    let scripted = Scripted::new(vec![bad(), bad()], PLAIN).await;
    scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect_err("refused twice");
    assert_eq!(scripted.lines().len(), 2);
}

#[tokio::test]
async fn a_conflict_of_writers_is_no_proof_that_the_object_exists() {
    let conflict = || refusal("409 Conflict", "ConditionalRequestConflict");
    let scripted = Scripted::new(vec![conflict(), head("200 OK")], PLAIN).await;
    let outcome = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect("the other one won");
    assert_eq!(outcome, PutOutcome::AlreadyExists);

    let scripted = Scripted::new(vec![conflict(), head("404 Not Found")], PLAIN).await;
    let error = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect_err("nobody won");
    assert!(!error.is_permanent(), "{error}");
}

#[tokio::test]
async fn case_42_a_put_that_looks_first_writes_nothing_over_an_object() {
    let scripted = Scripted::new(vec![head("200 OK")], |options| options.conditional_put = false).await;
    let outcome = scripted.store.put_new("a", Bytes::from_static(b"body")).await.expect("put");
    assert_eq!(outcome, PutOutcome::AlreadyExists);
    assert_eq!(scripted.lines().len(), 1);
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused_and_a_whole_object_is_cut() {
    let wrong = answer("206 Partial Content", &format!("Content-Range: bytes 1-4/10\r\n{ETAG}"), "1234");
    let scripted = Scripted::new(vec![wrong, answer("200 OK", ETAG, "0123456789")], PLAIN).await;
    assert_eq!(scripted.store.get_range("a", 0..4).await.expect_err("shifted").kind, StoreErrorKind::Protocol);
    let body = scripted.store.get_range("a", 2..4).await.expect("cut here");
    assert_eq!((body.bytes, body.object_size), (Bytes::from_static(b"23"), 10));
    assert!(scripted.request(1).contains("range: bytes=2-3\r\n"));
}

#[tokio::test]
async fn an_object_that_would_fill_the_memory_is_refused_before_its_body() {
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n{ETAG}\r\n");
    let scripted = Scripted::new(vec![Turn::Stall(huge)], PLAIN).await;
    assert_eq!(scripted.store.get("a").await.expect_err("too large").kind, StoreErrorKind::Protocol);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_and_secrets_in_them_not_repeated() {
    let key = |id: &str, secret: &str| S3Credentials::Static {
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(secret),
        session_token: None,
    };
    let plain = || S3Options { region: Some("eu-west-1".to_owned()), ..S3Options::new("b", "p", key("id", "hunter2")) };
    let missing = std::path::PathBuf::from("/nonexistent/ca.pem");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").expect("write");
    for (options, part) in [
        (S3Options { endpoint: Some("s3.example.net".to_owned()), ..plain() }, "https:// or http://"),
        (S3Options { endpoint: Some("https://id:hunter2@s3.example.net".to_owned()), ..plain() }, "credentials"),
        (S3Options { prefix: "a//b".to_owned(), ..plain() }, "prefix"),
        (S3Options { credentials: key("id", "hunter2\n"), ..plain() }, "secret access key"),
        (S3Options { credentials: key("", "hunter2"), ..plain() }, "access key id"),
        (S3Options { region: None, ..plain() }, "no region"),
        (S3Options { ca_file: Some(missing), ..plain() }, "/nonexistent/ca.pem"),
        (S3Options { ca_file: Some(empty), ..plain() }, "no certificate"),
    ] {
        let error = S3Store::new(options).await.expect_err("not usable");
        assert_eq!(error.kind, StoreErrorKind::Protocol);
        assert!(error.reason.contains(part), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
}
