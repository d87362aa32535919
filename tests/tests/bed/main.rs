//! The test bed, tested by itself: nothing here needs walseal's programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::pgbench::Pgbench;
use walseal_tests::proxy::{Line, Proxy};
use walseal_tests::scratch::{self, Scratch, sweep};
use walseal_tests::settings::{Access, Tls};
use walseal_tests::tls::Certificates;
use walseal_tests::wal::{self, ReceiveWal};
use walseal_tests::workload::{self, NEEDLE, Workload};
use walseal_tests::{oracle, store};

#[test]
fn a_cluster_starts_stops_and_starts_again() -> Result<()> {
    let mut cluster = Cluster::builder().start()?;
    assert_eq!(cluster.value("show wal_segment_size")?, "16MB");
    assert_eq!(cluster.value("show data_checksums")?, "on");
    cluster.sql("create table t as select 1 as a")?;
    cluster.stop(Stop::Fast)?;
    oracle::checksums(&cluster)?;
    cluster.start()?;
    cluster.stop(Stop::Immediate)?;
    cluster.start()?;
    assert_eq!(cluster.value("select a from t")?, "1");
    Ok(())
}

#[test]
fn segments_have_the_size_that_was_asked_for() -> Result<()> {
    for mebibytes in [1, 64] {
        let cluster = Cluster::builder().segment_mib(mebibytes).start()?;
        assert_eq!(cluster.value("show wal_segment_size")?, format!("{mebibytes}MB"));
    }
    Ok(())
}

#[test]
fn a_server_of_an_older_major_starts() -> Result<()> {
    let cluster = Cluster::builder().major(14).start()?;
    assert_eq!(cluster.value("show server_version_num")?.get(..2), Some("14"));
    Ok(())
}

#[test]
fn a_killed_server_starts_again_with_what_it_had_committed() -> Result<()> {
    let mut cluster = Cluster::builder().durable().start()?;
    cluster.sql("create table t as select 1 as a")?;
    cluster.crash()?;
    assert!(cluster.value("select 1").is_err(), "nobody answers after a crash");
    cluster.start()?;
    assert_eq!(cluster.value("select a from t")?, "1");
    Ok(())
}

#[test]
fn two_clusters_of_one_test_do_not_meet() -> Result<()> {
    let one = Cluster::builder().start()?;
    let two = Cluster::builder().inside(one.scratch()).start()?;
    let stranger = Cluster::builder().inside(one.scratch()).stranger().start()?;
    one.sql("create table only_in_one (a int)")?;
    assert!(two.sql("select * from only_in_one").is_err());
    assert_eq!(one.system_identifier()?, two.system_identifier()?);
    assert_ne!(one.system_identifier()?, stranger.system_identifier()?);
    Ok(())
}

#[test]
fn scram_over_required_tls_lets_psql_in_only_as_it_should() -> Result<()> {
    let access = [Access::Scram, Access::Md5, Access::Cert];
    let cluster = Cluster::builder().tcp(&access, Tls::Required).start()?;
    let certificates = Certificates::make(cluster.scratch())?;
    let ask = |conninfo: &str, password: &str| {
        let sql = "select usename || ' ' || ssl from pg_stat_ssl join pg_stat_activity using (pid) \
                   where pid = pg_backend_pid()";
        cluster.psql(conninfo).env("PGPASSWORD", password).args(["-c", sql]).run()
    };
    let authority = certificates.authority();
    for way in [Access::Scram, Access::Md5] {
        let base = cluster.tcp_conninfo(way);
        let verified = format!("{base} sslmode=verify-full sslrootcert={}", authority.display());
        assert_eq!(ask(&verified, &way.password())?.success()?.text(), format!("{} true", way.role()));
        ask(&verified, "wrong")?.exits(2)?;
        ask(&format!("{base} sslmode=disable"), &way.password())?.exits(2)?;
        let stranger = certificates.stranger();
        let distrusted = format!("{base} sslmode=verify-ca sslrootcert={}", stranger.display());
        ask(&distrusted, &way.password())?.exits(2)?;
    }
    let base =
        format!("{} sslmode=verify-full sslrootcert={}", cluster.tcp_conninfo(Access::Cert), authority.display());
    let (client, key) = (certificates.client(), certificates.client_key());
    let with = format!("{base} sslcert={} sslkey={}", client.display(), key.display());
    assert_eq!(ask(&with, "")?.success()?.text(), "cert true");
    ask(&base, "")?.exits(2)?;
    Ok(())
}

#[test]
fn the_workload_knows_what_it_committed() -> Result<()> {
    let mut cluster = Cluster::builder().setting("wal_keep_size", "1GB").start()?;
    let load = Workload::start(&cluster, 3)?;
    load.reaches(100, PATIENCE)?;
    load.goes_on(20, PATIENCE)?;
    let commits = load.stop()?;
    let held = workload::rows(&cluster)?;
    assert_eq!(held, commits.iter().map(|commit| commit.id).collect());

    let start = cluster.value("select redo_lsn from pg_control_checkpoint()")?.parse()?;
    let end: Lsn = cluster.value("select pg_switch_wal()")?.parse()?;
    let folder = cluster.data().join("pg_wal");
    let ends = wal::transaction_ends(cluster.scratch(), cluster.server(), &folder, 1, start, Some(end))?;
    for commit in &commits {
        let end = ends.iter().find(|end| u64::from(end.xid) == commit.xid).context("a commit that is not in WAL")?;
        assert!(end.committed && end.time == commit.time && end.lsn < commit.after, "{end:?} is not {commit:?}");
    }
    let last = ends.last().context("there are commits")?;
    assert!(wal::committed_by(&ends, last.time).contains(&last.xid));

    cluster.sql(&format!("create table t as select '{NEEDLE}' as a"))?;
    cluster.stop(Stop::Fast)?;
    let plain = oracle::no_plaintext(cluster.scratch(), cluster.data(), &[NEEDLE]);
    assert!(plain.is_err(), "a data directory is full of plain text");
    oracle::no_plaintext(cluster.scratch(), cluster.data(), &["text that nobody wrote"])
}

#[test]
fn writers_that_lose_their_server_keep_what_was_acknowledged() -> Result<()> {
    let mut cluster = Cluster::builder().durable().start()?;
    let load = Workload::start(&cluster, 2)?;
    load.reaches(20, PATIENCE)?;
    cluster.crash()?;
    let commits = load.cut_off()?;
    cluster.start()?;
    let held = workload::rows(&cluster)?;
    for commit in &commits {
        assert!(held.contains(&commit.id), "{commit:?} was acknowledged and is gone");
    }
    Ok(())
}

#[test]
fn the_oracles_accept_a_backup_that_is_whole_and_refuse_one_that_is_not() -> Result<()> {
    let cluster = Cluster::builder().segment_mib(1).start()?;
    Pgbench::initialise(&cluster, 1)?;
    let load = Pgbench::start(&cluster, 2)?;
    let receive = ReceiveWal::start(&cluster)?;
    let copy = cluster.scratch().path().join("copy");
    let base = cluster.client("pg_basebackup").args(["-c", "fast", "-d", &cluster.conninfo(), "-D"]).arg(&copy);
    base.run()?.success()?;
    load.stop()?;
    receive.reaches(&cluster, cluster.flush_lsn()?)?;
    receive.stop()?;
    oracle::verify_backup(cluster.scratch(), cluster.server(), &copy)?;
    oracle::amcheck(&cluster)?;

    let mut restored = Cluster::open(cluster.scratch(), cluster.server(), &copy)?;
    restored.start()?;
    restored.wait_promoted(PATIENCE)?;
    oracle::amcheck(&restored)?;
    restored.stop(Stop::Fast)?;
    oracle::checksums(&restored)?;

    std::fs::remove_file(copy.join("PG_VERSION"))?;
    assert!(oracle::verify_backup(cluster.scratch(), cluster.server(), &copy).is_err());
    Ok(())
}

#[test]
fn a_panicking_test_leaves_nothing_behind() -> Result<()> {
    let mut held = Held::start("panic")?;
    let status = held.child.wait()?;
    ensure!(!status.success(), "it was asked to panic");
    ensure!(!held.folder.exists(), "{} is still there", held.folder.display());
    ensure!(!held.server_runs(), "its server still runs");
    Ok(())
}

#[test]
fn the_sweeper_ends_and_removes_what_a_killed_test_left() -> Result<()> {
    let alive = Scratch::new()?;
    let mut held = Held::start("hold")?;
    ensure!(!sweep()?.contains(&held.folder), "the sweeper took what is in use");
    ensure!(held.server_runs(), "the sweeper ended what is in use");
    // Other tests that begin just now sweep, too: not before this one has looked.
    let alone = scratch::lock_sweeper()?;
    held.child.kill()?;
    held.child.wait()?;
    ensure!(held.server_runs(), "a server outlives a test that is killed");
    drop(alone);
    sweep()?;
    ensure!(!held.folder.exists(), "{} is still there", held.folder.display());
    eventually("the end of the server that was left", PATIENCE, || Ok((!held.server_runs()).then_some(())))?;
    ensure!(alive.path().exists(), "the sweeper took the folder of a test that runs");
    Ok(())
}

#[test]
fn a_folder_as_repository_is_listed_read_and_broken() -> Result<()> {
    let scratch = Scratch::new()?;
    a_repository_is_listed_read_and_broken(&scratch, &store::Place::directory(&scratch)?)
}

#[test]
fn a_bucket_as_repository_is_listed_read_and_broken() -> Result<()> {
    let scratch = Scratch::new()?;
    a_repository_is_listed_read_and_broken(&scratch, &store::Place::s3(&scratch)?)
}

fn a_repository_is_listed_read_and_broken(scratch: &Scratch, place: &store::Place) -> Result<()> {
    assert_eq!(place.list()?, Vec::new());
    place.write(scratch, "one", b"first")?;
    place.write(scratch, "two", b"second one")?;
    let listed: Vec<(String, u64)> = place.list()?.into_iter().map(|o| (o.key, o.size)).collect();
    assert_eq!(listed, [("one".to_owned(), 5), ("two".to_owned(), 10)]);
    assert_eq!(place.read(scratch, "two")?, b"second one");
    oracle::no_plaintext(scratch, &place.as_folder(scratch)?, &["third"])?;
    assert!(oracle::no_plaintext(scratch, &place.as_folder(scratch)?, &["second"]).is_err());
    place.remove("one")?;
    assert!(place.remove("one").is_err());
    assert_eq!(place.list()?.len(), 1);
    Ok(())
}

#[test]
fn a_proxy_passes_breaks_and_stalls_a_connection() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Proxy::start(&upstream.local_addr()?.to_string())?;
    let mut client = TcpStream::connect(proxy.address())?;
    let (mut server, _) = upstream.accept()?;
    let mut three = [0; 3];
    client.write_all(b"ask")?;
    server.read_exact(&mut three)?;
    assert_eq!(&three, b"ask");

    proxy.set(Line::Stalled);
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    server.write_all(b"yes")?;
    let stalled = client.read(&mut three).map_err(|error| error.kind());
    assert!(stalled.is_err(), "a byte passed although the line was stalled: {stalled:?}");
    proxy.set(Line::Up);
    client.set_read_timeout(Some(PATIENCE))?;
    client.read_exact(&mut three)?;
    assert_eq!(&three, b"yes", "what was held passes when the line is up again");

    proxy.set(Line::Down);
    assert_eq!(client.read(&mut three)?, 0, "the connection ends");
    Ok(())
}

/// A process of its own that holds a cluster.
struct Held {
    child: Child,
    server: i32,
    folder: PathBuf,
}

impl Held {
    fn start(how: &str) -> Result<Held> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster-holder"));
        let mut child = command.arg(how).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout is a pipe")?).read_line(&mut line)?;
        let (pid, folder) = line.trim().split_once(' ').context("it prints a process id and a folder")?;
        Ok(Held { server: pid.parse()?, folder: PathBuf::from(folder), child })
    }

    fn server_runs(&self) -> bool {
        let cwd = std::fs::read_link(Path::new("/proc").join(self.server.to_string()).join("cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(&self.folder))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended already, as most of these tests want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
