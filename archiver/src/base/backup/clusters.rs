//! Clusters of every kind: majors, timelines, tablespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use walseal_common::repository::ManifestEntry;
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::PATIENCE;

use super::bed::{Bed, Durable, block_on};
use super::rebuilt::entries;
use super::*;

/// A cluster of this major with an ordinary tablespace and one in place, backed up and verified.
fn back_up_major(major: u16) {
    let cluster = Cluster::builder().major(major).start().expect("a cluster");
    let space = cluster.scratch().dir("a space").expect("a folder");
    let session = cluster.session().expect("a session");
    for statement in [
        format!("create tablespace outside location '{}'", space.display()),
        "set allow_in_place_tablespaces = on".to_owned(),
        "create tablespace inside location ''".to_owned(),
        "create table one tablespace outside as select generate_series(1, 1000) as n".to_owned(),
        "create table two tablespace inside as select generate_series(1, 1000) as n".to_owned(),
    ] {
        session.rows(&statement).expect(&statement);
    }
    let tables =
        ["one", "two"].map(|table| cluster.value(&format!("select pg_relation_filepath('{table}')")).expect("a path"));
    drop(session);
    let bed = Bed::new(cluster);
    let label = block_on(bed.back_up(&mut (), &Durable::default())).expect("a backup");
    assert_eq!((label.postgres_version / 10_000, label.tablespaces), (u32::from(major), 2));
    let list = block_on(entries(&bed.repository, &label, &bed.identity));
    let spaces: Vec<&ManifestEntry> = list.iter().filter(|e| matches!(e, ManifestEntry::Tablespace { .. })).collect();
    let [ManifestEntry::Tablespace { location: Some(outside), .. }, ManifestEntry::Tablespace { location: None, .. }] =
        spaces.as_slice()
    else {
        panic!("{spaces:?}")
    };
    assert_eq!(Some(outside.as_str()), space.to_str());
    let data = bed.verified(&label);
    for table in tables {
        let size = |data: &Path| fs::metadata(data.join(&table)).expect("the table's file").len();
        assert!(size(&data) > 0 && size(&data) == size(bed.cluster.data()), "{table}");
    }
}

#[test]
fn case_34_a_backup_of_postgresql_14_verifies() {
    back_up_major(14);
}

#[test]
fn case_34_a_backup_of_postgresql_16_verifies() {
    back_up_major(16);
}

#[test]
fn case_34_a_backup_of_postgresql_17_verifies() {
    back_up_major(17);
}

#[test]
fn case_34_a_backup_of_postgresql_18_verifies() {
    back_up_major(18);
}

#[test]
fn case_17_a_backup_after_a_fork_is_on_the_branch_of_its_history() {
    let mut cluster = Cluster::builder().setting("restore_command", "false").start().expect("a cluster");
    cluster.stop(Stop::Fast).expect("it stops");
    fs::write(cluster.data().join("recovery.signal"), "").expect("a file");
    cluster.scratch().account().own(&cluster.data().join("recovery.signal")).expect("an owner");
    cluster.start().expect("it starts");
    cluster.wait_promoted(PATIENCE).expect("timeline 2");
    let history = fs::read(cluster.data().join("pg_wal/00000002.history")).expect("a history");
    let bed = Bed::new(cluster);
    let label = block_on(bed.back_up(&mut (), &Durable::default())).expect("a backup");
    let two = TimelineId::new(2).expect("not zero");
    let history = TimelineHistory::parse(two, &history).expect("a history");
    assert_eq!(label.branch, history.branch(bed.repository.cluster()));
    assert!(label.start >= history.begin());
    bed.verified(&label);
}

#[test]
fn case_28_a_tablespace_too_deep_for_tar_is_named_before_anything_is_stored() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let deep = cluster.scratch().dir(&"d".repeat(120)).expect("a folder");
    cluster.sql(&format!("create tablespace deep location '{}'", deep.display())).expect("a tablespace");
    let bed = Bed::new(cluster);
    let error = block_on(bed.back_up(&mut (), &Durable::default())).expect_err("too deep");
    let BaseError::LongLocation { location } = error else { panic!("{error}") };
    assert_eq!(Some(location.as_str()), deep.to_str());
    assert_eq!(fs::read_dir(&bed.store).expect("a folder").count(), 0);
}
