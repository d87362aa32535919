#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod layers;
mod recovering;
mod refusals;
mod server_manifest;
mod standing;
mod sweep;
mod toy;
mod verified;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use walseal_common::repository::ObjectName;

use super::*;
use crate::plan::RecoverySetting;
use toy::{Toy, content};

fn silent() -> Progress {
    Progress::new("restore", None)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_rebuilt_directory_holds_what_was_backed_up_with_modes_and_times() {
    let mut toy = Toy::new().await;
    let large = content(20 << 20, 3);
    toy.file("base/5/1259", &large);
    toy.file("base/5/empty", b"");
    toy.bytes_path(b"base/5/odd\xff", b"odd");
    let label = toy.store().await;
    assert!(label.objects.len() > 1, "the large file lies in several objects");
    let bed = toy.bed(&label).await;
    let unfinished = rebuild(bed.source(), bed.layout.clone(), 2, &silent()).await.expect("a sound backup");
    let data = bed.layout.data.clone();
    assert!(!data.join("global/pg_control").exists(), "pg_control comes last (case 27)");
    unfinished.finish().expect("our own folder");
    for (path, bytes) in toy.files() {
        let path = data.join(std::ffi::OsStr::from_bytes(path));
        let found = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(fs::read(&path).expect("readable") == *bytes, "{}", path.display());
        assert_eq!((found.permissions().mode() & 0o7777, found.mtime()), (0o600, toy::MTIME), "{}", path.display());
        assert_eq!((found.uid(), found.gid()), (bed.layout.owner.uid, bed.layout.owner.gid));
    }
    assert!(data.join("pg_wal/archive_status").is_dir());
    assert_eq!((mode(&data), mode(&data.join("base/5"))), (0o700, 0o700));
    let mut global: Vec<_> = fs::read_dir(data.join("global"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    global.sort();
    assert_eq!(global, ["1262", "pg_control"], "nothing else is left behind");
}

#[tokio::test]
async fn frames_of_odd_lengths_are_put_together_in_order() {
    let mut toy = Toy::new().await;
    let bytes = content(300_000, 9);
    // 7 bytes, then 100,000, 65,536 and so on, in an order that no frame size explains.
    toy.cut_file("base/5/2619", &bytes, &[7, 100_000, 65_536, 1, 134_456]);
    // This one has as many frames as if they were even.
    toy.cut_file("base/5/2620", &bytes[..100_000], &[34_464, 65_536]);
    let label = toy.store().await;
    let bed = toy.bed(&label).await;
    rebuild(bed.source(), bed.layout.clone(), 1, &silent()).await.expect("a sound backup").finish().expect("ours");
    assert!(fs::read(bed.layout.data.join("base/5/2619")).expect("there") == bytes);
    assert!(fs::read(bed.layout.data.join("base/5/2620")).expect("there") == bytes[..100_000]);
}

#[tokio::test]
async fn case_27_a_restore_that_breaks_off_leaves_a_directory_without_pg_control() {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", &content(17 << 20, 5));
    let label = toy.store().await;
    let bed = toy.bed(&label).await;
    let lost: ObjectName = label.objects.last().expect("objects").name.parse().expect("a name");
    toy.repository().remove(&lost).await;
    let error = rebuild(bed.source(), bed.layout.clone(), 2, &silent()).await.expect_err("an object is gone");
    assert!(error.to_string().contains(&lost.to_string()), "{error}");
    assert!(bed.layout.data.join("base/5/1259").exists() && !bed.layout.data.join("global/pg_control").exists());
}

#[tokio::test]
async fn a_frame_that_is_not_the_one_in_the_list_of_files_is_refused() {
    let mut toy = Toy::new().await;
    toy.file("base/5/1259", b"right");
    toy.forge_digest("base/5/1259");
    let label = toy.store().await;
    let bed = toy.bed(&label).await;
    let error = rebuild(bed.source(), bed.layout.clone(), 1, &silent()).await.expect_err("another digest");
    assert!(error.to_string().contains("base/5/1259"), "{error}");
}

#[tokio::test]
async fn an_object_with_another_digest_than_the_label_says_is_refused() {
    let toy = Toy::new().await;
    let mut label = toy.store().await;
    let first = label.objects[0].clone();
    // As if somebody had put another object of the same writer in its place.
    label.objects[0].digest = walseal_common::seal::ObjectDigest::of(b"other");
    let bed = toy.bed(&label).await;
    let error = rebuild(bed.source(), bed.layout.clone(), 1, &silent()).await.expect_err("another object");
    assert!(error.to_string().contains(&first.name) && error.to_string().contains("label"), "{error}");
}

#[tokio::test]
async fn case_28_tablespaces_go_where_they_are_sent_and_in_place_ones_stay() {
    let mut toy = Toy::new().await;
    let old = toy.folder().join("old-fast");
    toy.tablespace(16384, Some(old.to_str().expect("UTF-8")));
    toy.tablespace(16385, None);
    toy.file("pg_tblspc/16384/PG_15_202209061/5/100", b"fast");
    toy.file("pg_tblspc/16385/PG_15_202209061/5/101", b"inside");
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    assert_eq!(bed.survey.tablespace_bytes, [(16384, 4)].into());
    bed.destination.tablespaces.folder = Some(toy.folder().join("spaces"));
    fs::create_dir(toy.folder().join("spaces")).expect("our own folder");
    let layout = bed.decide().expect("free places");
    rebuild(bed.source(), layout.clone(), 2, &silent()).await.expect("sound").finish().expect("ours");
    let link = layout.data.join("pg_tblspc/16384");
    assert_eq!(fs::read_link(&link).expect("a link"), layout.tablespaces[0].place);
    assert!(layout.tablespaces[0].place.ends_with("spaces/16384"));
    assert_eq!(fs::read(link.join("PG_15_202209061/5/100")).expect("there"), b"fast");
    assert!(fs::read_link(layout.data.join("pg_tblspc/16385")).is_err(), "a folder, not a link");
    assert_eq!(mode(&layout.tablespaces[0].place), 0o700);
    let owner = fs::symlink_metadata(&link).expect("a link").uid();
    assert_eq!(owner, layout.owner.uid);
}

#[tokio::test]
async fn case_29_pg_wal_may_be_a_link_to_another_volume() {
    let toy = Toy::new().await;
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    bed.destination.waldir = Some(toy.folder().join("wal-volume"));
    let layout = bed.decide().expect("free places");
    rebuild(bed.source(), layout.clone(), 2, &silent()).await.expect("sound").finish().expect("ours");
    assert_eq!(fs::read_link(layout.data.join("pg_wal")).ok(), layout.waldir);
    assert!(toy.folder().join("wal-volume/archive_status").is_dir());
}

#[tokio::test]
async fn case_56_only_auto_conf_and_signal_files_differ_from_the_backup() {
    let mut toy = Toy::new().await;
    toy.file("postgresql.conf", b"recovery_target_xid = '3'\n");
    toy.file("postgresql.auto.conf", b"work_mem = '4MB'\nprimary_conninfo = 'host=a'\n");
    toy.file("standby.signal", b"");
    let label = toy.store().await;
    let bed = toy.bed(&label).await;
    let unfinished = rebuild(bed.source(), bed.layout.clone(), 2, &silent()).await.expect("sound");
    let config = RecoveryConfig {
        recovery: vec![RecoverySetting::new("recovery_target_timeline", "1")],
        restore_command: "x".to_owned(),
        keep_archiving: false,
        standby: None,
    };
    configure(&unfinished, &config).expect("our own folder");
    unfinished.finish().expect("ours");
    let data = &bed.layout.data;
    let auto = fs::read_to_string(data.join("postgresql.auto.conf")).expect("there");
    assert!(auto.starts_with("work_mem = '4MB'\n") && auto.contains("\nprimary_conninfo = ''\n"), "{auto}");
    assert_eq!(fs::read(data.join("postgresql.conf")).expect("there"), b"recovery_target_xid = '3'\n");
    assert_eq!(fs::read(data.join("recovery.signal")).expect("there"), b"");
    assert!(!data.join("standby.signal").exists(), "it would win over recovery.signal");
    let owner = |name: &str| fs::metadata(data.join(name)).expect("there").uid();
    assert_eq!((owner("recovery.signal"), owner("postgresql.auto.conf")), (bed.layout.owner.uid, bed.layout.owner.uid));
}
