//! Startup and authentication against a scripted server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::postgres::fake_server::*;
use crate::postgres::transport::Privacy;
use crate::postgres::{Conninfo, PostgresError, ReplicationClient};

/// Logs in at a server that answers the startup message with these bytes, and reads until the client goes.
async fn login_with(privacy: Privacy, more: &str, answer: Vec<u8>) -> (Result<(), PostgresError>, Vec<(u8, Vec<u8>)>) {
    let conninfo = conninfo(more);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let script = |mut server: FakeServer| async move {
        server.startup().await;
        server.send(&answer).await;
        let mut sent = Vec::new();
        while let Some(message) = server.try_message().await {
            sent.push(message);
            // The client waits for an answer that does not come.
            if sent.last().is_some_and(|(tag, _)| *tag == b'p') {
                break;
            }
        }
        assert!(sender.send(sent).is_ok());
    };
    let outcome =
        with_server(1 << 16, privacy, script, |transport| async { login(transport, &conninfo).await.map(drop) }).await;
    (outcome, receiver.await.expect("the script went through"))
}

#[tokio::test]
async fn a_server_that_negotiates_the_version_is_understood() {
    let negotiation = message(b'v', &[&[0, 0, 0, 0, 0, 0, 0, 1][..], b"_pq_.x\0"].concat());
    let answer = [negotiation, authentication(0, b""), greeting("15.1")].concat();
    let (outcome, _) = login_with(Privacy::Local, "", answer).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    for body in [&b""[..], &[0, 0, 0, 0, 0, 0, 0, 9], &[255, 255, 255, 255, 0, 0, 0, 0]] {
        let (outcome, _) = login_with(Privacy::Local, "", message(b'v', body)).await;
        assert!(matches!(outcome, Err(PostgresError::Protocol { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn startup_names_the_user_and_the_kind_of_connection() {
    let script = |mut server: FakeServer| async move {
        let parameters = server.startup().await;
        for pair in
            [["user", "u"], ["replication", "true"], ["application_name", "walseal_test"], ["options", "-c x=y"]]
        {
            assert!(parameters.chunks(2).any(|found| found == pair), "{pair:?} in {parameters:?}");
        }
        server.send(&[authentication(0, b""), greeting("15.1")].concat()).await;
    };
    with_server(8, Privacy::Local, script, |transport| async {
        let client = login(transport, &conninfo("options='-c x=y'")).await.expect("logs in");
        assert_eq!(client.parameter("server_version"), Some("15.1"));
    })
    .await;
}

#[tokio::test]
async fn md5_answers_with_the_salted_hash() {
    let (outcome, sent) = login_with(Privacy::Plain, "password=pw", authentication(5, &[1, 2, 3, 4])).await;
    assert!(outcome.is_err(), "the script ends here");
    // md5(md5("pw" + "u") + salt), computed with md5sum.
    assert_eq!(sent, [(b'p', b"md50803a98a0618b75c8f9a50f280cad373\0".to_vec())]);
    let (outcome, sent) = login_with(Privacy::Plain, "password=pw", authentication(5, &[1, 2])).await;
    assert!(matches!(outcome, Err(PostgresError::Protocol { .. })) && sent.is_empty());
}

#[tokio::test]
async fn a_password_in_the_clear_is_never_sent_where_others_can_listen() {
    let (outcome, sent) = login_with(Privacy::Plain, "password=pw", authentication(3, b"")).await;
    let error = outcome.expect_err("refused");
    assert!(error.is_authentication() && error.to_string().contains("in the clear"), "{error}");
    assert_eq!(sent, []);
    for privacy in [Privacy::Local, Privacy::Encrypted { binding: None }] {
        let (_, sent) = login_with(privacy, "password=pw", authentication(3, b"")).await;
        assert_eq!(sent, [(b'p', b"pw\0".to_vec())]);
    }
}

#[tokio::test]
async fn methods_that_are_not_there_are_refused_by_name() {
    for (code, word) in [(7, "GSSAPI"), (9, "GSSAPI"), (2, "unknown method 2"), (77, "unknown method 77")] {
        let (outcome, _) = login_with(Privacy::Plain, "password=pw", authentication(code, b"")).await;
        let error = outcome.expect_err("refused");
        assert!(error.to_string().contains(word) && error.is_permanent(), "{error}");
    }
    for (mechanisms, privacy) in [
        (&b"SCRAM-SHA-512\0\0"[..], Privacy::Plain),
        (b"SCRAM-SHA-256-PLUS\0\0", Privacy::Encrypted { binding: None }),
        (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", Privacy::Plain),
    ] {
        let (outcome, sent) = login_with(privacy, "password=pw", authentication(10, mechanisms)).await;
        assert!(matches!(outcome, Err(PostgresError::Authentication { .. })) && sent.is_empty(), "{outcome:?}");
    }
}

/// The client's nonce in its first SCRAM message, which begins with `header`.
fn nonce(body: &[u8], mechanism: &str, header: &str) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    let (name, rest) = text.split_once('\0').expect("a mechanism");
    assert_eq!(name, mechanism);
    // Four bytes of length come before the message.
    let message = rest.get(4..).expect("a message");
    message.strip_prefix(&format!("{header}n=,r=")).expect("a nonce").to_owned()
}

/// A SCRAM exchange in which the server says these things after the client's nonce and at the end.
async fn scram(first: &str, last: Vec<u8>) -> String {
    let script = |mut server: FakeServer| async move {
        server.startup().await;
        server.send(&authentication(10, b"SCRAM-SHA-256\0\0")).await;
        let (_, body) = server.message().await;
        let answer = first.replace("NONCE", &nonce(&body, "SCRAM-SHA-256", "n,,"));
        server.send(&authentication(11, answer.as_bytes())).await;
        if server.try_message().await.is_some() {
            server.send(&last).await;
        }
    };
    let outcome = with_server(1 << 16, Privacy::Plain, script, |transport| async {
        login(transport, &conninfo("password=pw")).await
    });
    outcome.await.expect_err("not the right server").to_string()
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_found_out() {
    let fair = "r=NONCEserver,s=c2FsdHNhbHQ=,i=4096";
    let signature = "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let error = scram(fair, authentication(12, signature.as_bytes())).await;
    assert!(error.contains("could not prove that it knows the password"), "{error}");
    // Without its proof, its "you are in" counts for nothing.
    let error = scram(fair, [authentication(0, b""), greeting("15.1")].concat()).await;
    assert!(error.contains("not expected here"), "{error}");
    for first in [
        "r=another,s=c2FsdHNhbHQ=,i=4096",
        "r=NONCEserver,s=c2FsdHNhbHQ=,i=2000000000",
        "r=NONCEserver,s=!,i=4096",
        "nonsense",
        "",
    ] {
        let error = scram(first, Vec::new()).await;
        assert!(error.contains("SCRAM"), "{first}: {error}");
    }
}

#[tokio::test]
async fn a_client_that_could_bind_says_so_when_the_server_offers_nothing() {
    let privacy = Privacy::Encrypted { binding: Some(vec![7; 32]) };
    let (_, sent) = login_with(privacy.clone(), "password=pw", authentication(10, b"SCRAM-SHA-256\0\0")).await;
    assert!(!nonce(&sent[0].1, "SCRAM-SHA-256", "y,,").is_empty());
    let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let (_, sent) = login_with(privacy.clone(), "password=pw", authentication(10, both)).await;
    assert!(!nonce(&sent[0].1, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,").is_empty());
    let (_, sent) = login_with(privacy, "password=pw channel_binding=disable", authentication(10, both)).await;
    assert!(!nonce(&sent[0].1, "SCRAM-SHA-256", "n,,").is_empty());
}

#[tokio::test]
async fn before_the_login_messages_are_kept_small() {
    for bytes in [&b"R\0\x01\0\x05"[..], b"E\x7f\xff\xff\xff", b"\0\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n"] {
        let (outcome, _) = login_with(Privacy::Local, "", bytes.to_vec()).await;
        let error = outcome.expect_err("not a server");
        assert!(error.to_string().contains("is this a PostgreSQL server?"), "{error}");
    }
}

#[tokio::test]
async fn a_login_cut_at_any_byte_is_an_error() {
    let whole = [authentication(0, b""), greeting("15.1")].concat();
    for cut in 0..whole.len() {
        let bytes = whole[..cut].to_vec();
        let script = |mut server: FakeServer| async move {
            server.startup().await;
            server.send(&bytes).await;
        };
        let login = |transport| async { login(transport, &conninfo("")).await };
        let error = with_server(1 << 16, Privacy::Local, script, login).await.expect_err("cut off");
        assert!(error.is_disconnect() && !error.is_permanent(), "{cut} bytes: {error}");
    }
}

/// Connects to a listener that answers SSLRequest with these bytes and then keeps silent.
async fn ask_for_tls(mode: &str, answer: &'static [u8]) -> PostgresError {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let text = format!("hostaddr=127.0.0.1 port={port} user=u password=pw sslmode={mode} connect_timeout=30");
    let conninfo = Conninfo::parse(&text, &|_| None).expect("legal");
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.expect("SSLRequest");
        assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
        stream.write_all(answer).await.expect("sent");
        // Until the client hangs up.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
        drop(listener);
    };
    let (_, outcome) = tokio::join!(server, ReplicationClient::connect(&conninfo, "walseal_test"));
    outcome.expect_err("no such server")
}

#[tokio::test]
async fn what_a_stranger_says_before_tls_is_not_believed() {
    let error = ask_for_tls("require", b"N").await;
    assert!(error.to_string().contains("does not offer it") && error.is_permanent(), "{error}");
    let error = ask_for_tls("require", b"ESFATAL\0Mclick here\0\0").await;
    assert!(!error.to_string().contains("click here"), "{error}");
    // Plaintext behind the S does not become part of the session.
    let smuggled = [&b"S"[..], &authentication(0, b""), &greeting("15.1")].concat();
    let error = ask_for_tls("require", Box::leak(smuggled.into_boxed_slice())).await;
    assert!(matches!(error, PostgresError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn connect_timeout_ends_the_wait_for_a_silent_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let text = format!("hostaddr=127.0.0.1 port={port} user=u sslmode=disable connect_timeout=1");
    let conninfo = Conninfo::parse(&text, &|_| None).expect("legal");
    let error = ReplicationClient::connect(&conninfo, "walseal_test").await.expect_err("silence");
    assert!(matches!(error, PostgresError::Timeout { seconds: 1, .. }) && !error.is_permanent(), "{error}");
    assert_eq!(conninfo.connect_timeout(), Some(Duration::from_secs(1)));
    drop(listener);
    let error = ReplicationClient::connect(&conninfo, "walseal_test").await.expect_err("nobody");
    assert!(error.to_string().contains("is the server running there"), "{error}");
}
