//! Backups that refer to frames that were stored before, on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use walseal_common::repository::RepositoryError;
use walseal_common::seal::{TrustedWriter, TrustedWriters, WriterKey};
use walseal_common::store::StoreErrorKind;
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_tests::cluster::{Cluster, Stop};
use walseal_tests::oracle;

use super::bed::{Bed, block_on};
use super::interrupted::{TABLES, change_table, cluster_of_many, files, interrupt, stored, watched};
use super::*;

/// A cluster with a table of some 50 MB that does not shrink much, each page with room for a changed row.
fn cluster() -> Cluster {
    let cluster = Cluster::builder().setting("wal_keep_size", "1GB").setting("autovacuum", "off").start();
    let cluster = cluster.expect("a cluster");
    let session = cluster.session().expect("a session");
    for statement in [
        "create table t (n int, v text) with (fillfactor = 85)",
        "insert into t select n, md5(n::text) || md5((n * 7)::text) || md5((n * 11)::text) from generate_series(1, 200000) n",
        "vacuum (freeze, analyze)",
        "checkpoint",
    ] {
        session.rows(statement).expect(statement);
    }
    drop(session);
    cluster
}

/// Changes the first row of each block of the table of which this is true.
fn change(cluster: &Cluster, blocks: &str) {
    change_table(cluster, "t", blocks);
}

fn stages() -> (Arc<Mutex<Vec<Stage>>>, impl FnMut(Stage) + Send) {
    let log: Arc<Mutex<Vec<Stage>>> = Arc::default();
    let kept = log.clone();
    (log, move |stage| kept.lock().expect("not poisoned").push(stage))
}

/// Takes a backup and returns it with what it said.
fn back_up(bed: &Bed, options: &BackupOptions) -> (Label, Vec<Stage>) {
    let (log, mut progress) = stages();
    let label = block_on(bed.back_up_with(options, &mut progress)).expect("a backup");
    let said = log.lock().expect("not poisoned").clone();
    (label, said)
}

fn why_full(said: &[Stage]) -> &str {
    said.iter().find_map(|s| if let Stage::Full { why } = s { Some(why.as_str()) } else { None }).unwrap_or_default()
}

/// Starts the rebuilt backup with the WAL of its server, and compares it with that.
fn compare(bed: &Bed, data: &Path) {
    let mut rebuilt = bed.rebuilt(data);
    rebuilt.start().expect("it starts");
    oracle::amcheck(&rebuilt).expect("sound indexes");
    let sum = "select count(*), md5(string_agg(t::text, '' order by n)) from t";
    assert_eq!(rebuilt.sql(sum).expect("rows"), bed.cluster.sql(sum).expect("rows"));
    rebuilt.stop(Stop::Fast).expect("it stops");
    oracle::checksums(&rebuilt).expect("sound pages");
}

#[test]
fn a_chain_of_incrementals_stores_what_changed_and_each_is_a_whole_cluster() {
    let bed = Bed::new(cluster());
    let options = bed.options();
    let (full, said) = back_up(&bed, &options);
    assert_eq!((full.kind, full.depth, full.referenced_size(), &full.parent), (BaseType::Full, 0, 0, &None));
    assert_eq!(why_full(&said), "there is none before it");
    let pages = full.resume.as_ref().expect("pages for the next one");
    assert!(!pages.list.is_empty() && !pages.server_manifest.is_empty());

    // One block in a hundred, next to one another.
    change(&bed.cluster, "block < (select relpages / 100 from pg_class where relname = 't')");
    let (one, said) = back_up(&bed, &options);
    assert!(said.contains(&Stage::Comparing { parent: full.id.clone() }), "{said:?}");
    assert_eq!((one.kind, one.depth, one.parent.as_ref()), (BaseType::Incremental, 1, Some(&full.id)));
    let part = |label: &Label| label.stored_size as f64 / full.stored_size as f64;
    assert!(part(&one) < 0.06, "{} of {} bytes", one.stored_size, full.stored_size);
    assert!(one.referenced_size() > full.stored_size / 2);

    // One block in a hundred, all over the table.
    change(&bed.cluster, "block % 100 = 50");
    let (two, _) = back_up(&bed, &options);
    assert_eq!((two.kind, two.depth, two.parent.as_ref()), (BaseType::Incremental, 2, Some(&one.id)));
    assert!(part(&two) < 0.15, "{} of {} bytes", two.stored_size, full.stored_size);
    let own = |label: &Label, of: &BaseId| label.objects.iter().filter(|o| o.name.contains(of.as_str())).count();
    assert!([&full, &one, &two].iter().all(|of| own(&two, &of.id) > 0), "it refers to all of the chain");

    bed.verified(&full);
    bed.verified(&one);
    let data = bed.verified(&two);
    compare(&bed, &data);
}

#[test]
fn i8_without_its_copies_the_archiver_goes_on_incrementally() {
    let faulty: Mutex<Option<Arc<Faulty>>> = Mutex::default();
    let bed = Bed::with(cluster(), |store| {
        let store = Arc::new(Faulty::new(store));
        *faulty.lock().expect("not poisoned") = Some(store.clone());
        store
    });
    let store = faulty.into_inner().expect("not poisoned").expect("it was made");
    let state = bed.cluster.scratch().dir("state").expect("a folder");
    let options = BackupOptions { cache: PageCache::below(&state), ..bed.options() };
    let reads = |of: &BaseId| {
        let read = store
            .history()
            .into_iter()
            .filter(|(call, key)| matches!(call, Call::Get | Call::GetRange) && key.contains(&format!("{of}/resume/")));
        read.count()
    };
    let (full, _) = back_up(&bed, &options);
    let (one, _) = back_up(&bed, &options);
    assert_eq!((one.kind, reads(&full.id)), (BaseType::Incremental, 0), "the copy was at hand");
    fs::remove_dir_all(state.join("resume")).expect("copies");
    let (two, _) = back_up(&bed, &options);
    assert_eq!((two.kind, two.parent.as_ref()), (BaseType::Incremental, Some(&one.id)));
    assert_eq!(reads(&one.id), one.resume.as_ref().expect("pages").list.len(), "each page was read once");
    // A copy that was changed is not used.
    let copies: Vec<PathBuf> = fs::read_dir(state.join("resume").join(two.id.as_str()))
        .expect("copies")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!copies.is_empty());
    for copy in copies {
        let mut bytes = fs::read(&copy).expect("a copy");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&copy, bytes).expect("a file of ours");
    }
    let (three, _) = back_up(&bed, &options);
    assert_eq!((three.kind, three.parent.as_ref()), (BaseType::Incremental, Some(&two.id)));
    assert!(three.stored_size < full.stored_size / 10);
    bed.verified(&three);
}

#[test]
fn a_list_that_cannot_be_used_makes_the_backup_full_and_it_says_so() {
    let bed = Bed::new(cluster());
    let (full, _) = back_up(&bed, &bed.options());
    let page = files(&bed, &full.id, "resume").remove(0);
    let mut bytes = fs::read(&page).expect("a page");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&page, bytes).expect("a file of ours");
    let options = BackupOptions { mode: BackupMode::Incremental, ..bed.options() };
    let (label, said) = back_up(&bed, &options);
    assert_eq!((label.kind, &label.parent, label.referenced_size()), (BaseType::Full, &None, 0));
    let why = why_full(&said);
    assert!(why.contains(full.id.as_str()) && why.contains("damaged"), "{why}");
    bed.verified(&label);
}

#[test]
fn another_writer_key_opens_no_list_and_the_backup_is_full() {
    let mut bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    let (full, _) = back_up(&bed, &bed.options());
    let other = bed.writer.generate_sibling().expect("a key");
    let trust = [&bed.writer, &other].map(|key: &WriterKey| TrustedWriter::archiver(key.public()));
    bed.repository =
        Repository::new(bed.repository.store().clone(), bed.repository.cluster(), TrustedWriters::new(trust.to_vec()));
    bed.writer = other;
    let (label, said) = back_up(&bed, &bed.options());
    assert_eq!((label.kind, &label.parent), (BaseType::Full, &None));
    let why = why_full(&said);
    assert!(why.contains(full.id.as_str()) && why.contains("another writer key"), "{why}");
    // Its own it opens.
    let (again, _) = back_up(&bed, &bed.options());
    assert_eq!((again.kind, again.parent), (BaseType::Incremental, Some(label.id)));
}

#[test]
fn i7_frames_of_an_object_that_is_gone_are_stored_anew() {
    let bed = Bed::new(cluster());
    let (full, _) = back_up(&bed, &bed.options());
    let gone = files(&bed, &full.id, "data").remove(1);
    let size = fs::metadata(&gone).expect("an object").len();
    fs::remove_file(&gone).expect("a file of ours");
    // One that was cut counts as gone, too.
    let cut = files(&bed, &full.id, "data").remove(0);
    let half = fs::read(&cut).expect("an object");
    fs::write(&cut, &half[..half.len() / 2]).expect("a file of ours");
    let (label, said) = back_up(&bed, &bed.options());
    assert!(said.contains(&Stage::ObjectsMissing { count: 2 }), "{said:?}");
    assert_eq!(label.kind, BaseType::Incremental);
    assert!(label.stored_size > size / 2 && label.stored_size < full.stored_size);
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    for lost in [&gone, &cut] {
        let name = format!("base/{}/data/{}", full.id, name(lost));
        assert!(!label.objects.iter().any(|object| object.name == name));
    }
    bed.verified(&label);
}

#[test]
fn i7_objects_that_vanish_while_the_backup_is_made_end_it_without_a_label() {
    let bed = Bed::new(cluster());
    let (full, _) = back_up(&bed, &bed.options());
    let folder = bed.store.join(bed.repository.cluster().to_string()).join("base").join(full.id.as_str());
    let mut progress = |stage| {
        if stage == Stage::Storing {
            fs::remove_dir_all(folder.join("data")).expect("objects");
        }
    };
    let error = block_on(bed.back_up_with(&bed.options(), &mut progress)).expect_err("what it needs is gone");
    assert!(matches!(&error, BaseError::Vanished { count, .. } if *count > 0) && !error.is_permanent(), "{error}");
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), [full.id]);
    let (next, _) = back_up(&bed, &bed.options());
    bed.verified(&next);
}

#[test]
fn case_36_what_an_interrupted_backup_stored_is_not_stored_again() {
    let (bed, store) = watched(cluster_of_many(Cluster::builder()));
    let options = BackupOptions { resume_every: 2 << 20, ..bed.options() };
    // Twice, so that the second one itself goes on with what the first had.
    let first = interrupt(&bed, &store, &options, 4);
    let second = interrupt(&bed, &store, &options, 3);
    assert_eq!(block_on(bed.repository.base_ids()).expect("a listing"), []);
    let (label, said) = back_up(&bed, &options);
    assert!(said.contains(&Stage::GoingOn { attempts: vec![first.clone(), second.clone()] }), "{said:?}");
    // It needs no other backup, so it is a full one.
    assert_eq!((label.kind, label.depth, &label.parent), (BaseType::Full, 0, &None));
    let of = |id: &BaseId| label.objects.iter().filter(|object| object.name.contains(id.as_str())).count();
    assert!(of(&first) > 1 && of(&second) > 1, "{:?}", label.objects);
    // Little was stored twice: what was under way when it was interrupted.
    let whole = label.stored_size + label.referenced_size();
    let stored = label.stored_size + stored(&bed, &first) + stored(&bed, &second);
    assert!(stored < whole + whole / 3, "{stored} bytes for {whole}");
    let (next, said) = back_up(&bed, &options);
    assert!(!said.iter().any(|stage| matches!(stage, Stage::GoingOn { .. })), "{said:?}");
    assert_eq!((next.kind, next.parent.as_ref()), (BaseType::Incremental, Some(&label.id)));
    assert!(next.stored_size < whole / 10, "{} of {whole}", next.stored_size);
    bed.verified(&label);
    bed.verified(&next);
}

#[test]
fn case_36_an_interrupted_incremental_is_gone_on_with_as_well() {
    let (bed, store) = watched(cluster_of_many(Cluster::builder()));
    let options = BackupOptions { resume_every: 512 << 10, ..bed.options() };
    let (full, _) = back_up(&bed, &options);
    // Every other frame of all tables.
    TABLES.for_each(|table| change_table(&bed.cluster, &format!("t{table}"), "block % 16 = 0"));
    let attempt = interrupt(&bed, &store, &options, 4);
    let (label, said) = back_up(&bed, &options);
    assert!(said.contains(&Stage::GoingOn { attempts: vec![attempt.clone()] }), "{said:?}");
    assert_eq!((label.kind, label.parent.as_ref()), (BaseType::Incremental, Some(&full.id)));
    let of = |id: &BaseId| label.objects.iter().filter(|o| o.name.contains(id.as_str())).count();
    assert!(of(&attempt) > 1 && of(&full.id) > 0, "{:?}", label.objects);
    let data = bed.verified(&label);
    compare(&bed, &data);
}

#[test]
fn case_36_a_full_backup_takes_up_an_attempt_and_no_backup() {
    let (bed, store) = watched(cluster_of_many(Cluster::builder()));
    let options = BackupOptions { resume_every: 512 << 10, ..bed.options() };
    let (before, _) = back_up(&bed, &options);
    TABLES.for_each(|table| change_table(&bed.cluster, &format!("t{table}"), "block % 16 = 0"));
    let attempt = interrupt(&bed, &store, &options, 4);
    let (full, said) = back_up(&bed, &BackupOptions { mode: BackupMode::Full, ..options });
    assert_eq!(why_full(&said), "it was asked for");
    assert_eq!((full.kind, full.depth, &full.parent), (BaseType::Full, 0, &None));
    let of = |id: &BaseId| full.objects.iter().filter(|object| object.name.contains(id.as_str())).count();
    assert!(of(&attempt) > 1 && of(&before.id) == 0, "{:?}", full.objects);
    bed.verified(&full);
}

#[test]
fn i7_a_resume_page_is_stored_after_all_objects_that_it_names() {
    let (bed, store) = watched(cluster_of_many(Cluster::builder()));
    let options = BackupOptions { resume_every: 2 << 20, ..bed.options() };
    let (label, _) = back_up(&bed, &options);
    let list = label.resume.expect("pages").list.len() as u64;
    assert!(list > 8 && store.pages.load(Ordering::SeqCst) > list, "{list} pages");
    assert_eq!(*store.early.lock().expect("not poisoned"), Vec::<String>::new());
}

#[test]
fn i9_the_archiver_opens_lists_in_one_place_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root];
    let (mut files, mut openers) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            let is_test = text.contains("#![allow(clippy::unwrap_used")
                || path.components().any(|part| part.as_os_str() == "tests");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            files += 1;
            let words = [
                "read_all(",
                "read_frame(",
                "Opener",
                "seal::Identity",
                "Identity::read_file",
                "open_identities",
                "manifest_page(",
            ];
            if !is_test && words.iter().any(|word| code.contains(word)) {
                panic!("{} opens objects", path.display());
            }
            if !is_test && code.contains("ResumeKey") {
                openers.push(path.file_name().expect("a name").to_string_lossy().into_owned());
            }
        }
    }
    assert!(files > 80);
    assert_eq!(openers, ["reader.rs"]);
}

#[test]
fn a_suspect_backup_is_not_compared_with() {
    let bed = Bed::new(Cluster::builder().start().expect("a cluster"));
    let (full, _) = back_up(&bed, &bed.options());
    let (second, _) = back_up(&bed, &bed.options());
    // Its label is replaced by one that says so; nobody else could sign it.
    let suspect = Label { suspect: 1, ..second.clone() };
    let folder = bed.store.join(bed.repository.cluster().to_string()).join("base").join(second.id.as_str());
    fs::remove_file(folder.join("label")).expect("a label");
    block_on(store_label(&bed.repository, &bed.options(), &suspect)).expect("a label");
    let (third, _) = back_up(&bed, &bed.options());
    assert_eq!((third.kind, third.parent), (BaseType::Incremental, Some(full.id)));
}

#[test]
fn a_store_that_fails_while_lists_are_read_makes_the_backup_fail_or_full_but_never_wrong() {
    let faulty: Mutex<Option<Arc<Faulty>>> = Mutex::default();
    let bed = Bed::with(Cluster::builder().start().expect("a cluster"), |store| {
        let store = Arc::new(Faulty::new(store));
        *faulty.lock().expect("not poisoned") = Some(store.clone());
        store
    });
    let store = faulty.into_inner().expect("not poisoned").expect("it was made");
    let (full, _) = back_up(&bed, &bed.options());
    let pages = format!("{}/base/{}/resume/", bed.repository.cluster(), full.id);
    // Read once, and gone when the stream comes to the files.
    store.plan_below(&pages, Call::Get, 2..=9999, Effect::Truncated);
    let (label, _) = back_up(&bed, &bed.options());
    assert!(label.stored_size > full.stored_size / 2, "what is not known is stored anew");
    bed.verified(&label);
    store.heal();
    store.plan_below(
        &format!("{}/base/", bed.repository.cluster()),
        Call::List,
        1..=1,
        Effect::FailBefore(StoreErrorKind::Denied),
    );
    let error = block_on(bed.back_up_with(&bed.options(), &mut ())).expect_err("no listing");
    assert!(matches!(error, BaseError::Repository(RepositoryError::Store(_))), "{error}");
}
