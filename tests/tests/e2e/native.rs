//! Base backups of changed blocks only (PostgreSQL 17 and newer), made and restored by the programs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::oracle;
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
    let ended = dump(&site.cluster)?;
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
    let after = dump(&site.cluster)?;
    run(&site.cluster, &["alter system set summarize_wal = off"])?;
    site.cluster.reload()?;
    run(&site.cluster, &["update stays set v = '' where n = 5"])?;
    let whole = back_up(&site)?;
    ensure!(!whole.native, "without summaries the server sends everything");
    let latest = dump(&site.cluster)?;
    ensure!(ended != after && after != latest, "the moments are told apart");

    for (backup, target, name, expected) in [
        (&one, "immediate", "one", &ended),
        (&two, "immediate", "two", &after),
        (&two, "latest", "two-latest", &latest),
        (&whole, "immediate", "whole", &latest),
    ] {
        let spaces = site.scratch.dir(&format!("{name}-spaces"))?;
        let more = ["--base", &backup.id, "--tablespace-dir", spaces.to_str().context("UTF-8")?];
        let mut restored = restored::restore_with(&site, target, name, &more)?;
        let found = dump(&restored)?;
        ensure!(found == *expected, "{name}: the dump differs");
        oracle::amcheck(&restored)?;
        restored.stop(Stop::Fast)?;
        oracle::checksums(&restored)?;
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
        labels.push((fs::metadata(&label)?.modified()?, label));
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

/// What `pg_dump` says of the database, but for what is random in it.
fn dump(cluster: &Cluster) -> Result<Vec<String>> {
    let done = cluster.client("pg_dump").args(["-d", &cluster.conninfo()]).run()?.success()?;
    let random = |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
    Ok(done.stdout.lines().filter(|line| !random(line)).map(str::to_owned).collect())
}
