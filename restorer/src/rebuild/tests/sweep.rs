//! What is in a data directory and not in the backup.

use std::fs;
use std::os::unix::fs::symlink;

use super::silent;
use super::toy::Toy;
use crate::rebuild::*;

#[tokio::test]
async fn what_is_not_in_the_backup_goes_and_wal_is_moved_aside() {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", b"table");
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    let layout = bed.decide().expect("a free place");
    rebuild(bed.source(), layout.clone(), 1, &silent()).await.expect("sound").finish().expect("ours");
    let (data, outside) = (&layout.data, toy.folder().join("outside"));
    fs::create_dir(&outside).expect("ours");
    fs::write(outside.join("precious"), "x").expect("ours");
    for folder in ["pg_replslot/standby", "pg_stat_tmp", "lost+found", "base/5/lost+found"] {
        fs::create_dir_all(data.join(folder)).expect("ours");
    }
    for file in ["pg_replslot/standby/state", "postmaster.opts", "standby.signal", "base/5/9999", "lost+found/1"] {
        fs::write(data.join(file), "stray").expect("ours");
    }
    fs::write(data.join("pg_wal/000000010000000000000007"), "WAL").expect("ours");
    fs::write(data.join("pg_wal/archive_status/000000010000000000000007.ready"), "").expect("ours");
    symlink(&outside, data.join("log")).expect("ours");
    // Under the name of a file: a link, a second name of a file elsewhere, a folder.
    fs::hard_link(data.join("base/5/1259"), outside.join("1259")).expect("ours");
    fs::remove_file(data.join("PG_VERSION")).expect("ours");
    symlink(outside.join("precious"), data.join("PG_VERSION")).expect("ours");
    fs::remove_file(data.join("global/1262")).expect("ours");
    fs::create_dir(data.join("global/1262")).expect("ours");
    fs::write(data.join("global/1262/x"), "x").expect("ours");

    bed.destination.delta = true;
    let layout = bed.decide().expect("a cluster");
    let unfinished = rebuild(bed.source(), layout, 1, &silent()).await.expect("sound");
    let swept = unfinished.swept().clone();
    unfinished.finish().expect("ours");
    for (path, bytes) in toy.files() {
        let path = data.join(std::str::from_utf8(path).expect("UTF-8"));
        assert!(fs::symlink_metadata(&path).expect("there").is_file(), "{}", path.display());
        assert!(fs::read(&path).expect("there") == *bytes, "{}", path.display());
    }
    for gone in
        ["pg_replslot", "pg_stat_tmp", "postmaster.opts", "standby.signal", "base/5/9999", "log", "base/5/lost+found"]
    {
        assert!(fs::symlink_metadata(data.join(gone)).is_err(), "{gone}");
    }
    assert!(data.join("lost+found/1").exists(), "it is the file system's own");
    assert_eq!(fs::read(outside.join("precious")).expect("there"), b"x", "links are not followed");
    assert_eq!(fs::read(outside.join("1259")).expect("there"), b"table");
    assert_eq!(fs::read_dir(data.join("pg_wal/archive_status")).expect("there").count(), 0);
    // The only copy of the last moments, perhaps.
    let aside = swept.aside.expect("WAL was there");
    assert!(aside.starts_with(data.join("pg_wal")) && swept.set_aside == 1, "{aside:?}");
    assert_eq!(fs::read(aside.join("000000010000000000000007")).expect("kept"), b"WAL");
    // It stays there the next time, too.
    let layout = bed.decide().expect("a cluster");
    rebuild(bed.source(), layout, 1, &silent()).await.expect("sound").finish().expect("ours");
    assert!(aside.join("000000010000000000000007").exists());
}
