//! PostgreSQL itself as the oracle: real WAL, and where recovery really stops.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use walseal_common::segment::SegmentName;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::scratch::Scratch;
use walseal_tests::session::Session;
use walseal_tests::settings::{append, quoted};

use super::*;

/// A cluster that archived into a folder, a base backup of it, and the repository that holds the same.
struct Primary {
    cluster: Cluster,
    scratch: Arc<Scratch>,
    archive: PathBuf,
    base: PathBuf,
    start: Lsn,
    stop: Lsn,
}

impl Primary {
    fn new() -> Result<Primary> {
        let scratch = Scratch::new()?;
        let archive = scratch.dir("archive")?;
        let command = format!("cp %p {}/%f", archive.display());
        let cluster = Cluster::builder().inside(&scratch).segment_mib(1).setting("max_prepared_transactions", "5");
        let cluster = cluster.setting("archive_mode", "on").setting("archive_command", &command).start()?;
        cluster.sql("create table t (i int, filler text)")?;
        let base = scratch.path().join("base");
        let backup =
            cluster.client("pg_basebackup").args(["-X", "none", "-c", "fast", "-d", &cluster.conninfo(), "-D"]);
        backup.arg(&base).within(PATIENCE).run()?.success()?;
        let record = eventually("the record of the base backup in the archive", PATIENCE, || {
            let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok().map(|entry| entry.path());
            Ok(std::fs::read_dir(&archive)?
                .filter_map(name)
                .find(|path| path.extension().is_some_and(|e| e == "backup")))
        })?;
        let record = std::fs::read_to_string(record)?;
        let position = |what: &str| -> Result<Lsn> {
            let line = record.lines().find_map(|line| line.strip_prefix(what)).context("a line of the record")?;
            Ok(line.split_whitespace().next().context("a position")?.parse()?)
        };
        let (start, stop) = (position("START WAL LOCATION: ")?, position("STOP WAL LOCATION: ")?);
        Ok(Primary { cluster, scratch, archive, base, start, stop })
    }

    /// Waits until everything up to now is in the archive, and stores the segments as an archiver would have.
    fn repository(&self, runtime: &tokio::runtime::Runtime) -> Result<SampleRepository> {
        let last = self.cluster.value("select pg_walfile_name(pg_switch_wal())")?;
        let archive = &self.archive;
        eventually("the last segment in the archive", PATIENCE, || {
            let size = std::fs::metadata(archive.join(&last)).map(|file| file.len()).unwrap_or(0);
            Ok((size == 1 << 20).then_some(()))
        })?;
        let system = self.cluster.system_identifier()?.parse().map_err(anyhow::Error::msg)?;
        runtime.block_on(async {
            let sample = SampleRepository::of(system, 1).await;
            for entry in std::fs::read_dir(archive)? {
                let entry = entry?;
                if let Ok(name) = entry.file_name().to_string_lossy().parse::<SegmentName>() {
                    let number = name.number(sample.size).context("a name of this segment size")?;
                    sample.put_segment(sample.branch(), number, &std::fs::read(entry.path())?).await;
                }
            }
            sample.put_label(sample.branch(), self.start, self.stop, &at("10:00:00"), None).await;
            Ok(sample)
        })
    }

    /// A copy of the base backup that recovers as the settings say.
    fn copy(&self, name: &str, settings: &[RecoverySetting]) -> Result<Cluster> {
        let data = self.scratch.path().join(name);
        self.scratch.call("cp").arg("-a").arg(&self.base).arg(&data).run()?.success()?;
        let restore = quoted(&format!("cp {}/%f %p", self.archive.display()));
        let mut lines = vec![format!("restore_command = {restore}"), "archive_mode = off".to_owned()];
        lines.extend(settings.iter().map(RecoverySetting::line));
        append(&data.join("postgresql.auto.conf"), &format!("{}\n", lines.join("\n")))?;
        self.scratch.file(&format!("{name}/recovery.signal"), "")?;
        Cluster::open(&self.scratch, self.cluster.server(), &data)
    }
}

/// What a paused recovery says: the end of the last record, and the time of the last transaction.
fn paused(copy: &mut Cluster) -> Result<(Lsn, String)> {
    copy.start()?;
    let session = copy.session()?;
    eventually("recovery to pause at its target", PATIENCE, || {
        Ok((session.value("select pg_get_wal_replay_pause_state()")? == "paused").then_some(()))
    })
    .with_context(|| copy.log())?;
    let stop = session.value("select pg_last_wal_replay_lsn()")?.parse()?;
    let time =
        "select to_char(pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    Ok((stop, session.value(time)?))
}

/// Runs a mixture of everything that ends transactions, and returns targets on the way.
fn live(session: &Session, other: &Session) -> Result<Vec<(String, bool)>> {
    let mut targets = Vec::new();
    let clock = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let commit = |session: &Session| -> Result<String> {
        session.rows("begin")?;
        session.rows("insert into t select i, repeat('x', 100) from generate_series(1, 10) i")?;
        let xid = session.value("select pg_current_xact_id()")?;
        session.rows("commit")?;
        Ok(xid)
    };
    commit(session)?;
    targets.push((session.value(clock)?, false));
    session.rows("begin; insert into t values (1, 'no'); rollback")?;
    let first = commit(session)?;
    targets.push((format!("xid:{first}"), false));
    targets.push((format!("xid:{first}"), true));
    targets.push((format!("lsn:{}", session.value("select pg_current_wal_insert_lsn()")?), false));
    // A transaction that began early and ends late, and one that is prepared.
    other.rows("begin; insert into t values (2, 'late'); savepoint s; insert into t values (3, 'part')")?;
    let late = other.value("select pg_current_xact_id()")?;
    session.rows("begin; insert into t values (4, 'prepared')")?;
    let prepared = session.value("select pg_current_xact_id()")?;
    session.rows("prepare transaction 'p'")?;
    // Several segments, so that records and transactions spread over boundaries.
    session.rows("insert into t select i, repeat(md5(i::text), 30) from generate_series(1, 4000) i")?;
    targets.push((session.value(clock)?, false));
    other.rows("commit")?;
    targets.push((format!("xid:{late}"), false));
    session.value("select pg_create_restore_point('it''s before \\migration')")?;
    session.rows("commit prepared 'p'")?;
    targets.push((format!("xid:{prepared}"), false));
    targets.push(("name:it's before \\migration".to_owned(), false));
    targets.push((format!("lsn:{}", session.value("select pg_current_wal_insert_lsn()")?), true));
    session.rows("insert into t select i, repeat(md5(i::text), 30) from generate_series(1, 4000) i")?;
    commit(session)?;
    targets.push(("immediate".to_owned(), false));
    Ok(targets)
}

fn request(target: &str, exclusive: bool) -> Request {
    let target = target.parse().expect("a target");
    Request { exclusive, action: Action::Pause, ..Request::to(target) }
}

fn ask(runtime: &tokio::runtime::Runtime, sample: &SampleRepository, request: &Request) -> Result<Plan, PlanError> {
    runtime.block_on(plan(&sample.repository, &sample.identities, request, None))
}

fn copy_name(index: usize) -> String {
    format!("c{index}")
}

#[test]
fn postgres_stops_exactly_where_the_plan_says() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let primary = Primary::new()?;
    let mut targets = live(&primary.cluster.session()?, &primary.cluster.session()?)?;
    let sample = primary.repository(&runtime)?;
    // Exactly at a transaction's time, and just before it.
    let second = ask(&runtime, &sample, &request(&targets[1].0, false))?;
    let exact = second.last_before.context("the target's own transaction")?.time.to_string();
    targets.extend([(exact.clone(), false), (exact, true)]);
    for (index, (target, exclusive)) in targets.iter().enumerate() {
        let plan = ask(&runtime, &sample, &request(target, *exclusive)).with_context(|| target.clone())?;
        let mut copy = primary.copy(&copy_name(index), &plan.recovery)?;
        let (stop, time) = paused(&mut copy).with_context(|| format!("{target}\n{}", plan.explain()))?;
        ensure!(
            stop == plan.stop,
            "{target} (exclusive: {exclusive}): PostgreSQL stopped at {stop}, planned {}",
            plan.stop
        );
        let last = plan.last_before.map(|last| serde_json::to_value(last.time)).transpose()?;
        let last = last.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        ensure!(last == time, "{target}: the last transaction was of {time}, planned {last}");
        copy.destroy()?;
    }
    Ok(())
}

#[test]
fn case_08_postgres_fails_where_the_plan_refuses() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let primary = Primary::new()?;
    let session = primary.cluster.session()?;
    session.rows("insert into t values (1, 'last')")?;
    let sample = primary.repository(&runtime)?;
    let after =
        session.value("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")?;
    let end = ask(&runtime, &sample, &Request::to(Target::Latest))?.stop;
    for (index, target) in [after, format!("lsn:{end}"), "xid:99999999".into(), "name:none".into()].iter().enumerate() {
        let request = request(target, false);
        ensure!(ask(&runtime, &sample, &request).is_err(), "{target} was planned");
        let mut copy = primary.copy(&copy_name(index), &recovery_settings(&request, TimelineId::FIRST))?;
        let finished = copy.run_to_end(PATIENCE)?;
        let log = copy.log();
        ensure!(finished.code != Some(0), "{target} was reached\n{log}");
        ensure!(log.contains("recovery ended before configured recovery target was reached"), "{target}: {log}");
    }
    Ok(())
}
