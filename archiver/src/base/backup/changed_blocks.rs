//! Backups of changed blocks only, from real servers (case 34).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use walseal_common::repository::{FileEntry, ManifestEntry};
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::deadline::{PATIENCE, eventually};

use super::bed::{Bed, block_on};
use super::interrupted::{TABLES, change_table, cluster_of_many, interrupt, watched};
use super::rebuilt::{entries, rebuild};
use super::*;

/// A cluster with two tables of some 2 MB.
fn cluster(major: u16, summarize: &str) -> Cluster {
    let cluster = Cluster::builder().major(major).setting("autovacuum", "off").setting("wal_keep_size", "1GB");
    let cluster = if major < 17 { cluster } else { cluster.setting("summarize_wal", summarize) };
    let cluster = cluster.start().expect("a cluster");
    let session = cluster.session().expect("a session");
    for table in ["changes", "stays"] {
        let filler = "md5(n::text) || md5((n * 7)::text)";
        let rows = format!("create table {table} as select n, {filler} as v from generate_series(1, 20000) n");
        session.rows(&rows).expect(table);
    }
    session.rows("vacuum (freeze, analyze)").expect("a vacuum");
    session.rows("checkpoint").expect("a checkpoint");
    drop(session);
    cluster
}

fn change(cluster: &Cluster) {
    cluster.sql("update changes set v = reverse(v) where n % 4000 = 1").expect("rows");
    cluster.sql("checkpoint").expect("a checkpoint");
}

/// Takes a backup and returns it with what it said.
fn back_up(bed: &Bed) -> (Label, Vec<Stage>) {
    let log: Arc<Mutex<Vec<Stage>>> = Arc::default();
    let kept = log.clone();
    let mut progress = move |stage| kept.lock().expect("not poisoned").push(stage);
    let label = block_on(bed.back_up_with(&bed.options(), &mut progress)).expect("a backup");
    let said = log.lock().expect("not poisoned").clone();
    (label, said)
}

/// Why the server sent everything.
fn why_not<'a>(said: &'a [Stage]) -> &'a str {
    let why = |stage: &'a Stage| if let Stage::NotNative { why } = stage { Some(why.as_str()) } else { None };
    said.iter().find_map(why).unwrap_or_else(|| panic!("{said:?}"))
}

fn file_of(bed: &Bed, table: &str) -> String {
    bed.cluster.value(&format!("select pg_relation_filepath('{table}')")).expect("a path")
}

fn entry(bed: &Bed, label: &Label, path: &str) -> FileEntry {
    let list = block_on(entries(&bed.repository, label, &bed.identity));
    let file = list.into_iter().find_map(|entry| match entry {
        ManifestEntry::File(file) if file.path.0.as_bytes() == path.as_bytes() => Some(file),
        _ => None,
    });
    file.expect("it is listed")
}

/// The table's file as a backup has it is that of the cluster, which has not changed it since.
fn holds(bed: &Bed, label: &Label, table: &str) {
    let data = rebuilt(bed, label);
    let path = file_of(bed, table);
    let (found, expected) = (fs::read(data.join(&path)).expect("there"), fs::read(bed.cluster.data().join(&path)));
    assert!(found == expected.expect("there"), "{table}");
}

fn rebuilt(bed: &Bed, label: &Label) -> PathBuf {
    let data = bed.cluster.scratch().dir(&format!("r-{}", label.id)).expect("a folder").join("rebuilt");
    if !data.exists() {
        block_on(rebuild(&bed.repository, label, &bed.identity, &data, bed.cluster.scratch().account()));
    }
    data
}

/// A full backup, two of changed blocks, and one that is read whole again.
fn chain(major: u16) {
    let bed = Bed::new(cluster(major, "on"));
    let (full, said) = back_up(&bed);
    assert!(!full.native && !said.contains(&Stage::Native), "{said:?}");
    change(&bed.cluster);
    let (one, said) = back_up(&bed);
    assert!(said.contains(&Stage::Native), "{said:?}");
    assert_eq!((one.native, one.kind, one.parent.as_ref()), (true, BaseType::Incremental, Some(&full.id)));
    assert!(one.stored_size * 4 < full.stored_size, "{} of {}", one.stored_size, full.stored_size);
    let (stays, changes) = (entry(&bed, &one, &file_of(&bed, "stays")), entry(&bed, &one, &file_of(&bed, "changes")));
    assert!(stays.layers.is_empty(), "as it was: {:?}", stays.layers.len());
    assert_eq!(changes.layers.len(), 2);
    holds(&bed, &one, "changes");
    holds(&bed, &one, "stays");
    let label = fs::read_to_string(rebuilt(&bed, &one).join("backup_label")).expect("there");
    assert!(label.starts_with("START WAL LOCATION") && !label.contains("INCREMENTAL"), "{label}");

    // On top of it: cut, grown, made anew, dropped, of another database.
    let session = bed.cluster.session().expect("a session");
    for statement in [
        "delete from stays where n > 1000",
        "vacuum stays",
        "insert into changes select n, md5(n::text) from generate_series(1, 2000) n",
        "create table anew as select generate_series(1, 1000) as n",
        "create database another",
        "checkpoint",
    ] {
        session.rows(statement).expect(statement);
    }
    drop(session);
    let (two, said) = back_up(&bed);
    assert!(two.native && said.contains(&Stage::Native), "{said:?}");
    assert_eq!((two.depth, two.parent.as_ref()), (2, Some(&one.id)));
    for table in ["changes", "stays", "anew"] {
        holds(&bed, &two, table);
    }
    assert!(entry(&bed, &two, &file_of(&bed, "stays")).size < stays.size / 8);

    // Without summaries everything is sent, and what the layers' oldest has is still referred to.
    bed.cluster.sql("alter system set summarize_wal = off").expect("set");
    bed.cluster.sql("select pg_reload_conf()").expect("reloaded");
    change(&bed.cluster);
    let (whole, said) = back_up(&bed);
    assert!(why_not(&said).contains("summarize_wal is off"), "{said:?}");
    assert!(!whole.native && whole.kind == BaseType::Incremental);
    assert!(whole.stored_size * 2 < full.stored_size, "{} of {}", whole.stored_size, full.stored_size);
    for table in ["changes", "stays", "anew"] {
        holds(&bed, &whole, table);
    }
    bed.verified(&whole);
}

#[test]
fn case_34_a_chain_of_backups_of_changed_blocks_on_17() {
    chain(17);
}

#[test]
fn case_34_a_chain_of_backups_of_changed_blocks_on_18() {
    chain(18);
}

/// Removes the summaries of all WAL up to the last checkpoint, once they are there.
fn lose_summaries(cluster: &Cluster) {
    let session = cluster.session().expect("a session");
    let done = "select summarized_lsn >= redo_lsn from pg_get_wal_summarizer_state(), pg_control_checkpoint()";
    let summarized = || Ok((session.value(done)? == "t").then_some(()));
    eventually("WAL to be summarized", PATIENCE, summarized).expect("summaries");
    let mut lost = 0;
    for summary in fs::read_dir(cluster.data().join("pg_wal/summaries")).expect("a folder") {
        let path = summary.expect("an entry").path();
        // Others are being written.
        if path.extension().is_some_and(|extension| extension == "summary") && !path.ends_with("temp.summary") {
            fs::remove_file(&path).expect("removed");
            lost += 1;
        }
    }
    assert!(lost > 0);
}

#[test]
fn case_34_missing_summaries_and_a_lost_parent_fall_back_and_say_why() {
    let bed = Bed::new(cluster(17, "on"));
    let (first, _) = back_up(&bed);
    change(&bed.cluster);
    lose_summaries(&bed.cluster);
    let (second, said) = back_up(&bed);
    assert!(why_not(&said).starts_with("WAL summaries are required on timeline 1"), "{said:?}");
    assert!(!second.native && second.kind == BaseType::Incremental, "{:?}", second.kind);
    bed.verified(&second);

    // From here on there are summaries again.
    change(&bed.cluster);
    let (third, said) = back_up(&bed);
    assert!(third.native, "{said:?}");
    // An object is gone that the parent needs: its frames can only come with all the rest.
    let own = |label: &Label, object: &str| object.starts_with(&format!("base/{}/", label.id));
    let lost = third.objects.iter().find(|object| own(&first, &object.name)).expect("of the first");
    let key = bed.store.join(bed.repository.cluster().to_string()).join(&lost.name);
    fs::remove_file(&key).unwrap_or_else(|error| panic!("{}: {error}", key.display()));
    let (fourth, said) = back_up(&bed);
    assert!(why_not(&said).contains("1 data objects that") && why_not(&said).contains("are gone"), "{said:?}");
    assert!(!fourth.native && !fourth.objects.contains(lost));
    bed.verified(&fourth);
}

#[test]
fn case_34_after_a_promotion_everything_is_sent() {
    let mut cluster = cluster(17, "on");
    cluster.set_override("restore_command", "false");
    let bed = Bed::new(cluster);
    let (first, _) = back_up(&bed);
    let Bed { mut cluster, identity, writer, repository, store } = bed;
    cluster.stop(Stop::Fast).expect("it stops");
    fs::write(cluster.data().join("recovery.signal"), "").expect("a file");
    cluster.scratch().account().own(&cluster.data().join("recovery.signal")).expect("an owner");
    cluster.start().expect("it starts");
    cluster.wait_promoted(PATIENCE).expect("timeline 2");
    let bed = Bed { cluster, identity, writer, repository, store };
    let (second, said) = back_up(&bed);
    assert!(why_not(&said).contains("a new timeline since"), "{said:?}");
    assert_eq!((second.native, second.parent.as_ref()), (false, Some(&first.id)));
    bed.verified(&second);
}

#[test]
fn case_34_before_17_nothing_is_said_of_changed_blocks() {
    let bed = Bed::new(cluster(16, "off"));
    back_up(&bed);
    let (second, said) = back_up(&bed);
    assert_eq!(second.kind, BaseType::Incremental);
    assert!(!said.iter().any(|stage| matches!(stage, Stage::Native | Stage::NotNative { .. })), "{said:?}");
}

#[test]
fn case_36_changed_blocks_that_an_interrupted_backup_stored_are_not_stored_again() {
    let server = Cluster::builder().major(17).setting("summarize_wal", "on");
    let (bed, store) = watched(cluster_of_many(server));
    let (full, _) = back_up(&bed);
    let options = BackupOptions { resume_every: 256 << 10, ..bed.options() };
    TABLES.for_each(|table| change_table(&bed.cluster, &format!("t{table}"), "block % 4 = 0"));
    let attempt = interrupt(&bed, &store, &options, 8);
    // One has changed more since, and its frames lie elsewhere now.
    change_table(&bed.cluster, "t1", "block % 4 = 1");
    let (label, said) = back_up(&bed);
    assert!(said.contains(&Stage::Native), "{said:?}");
    assert!(said.contains(&Stage::GoingOn { attempts: vec![attempt.clone()] }), "{said:?}");
    assert_eq!((label.native, label.parent.as_ref()), (true, Some(&full.id)));
    let taken_up = |table: &u32| {
        let line = entry(&bed, &label, &file_of(&bed, &format!("t{table}")));
        let newest = line.layers.last().expect("blocks have changed");
        newest.extents.iter().any(|run| label.objects[run.object as usize].name.contains(attempt.as_str()))
    };
    assert!(TABLES.filter(taken_up).count() > 0, "{:?}", label.objects);
    TABLES.for_each(|table| holds(&bed, &label, &format!("t{table}")));
}

#[test]
fn case_34_a_list_that_cannot_be_read_again_calls_for_everything() {
    let faulty: Mutex<Option<Arc<Faulty>>> = Mutex::default();
    let bed = Bed::with(cluster(17, "on"), |store| {
        let store = Arc::new(Faulty::new(store));
        *faulty.lock().expect("not poisoned") = Some(store.clone());
        store
    });
    let store = faulty.into_inner().expect("not poisoned").expect("it was made");
    let (full, _) = back_up(&bed);
    change(&bed.cluster);
    // Each page of the list is read, and the server's manifest; then no more.
    let pages = full.resume.as_ref().expect("pages");
    let first = (pages.list.len() + pages.server_manifest.len()) as u64;
    let below = format!("{}/base/{}/resume/", bed.repository.cluster(), full.id);
    store.plan_below(&below, Call::Get, first + 1..=9999, Effect::Truncated);
    let error = block_on(bed.back_up_with(&bed.options(), &mut ())).expect_err("no line to put changed blocks on");
    assert!(matches!(error, BaseError::NothingBefore(_)) && !error.is_permanent(), "{error}");
    let why = error.calls_for_everything().expect("another attempt may do");
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), [full.id]);
    store.heal();
    let options = BackupOptions { whole: Some(why.clone()), ..bed.options() };
    let log: Arc<Mutex<Vec<Stage>>> = Arc::default();
    let kept = log.clone();
    let label = block_on(bed.back_up_with(&options, &mut move |stage| kept.lock().expect("not poisoned").push(stage)));
    let label = label.expect("a backup");
    assert_eq!(why_not(&log.lock().expect("not poisoned")), why);
    assert!(!label.native && label.kind == BaseType::Incremental && label.stored_size < full.stored_size / 2);
    bed.verified(&label);
}
