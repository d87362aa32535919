//! UPLOAD_MANIFEST against a scripted server.

use crate::postgres::PostgresError;
use crate::postgres::fake_server::*;
use crate::postgres::transport::Privacy;

/// Uploads `manifest`; the server reads all of it and answers `answer`. Returns what the client says, and what it says to
/// a command after it.
async fn upload(
    capacity: usize,
    manifest: Vec<u8>,
    answer: Vec<u8>,
) -> (Result<(), PostgresError>, Result<String, PostgresError>) {
    let expected = manifest.clone();
    let script = |mut server: FakeServer| async move {
        server.trust("17.11").await;
        assert_eq!(server.command().await, "UPLOAD_MANIFEST");
        server.send(&copy(b'G')).await;
        let mut received = Vec::new();
        loop {
            match server.try_message().await {
                Some((b'd', body)) => received.extend(body),
                Some((b'c', body)) => break assert_eq!(body, b""),
                other => panic!("{other:?}"),
            }
        }
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
        server.send(&answer).await;
        if server.try_message().await.is_some() {
            server.send(&[rows(&["wal_level"], &[&[Some("replica")]]), ready()].concat()).await;
        }
    };
    with_server(capacity, Privacy::Local, script, |transport| async {
        let mut client = login(transport, &conninfo("")).await.expect("logs in");
        let mut upload = client.upload_manifest().await.expect("the server takes one");
        let mut outcome = Ok(());
        for piece in manifest.chunks(100_000) {
            outcome = upload.send(piece).await;
        }
        let outcome = match outcome {
            Ok(()) => upload.finish().await,
            Err(error) => Err(error),
        };
        (outcome, client.show("wal_level").await)
    })
    .await
}

#[tokio::test]
async fn a_manifest_arrives_byte_for_byte_and_the_client_goes_on() {
    for size in [0, 1, 70_000, 400_000] {
        for capacity in [1, 1 << 16] {
            let manifest = (0..size).map(|n| (n * 7) as u8).collect();
            let (outcome, after) = upload(capacity, manifest, [complete("UPLOAD_MANIFEST"), ready()].concat()).await;
            outcome.expect("accepted");
            assert_eq!(after.expect("the client is free"), "replica");
        }
    }
}

#[tokio::test]
async fn a_manifest_that_the_server_refuses_is_told_with_its_reason_and_the_client_goes_on() {
    let answer = [error("ERROR", "XX000", "could not parse backup manifest: checksum mismatch"), ready()].concat();
    let (outcome, after) = upload(1 << 16, b"{}".to_vec(), answer).await;
    let error = outcome.expect_err("refused").to_string();
    assert!(error.contains("UPLOAD_MANIFEST failed") && error.contains("checksum mismatch"), "{error}");
    assert_eq!(after.expect("the client is free"), "replica");
}

#[tokio::test]
async fn a_server_that_goes_or_answers_out_of_order_is_an_error() {
    for (what, answer) in [
        ("it goes", Vec::new()),
        ("it goes with a reason", error("FATAL", "57P01", "terminating connection")),
        ("it sends data", copy_data(b"x")),
        ("it says half of it", complete("UPLOAD_MANIFEST")),
    ] {
        let script = |mut server: FakeServer| async move {
            server.trust("17.11").await;
            server.command().await;
            server.send(&copy(b'G')).await;
            server.message().await;
            server.send(&answer).await;
            server.hang_up().await;
        };
        let error = with_server(1 << 16, Privacy::Local, script, |transport| async {
            let mut client = login(transport, &conninfo("")).await.expect("logs in");
            let error = client.upload_manifest().await.expect("starts").finish().await.expect_err(what);
            assert!(client.show("wal_level").await.is_err(), "{what}: the client is of no use");
            error
        })
        .await;
        assert_eq!(error.sqlstate().is_some(), what == "it goes with a reason", "{error}");
    }
}

#[tokio::test]
async fn case_34_before_17_there_is_no_upload_and_the_client_stays_free() {
    let script = |mut server: FakeServer| async move {
        server.trust("16.15").await;
        assert_eq!(server.command().await, "SHOW wal_level");
        server.send(&[rows(&["wal_level"], &[&[Some("replica")]]), ready()].concat()).await;
    };
    with_server(1 << 16, Privacy::Local, script, |transport| async {
        let mut client = login(transport, &conninfo("")).await.expect("logs in");
        let error = client.upload_manifest().await.expect_err("none there");
        assert!(matches!(error, PostgresError::Unsupported { needs: 17, .. }), "{error}");
        assert_eq!(client.show("wal_level").await.expect("the client is free"), "replica");
    })
    .await;
}
