//! What a data directory may look like, and what may happen to its files while they are copied.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use walseal_common::lsn::Lsn;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;
use walseal_tests::oracle;
use walseal_tests::site::{Site, Store};

use crate::{flow, restored};

/// Rows, and what they add up to, of each table.
fn sums(cluster: &Cluster) -> Result<Vec<String>> {
    let session = cluster.session()?;
    let names = session.rows(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1",
    )?;
    let names = names.into_iter().flatten().flatten();
    names
        .map(|name| {
            let sum = session
                .value(&format!("select count(*) || ' ' || coalesce(sum(hashtext(t::text)), 0) from {name} t"))?;
            Ok(format!("{name} {sum}"))
        })
        .collect()
}

#[test]
fn case_30_files_that_grow_shrink_and_vanish_under_a_backup_and_a_relation_of_two_files_are_restored() -> Result<()> {
    let mut site = Site::new(Cluster::builder().setting("wal_keep_size", "4GB"), Store::Directory)?;
    site.archiver.set_text("base.max_rate", "256MiB");
    site.archiver.write_config()?;
    let session = site.cluster.session()?;
    // A page each, and more pages than a file of a relation may have (131072).
    session.rows(
        "create table big (id int, pad text); alter table big alter pad set storage plain;
         insert into big select g, repeat('x', 7900) from generate_series(1, 134000) g;
         create table grows (id int, pad text);
         create table shrinks as select g as id, repeat('s', 500) as pad from generate_series(1, 60000) g;
         create table emptied as select g as id from generate_series(1, 1000) g;
         create index on shrinks (id); create index on grows (id)",
    )?;
    session.rows("vacuum big")?;
    session.rows("checkpoint")?;
    let second = session.value("select pg_relation_filepath('big')")?;
    ensure!(site.cluster.data().join(format!("{second}.1")).exists(), "the relation has a second file");
    let mut daemon = site.archive()?;
    let mut backup = site.archiver.daemon(&["backup"])?;
    let mut turns = 0;
    while backup.is_running()? {
        turns += 1;
        session.rows(&format!(
            "insert into grows select g, repeat('g', 300) from generate_series(1, 20000) g;
             delete from shrinks where id > (select max(id) * 3 / 4 from shrinks);
             create table passing{turns} as select g as id from generate_series(1, 5000) g;
             drop table if exists passing{}; truncate emptied; insert into emptied values ({turns})",
            turns - 1
        ))?;
        session.rows("vacuum (truncate) shrinks")?;
        if turns == 1 {
            session.rows("delete from big where ctid >= '(131000,0)'::tid")?;
            session.rows("vacuum (truncate) big")?;
        }
        session.rows("checkpoint")?;
    }
    backup.wait(PATIENCE)?.success()?;
    ensure!(turns > 2, "the backup was over after {turns} turns");
    let size: u64 = session.value("select pg_relation_size('big')")?.parse()?;
    ensure!(size < 1 << 30, "the second file shrank: {size} bytes");
    let expected = sums(&site.cluster)?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let mut restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(sums(&restored)?, expected);
    oracle::amcheck(&restored)?;
    restored.stop(Stop::Fast)?;
    oracle::checksums(&restored)
}

#[test]
fn case_29_pg_wal_is_restored_to_a_folder_of_its_own_where_the_server_writes_on() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    site.cluster.sql("create table kept as select generate_series(1, 1000) as id")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let waldir = site.target("wal-volume");
    let mut restored = restored::restore_with(&site, "latest", "restored", &["--waldir", &waldir.to_string_lossy()])?;
    ensure!(std::fs::read_link(restored.data().join("pg_wal"))? == waldir, "pg_wal leads there");
    restored.sql("insert into kept values (1001)")?;
    let segment = restored.value("select pg_walfile_name(pg_current_wal_lsn())")?;
    ensure!(waldir.join(&segment).exists(), "{segment} is not in {}", waldir.display());
    restored.stop(Stop::Fast)?;
    restored.start()?;
    assert_eq!(restored.value("select count(*) from kept")?, "1001");
    Ok(())
}

#[test]
fn case_28_a_tablespace_within_the_data_directory_is_restored_there() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    let session = site.cluster.session()?;
    session.rows("set allow_in_place_tablespaces = on")?;
    session.rows("create tablespace near location ''")?;
    session.rows("create table held (id int primary key) tablespace near")?;
    session.rows("insert into held select generate_series(1, 1000)")?;
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    session.rows("insert into held values (1001)")?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select count(*) from held")?, "1001");
    let place = restored.value("select pg_relation_filepath('held')")?;
    ensure!(place.starts_with("pg_tblspc/"), "{place}");
    ensure!(restored.data().join(&place).is_file(), "{place} is in the data directory");
    oracle::amcheck(&restored)
}

#[test]
fn case_15_the_slot_keeps_wal_from_before_the_first_base_backup_so_that_none_is_missing_behind_it() -> Result<()> {
    let site = Site::new(Cluster::builder().setting("wal_keep_size", "0"), Store::Directory)?;
    site.archiver.run(&["init"])?.success()?;
    let kept = flow::confirmed(&site.cluster)?.context("a new slot keeps WAL at once")?;
    // The server would remove what nobody keeps.
    for _ in 0..3 {
        site.cluster.sql("create table if not exists t (); select pg_switch_wal()")?;
        site.cluster.sql("checkpoint")?;
    }
    let mut daemon = site.start_daemon()?;
    site.archiver.run_long(&["backup"])?.success()?;
    let end = flow::wait_durable(&site.cluster, &mut daemon)?;
    let listed = site.restorer.run(&["list", "--json"])?.success()?.json()?;
    let start: Lsn = listed["bases"][0]["start"].as_str().context("a base backup")?.parse()?;
    ensure!(kept <= start, "the slot keeps WAL from {kept} on, the backup begins at {start}");
    let held = flow::held(&site, kept)?;
    ensure!(held >= end, "from {kept} on there is WAL up to {held}, and not to {end}");
    Ok(())
}

/// Files below `folder`, at any depth, whose name `is_meant`.
fn files(folder: &Path, is_meant: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name().to_string_lossy().into_owned())
        };
        if path.is_dir() {
            found.extend(files(&path, is_meant)?);
        } else if is_meant(&name) {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

#[test]
fn case_32_temporary_tables_and_what_queries_spill_are_in_no_backup() -> Result<()> {
    let site = Site::new(Cluster::builder(), Store::Directory)?;
    site.cluster.sql("create table kept as select generate_series(1, 1000) as id")?;
    let session = site.cluster.session()?;
    session.rows("create temporary table passing as select generate_series(1, 1000) as id")?;
    session.rows("set work_mem = '64kB'; declare spilt cursor with hold for select generate_series(1, 200000)")?;
    // `t3_16390` is relation 16390 of session 3; what a query of process 4711 spills begins with `pgsql_tmp4711`.
    let is_temporary = |name: &str| {
        let mut parts = name.strip_prefix('t').unwrap_or_default().split('_');
        let numbers = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
        name.starts_with("pgsql_tmp") || (numbers(parts.next()) && numbers(parts.next()))
    };
    let there = files(site.cluster.data(), &is_temporary)?;
    ensure!(["/t", "/pgsql_tmp"].iter().all(|kind| there.iter().any(|path| path.contains(kind))), "{there:?}");
    let mut daemon = site.archive()?;
    site.archiver.run_long(&["backup"])?.success()?;
    flow::wait_durable(&site.cluster, &mut daemon)?;
    let target = site.target("files");
    site.restorer.run_long(&["restore", "--to", "latest", "--target-dir", &target.to_string_lossy()])?.success()?;
    assert_eq!(files(&target, &is_temporary)?, Vec::<String>::new());
    let restored = restored::restore(&site, "latest", "restored")?;
    assert_eq!(restored.value("select count(*) from kept")?, "1000");
    oracle::amcheck(&restored)
}
