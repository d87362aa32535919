#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::{Arc, Mutex};

use walseal_common::repository::ManifestEntry;
use walseal_common::seal::TrustedWriters;
use walseal_common::timeline::SystemIdentifier;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::oracle;
use walseal_tests::pgbench::Pgbench;

use super::bed::{Bed, COMMIT_TIME, Durable, Lost, block_on};
use super::rebuilt::entries;
use super::*;

fn all_stages(log: &Arc<Mutex<Vec<Stage>>>) -> impl FnMut(Stage) + Send + use<> {
    let log = log.clone();
    move |stage| log.lock().expect("not poisoned").push(stage)
}

#[test]
fn case_28_a_backup_under_load_with_tablespaces_reads_back_verifies_and_starts() {
    let cluster = Cluster::builder().setting("wal_keep_size", "1GB").start().expect("a cluster");
    let spaces = ["plain", "with space"].map(|name| cluster.scratch().dir(name).expect("a folder"));
    let session = cluster.session().expect("a session");
    let statements = [
        format!("create tablespace one location '{}'", spaces[0].display()),
        format!("create tablespace \"two parts\" location '{}'", spaces[1].display()),
        "set allow_in_place_tablespaces = on".to_owned(),
        "create tablespace inside location ''".to_owned(),
        "create table one tablespace one as select generate_series(1, 20000) as n".to_owned(),
        "create table two tablespace \"two parts\" as select generate_series(1, 30000) as n".to_owned(),
        "create table inside tablespace inside as select generate_series(1, 40000) as n".to_owned(),
        "create unlogged table forgotten as select generate_series(1, 100000) as n".to_owned(),
    ];
    statements.iter().for_each(|statement| drop(session.rows(statement).expect(statement)));
    let odd = [OsStr::new("a file"), OsStr::new("empty"), OsStr::from_bytes(b"\xff\n"), OsStr::new("ümläut")];
    for (name, content) in odd.iter().zip(["mode", "", "bytes", "text"]) {
        let path = cluster.data().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("permissions");
        cluster.scratch().account().own(&path).expect("an owner");
    }
    Pgbench::initialise(&cluster, 4).expect("tables");
    let bed = Bed::new(cluster);
    let load = Pgbench::start(&bed.cluster, 2).expect("load");
    let (stages, wal) = (Arc::default(), Durable::default());
    let label = block_on(bed.back_up(&mut all_stages(&stages), &wal)).expect("a backup");
    load.stop().expect("it ran to here");

    // The label says what the server said.
    assert!(label.start < label.stop && label.start_time < label.stop_time);
    let range = LsnRange { start: label.start, end: label.stop };
    assert_eq!(*wal.0.lock().expect("not poisoned"), [(label.branch, range)]);
    assert_eq!(label.branch, TimelineHistory::root(TimelineId::FIRST).branch(bed.repository.cluster()));
    assert_eq!((label.tablespaces, label.suspect, label.highest_time), (3, 0, Some(COMMIT_TIME)));
    assert_eq!(label.postgres_version.to_string(), bed.cluster.value("show server_version_num").expect("a version"));
    assert!(label.objects.len() > 3 && label.stored_size < label.cluster_size);
    assert_eq!(block_on(bed.repository.label(&label.id)).expect("it is stored"), label);
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), std::slice::from_ref(&label.id));
    let stages: Vec<Stage> = std::mem::take(&mut *stages.lock().expect("not poisoned"));
    let begun = [Stage::Full { why: "there is none before it".to_owned() }, Stage::Checkpoint { id: label.id.clone() }];
    assert_eq!(stages[..2], begun);
    let copied = stages.iter().filter(|stage| matches!(stage, Stage::Copying { total: Some(_), .. })).count();
    assert!(copied > 10, "{stages:?}");

    // The list of files begins with the tablespaces.
    let list = block_on(entries(&bed.repository, &label, &bed.identity));
    let locations: Vec<Option<&str>> = list
        .iter()
        .map_while(|entry| match entry {
            ManifestEntry::Tablespace { location, .. } => Some(location.as_deref()),
            _ => None,
        })
        .collect();
    let place = |n: usize| spaces[n].to_str();
    assert_eq!(locations, [place(0), place(1), None]);
    let sum: u64 = list.iter().map(|e| if let ManifestEntry::File(file) = e { file.size } else { 0 }).sum();
    assert_eq!(sum, label.cluster_size);

    // PostgreSQL agrees, down to starting it.
    let data = bed.verified(&label);
    for (name, content) in odd.iter().zip(["mode", "", "bytes", "text"]) {
        assert_eq!(fs::read(data.join(name)).expect("it is there"), content.as_bytes());
        assert_eq!(fs::metadata(data.join(name)).expect("it is there").permissions().mode() & 0o7777, 0o640);
    }
    let mut rebuilt = bed.rebuilt(&data);
    // Without it a server does not leave recovery where there is an in-place tablespace.
    rebuilt.set_override("allow_in_place_tablespaces", "on");
    rebuilt.start().expect("it starts");
    for (table, rows) in [("one", "20000"), ("two", "30000"), ("inside", "40000"), ("forgotten", "0")] {
        assert_eq!(rebuilt.value(&format!("select count(*) from {table}")).expect(table), rows, "{table}");
    }
    oracle::amcheck(&rebuilt).expect("sound indexes");
    rebuilt.stop(Stop::Fast).expect("it stops");
    oracle::checksums(&rebuilt).expect("sound pages");
}

#[test]
fn i9_nothing_of_the_cluster_lies_open_in_the_repository() {
    let cluster = Cluster::builder().start().expect("a cluster");
    cluster.sql("create table marker as select 'orange-walrus-4711' as word").expect("a table");
    fs::write(cluster.data().join("purple-penguin.txt"), "x").expect("a file");
    cluster.scratch().account().own(&cluster.data().join("purple-penguin.txt")).expect("an owner");
    let bed = Bed::new(cluster);
    block_on(bed.back_up(&mut (), &Durable::default())).expect("a backup");
    let words = ["orange-walrus-4711", "purple-penguin", "START WAL LOCATION", "pg_control"];
    oracle::no_plaintext(bed.cluster.scratch(), &bed.store, &words).expect("all of it is sealed");
}

#[test]
fn case_31_a_backup_with_bad_pages_is_kept_and_marked() {
    let mut cluster = Cluster::builder().start().expect("a cluster");
    cluster.sql("create table t as select generate_series(1, 10000) as n").expect("a table");
    let path = cluster.value("select pg_relation_filepath('t')").expect("a path");
    cluster.stop(Stop::Fast).expect("it stops");
    let page = fs::OpenOptions::new().write(true).open(cluster.data().join(&path)).expect("the table's file");
    for block in [1, 3, 4] {
        page.write_all_at(b"damage", block * 8192 + 4000).expect("a write");
    }
    cluster.start().expect("it starts");
    let bed = Bed::new(cluster);
    let stages = Arc::default();
    let label = block_on(bed.back_up(&mut all_stages(&stages), &Durable::default()));
    let label = label.expect("a backup all the same");
    assert_eq!((label.suspect, &label.suspect_files[..]), (3, &[path][..]));
    let stages = stages.lock().expect("not poisoned");
    assert!(stages.iter().any(|s| matches!(s, Stage::ChecksumFailure { message } if message.contains("block"))));
    bed.verified(&label);
}

#[test]
fn one_connection_takes_several_backups() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    block_on(async {
        let mut client = bed.connect().await;
        for _ in 0..2 {
            let wal = Durable::default();
            run(&mut client, &bed.repository, &bed.options(), &mut (), &wal).await.expect("a backup");
        }
        assert_eq!(bed.repository.base_ids().await.expect("a listing").len(), 2);
    });
}

#[test]
fn i7_a_backup_whose_wal_is_lost_stays_invisible() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    let error = block_on(bed.back_up(&mut (), &Lost)).expect_err("no WAL");
    assert!(error.to_string().contains("the slot is gone") && !error.is_permanent(), "{error}");
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), []);
}

#[test]
fn case_36_a_backup_that_is_dropped_half_way_stays_invisible() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    block_on(async {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let mut progress = |stage| {
            if matches!(stage, Stage::Copying { done, .. } if done > 0) {
                tell.take().map(|tell| tell.send(()));
            }
        };
        let wal = Durable::default();
        tokio::select! {
            biased;
            _ = told => {}
            outcome = bed.back_up(&mut progress, &wal) => panic!("it ended: {outcome:?}"),
        }
        assert_eq!(bed.repository.base_ids().await.expect("a listing"), []);
    });
    block_on(bed.back_up(&mut (), &Durable::default())).expect("the next one does");
}

#[test]
fn i4_a_server_of_another_cluster_is_refused_before_anything_is_read() {
    let mut bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    let store = bed.repository.store().clone();
    bed.repository = Repository::new(store, SystemIdentifier(4711), TrustedWriters::default());
    let error = block_on(bed.back_up(&mut (), &Durable::default())).expect_err("another cluster");
    assert!(matches!(error, BaseError::WrongCluster { .. }) && error.is_permanent(), "{error}");
    let both = [bed.cluster.system_identifier().expect("an id"), "4711".to_owned()];
    assert!(both.iter().all(|id| error.to_string().contains(id)), "{error}");
    assert_eq!(fs::read_dir(&bed.store).expect("a folder").count(), 0);
}
