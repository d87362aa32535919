//! `archive_command`: PostgreSQL archives through `push`, with the daemon and without.

mod backlog;
mod finish;
mod outage;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};
use walseal_tests::process::Finished;
use walseal_tests::settings::{ClusterBuilder, quoted};
use walseal_tests::site::{Side, Site, Store};
use walseal_tests::workload::Workload;

use crate::{flow, restored};

/// A cluster that is ready to archive and keeps what it has archived.
fn archiving() -> ClusterBuilder {
    Cluster::builder().setting("archive_mode", "on").setting("wal_keep_size", "2GB")
}

/// Lets the server archive through the hook, as a user configures it.
fn hook_up(cluster: &mut Cluster, archiver: &Side) -> Result<()> {
    cluster.configure(&format!("archive_command = {}", quoted(&archiver.hook("push %p"))))?;
    cluster.reload()
}

/// Writes something, ends the segment, and returns its name.
fn end_segment(cluster: &Cluster) -> Result<String> {
    cluster.sql(
        "create table if not exists t(v text); insert into t select md5(g::text) from generate_series(1, 2000) g",
    )?;
    cluster.value("select pg_walfile_name(pg_switch_wal())")
}

/// Names of files that PostgreSQL has queued and not archived.
fn queued(cluster: &Cluster) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(cluster.data().join("pg_wal/archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".ready").map(str::to_owned));
    }
    Ok(names)
}

/// Waits until nothing is queued.
fn wait_archived(cluster: &Cluster) -> Result<()> {
    let archived = eventually("everything to be archived", PATIENCE, || Ok(queued(cluster)?.is_empty().then_some(())));
    archived.with_context(|| format!("the server's log:\n{}", cluster.log()))
}

fn failed_count(cluster: &Cluster) -> Result<u64> {
    Ok(cluster.value("select failed_count from pg_stat_archiver")?.parse()?)
}

fn file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.data().join("pg_wal").join(name)
}

fn push(site: &Site, path: &std::path::Path) -> Result<Finished> {
    site.archiver.run(&["push", &path.to_string_lossy()])
}

/// Keys of all objects, below the cluster's folder.
fn objects(site: &Site) -> Result<Vec<String>> {
    let folder = format!("{}/", site.cluster.system_identifier()?);
    let listed = site.place.list()?;
    let key = |key: String| key.strip_prefix(&folder).map(str::to_owned).with_context(|| format!("a stranger: {key}"));
    listed.into_iter().map(|object| key(object.key)).collect()
}

/// The hook failed as case 22 wants it: 1, and one line on stderr with these words.
fn fails(finished: &Finished, words: &[&str]) -> Result<()> {
    ensure!(finished.code == Some(1), "exit 1: {finished}");
    ensure!(finished.stderr.trim_end().lines().count() == 1, "one line: {finished}");
    for word in words {
        ensure!(finished.stderr.contains(word), "{word:?} is not said: {finished}");
    }
    Ok(())
}

/// Several segments go through the hook; what `fetch` returns is what the server had; and they may come again.
fn archives_without_a_daemon(store: Store, segment_mib: u64, segments: usize) -> Result<()> {
    let mut site = Site::new(archiving().segment_mib(segment_mib), store)?;
    site.archiver.run(&["init"])?.success()?;
    // The server is not asked by the hook.
    site.archiver.unset("cluster.conninfo");
    site.archiver.write_config()?;
    let from = site.cluster.flush_lsn()?;
    for _ in 0..segments {
        end_segment(&site.cluster)?;
    }
    let last = Lsn(site.cluster.segment_size()?.align_down(site.cluster.insert_lsn()?).0 - 1);
    hook_up(&mut site.cluster, &site.archiver)?;
    wait_archived(&site.cluster)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}", site.cluster.log());
    flow::fetch_agrees_with_the_server(&site, from, last)?;

    // After a crash PostgreSQL queues again what it has archived.
    let before = objects(&site)?;
    let status = site.cluster.data().join("pg_wal/archive_status");
    let done = fs::read_dir(&status)?.filter_map(|entry| Some(entry.ok()?.path()));
    let done: Vec<PathBuf> = done.filter(|path| path.extension().is_some_and(|is| is == "done")).collect();
    ensure!(done.len() >= segments, "{done:?}");
    for path in &done {
        fs::rename(path, path.with_extension("ready"))?;
    }
    site.cluster.reload()?;
    wait_archived(&site.cluster)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}", site.cluster.log());
    assert_eq!(objects(&site)?, before);
    Ok(())
}

#[test]
fn case_21_segments_go_through_the_hook_without_a_daemon_and_may_come_again() -> Result<()> {
    archives_without_a_daemon(Store::Directory, 1, 12)
}

#[test]
fn case_21_segments_go_through_the_hook_into_a_bucket_without_a_daemon_and_may_come_again() -> Result<()> {
    archives_without_a_daemon(Store::S3, 1, 12)
}

#[test]
fn case_18_segments_of_64_mib_go_through_the_hook() -> Result<()> {
    archives_without_a_daemon(Store::Directory, 64, 1)
}

#[test]
fn case_18_segments_of_64_mib_go_through_the_hook_into_a_bucket() -> Result<()> {
    archives_without_a_daemon(Store::S3, 64, 1)
}

#[test]
fn case_22_failures_exit_1_with_one_line_and_postgresql_asks_again() -> Result<()> {
    let mut site = Site::new(archiving().segment_mib(1), Store::Directory)?;
    let first = file(&site.cluster, &end_segment(&site.cluster)?);
    fails(&push(&site, &first)?, &["walseal-archiver init"])?;
    site.archiver.run(&["init"])?.success()?;

    let repository = site.scratch.path().join("repository");
    let away = site.scratch.path().join("away");
    fs::rename(&repository, &away)?;
    fails(&push(&site, &first)?, &[&repository.to_string_lossy()])?;
    hook_up(&mut site.cluster, &site.archiver)?;
    eventually("a failure", PATIENCE, || Ok((failed_count(&site.cluster)? > 0).then_some(())))?;
    ensure!(site.cluster.log().contains("failed to archive pg_wal/"), "{}", site.cluster.log());
    ensure!(!queued(&site.cluster)?.is_empty(), "nothing may count as archived");
    fs::rename(&away, &repository)?;
    site.cluster.reload()?;
    wait_archived(&site.cluster)?;
    push(&site, &first)?.success()?;

    fails(
        &push(&site, &site.cluster.data().join("postgresql.conf"))?,
        &["postgresql.conf", "not the name of a WAL file"],
    )?;
    fails(
        &push(&site, &file(&site.cluster, "0000000100000000000000FF"))?,
        &["0000000100000000000000FF", "cannot be read"],
    )?;
    let key = site.archiver.folder().join("writer.key");
    fs::rename(&key, key.with_extension("away"))?;
    fails(&push(&site, &first)?, &["writer.key"])?;
    fs::remove_file(site.archiver.config())?;
    fails(&push(&site, &first)?, &["walseal.toml"])?;
    // A command line that is wrong was tried by nobody: 2, which PostgreSQL takes for a failure like any other.
    site.archiver.run(&["push"])?.exits(2)?;
    site.archiver.run(&["push", "one", "two"])?.exits(2)?;
    Ok(())
}

#[test]
fn case_25_a_copied_server_that_still_archives_is_refused() -> Result<()> {
    let site = Site::new(archiving().segment_mib(1), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let before = objects(&site)?;
    let mut stranger = archiving().segment_mib(1).stranger().inside(&site.scratch).start()?;
    let name = end_segment(&stranger)?;
    let identifiers = [site.cluster.system_identifier()?, stranger.system_identifier()?];
    fails(&push(&site, &file(&stranger, &name))?, &[&identifiers[0], &identifiers[1], "archive_command"])?;
    hook_up(&mut stranger, &site.archiver)?;
    eventually("a refusal", PATIENCE, || Ok((failed_count(&stranger)? > 0).then_some(())))?;
    ensure!(stranger.value("select archived_count from pg_stat_archiver")? == "0");
    ensure!(stranger.log().contains(&identifiers[0]), "{}", stranger.log());
    assert_eq!(objects(&site)?, before);
    Ok(())
}

#[test]
fn case_04_case_24_what_a_promotion_leaves_goes_through_the_hook() -> Result<()> {
    let mut site = Site::new(archiving().setting("restore_command", "false"), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    end_segment(&site.cluster)?;
    site.cluster.sql("insert into t values ('in the last segment')")?;
    site.cluster.stop(Stop::Immediate)?;
    let signal = site.cluster.data().join("recovery.signal");
    fs::write(&signal, "")?;
    site.scratch.account().own(&signal)?;
    site.cluster.start()?;
    site.cluster.wait_promoted(PATIENCE)?;
    end_segment(&site.cluster)?;
    // A backup by hand leaves a .backup file. Its two calls need one session.
    let session = site.cluster.session()?;
    session.rows("select pg_backup_start('by hand', true)")?;
    session.rows("select pg_backup_stop(false)")?;
    drop(session);
    let names = queued(&site.cluster)?;
    for kind in [".partial", ".history", ".backup"] {
        ensure!(names.iter().any(|name| name.ends_with(kind)), "no {kind} among {names:?}");
    }
    hook_up(&mut site.cluster, &site.archiver)?;
    wait_archived(&site.cluster)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}", site.cluster.log());
    let before = objects(&site)?;
    ensure!(before.iter().any(|key| key.starts_with("history/00000002-")), "{before:?}");
    let partial = names.iter().find(|name| name.ends_with(".partial")).context("it was queued")?;
    ensure!(before.iter().any(|key| key.starts_with("wal/00000001-") && key.ends_with(partial)), "{before:?}");
    ensure!(before.iter().any(|key| key.starts_with("wal/00000002-")), "{before:?}");
    ensure!(!before.iter().any(|key| key.contains(".backup") || key.starts_with("conflict/")), "{before:?}");

    // Another node's file of the same name: recycled, so other bytes beyond the fork.
    let bytes = fs::read(file(&site.cluster, partial))?;
    let history = fs::read_to_string(file(&site.cluster, "00000002.history"))?;
    let fork: Lsn = history.split_whitespace().nth(1).context("a fork")?.parse()?;
    let fork = usize::try_from(site.cluster.segment_size()?.offset(fork))?;
    let folder = site.scratch.dir("other-node")?;
    fs::copy(file(&site.cluster, "00000002.history"), folder.join("00000002.history"))?;
    let node = |bytes: Vec<u8>| -> Result<PathBuf> {
        fs::write(folder.join(partial), bytes)?;
        for entry in fs::read_dir(&folder)? {
            site.scratch.account().own(&entry?.path())?;
        }
        Ok(folder.join(partial))
    };
    let mut recycled = bytes.clone();
    recycled[fork..].iter_mut().for_each(|byte| *byte ^= 0x5A);
    push(&site, &node(recycled)?)?.success()?;
    assert_eq!(objects(&site)?, before);
    // One that is damaged where the timeline's WAL should be: no part of it is taken for what it was.
    let mut damaged = bytes;
    damaged[fork / 2] ^= 1;
    fails(&push(&site, &node(damaged)?)?, &["no valid WAL", partial])?;
    assert_eq!(objects(&site)?, before);

    // What the restorer makes of it: the old timeline's end by its own name, the child's segment by its own.
    let to = site.scratch.path().join("fetched");
    let child = names.iter().find(|name| name.starts_with("00000002") && name.len() == 24).context("a segment")?;
    site.restorer.run(&["fetch", child, &to.to_string_lossy()])?.success()?;
    ensure!(fs::read(&to)? == fs::read(file(&site.cluster, child))?, "{child} differs");
    site.restorer.run(&["fetch", "00000002.history", &to.to_string_lossy()])?.success()?;
    ensure!(fs::read_to_string(&to)?.contains(history.trim()), "the history differs");
    Ok(())
}

#[test]
fn i1_the_hook_and_the_stream_share_one_repository_and_either_may_fail() -> Result<()> {
    the_hook_and_the_stream_share_one_repository(Store::Directory)
}

#[test]
fn i1_the_hook_and_the_stream_share_one_bucket_and_either_may_fail() -> Result<()> {
    the_hook_and_the_stream_share_one_repository(Store::S3)
}

fn the_hook_and_the_stream_share_one_repository(store: Store) -> Result<()> {
    let mut site = Site::new(archiving().segment_mib(1), store)?;
    let mut daemon = site.archive()?;
    hook_up(&mut site.cluster, &site.archiver)?;
    let from = flow::confirmed(&site.cluster)?.context("a slot made with RESERVE_WAL has a position")?;
    for _ in 0..10 {
        end_segment(&site.cluster)?;
    }
    wait_archived(&site.cluster)?;
    site.cluster.sql("insert into t values ('in an open segment')")?;
    let until = flow::wait_durable(&site.cluster, &mut daemon)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}\n{}", site.cluster.log(), daemon.log());
    flow::fetch_agrees_with_the_server(&site, from, until)?;

    // A daemon that neither greets nor answers counts as none.
    daemon.signal(Signal::STOP)?;
    let name = end_segment(&site.cluster)?;
    wait_archived(&site.cluster)?;
    ensure!(objects(&site)?.iter().any(|key| key.starts_with("wal/") && key.ends_with(&name)), "{name} is not there");
    daemon.signal(Signal::CONT)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;

    // One that was killed leaves its socket.
    daemon.sigkill()?;
    ensure!(site.scratch.path().join("state/walseal.sock").exists(), "it was killed before it could remove its socket");
    let name = end_segment(&site.cluster)?;
    wait_archived(&site.cluster)?;
    ensure!(objects(&site)?.iter().any(|key| key.starts_with("wal/") && key.ends_with(&name)), "{name} is not there");

    // The next one goes on from what hook and stream have left together.
    let mut daemon = site.archiver.daemon(&["run"])?;
    site.cluster.sql("insert into t values ('in an open segment')")?;
    let until = flow::wait_durable(&site.cluster, &mut daemon)?;
    flow::fetch_agrees_with_the_server(&site, from, until)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}\n{}", site.cluster.log(), daemon.log());
    let conflicts: Vec<String> = objects(&site)?.into_iter().filter(|key| key.starts_with("conflict/")).collect();
    assert_eq!(conflicts, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_restore_needs_nothing_but_what_the_hook_and_a_backup_without_a_daemon_have_left() -> Result<()> {
    a_restore_needs_nothing_but_the_hook_and_a_backup(Store::Directory)
}

#[test]
fn a_restore_needs_nothing_but_what_the_hook_and_a_backup_without_a_daemon_have_left_in_a_bucket() -> Result<()> {
    a_restore_needs_nothing_but_the_hook_and_a_backup(Store::S3)
}

fn a_restore_needs_nothing_but_the_hook_and_a_backup(store: Store) -> Result<()> {
    let mut site = Site::new(archiving().segment_mib(1), store)?;
    site.archiver.run(&["init"])?.success()?;
    hook_up(&mut site.cluster, &site.archiver)?;
    site.archiver.run_long(&["backup"])?.success()?;
    let load = Workload::start(&site.cluster, 2)?;
    load.reaches(200, PATIENCE)?;
    let commits = load.stop()?;
    end_segment(&site.cluster)?;
    wait_archived(&site.cluster)?;
    ensure!(failed_count(&site.cluster)? == 0, "{}", site.cluster.log());
    site.cluster.destroy()?;
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::holds_exactly(&restored, &commits.iter().map(|commit| commit.id).collect())
}

#[test]
fn i3_other_bytes_under_a_name_that_is_taken_are_refused_and_kept() -> Result<()> {
    let site = Site::new(archiving().segment_mib(1), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let name = end_segment(&site.cluster)?;
    push(&site, &file(&site.cluster, &name))?.success()?;
    let before = site.place.list()?;
    // Clusters of one kind are copies: the same system identifier and timeline, and from here on other WAL.
    let copy = archiving().segment_mib(1).inside(&site.scratch).start()?;
    copy.sql("create table of_the_copy as select generate_series(1, 100) g")?;
    ensure!(end_segment(&copy)? == name, "the copy began elsewhere");
    fails(&push(&site, &file(&copy, &name))?, &[&name])?;
    let after = site.place.list()?;
    ensure!(after.iter().any(|object| object.key.contains("/conflict/")), "the other bytes are kept: {after:?}");
    ensure!(before.iter().all(|object| after.contains(object)), "nothing that was there has changed");
    Ok(())
}
