//! The state folder is a cache (I8).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::Cluster;
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
    let objects = site.place.list(&site.scratch)?;
    ensure!(!objects.iter().any(|object| object.key.contains("/conflict/")), "{objects:?}");
    Ok(())
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
