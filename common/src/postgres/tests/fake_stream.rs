//! The WAL stream against a scripted server.

use bytes::Bytes;
use proptest::prelude::*;

use crate::lsn::Lsn;
use crate::postgres::PostgresError;
use crate::postgres::fake_server::*;
use crate::postgres::replication::{SlotCreated, StreamEvent};
use crate::postgres::transport::{Privacy, Transport};
use crate::timeline::TimelineId;

const START: u64 = 0x100_0000;

/// What a server sends when a timeline ends under a stream, from CopyBothResponse to the client's CopyDone.
fn before_copy_done() -> Vec<u8> {
    let keepalive = keepalive(START + 5, 1);
    [copy(b'W'), wal(START, b"hello"), notice("01000", "hm"), keepalive, wal(START + 5, b"!"), copy_done()].concat()
}

/// And what it sends after it.
fn after_copy_done(next: &str, at: &str) -> Vec<u8> {
    let set = rows(&["next_tli", "next_tli_startpos"], &[&[Some(next), Some(at)]]);
    [set, complete("START_STREAMING"), ready()].concat()
}

async fn serve_timeline_end(mut server: FakeServer) {
    server.trust("15.18 (Debian 15.18-0+deb12u1)").await;
    assert_eq!(server.command().await, "START_REPLICATION SLOT \"s\" PHYSICAL 0/1000000 TIMELINE 1");
    server.send(&before_copy_done()).await;
    let (tag, status) = server.message().await;
    assert_eq!((tag, status[0], status.len()), (b'd', b'r', 34));
    assert_eq!(status[1..25], [START, START, START].map(u64::to_be_bytes).concat());
    assert_eq!(server.message().await, (b'c', vec![]));
    server.send(&after_copy_done("3", "0/FFFFF0")).await;
    assert_eq!(server.command().await, "SHOW wal_segment_size");
    server.send(&[rows(&["wal_segment_size"], &[&[Some("64MB")]]), ready()].concat()).await;
}

async fn read_timeline_end(transport: Transport, cancel: bool) -> Vec<StreamEvent> {
    let mut client = login(transport, &conninfo("")).await.expect("logs in");
    assert_eq!(client.server_version_num(), 150_018);
    let mut stream = client.start_replication(Some("s"), Lsn(START), TimelineId::FIRST).await.expect("starts");
    let mut events = Vec::new();
    loop {
        let event = if cancel {
            // Each round is dropped at its first wait.
            tokio::select! {
                biased;
                event = stream.next() => event,
                () = tokio::task::yield_now() => continue,
            }
        } else {
            stream.next().await
        };
        let event = event.expect("the stream ends well");
        if matches!(event, StreamEvent::Keepalive { reply_requested: true, .. }) {
            stream.send_status(Lsn(START), Lsn(START), Lsn(START), false).await.expect("sent");
        }
        events.push(event.clone());
        if event == StreamEvent::EndOfStream {
            break;
        }
    }
    assert_eq!(client.segment_size().await.expect("free again").bytes(), 64 << 20);
    assert_eq!(client.take_notices().len(), 1);
    events
}

#[tokio::test]
async fn case_11_the_servers_answer_counts_at_a_timelines_end_however_its_bytes_are_cut() {
    let expected = [
        StreamEvent::Wal { start: Lsn(START), server_end: Lsn(START + 5), data: Bytes::from_static(b"hello") },
        StreamEvent::Keepalive { server_end: Lsn(START + 5), reply_requested: true },
        StreamEvent::Wal { start: Lsn(START + 5), server_end: Lsn(START + 6), data: Bytes::from_static(b"!") },
        // Neither the next number nor where the stream was.
        StreamEvent::TimelineEnd { next: TimelineId::new(3).expect("not zero"), start: Lsn(0xFF_FFF0) },
        StreamEvent::EndOfStream,
    ];
    for capacity in [1, 2, 3, 5, 7, 64, 1 << 20] {
        for cancel in [false, true] {
            let read = |transport| read_timeline_end(transport, cancel);
            let events = with_server(capacity, Privacy::Local, serve_timeline_end, read).await;
            assert_eq!(events, expected, "{capacity} bytes at a time, cancelled: {cancel}");
        }
    }
}

/// Streams from a server that answers START_REPLICATION with these bytes and goes away.
async fn stream_of(bytes: Vec<u8>) -> Result<Vec<StreamEvent>, PostgresError> {
    let script = |mut server: FakeServer| async move {
        server.trust("17.11").await;
        server.command().await;
        server.send(&bytes).await;
        server.hang_up().await;
    };
    with_server(1 << 16, Privacy::Local, script, |transport| async {
        let mut client = login(transport, &conninfo("")).await.expect("logs in");
        let mut stream = client.start_replication(None, Lsn(START), TimelineId::FIRST).await?;
        let mut events = Vec::new();
        loop {
            match stream.next().await? {
                StreamEvent::EndOfStream => return Ok(events),
                event => events.push(event),
            }
        }
    })
    .await
}

#[tokio::test]
async fn errors_in_the_middle_of_a_stream_keep_their_meaning() {
    let stream = |more: Vec<u8>| stream_of([copy(b'W'), wal(START, b"x"), more].concat());
    let shutdown = stream(error("FATAL", "57P01", "terminating connection")).await.expect_err("an error");
    assert!(shutdown.is_shutting_down() && shutdown.is_disconnect() && !shutdown.is_permanent(), "{shutdown}");
    let removed = stream([error("ERROR", "58P01", "entfernt"), ready()].concat()).await.expect_err("an error");
    assert!(removed.is_wal_removed() && removed.is_permanent(), "{removed}");
    let gone = stream(Vec::new()).await.expect_err("closed");
    assert!(matches!(gone, PostgresError::Closed { .. }) && gone.is_disconnect(), "{gone}");
    let half = stream(wal(START + 1, b"yz")[..20].to_vec()).await.expect_err("closed in a message");
    assert!(half.to_string().contains("in the middle of a message"), "{half}");
    // A server that shuts down in order ends the command without CopyDone.
    assert_eq!(stream(complete("COPY 0")).await.expect("the end").len(), 1);
}

#[tokio::test]
async fn a_status_that_can_not_be_sent_does_not_hide_what_the_server_said() {
    for (last, error) in [(error("FATAL", "57P01", "going down"), true), (complete("COPY 0"), false)] {
        let (gone, wait) = tokio::sync::oneshot::channel();
        let script = |mut server: FakeServer| async move {
            server.trust("15.1").await;
            server.command().await;
            server.send(&[copy(b'W'), wal(START, b"x"), last].concat()).await;
            drop(server);
            assert!(gone.send(()).is_ok());
        };
        with_server(1 << 16, Privacy::Local, script, |transport| async {
            let mut client = login(transport, &conninfo("")).await.expect("logs in");
            let mut stream = client.start_replication(None, Lsn(START), TimelineId::FIRST).await.expect("starts");
            wait.await.expect("the server has gone");
            let at = Lsn(START);
            stream.send_status(at, at, at, false).await.expect("told by the next event");
            assert!(matches!(stream.next().await, Ok(StreamEvent::Wal { .. })), "what had come is not lost");
            stream.send_status(at, at, at, false).await.expect("told by the next event");
            match stream.next().await {
                Ok(event) => assert!(!error && event == StreamEvent::EndOfStream, "{event:?}"),
                Err(found) => assert!(error && found.is_shutting_down(), "{found}"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_with_a_hole_or_an_unknown_message_is_refused() {
    let stream = |more: Vec<u8>| stream_of([copy(b'W'), wal(START, b"x"), more].concat());
    for (what, bytes) in [
        ("a hole", wal(START + 2, b"x")),
        ("a repetition", wal(START, b"x")),
        ("an empty CopyData", copy_data(b"")),
        ("an unknown CopyData", copy_data(b"zzz")),
        ("a short header", copy_data(b"w\0\0\0")),
        ("an end beyond all positions", wal(u64::MAX - 1, b"")[..].to_vec()),
        ("an unknown message", message(b'?', b"abc")),
        ("a message of another place", message(b'G', &[0, 0, 0])),
        ("a result set in the copy", rows(&["a"], &[])),
        ("a negative length", b"d\xff\xff\xff\xff".to_vec()),
        ("a length below its own", b"d\0\0\0\x03".to_vec()),
        ("an oversized length", b"d\x7f\xff\xff\xff".to_vec()),
        ("a next timeline that is none", [copy_done(), after_copy_done("0", "0/1")].concat()),
        ("a start that is none", [copy_done(), after_copy_done("2", "x")].concat()),
        (
            "a row of another width",
            [copy_done(), message(b'T', &[0, 0]), message(b'D', &[0, 1, 255, 255, 255, 255])].concat(),
        ),
        ("a row without a description", [copy_done(), message(b'D', &[0, 0])].concat()),
        ("a value beyond its row", [copy_done(), message(b'T', &[0, 0]), message(b'D', &[0, 1, 0, 0, 0, 9])].concat()),
        ("more columns than there are", [copy_done(), message(b'T', &[0, 9])].concat()),
    ] {
        let error = stream(bytes).await.expect_err(what);
        assert!(matches!(error, PostgresError::Protocol { .. }), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_connection_cut_at_any_byte_is_an_error_and_not_an_end() {
    let whole = before_copy_done();
    for cut in 0..whole.len() {
        let outcome = stream_of(whole[..cut].to_vec()).await;
        let error = outcome.expect_err("cut off");
        assert!(error.is_disconnect(), "{cut} bytes: {error}");
    }
}

#[tokio::test]
async fn stopping_throws_away_what_was_under_way() {
    let script = |mut server: FakeServer| async move {
        server.trust("16.15").await;
        server.command().await;
        server.send(&[copy(b'W'), wal(START, b"abc")].concat()).await;
        assert_eq!(server.message().await.0, b'c');
        server.send(&[wal(START + 3, b"late"), keepalive(START, 0), copy_done()].concat()).await;
        server.send(&[complete("COPY 0"), complete("START_STREAMING"), ready()].concat()).await;
        assert_eq!(server.command().await, "DROP_REPLICATION_SLOT \"s\"");
        server.send(&[error("ERROR", "42704", "no such slot"), ready()].concat()).await;
        assert_eq!(server.message().await.0, b'X');
    };
    with_server(16, Privacy::Local, script, |transport| async {
        let mut client = login(transport, &conninfo("")).await.expect("logs in");
        let mut stream = client.start_replication(None, Lsn(START), TimelineId::FIRST).await.expect("starts");
        assert!(matches!(stream.next().await, Ok(StreamEvent::Wal { .. })));
        stream.stop().await.expect("stopped");
        assert!(!client.drop_slot("s").await.expect("answered"));
        client.close().await;
    })
    .await;
}

#[tokio::test]
async fn case_34_before_15_slots_are_made_in_the_old_grammar_and_not_read() {
    let script = |mut server: FakeServer| async move {
        server.trust("14.23").await;
        assert_eq!(server.command().await, "CREATE_REPLICATION_SLOT \"s\" TEMPORARY PHYSICAL RESERVE_WAL");
        let columns = ["slot_name", "consistent_point", "snapshot_name", "output_plugin"];
        server.send(&[rows(&columns, &[&[Some("s"), Some("0/0"), None, None]]), ready()].concat()).await;
    };
    with_server(64, Privacy::Local, script, |transport| async {
        let mut client = login(transport, &conninfo("")).await.expect("logs in");
        assert_eq!(client.create_physical_slot("s", true).await.expect("made"), SlotCreated::Created);
        let error = client.read_slot("s").await.expect_err("not in 14");
        assert!(matches!(error, PostgresError::Unsupported { needs: 15, .. }), "{error}");
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_of_a_server_make_a_stream_panic(garbage: Vec<u8>, copying: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let before = if copying { [copy(b'W'), wal(START, b"x")].concat() } else { Vec::new() };
        let outcome = runtime.block_on(stream_of([before, garbage].concat()));
        prop_assert!(outcome.is_err());
    }
}
