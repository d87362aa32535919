use std::os::unix::fs::PermissionsExt;

use super::*;

fn store() -> (tempfile::TempDir, DirectoryStore) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = DirectoryStore::new(folder.path().to_owned());
    (folder, store)
}

async fn keys(store: &DirectoryStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let page = store.list(prefix, after, limit).await.expect("a listing");
    page.objects.into_iter().map(|meta| meta.key).collect()
}

#[tokio::test]
async fn an_object_is_private_and_the_first_one_stays() {
    let (folder, store) = store();
    assert_eq!(store.put_new("a/b/c", Bytes::from_static(b"one")).await.expect("put"), PutOutcome::Created);
    assert_eq!(store.put_new("a/b/c", Bytes::from_static(b"two")).await.expect("put"), PutOutcome::AlreadyExists);
    assert_eq!(store.get("a/b/c").await.expect("get"), "one");
    let mode = |path: &str| fs::metadata(folder.path().join(path)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("a/b/c"), mode("a/b"), mode(UNFINISHED)), (0o600, 0o700, 0o700));
    assert_eq!(fs::read_dir(folder.path().join(UNFINISHED)).expect("there").count(), 0);
}

#[tokio::test]
async fn a_listing_is_in_byte_order_of_whole_keys_where_folders_and_names_mix() {
    let (_folder, store) = store();
    // Not the order of any walk that sorts names: '-' and '.' come before '/', letters after it.
    let mut all = ["a-b", "a.b", "a/x", "a0", "aa", "a/x.partial", "a/x0/y", "b/c/d", "b/c.d", "b", "ä", "z"].to_vec();
    all.retain(|key| *key != "b");
    for key in &all {
        store.put_new(key, Bytes::new()).await.expect("put");
    }
    all.sort_unstable();
    assert_eq!(keys(&store, "", None, 1000).await, all);
    for prefix in ["", "a", "a/", "a/x", "a/x0/", "b/c", "b/c/", "b/c/d", "q", "a/x/y/z"] {
        for limit in [1, 2, 3, 1000] {
            let wanted: Vec<&str> = all.iter().copied().filter(|key| key.starts_with(prefix)).collect();
            let mut got: Vec<String> = Vec::new();
            loop {
                let page = keys(&store, prefix, got.last().map(String::as_str), limit).await;
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                got.extend(page);
            }
            assert_eq!(got, wanted, "prefix {prefix:?}, limit {limit}");
        }
        for after in ["", "a", "a.", "a/", "a/x", "a/x!", "b/c.", "b/c/", "zz"] {
            let wanted: Vec<&str> = all.iter().copied().filter(|key| key.starts_with(prefix) && *key > after).collect();
            assert_eq!(keys(&store, prefix, Some(after), 1000).await, wanted, "prefix {prefix:?} after {after:?}");
        }
    }
}

#[tokio::test]
async fn a_large_folder_is_read_once_as_long_as_its_time_of_change_stays() {
    let (folder, store) = store();
    let many = folder.path().join("many");
    fs::create_dir(&many).expect("ours");
    let name = |number: usize| format!("many/{number:08}");
    for number in (0..20_000).filter(|number| *number != 5) {
        File::create(folder.path().join(name(number))).expect("ours");
    }
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let set_back = || File::open(&many).and_then(|many| many.set_modified(long_ago)).expect("ours");
    set_back();
    let after = |number: usize| {
        let store = store.clone();
        async move { keys(&store, "many/", Some(&name(number)), 3).await }
    };
    assert_eq!(after(3).await, [name(4), name(6), name(7)]);
    assert_eq!(after(19_996).await, [name(19_997), name(19_998), name(19_999)]);
    assert_eq!(keys(&store, "many/0000123", None, 2).await, [name(12_30), name(12_31)]);
    // It is not read again: what came although the time says that nothing did is not seen.
    File::create(folder.path().join(name(5))).expect("ours");
    set_back();
    assert_eq!(after(3).await, [name(4), name(6), name(7)]);
    // Whatever comes or goes moves the time on.
    store.put_new("many/00000005x", Bytes::new()).await.expect("put");
    assert_eq!(after(3).await, [name(4), name(5), "many/00000005x".to_owned()]);
    store.delete(&name(5)).await.expect("deleted");
    assert_eq!(after(3).await, [name(4), "many/00000005x".to_owned(), name(6)]);
}

#[tokio::test]
async fn i7_what_a_kill_left_unfinished_is_never_seen_and_goes_after_a_day() {
    let (folder, store) = store();
    store.put_new("a", Bytes::from_static(b"x")).await.expect("put");
    let unfinished = folder.path().join(UNFINISHED);
    let (old, young) = (unfinished.join("1-old"), unfinished.join("1-young"));
    for path in [&old, &young] {
        fs::write(path, b"half").expect("write");
    }
    let long_ago = SystemTime::now() - LEFTOVER_AGE - Duration::from_secs(60);
    File::options().write(true).open(&old).and_then(|file| file.set_modified(long_ago)).expect("set the time");
    fs::create_dir(folder.path().join(LOST_AND_FOUND)).expect("mkdir");
    fs::write(folder.path().join(LOST_AND_FOUND).join("#1"), b"x").expect("write");

    let store = DirectoryStore::open(folder.path().to_owned()).await.expect("open");
    assert_eq!(keys(&store, "", None, 10).await, ["a"]);
    assert_eq!(keys(&store, ".", None, 10).await, Vec::<String>::new());
    assert_eq!(keys(&store, &format!("{UNFINISHED}/"), None, 10).await, Vec::<String>::new());
    assert!(!old.exists() && young.exists());
    let reserved = store.get(&format!("{UNFINISHED}/1-young")).await.expect_err("reserved");
    assert_eq!(reserved.kind, StoreErrorKind::Protocol);
}

#[tokio::test]
async fn a_missing_root_is_no_store_and_create_makes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("not/yet");
    let store = DirectoryStore::new(root.clone());
    let kinds = [
        store.put_new("a", Bytes::new()).await.expect_err("put").kind,
        store.get("a").await.expect_err("get").kind,
        store.list("", None, 1).await.expect_err("list").kind,
        store.delete("a").await.expect_err("delete").kind,
        DirectoryStore::open(root.clone()).await.expect_err("open").kind,
    ];
    assert_eq!(kinds, [StoreErrorKind::NoSuchStore; 5]);
    assert!(!root.exists());
    let store = DirectoryStore::create(root.clone()).await.expect("create");
    assert_eq!(store.get("a").await.expect_err("get").kind, StoreErrorKind::NotFound);
    assert_eq!(fs::metadata(&root).expect("there").permissions().mode() & 0o777, 0o700);
    fs::write(root.join("f"), b"").expect("write");
    assert_eq!(DirectoryStore::open(root.join("f")).await.expect_err("a file").kind, StoreErrorKind::NoSuchStore);
}

#[tokio::test]
async fn a_name_is_never_an_object_and_a_folder_at_once() {
    let (_folder, store) = store();
    store.put_new("a/b", Bytes::from_static(b"x")).await.expect("put");
    for key in ["a", "a/b/c", "a/b/c/d"] {
        let error = store.put_new(key, Bytes::new()).await.expect_err("refused");
        assert_eq!(error.kind, StoreErrorKind::Protocol, "{error}");
        assert!(error.reason.contains("folder at once"), "{error}");
        assert_eq!(store.get(key).await.expect_err("absent").kind, StoreErrorKind::NotFound);
        store.delete(key).await.expect("nothing to delete");
    }
    assert_eq!(store.get("a/b").await.expect("still there"), "x");
}

#[tokio::test]
async fn deleting_the_last_object_of_a_folder_removes_it_and_never_disturbs_a_put() {
    let (folder, store) = store();
    let rounds = 200;
    let puts = async {
        for n in 0..rounds {
            let outcome = store.put_new(&format!("deep/er/{n}"), Bytes::from_static(b"x")).await.expect("put");
            assert_eq!(outcome, PutOutcome::Created);
        }
    };
    let deletes = async {
        for n in 0..rounds {
            let key = format!("deep/er/{n}");
            while store.get(&key).await.is_err() {
                tokio::task::yield_now().await;
            }
            store.delete(&key).await.expect("delete");
        }
    };
    tokio::join!(puts, deletes);
    assert!(!folder.path().join("deep").exists());
}

#[test]
fn both_ways_of_naming_have_one_winner_and_change_nothing_that_is_there() {
    type NameOnce = fn(&Path, &Path) -> Result<(), Errno>;
    let ways: [(&str, NameOnce); 2] = [("rename", publish::name_by_rename), ("link", publish::name_by_link)];
    for (way, name_once) in ways {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = folder.path().join("target");
        let results: Vec<Result<(), Errno>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..20)
                .map(|n| {
                    let (from, target) = (folder.path().join(n.to_string()), &target);
                    fs::write(&from, n.to_string()).expect("write");
                    scope.spawn(move || name_once(&from, target))
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        });
        let winners: Vec<usize> = (0..20).filter(|n| results[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{way}: {results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Errno::EXIST))), "{way}: {results:?}");
        assert_eq!(fs::read_to_string(&target).expect("there"), winners[0].to_string(), "{way}");
        assert_eq!(name_once(&folder.path().join("0"), &folder.path().join("no/x")), Err(Errno::NOENT), "{way}");
    }
}

#[test]
fn what_the_system_says_is_told_apart() {
    for (errno, kind) in [
        (Errno::NOSPC, StoreErrorKind::Full),
        (Errno::DQUOT, StoreErrorKind::Full),
        (Errno::ACCESS, StoreErrorKind::Denied),
        (Errno::ROFS, StoreErrorKind::Denied),
        (Errno::XDEV, StoreErrorKind::Protocol),
        (Errno::IO, StoreErrorKind::Unreachable),
        (Errno::STALE, StoreErrorKind::Unreachable),
    ] {
        assert_eq!(Failure::io("x", &errno.into()).kind, kind, "{errno}");
    }
}

#[test]
fn a_full_file_system_is_said_and_leaves_nothing() {
    // A full device that every Linux has; the folder of unfinished files cannot lie there, so the write alone is tried.
    let error = fs::write("/dev/full", b"x").expect_err("always full");
    let failure = Failure::io("could not write the file", &error);
    assert_eq!(failure.kind, StoreErrorKind::Full);
    assert!(failure.reason.contains("make space"), "{}", failure.reason);
}
