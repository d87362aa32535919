//! The daemon as systemd runs it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::PATIENCE;
use walseal_tests::site::{Site, Store};

/// The next thing that the service says to systemd.
fn said(socket: &UnixDatagram) -> Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut text = [0; 1024];
    let length = socket.recv(&mut text).context("the service says nothing to systemd")?;
    Ok(String::from_utf8_lossy(&text[..length]).trim().to_owned())
}

#[test]
fn systemd_hears_when_the_daemon_is_ready_and_when_it_stops() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let path = site.scratch.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let mut daemon = site.archiver.call(&["run"]).env("NOTIFY_SOCKET", path.as_os_str()).spawn()?;
    assert_eq!(said(&socket)?, "READY=1");
    // Ready means: who asks is answered.
    let status = site.archiver.run(&["status", "--json"])?.json()?;
    ensure!(status["daemon_pid"] == daemon.pid(), "{status}");
    // Nobody else's core dump holds its keys.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("a limit of core dumps")?;
    ensure!(core.split_whitespace().skip(4).take(2).all(|limit| limit == "0" || limit == "1"), "{core}");
    daemon.signal(Signal::TERM)?;
    assert_eq!(said(&socket)?, "STOPPING=1");
    daemon.wait(PATIENCE)?.success()?;
    Ok(())
}

#[test]
fn the_unit_runs_the_daemon_and_gives_it_time_to_stop() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/systemd/walseal-archiver.service");
    let unit = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.with_context(|| format!("{key} is not set in the unit"))
    };
    ensure!(value("Type")? == "notify" && value("ExecStart")?.ends_with("/walseal-archiver run"), "{unit}");
    let seconds: u64 = value("TimeoutStopSec")?.trim_end_matches('s').parse()?;
    // The default of wal.shutdown_wait, and what else a stop does.
    ensure!(seconds >= 2 * 10, "a stop may take 10 s for WAL alone, and systemd kills after {seconds} s");
    // Where cluster.state_dir is by default.
    ensure!(value("StateDirectory")? == "walseal", "{unit}");
    Ok(())
}

#[test]
fn a_daemon_that_systemd_would_start_again_has_failed_and_one_that_was_stopped_has_not() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    // No repository: Restart=on-failure tries again.
    site.archiver.run(&["run"])?.exits(1)?;
    site.archive()?.sigterm()?.success()?;
    Ok(())
}
