//! Base backups of changed blocks only (PostgreSQL 17 and newer), made and restored by the programs.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Error, Result, ensure};

use walseal_common::repository::{BaseId, ObjectName, ObjectReference, Repository};
use walseal_common::seal::{Draft, Kind, SealedObject, TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::DirectoryStore;
use walseal_common::timeline::SystemIdentifier;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::site::{Site, Store};

use crate::restored;

#[test]
fn case_34_case_56_chains_of_changed_blocks_restore_on_postgresql_17() -> Result<()> {
    chain(17)
}

#[test]
fn case_34_case_56_chains_of_changed_blocks_restore_on_postgresql_18() -> Result<()> {
    chain(18)
}

/// Tables of every fate; each has some hundred pages.
const TABLES: [&str; 7] = ["stays", "changes", "grows", "shrinks", "goes", "rewritten", "elsewhere"];

/// Full, changed blocks, changed blocks again, and everything once more: each is restored.
fn chain(major: u16) -> Result<()> {
    let cluster = Cluster::builder().major(major).setting("summarize_wal", "on").setting("autovacuum", "off");
    let mut site = Site::new(cluster, Store::Directory)?;
    let daemon = site.archive()?;
    let space = site.scratch.dir("space")?;
    site.cluster.sql(&format!("create tablespace space location '{}'", space.display()))?;
    for table in TABLES {
        let place = if table == "elsewhere" { "tablespace space" } else { "" };
        let rows = "select n, md5(n::text) || md5((n * 7)::text) as v from generate_series(1, 20000) n";
        site.cluster.sql(&format!("create table {table} {place} as {rows}"))?;
    }
    run(&site.cluster, &["create index on changes (v)", "vacuum (freeze, analyze)", "checkpoint"])?;
    let full = back_up(&site)?;
    let begun = restored::dump(&site.cluster)?;
    ensure!(!full.native, "the first one has nothing to be compared with");

    run(
        &site.cluster,
        &[
            "update changes set v = reverse(v) where n % 2000 = 7",
            "insert into grows select n, md5(n::text) from generate_series(1, 9000) n",
            "delete from shrinks where n > 4000",
            "vacuum shrinks",
            "drop table goes",
            "delete from rewritten where n % 3 = 0",
            "vacuum full rewritten",
            "create database another",
        ],
    )?;
    let one = back_up(&site)?;
    let ended = restored::dump(&site.cluster)?;
    ensure!(one.native && one.stored * 3 < full.stored, "{} of {} bytes", one.stored, full.stored);
    // The next ones are told from it by this.
    run(
        &site.cluster,
        &[
            "update changes set v = reverse(v) where n % 2000 = 8",
            "insert into shrinks select n, md5(n::text) from generate_series(1, 12000) n",
            "update elsewhere set v = '' where n = 77",
            "create table late tablespace space as select n from generate_series(1, 5000) n",
            "truncate rewritten",
        ],
    )?;
    let two = back_up(&site)?;
    ensure!(two.native && two.stored * 3 < full.stored, "{} of {} bytes", two.stored, full.stored);
    let after = restored::dump(&site.cluster)?;
    run(&site.cluster, &["alter system set summarize_wal = off"])?;
    site.cluster.reload()?;
    run(&site.cluster, &["update stays set v = '' where n = 5"])?;
    let whole = back_up(&site)?;
    ensure!(!whole.native, "without summaries the server sends everything");
    let latest = restored::dump(&site.cluster)?;
    ensure!(ended != after && after != latest, "the moments are told apart");

    for (backup, target, name, expected) in [
        (&full, "immediate", "full", &begun),
        (&one, "immediate", "one", &ended),
        (&two, "immediate", "two", &after),
        (&two, "latest", "two-latest", &latest),
        (&whole, "immediate", "whole", &latest),
    ] {
        let spaces = site.scratch.dir(&format!("{name}-spaces"))?;
        let more = ["--base", &backup.id, "--tablespace-dir", spaces.to_str().context("UTF-8")?];
        let restored = restored::restore_with(&site, target, name, &more)?;
        restored::sound(restored, expected).context(name)?;
    }
    // Over the stopped cluster of another moment, forwards and back, through every layer.
    let spaces = site.scratch.path().join("one-spaces");
    for (backup, target, expected) in [(&two, "latest", &latest), (&one, "immediate", &ended)] {
        let more = ["--delta", "--base", &backup.id, "--tablespace-dir", spaces.to_str().context("UTF-8")?];
        let restored = restored::restore_with(&site, target, "one", &more)?;
        restored::sound(restored, expected).with_context(|| format!("{target} over what was there"))?;
    }
    daemon.sigterm()?.success()?;
    site.cluster.stop(Stop::Fast)?;
    Ok(())
}

struct Backup {
    id: String,
    native: bool,
    /// Bytes of its own data objects.
    stored: u64,
}

/// Takes a backup, through the daemon.
fn back_up(site: &Site) -> Result<Backup> {
    site.archiver.run_long(&["backup"])?.success()?;
    let folder = site.target("repository").join(site.cluster.system_identifier()?).join("base");
    let mut labels: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let label = entry?.path().join("label");
        // An attempt has none.
        if label.exists() {
            labels.push((fs::metadata(&label)?.modified()?, label));
        }
    }
    let (_, label) = labels.into_iter().max().context("there is a label")?;
    let base = label.parent().context("a folder")?;
    let id = base.file_name().and_then(|name| name.to_str()).context("UTF-8")?.to_owned();
    let native = String::from_utf8_lossy(&fs::read(&label)?).contains("\"native\":true");
    let mut stored = 0;
    for object in fs::read_dir(base.join("data"))? {
        stored += object?.metadata()?.len();
    }
    Ok(Backup { id, native, stored })
}

fn run(cluster: &Cluster, statements: &[&str]) -> Result<()> {
    let session = cluster.session()?;
    for statement in statements {
        session.rows(statement).with_context(|| (*statement).to_owned())?;
    }
    Ok(())
}

#[test]
fn case_34_changed_blocks_of_a_file_that_the_list_of_the_parent_lacks_call_for_everything() -> Result<()> {
    let cluster = Cluster::builder().major(17).setting("summarize_wal", "on").setting("autovacuum", "off");
    let site = Site::new(cluster.setting("wal_keep_size", "1GB"), Store::Directory)?;
    let rows = "select n, md5(n::text) || md5((n * 7)::text) as v from generate_series(1, 20000) n";
    run(
        &site.cluster,
        &[
            &format!("create table changes as {rows}"),
            &format!("create table stays as {rows}"),
            "vacuum (freeze, analyze)",
            "checkpoint",
        ],
    )?;
    site.archiver.run(&["init"])?.success()?;
    let full = back_up(&site)?;
    let path = site.cluster.value("select pg_relation_filepath('changes')")?;
    forget_line(&site, &full.id, &path)?;
    run(&site.cluster, &["update changes set v = reverse(v) where n % 2000 = 7"])?;

    let said = site.archiver.run_long(&["backup"])?.success()?;
    ensure!(said.stderr.contains("the server sends changed blocks only"), "it was tried: {said}");
    let why =
        format!("the server sends everything, because the list of frames of the backup before has no line of {path}");
    ensure!(said.stderr.contains(&why) && said.stdout.contains(" (incremental to "), "{said}");
    ensure!(!said.stdout.contains("changed blocks only"), "{said}");
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    assert_eq!(listed["bases"].as_array().map(Vec::len), Some(2), "the attempt has no label: {listed}");
    let restored = restored::restore(&site, "latest", "restored")?;
    restored::sound(restored, &restored::dump(&site.cluster)?)?;
    // What follows can be compared with it.
    run(&site.cluster, &["update changes set v = reverse(v) where n % 2000 = 8"])?;
    ensure!(back_up(&site)?.native, "its list is whole");
    Ok(())
}

/// Takes the line of the file at `path` out of a backup's list, as its own writer would have signed it, copies included.
fn forget_line(site: &Site, id: &str, path: &str) -> Result<()> {
    let key = WriterKey::read_file(&fs::read_to_string(site.archiver.folder().join("writer.key"))?)?;
    let (folder, id) = (site.target("repository"), id.parse::<BaseId>().map_err(Error::msg)?);
    let cluster: SystemIdentifier = site.cluster.system_identifier()?.parse().map_err(Error::msg)?;
    let trust = TrustedWriters::new(vec![TrustedWriter::archiver(key.public())]);
    let repository = Repository::new(Arc::new(DirectoryStore::new(folder.clone())), cluster, trust);
    let replace = async |object: SealedObject| -> Result<()> {
        let file = folder.join(cluster.to_string()).join(&object.name);
        fs::remove_file(&file)?;
        repository.put(&object).await?;
        site.scratch.account().own(&file)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut label = repository.label(&id).await?;
        let mut found = 0;
        for (reference, number) in label.resume.as_mut().context("a list")?.list.iter_mut().zip(0..) {
            let name = ObjectName::Resume(id.clone(), number);
            let plain = key.resume()?.open(&repository.read(&name).await?)?;
            let quoted = format!("\"{path}\"");
            let is_it = |line: &&[u8]| line.windows(quoted.len()).any(|part| part == quoted.as_bytes());
            let lines = plain.split_inclusive(|byte| *byte == b'\n');
            found += lines.clone().filter(is_it).count();
            let rest: Vec<u8> = lines.filter(|line| !is_it(line)).flatten().copied().collect();
            let (kind, name) = (Kind::Resume, name.to_string());
            let draft = Draft { kind, cluster, name, wal: None, frame_size: 1 << 20, level: 1 };
            let mut sealer = key.resume()?.seal(draft, &key)?;
            sealer.frames_of(&rest)?;
            let object = sealer.finish()?;
            *reference = ObjectReference::from(&object);
            replace(object).await?;
        }
        ensure!(found == 1, "{path} has {found} lines");
        replace(repository.signed(Kind::Label, &ObjectName::Label(id.clone()), &label, &key)?).await
    })?;
    Ok(fs::remove_dir_all(site.scratch.path().join("state/resume"))?)
}
