//! Slots, histories and the WAL stream on a real server.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::time::Duration;

use tokio::time::timeout;

use crate::lsn::Lsn;
use crate::postgres::replication::{SlotCreated, StreamEvent, WalStream};
use crate::postgres::test_cluster::{TestCluster, as_postgres, run};
use crate::postgres::{PostgresError, ReplicationClient, SqlClient};
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::{TimelineHistory, TimelineId};

const PATIENCE: Duration = Duration::from_secs(120);

async fn connect(cluster: &TestCluster) -> ReplicationClient {
    ReplicationClient::connect(&cluster.socket("user=postgres"), "walseal_test").await.expect("connected")
}

/// The next event that is not a keepalive. Keepalives that ask are answered with what was received.
async fn next(stream: &mut WalStream<'_>) -> Result<StreamEvent, PostgresError> {
    loop {
        let event = timeout(PATIENCE, stream.next()).await.expect("the server sends something")?;
        match event {
            StreamEvent::Keepalive { reply_requested: true, .. } => {
                let received = stream.received();
                stream.send_status(received, received, received, false).await?;
            }
            StreamEvent::Keepalive { .. } => {}
            other => return Ok(other),
        }
    }
}

/// WAL from the stream's start up to `end`.
async fn receive(stream: &mut WalStream<'_>, end: Lsn) -> Vec<u8> {
    let mut bytes = Vec::new();
    while stream.received() < end {
        match next(stream).await.expect("WAL comes") {
            StreamEvent::Wal { data, .. } => bytes.extend_from_slice(&data),
            other => panic!("{other:?} before {end}"),
        }
    }
    bytes
}

fn position(cluster: &TestCluster) -> Lsn {
    cluster.sql("select pg_current_wal_flush_lsn()").parse().expect("an LSN")
}

fn write_some(cluster: &TestCluster) {
    cluster.sql("create table if not exists t (x text)");
    cluster.sql("insert into t select repeat(md5(i::text), 8) from generate_series(1, 20000) i");
}

#[tokio::test]
async fn a_session_tells_who_the_server_is() {
    let cluster = TestCluster::new("", &["--wal-segsize=1"]);
    let mut client = connect(&cluster).await;
    let system = client.identify_system().await.expect("identified");
    let known = cluster.sql("select system_identifier from pg_control_system()");
    assert_eq!(system.system_identifier.to_string(), known);
    assert_eq!(system.timeline, TimelineId::FIRST);
    assert_eq!(system.position, position(&cluster));
    assert_eq!(client.server_version_num().to_string(), cluster.sql("show server_version_num"));
    assert_eq!(client.segment_size().await.expect("shown"), SegmentSize::new(1 << 20).expect("legal"));
    assert_eq!(client.parameter("in_hot_standby"), Some("off"));
    assert!(matches!(client.show("x; drop table t").await, Err(PostgresError::Argument(_))));
    let unknown = client.show("no_such_setting").await.expect_err("no such setting");
    assert_eq!(unknown.sqlstate(), Some("42704"));
    assert_eq!(client.timeline_history(TimelineId::FIRST).await.expect("answered"), None);
    // After refusals the session still works.
    assert_eq!(client.show("wal_level").await.expect("shown"), "replica");
    client.close().await;
}

#[tokio::test]
async fn case_15_slots_are_made_with_wal_reserved_and_told_apart() {
    let cluster = TestCluster::new("", &[]);
    let mut client = connect(&cluster).await;
    assert_eq!(client.read_slot("walseal_t").await.expect("read"), None);
    assert_eq!(client.create_physical_slot("walseal_t", false).await.expect("made"), SlotCreated::Created);
    assert_eq!(client.create_physical_slot("walseal_t", false).await.expect("there"), SlotCreated::AlreadyExists);
    let state = client.read_slot("walseal_t").await.expect("read").expect("there is one");
    let known = cluster.sql("select restart_lsn from pg_replication_slots");
    assert_eq!(state.restart.map(|lsn| lsn.to_string()), Some(known), "WAL is reserved at once");
    assert_eq!(state.timeline, Some(TimelineId::FIRST));
    assert_eq!(client.create_physical_slot("walseal_tmp", true).await.expect("made"), SlotCreated::Created);
    assert_eq!(cluster.sql("select temporary from pg_replication_slots where slot_name = 'walseal_tmp'"), "t");
    assert!(matches!(client.create_physical_slot("Bad-Name", false).await, Err(PostgresError::Argument(_))));
    assert!(client.drop_slot("walseal_t").await.expect("dropped"));
    assert!(!client.drop_slot("walseal_t").await.expect("not there any more"));
}

#[tokio::test]
async fn the_stream_brings_the_bytes_that_pg_receivewal_writes() {
    stream_beside_pg_receivewal(15).await;
}

#[tokio::test]
async fn case_34_the_stream_of_14_brings_the_bytes_that_pg_receivewal_writes() {
    stream_beside_pg_receivewal(14).await;
}

#[tokio::test]
async fn case_34_the_stream_of_18_brings_the_bytes_that_pg_receivewal_writes() {
    stream_beside_pg_receivewal(18).await;
}

async fn stream_beside_pg_receivewal(major: u32) {
    let cluster = TestCluster::of(major, "", &["--wal-segsize=1"]);
    let mut client = connect(&cluster).await;
    client.create_physical_slot("walseal_t", false).await.expect("made");
    let size = client.segment_size().await.expect("shown");
    let start = size.align_down(client.identify_system().await.expect("identified").position);
    write_some(&cluster);
    let end = size.align_down(position(&cluster));
    assert!(end.bytes_since(start) >= 3 << 20, "there is more than one segment to compare");

    let mut stream = client.start_replication(Some("walseal_t"), start, TimelineId::FIRST).await.expect("streams");
    let ours = receive(&mut stream, end).await;
    stream.send_status(end, end, end, false).await.expect("sent");
    stream.stop().await.expect("stopped");
    // The connection is free again, and the server took the position.
    assert_eq!(client.show("wal_level").await.expect("shown"), "replica");
    let restart = cluster.sql("select restart_lsn from pg_replication_slots where slot_name = 'walseal_t'");
    assert_eq!(restart, end.to_string());

    let folder = cluster.path().join("received");
    run(as_postgres("mkdir".as_ref()).arg(&folder));
    // It goes on after the last whole segment of its folder.
    let before = SegmentName::new(TimelineId::FIRST, size.number(Lsn(start.0 - 1)), size).to_string();
    run(as_postgres("truncate".as_ref()).args(["-s", "1M"]).arg(folder.join(before)));
    let mut command = as_postgres(&cluster.program("pg_receivewal"));
    command.arg("-D").arg(&folder).arg("-d").arg(cluster.text("user=postgres"));
    run(command.args(["--no-sync", "--no-loop", "--endpos"]).arg(end.to_string()).current_dir("/tmp"));
    let mut theirs = Vec::new();
    let mut number = size.number(start);
    while number.start(size) < end {
        let name = SegmentName::new(TimelineId::FIRST, number, size).to_string();
        let whole = fs::read(folder.join(&name)).or_else(|_| fs::read(folder.join(format!("{name}.partial"))));
        theirs.extend(whole.expect("a segment"));
        number = number.next();
    }
    assert!(ours == theirs, "{} bytes differ from {}", ours.len(), theirs.len());
}

#[tokio::test]
async fn case_52_an_active_slot_names_its_holder() {
    let cluster = TestCluster::new("", &[]);
    let mut first = connect(&cluster).await;
    first.create_physical_slot("walseal_t", false).await.expect("made");
    let at = first.identify_system().await.expect("identified").position;
    let stream = first.start_replication(Some("walseal_t"), at, TimelineId::FIRST).await.expect("streams");
    let mut second = connect(&cluster).await;
    let error = second.start_replication(Some("walseal_t"), at, TimelineId::FIRST).await.expect_err("in use");
    assert!(error.is_slot_active() && !error.is_permanent(), "{error}");
    let known = cluster.sql("select active_pid from pg_replication_slots");
    assert_eq!(error.slot_holder().map(|pid| pid.to_string()), Some(known));
    drop(stream);
    // Dropped in its middle, the first connection is of no use; the second is.
    assert!(matches!(first.show("wal_level").await, Err(PostgresError::Abandoned(_))));
    assert_eq!(second.show("wal_level").await.expect("shown"), "replica");
}

#[tokio::test]
async fn refusals_to_stream_are_told_apart() {
    let cluster = TestCluster::new("", &["--wal-segsize=1"]);
    let mut client = connect(&cluster).await;
    let size = client.segment_size().await.expect("shown");
    let start = size.align_down(client.identify_system().await.expect("identified").position);
    write_some(&cluster);
    cluster.sql("select pg_switch_wal()");
    cluster.sql("checkpoint");
    write_some(&cluster);
    cluster.sql("checkpoint");
    let mut stream = client.start_replication(None, start, TimelineId::FIRST).await.expect("starts");
    let removed = next(&mut stream).await.expect_err("its WAL is gone");
    assert!(removed.is_wal_removed() && removed.is_permanent(), "{removed}");
    let mut stream = client.start_replication(None, Lsn(1 << 50), TimelineId::FIRST).await.expect("starts");
    let ahead = next(&mut stream).await.expect_err("ahead");
    assert!(ahead.is_ahead_of_server() && !ahead.is_not_in_history(), "{ahead}");
    let second = TimelineId::new(2).expect("not zero");
    let unknown = client.start_replication(None, start, second).await.expect_err("no such timeline");
    assert!(unknown.is_not_in_history(), "{unknown}");
    let missing = client.start_replication(Some("nothing_here"), start, TimelineId::FIRST).await;
    assert!(missing.expect_err("no such slot").is_slot_missing());

    cluster.sql("create role plain login");
    let plain = ReplicationClient::connect(&cluster.socket("user=plain"), "walseal_test").await;
    let plain = plain.expect_err("may not replicate");
    assert!(plain.is_missing_privilege() && plain.to_string().contains("ALTER ROLE"), "{plain}");
}

#[tokio::test]
async fn case_11_the_end_of_a_timeline_names_the_next() {
    let primary = TestCluster::new("wal_keep_size = '1GB'", &["--wal-segsize=1"]);
    write_some(&primary);
    let standby = primary.standby();
    let mut client = connect(&standby).await;
    assert_eq!(client.parameter("in_hot_standby"), Some("on"));
    let size = client.segment_size().await.expect("shown");
    let start = size.align_down(client.identify_system().await.expect("identified").position);
    let mut stream = client.start_replication(None, start, TimelineId::FIRST).await.expect("streams");
    standby.promote();
    let (next_timeline, fork) = loop {
        match next(&mut stream).await.expect("the stream ends well") {
            StreamEvent::Wal { .. } => {}
            StreamEvent::TimelineEnd { next, start } => break (next, start),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next_timeline.number(), 2);
    assert_eq!(next(&mut stream).await.expect("nothing more"), StreamEvent::EndOfStream);

    let content = client.timeline_history(next_timeline).await.expect("answered").expect("there is one");
    assert_eq!(content, fs::read(standby.data().join("pg_wal/00000002.history")).expect("its file"));
    let history = TimelineHistory::parse(next_timeline, &content).expect("a history");
    assert_eq!(history.end_of(TimelineId::FIRST), Some(fork));

    // From the very end of the old timeline there is no copy, only the answer.
    let mut stream = client.start_replication(None, fork, TimelineId::FIRST).await.expect("answers");
    assert_eq!(
        next(&mut stream).await.expect("the end"),
        StreamEvent::TimelineEnd { next: next_timeline, start: fork }
    );
    // Beyond the fork the old timeline is not this server's.
    write_some(&standby);
    let beyond = client.start_replication(None, fork.advance(64), TimelineId::FIRST).await.expect_err("beyond");
    assert!(beyond.is_not_in_history() && beyond.is_permanent(), "{beyond}");
    let mut stream = client.start_replication(None, size.align_down(fork), next_timeline).await.expect("streams");
    assert!(matches!(next(&mut stream).await, Ok(StreamEvent::Wal { .. })));
}

#[tokio::test]
async fn case_12_a_fast_shutdown_asks_and_ends_the_stream_when_flushed() {
    let mut cluster = TestCluster::new("", &[]);
    let mut client = connect(&cluster).await;
    let start = client.identify_system().await.expect("identified").position;
    let mut stream = client.start_replication(None, start, TimelineId::FIRST).await.expect("streams");
    write_some(&cluster);
    let stopping = tokio::task::spawn_blocking(move || {
        cluster.stop("fast");
        cluster
    });
    loop {
        match next(&mut stream).await.expect("the stream ends well") {
            StreamEvent::Wal { .. } => {}
            StreamEvent::EndOfStream => break,
            other => panic!("{other:?}"),
        }
    }
    timeout(PATIENCE, stopping).await.expect("the server stops").expect("without a panic");
    assert!(client.show("wal_level").await.is_err());
}

#[tokio::test]
async fn case_16_several_hosts_are_tried_until_one_has_the_role() {
    let primary = TestCluster::new("", &[]);
    let standby = primary.standby();
    let (p, s) = (primary.path().display().to_string(), standby.path().display().to_string());
    let ports = format!("1,{},{}", standby.port(), primary.port());
    let conninfo = |role: &str| {
        let text = format!("host=/nowhere,{s},{p} port={ports} user=postgres target_session_attrs={role}");
        crate::postgres::Conninfo::parse(&text, &|_| None).expect("legal")
    };
    for (role, place) in [("any", &s), ("read-write", &p), ("primary", &p), ("standby", &s), ("prefer-standby", &s)] {
        let sql = SqlClient::connect(&conninfo(role), "walseal_test").await.expect("one fits");
        assert_eq!(&sql.host().name(), place, "{role}");
        let row = sql.query_one("asking", "select pg_is_in_recovery()", &[]).await.expect("answered");
        assert_eq!(row.get::<_, bool>(0), sql.was_standby(), "{role}");
        let pinned = ReplicationClient::connect_to(&conninfo(role), sql.host(), "walseal_test").await.expect("same");
        assert_eq!(&pinned.host().name(), place, "{role}");
    }
    drop(primary);
    let error = SqlClient::connect(&conninfo("primary"), "walseal_test").await.expect_err("none fits");
    let text = error.to_string();
    assert!(text.contains("/nowhere") && text.contains("is in recovery") && !error.is_permanent(), "{text}");
}
