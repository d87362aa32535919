//! The state folder is a cache (I8).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::Cluster;
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::disk::Disk;
use walseal_tests::site::{Daemon, Site, Store};

use crate::flow;

/// What is done to the state folder between two lives of the daemon.
type Harm = fn(&Site, &Path) -> Result<()>;

/// Every file below `folder`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

fn delete(_: &Site, state: &Path) -> Result<()> {
    Ok(fs::remove_dir_all(state)?)
}

fn garble(_: &Site, state: &Path) -> Result<()> {
    let files = files(&state.join("index"))?;
    ensure!(!files.is_empty(), "there is an index to garble");
    for file in files {
        let mut bytes = fs::read(&file)?;
        bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0xA5);
        fs::write(&file, bytes)?;
    }
    Ok(())
}

fn cut_off(_: &Site, state: &Path) -> Result<()> {
    for file in files(&state.join("index"))? {
        let bytes = fs::read(&file)?;
        fs::write(&file, &bytes[..bytes.len() / 2])?;
    }
    Ok(())
}

fn put_a_file_in_the_way(site: &Site, state: &Path) -> Result<()> {
    fs::remove_dir_all(state.join("index"))?;
    fs::write(state.join("index"), "not a folder")?;
    site.scratch.account().own(&state.join("index"))
}

/// Puts back what was there after the first life.
fn make_old(site: &Site, state: &Path) -> Result<()> {
    fs::remove_dir_all(state.join("index"))?;
    copy(site, &site.scratch.path().join("old-index"), &state.join("index"))
}

fn copy(site: &Site, from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    site.scratch.account().own(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(site, &entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            site.scratch.account().own(&target)?;
        }
    }
    Ok(())
}

/// Writes some segments and waits until they are durable.
fn go_on(site: &Site, daemon: &mut Daemon) -> Result<Lsn> {
    site.cluster.sql("create table if not exists t(v text)")?;
    site.cluster.sql("insert into t select md5(g::text) from generate_series(1, 30000) g")?;
    flow::wait_durable(&site.cluster, daemon)
}

#[test]
fn i8_deleting_garbling_or_ageing_the_state_folder_changes_nothing() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "1GB"), Store::Directory)?;
    let state = site.scratch.path().join("state");
    let mut daemon = site.archive()?;
    let from = flow::wait_durable(&site.cluster, &mut daemon)?;
    let mut until = go_on(&site, &mut daemon)?;
    daemon.sigterm()?.success()?;
    copy(&site, &state.join("index"), &site.scratch.path().join("old-index"))?;
    let harms: [(&str, Harm); 5] = [
        ("deleted", delete),
        ("garbled", garble),
        ("cut off", cut_off),
        ("a file in the way", put_a_file_in_the_way),
        ("aged", make_old),
    ];
    for (what, harm) in harms {
        harm(&site, &state)?;
        let confirmed = flow::confirmed(&site.cluster)?;
        let mut daemon = site.archiver.daemon(&["run"])?;
        until = go_on(&site, &mut daemon)?;
        ensure!(flow::confirmed(&site.cluster)? > confirmed, "{what}: the slot went on");
        // Half of them end without a word.
        if what.len() % 2 == 0 { daemon.sigkill()? } else { daemon.sigterm()?.success().map(|_| ())? }
    }
    flow::fetch_agrees_with_the_server(&site, from, until)?;
    let objects = site.place.list()?;
    ensure!(!objects.iter().any(|object| object.key.contains("/conflict/")), "{objects:?}");
    Ok(())
}

/// Goes on until the daemon has said this.
fn told(site: &Site, daemon: &mut Daemon, words: &str) -> Result<()> {
    eventually(&format!("the daemon to say {words:?}"), PATIENCE * 2, || {
        go_on(site, daemon)?;
        Ok(daemon.log().contains(words).then_some(()))
    })
    .with_context(|| daemon.log())
}

#[test]
fn i8_a_state_disk_that_runs_full_stops_nothing_is_told_once_and_is_used_again_when_there_is_room() -> Result<()> {
    const LOST: &str = "the local index cannot be written";
    const FOUND: &str = "the local index is written again";
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "4GB"), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let (disk, mut daemon) = Disk::below_daemon(&site, &site.scratch.path().join("state"), 4096)?;
    // The verbs reach it there, too.
    site.archiver.set_text("cluster.state_dir", &disk.path().to_string_lossy());
    site.archiver.write_config()?;
    let from = flow::wait_durable(&site.cluster, &mut daemon)?;
    go_on(&site, &mut daemon)?;
    disk.fill()?;
    let confirmed = flow::confirmed(&site.cluster)?;
    told(&site, &mut daemon, LOST)?;
    ensure!(flow::confirmed(&site.cluster)? > confirmed, "the slot went on");
    // What else would be written there is a copy, too.
    site.archiver.run_long(&["backup"])?.success()?;
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    ensure!(status["daemon_pid"] == daemon.pid(), "{status}");
    ensure!(status["bases"].as_array().is_some_and(|bases| bases.len() == 1), "{status}");
    disk.clear()?;
    told(&site, &mut daemon, FOUND)?;
    ensure!(daemon.log().matches(LOST).count() == 1, "it is told once: {}", daemon.log());
    ensure!(daemon.log().matches("copies of resume pages cannot be kept").count() == 1, "{}", daemon.log());
    ensure!(!daemon.log().contains("panicked"), "{}", daemon.log());
    let until = go_on(&site, &mut daemon)?;
    daemon.sigterm()?.success()?;
    flow::fetch_agrees_with_the_server(&site, from, until)
}

/// Sets the permissions of a folder, of those below, and of their files.
fn allow(folder: &Path, folders: u32, files: u32) -> Result<()> {
    // Whoever runs this may have to get in first, and out last.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            allow(&path, folders, files)?;
        } else if path.is_file() {
            fs::set_permissions(&path, fs::Permissions::from_mode(files))?;
        }
    }
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(folders))?)
}

#[test]
fn i8_a_state_folder_that_may_not_be_written_stops_no_daemon_and_one_that_starts_says_what_to_do() -> Result<()> {
    let site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "4GB"), Store::Directory)?;
    let state = site.scratch.path().join("state");
    let mut daemon = site.archive()?;
    let from = go_on(&site, &mut daemon)?;
    allow(&state, 0o500, 0o400)?;
    go_on(&site, &mut daemon)?;
    site.archiver.run_long(&["backup"])?.success()?;
    go_on(&site, &mut daemon)?;
    ensure!(daemon.log().matches("copies of resume pages cannot be kept").count() == 1, "{}", daemon.log());
    daemon.sigterm()?.success()?;
    let refused = site.archiver.run(&["run"])?.exits(1)?;
    let shown = state.to_string_lossy();
    for words in [&*shown, "Permission denied", "to fix", "cluster.state_dir"] {
        ensure!(refused.stderr.contains(words), "{words:?} is not said: {refused}");
    }
    allow(&state, 0o700, 0o600)?;
    let mut daemon = site.archiver.daemon(&["run"])?;
    let until = go_on(&site, &mut daemon)?;
    daemon.sigterm()?.success()?;
    flow::fetch_agrees_with_the_server(&site, from, until)
}

#[test]
fn i8_a_state_folder_that_becomes_read_only_stops_no_daemon_and_one_that_starts_says_what_to_do() -> Result<()> {
    let mut site = Site::new(Cluster::builder().segment_mib(1).setting("wal_keep_size", "4GB"), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let state = site.scratch.path().join("state");
    let (disk, mut daemon) = Disk::below_daemon(&site, &state, 64 << 10)?;
    // The verbs reach it there, too.
    site.archiver.set_text("cluster.state_dir", &disk.path().to_string_lossy());
    site.archiver.write_config()?;
    let from = go_on(&site, &mut daemon)?;
    disk.becomes_read_only()?;
    let refused = fs::write(disk.path().join("probe"), "").expect_err("nothing can be written there");
    ensure!(refused.kind() == std::io::ErrorKind::ReadOnlyFilesystem, "{refused}");
    let confirmed = flow::confirmed(&site.cluster)?;
    go_on(&site, &mut daemon)?;
    ensure!(flow::confirmed(&site.cluster)? > confirmed, "the slot went on");
    site.archiver.run_long(&["backup"])?.success()?;
    go_on(&site, &mut daemon)?;
    ensure!(daemon.log().matches("copies of resume pages cannot be kept").count() == 1, "{}", daemon.log());
    ensure!(!daemon.log().contains("panicked"), "{}", daemon.log());
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    ensure!(status["daemon_pid"] == daemon.pid(), "{status}");
    disk.becomes_writable()?;
    go_on(&site, &mut daemon)?;
    daemon.sigterm()?.success()?;

    site.archiver.set_text("cluster.state_dir", &state.to_string_lossy());
    site.archiver.write_config()?;
    let refused = Disk::read_only_below(&site, &state)?.run()?.exits(1)?;
    for words in [&*state.to_string_lossy(), "Read-only file system", "to fix", "cluster.state_dir"] {
        ensure!(refused.stderr.contains(words), "{words:?} is not said: {refused}");
    }
    let mut daemon = site.archiver.daemon(&["run"])?;
    let until = go_on(&site, &mut daemon)?;
    daemon.sigterm()?.success()?;
    flow::fetch_agrees_with_the_server(&site, from, until)
}

#[test]
fn a_second_daemon_is_refused_before_it_touches_anything_of_the_first() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let state = site.scratch.path().join("state");
    let mut daemon = site.archive()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let second = site.archiver.run(&["run"])?.exits(1)?;
    let pid = format!("pid {}", daemon.pid());
    for word in ["already running", &pid, "to fix", "kill", "status"] {
        ensure!(second.stderr.contains(word), "{word:?} is not said: {second}");
    }
    ensure!(!state.join("index.broken").exists(), "the first one's index was moved away");
    ensure!(!second.stderr.contains("index"), "the first one's index was looked at: {second}");
    // The socket is still the first one's, which goes on.
    let status = site.archiver.run(&["status", "--json"])?.success()?.json()?;
    ensure!(status["daemon_pid"] == daemon.pid(), "{status}");
    site.cluster.sql("create table t as select 1 as a")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    // A lock that a killed daemon held is nobody's.
    daemon.sigkill()?;
    let mut daemon = site.start_daemon()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    Ok(())
}
