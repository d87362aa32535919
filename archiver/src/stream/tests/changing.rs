//! Servers that shut down, fork, go back in time, lose WAL, fall silent, or are not alone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use walseal_common::lsn::Lsn;
use walseal_common::repository::ObjectName;
use walseal_common::seal::WriterKey;
use walseal_common::segment::SegmentName;
use walseal_common::store::fault::{Call, Effect};
use walseal_common::store::{ObjectStore, StoreErrorKind};
use walseal_common::telemetry::{AlertKind, AlertNews, AlertState, Alerts, Outlet};
use walseal_common::timeline::TimelineHistory;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::proxy::{Line, Proxy};
use walseal_tests::settings::{Access, Tls};
use walseal_tests::workload::Workload;

use super::live::{Live, SLOT, block_on, cluster};
use super::toy::timeline;
use crate::keys::ArchiveKeys;
use crate::stream::{Progress, SessionEnd};

/// A copy of a stopped cluster, slots included: the same server at an earlier time.
fn copy_of(live: &Live, name: &str) -> Result<Cluster> {
    let scratch = live.cluster.scratch();
    let data = scratch.path().join(name);
    scratch.call("/bin/cp").arg("-a").arg(live.cluster.data()).arg(&data).run()?.success()?;
    Cluster::open(scratch, live.cluster.server(), &data)
}

/// What became of alerts, in order.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(AlertKind, AlertState)>>);

impl Outlet for Told {
    fn tell(&self, news: &AlertNews) {
        self.0.lock().unwrap().push((news.alert.kind, news.state));
    }
}

fn conflicts(live: &Live) -> Result<usize> {
    let prefix = format!("{}/conflict/", live.repository.cluster());
    Ok(block_on(live.repository.store().list(&prefix, None, 100))?.objects.len())
}

#[test]
fn case_12_a_fast_stop_waits_for_the_store_and_not_for_ever() -> Result<()> {
    let mut live = Live::start(cluster())?;
    let stream = live.stream()?;
    // A server waits for nobody who has not come yet.
    stream.until("a connection", |progress| progress.connected)?;
    let load = Workload::start(&live.cluster, 2)?;
    load.reaches(50, PATIENCE)?;
    live.cluster.stop(Stop::Fast)?;
    let commits = load.cut_off()?;
    let last = commits.last().context("there are commits")?.after;
    ensure!(live.covered(live.branch())? >= last, "the server stopped before {last} was durable");

    live.cluster.start()?;
    live.settle()?;
    live.store.set_down(Some(StoreErrorKind::Unreachable));
    live.fill(60)?;
    let took = live.cluster.stop(Stop::Fast)?;
    // It is not a benchmark: shutdown_wait is 2 s, wal_sender_timeout 60 s.
    ensure!(took < Duration::from_secs(30), "the stop took {took:?}");
    live.store.heal();
    live.cluster.start()?;
    let flushed = live.settle()?;
    stream.stop()?;
    live.holds(live.branch(), flushed)
}

#[test]
fn case_17_a_server_that_went_back_in_time_moves_no_slot_and_hangs_no_stop() -> Result<()> {
    let mut live = Live::start(cluster())?;
    let stream = live.stream()?;
    live.fill(1)?;
    live.settle()?;
    live.cluster.stop(Stop::Fast)?;
    stream.stop()?;
    let mut earlier = copy_of(&live, "earlier")?;
    live.cluster.start()?;
    let stream = live.stream()?;
    live.fill(3)?;
    live.settle()?;
    stream.stop()?;
    live.cluster.stop(Stop::Fast)?;

    // The copy is behind what is in the repository, and then writes other WAL there.
    earlier.start()?;
    std::mem::swap(&mut live.cluster, &mut earlier);
    live.conninfo = live.cluster.conninfo();
    let before = live.slot()?;
    let stream = live.stream()?;
    stream.until("an attempt", |progress| progress.trouble.is_some() || progress.connected)?;
    let words = eventually("the other WAL to be noticed", PATIENCE, || {
        live.cluster.sql("select pg_logical_emit_message(false, 'other', repeat('y', 200000))")?;
        let trouble = stream.progress().trouble.unwrap_or_default();
        Ok(trouble.contains("other bytes").then_some(trouble))
    })?;
    let ours = live.keys.writer.public().to_string();
    ensure!(
        words.matches(&ours).count() == 3,
        "both writers are named (here both are ours), and what to type: {words}"
    );
    ensure!(live.slot()? == before, "the slot moved from {before} to {}", live.slot()?);
    let now = stream.progress();
    ensure!(
        now.proven <= before && before < now.frontier,
        "who waits would take the other's WAL for this server's: {now:?}"
    );
    ensure!(conflicts(&live)? == 1, "these bytes are kept once, not {} times", conflicts(&live)?);
    let took = live.cluster.stop(Stop::Fast)?;
    ensure!(took < Duration::from_secs(30), "the stop took {took:?}");
    stream.stop()?;
    Ok(())
}

#[test]
fn case_17_a_name_taken_by_other_bytes_stops_the_frontier_and_keeps_both() -> Result<()> {
    let live = Live::start(cluster())?;
    let stream = live.stream()?;
    live.settle()?;
    // Another archiver of the cluster, with the same compare key, and a server with other WAL.
    let writer: WriterKey = live.keys.writer.generate_sibling()?;
    let keys = Arc::new(ArchiveKeys { recipients: live.keys.recipients.clone(), writer });
    let size = live.identity.segment_size;
    let next = size.number(live.cluster.insert_lsn()?).next().next();
    let theirs = super::toy::Server { seed: 3, size };
    let (from, to) = (next.start(size), next.next().start(size));
    let piece = theirs.piece(&keys, live.branch(), crate::shipment::PieceKind::Whole, from, to);
    block_on(piece.ship(&live.repository, &keys, &crate::memory::Room::elsewhere()))?;
    let mut streamer = live.streamer()?;
    let trust = {
        let mut trust = live.keys.trust(Vec::new());
        trust.add(walseal_common::seal::TrustedWriter::archiver(keys.writer.public()));
        trust
    };
    let store: Arc<dyn ObjectStore> = live.repository.store().clone();
    streamer.repository = walseal_common::repository::Repository::new(store, live.repository.cluster(), trust);
    let told = Arc::new(Told::default());
    streamer.alerts = Alerts::to(vec![told.clone()]);
    stream.stop()?;
    let stream = super::live::Running::start(streamer)?;
    live.fill(4)?;
    let words = stream.troubled_by("other bytes")?;
    let (ours, there) = (live.keys.writer.public().to_string(), keys.writer.public().to_string());
    ensure!(words.contains(&ours) && words.contains(&there), "both writers are named: {words}");
    ensure!(words.contains(&SegmentName::new(timeline(1), next, size).to_string()), "the object is named: {words}");
    // Further attempts come to the same end.
    let another = || {
        let puts = live.store.calls(Call::Put);
        eventually("another attempt", PATIENCE, || Ok((live.store.calls(Call::Put) > puts).then_some(())))
    };
    another()?;
    let kept = conflicts(&live)?;
    another()?;
    ensure!(live.slot()? <= to, "{} was confirmed beyond the conflict", live.slot()?);
    assert_eq!(*told.0.lock().unwrap(), [(AlertKind::Conflict, AlertState::Raised)], "an alert, once");
    // The segment, and where tails of it had been stored before, what of it an attempt had when it met them.
    let now = conflicts(&live)?;
    ensure!((1..=2).contains(&kept) && now == kept, "these bytes were kept {kept} times, and then {now} times");
    stream.stop()?;
    Ok(())
}

#[test]
fn case_11_a_promotion_is_followed_also_after_a_kill_before_the_partial() -> Result<()> {
    let mut live = Live::start(cluster())?;
    let stream = live.stream()?;
    live.cluster.sql("create table t as select 1 as a")?;
    live.settle()?;
    live.cluster.stop(Stop::Fast)?;
    stream.stop()?;
    live.cluster.scratch().file("standby.signal", "")?;
    std::fs::rename(live.cluster.scratch().path().join("standby.signal"), live.cluster.data().join("standby.signal"))?;
    live.cluster.start()?;
    live.cluster.sql("select pg_promote()")?;
    live.cluster.wait_promoted(PATIENCE)?;
    live.fill(2)?;

    // The partial is put, and the archiver killed before it lands.
    let partial = format!("{}/wal/{}/", live.repository.cluster(), live.branch());
    live.store.plan_below(&partial, Call::Put, 1..=2, Effect::Stall(Duration::from_secs(60)));
    let stream = live.stream()?;
    eventually("the put of the partial", PATIENCE, || {
        let put = |(call, key): &(Call, String)| *call == Call::Put && key.ends_with(".partial");
        Ok(live.store.history().iter().any(put).then_some(()))
    })?;
    stream.kill();
    live.store.heal();
    let stream = live.stream()?;
    let flushed = live.settle()?;
    stream.stop()?;
    let content = std::fs::read(live.cluster.data().join("pg_wal/00000002.history"))?;
    let history = TimelineHistory::parse(timeline(2), &content)?;
    let child = history.branch(live.repository.cluster());
    ensure!(live.covered(child)? >= flushed, "the child is streamed from the fork's segment on");
    let fork = history.begin();
    let size = live.identity.segment_size;
    let name = ObjectName::Partial(live.branch(), SegmentName::new(timeline(1), size.number(fork), size));
    let (signed, _) = block_on(live.repository.read_header(&name))?;
    ensure!(signed.header.wal.map(|wal| wal.end) == Some(fork), "the parent ends at the fork {fork}");
    block_on(live.repository.read_header(&ObjectName::History(child)))?;
    live.holds(child, Lsn::INVALID)
}

#[test]
fn case_14_a_slot_that_the_server_gave_up_is_made_anew_and_the_gap_is_passed() -> Result<()> {
    let builder = Cluster::builder().segment_mib(1).setting("max_slot_wal_keep_size", "2MB");
    let live = Live::start(builder.setting("min_wal_size", "2MB").setting("max_wal_size", "4MB"))?;
    let stream = live.stream()?;
    live.settle()?;
    stream.stop()?;
    eventually("the slot to be given up", PATIENCE, || {
        live.fill(4)?;
        live.cluster.sql("checkpoint")?;
        let sql = format!("select wal_status from pg_replication_slots where slot_name = '{SLOT}'");
        Ok((live.cluster.value(&sql)? == "lost").then_some(()))
    })?;
    let stream = live.stream()?;
    eventually("the stream to go on", PATIENCE, || {
        let flushed = live.cluster.flush_lsn()?;
        let sql = format!(
            "select coalesce(restart_lsn >= '{flushed}', false) from pg_replication_slots where slot_name = '{SLOT}'"
        );
        let rows = live.cluster.sql(&sql)?;
        Ok(rows.iter().flatten().any(|value| value.as_deref() == Some("t")).then_some(()))
    })
    .with_context(|| format!("{:?}", stream.progress()))?;
    stream.stop()?;
    let gaps = block_on(live.repository.first_objects("gap/", 10))?;
    ensure!(gaps.len() == 1, "{gaps:?}");
    Ok(())
}

#[test]
fn case_52_a_second_stream_on_the_slot_names_the_first_ones_process_and_follows_it() -> Result<()> {
    let live = Live::start(cluster())?;
    let first = live.stream()?;
    live.settle()?;
    let sql = format!("select active_pid from pg_replication_slots where slot_name = '{SLOT}'");
    let pid = live.cluster.value(&sql)?;
    let second = live.stream()?;
    let words = second.troubled_by(&pid)?;
    ensure!(words.contains(SLOT), "{words}");
    first.kill();
    live.fill(1)?;
    let flushed = live.settle()?;
    ensure!(second.stop()? == SessionEnd::Asked, "all is durable");
    let slots = live.cluster.value("select count(*) from pg_replication_slots")?;
    ensure!(slots == "1", "there are {slots} slots");
    live.holds(live.branch(), flushed)
}

#[test]
fn whoever_waits_for_wal_that_another_stream_of_the_slot_makes_durable_sees_it() -> Result<()> {
    let live = Live::start(cluster())?;
    let first = live.stream()?;
    live.settle()?;
    let second = live.stream()?;
    second.troubled_by(SLOT)?;
    let load = Workload::start(&live.cluster, 2)?;
    load.goes_on(50, PATIENCE)?;
    let flushed = live.cluster.flush_lsn()?;
    // As a base backup waits whose own stream was parted from the slot by a daemon that came back.
    let reaches = |progress: &Progress| progress.reach().is_some_and(|(on, end)| on == live.branch() && end >= flushed);
    let seen = second.until("the other stream's frontier", reaches)?;
    ensure!(!seen.connected && seen.frontier.is_invalid(), "this stream itself has made nothing durable: {seen:?}");
    ensure!(seen.trouble.as_ref().is_some_and(|trouble| trouble.contains("in use")), "{seen:?}");
    ensure!(live.slot()? >= flushed, "it was seen before it was confirmed");
    load.stop()?;
    let flushed = live.settle()?;
    first.kill();
    second.kill();
    live.holds(live.branch(), flushed)
}

#[test]
fn a_server_that_falls_silent_is_left() -> Result<()> {
    let builder = cluster().tcp(&[Access::Scram], Tls::Off);
    let mut live = Live::start(builder)?;
    let conninfo = live.cluster.tcp_conninfo(Access::Scram);
    let port = conninfo.split_whitespace().find_map(|word| word.strip_prefix("port=")).context("a port")?.to_owned();
    let proxy = Proxy::start(&format!("127.0.0.1:{port}"))?;
    let address = proxy.address();
    let own = address.rsplit(':').next().context("a port")?;
    let password = Access::Scram.password().replace('\\', "\\\\").replace('\'', "\\'");
    live.conninfo =
        format!("{} password='{password}'", conninfo.replace(&format!("port={port}"), &format!("port={own}")));
    live.timing.silence_limit = Duration::from_secs(1);
    let stream = live.stream()?;
    live.settle()?;
    // An idle server that answers is not left.
    let begun = Instant::now();
    eventually("two silence limits to pass", PATIENCE, || {
        let progress = stream.progress();
        ensure!(progress.connected && progress.trouble.is_none(), "{progress:?}");
        Ok((begun.elapsed() > live.timing.silence_limit * 2).then_some(()))
    })?;
    proxy.set(Line::Stalled);
    stream.troubled_by("nothing came from the server")?;
    proxy.set(Line::Up);
    live.fill(1)?;
    let flushed = live.settle()?;
    stream.stop()?;
    live.holds(live.branch(), flushed)
}
