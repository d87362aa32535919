//! What is refused before a byte is written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::toy::{Bed, Toy, path};
use crate::rebuild::*;

fn refusal(bed: &Bed<'_>) -> String {
    let error = bed.decide().expect_err("refused");
    assert!(matches!(error, RebuildError::Refused { .. }), "{error:?}");
    format!("{error}\n{}", error.next().join("\n"))
}

#[tokio::test]
async fn case_27_a_backup_without_backup_label_is_refused() {
    let mut toy = Toy::new().await;
    toy.without("backup_label");
    let label = toy.store().await;
    let source =
        Source { repository: &toy.repository().repository, identities: &toy.repository().identities, label: &label };
    let error = Survey::of(source).await.expect_err("no backup_label").to_string();
    assert!(error.contains("backup_label") && error.contains(label.id.as_str()), "{error}");
}

#[tokio::test]
async fn a_list_of_files_that_is_shorter_than_its_label_says_is_refused() {
    let toy = Toy::new().await;
    let mut label = toy.store().await;
    label.cluster_size += 1;
    let source =
        Source { repository: &toy.repository().repository, identities: &toy.repository().identities, label: &label };
    assert!(Survey::of(source).await.expect_err("not whole").to_string().contains("bytes"));
}

#[tokio::test]
async fn a_target_that_is_not_empty_is_refused() {
    let toy = Toy::new().await;
    let label = toy.store().await;
    let bed = toy.bed_without_layout(&label).await;
    fs::create_dir(&bed.destination.data).expect("ours");
    assert!(bed.decide().is_ok(), "an empty folder is fine");
    fs::write(bed.destination.data.join("precious"), "x").expect("ours");
    let text = refusal(&bed);
    assert!(text.contains("precious") && text.contains("not empty"), "{text}");
}

#[tokio::test]
async fn a_target_in_the_data_directory_of_a_running_server_is_refused() {
    let toy = Toy::new().await;
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    let live = toy.folder().join("live");
    fs::create_dir_all(live.join("global")).expect("ours");
    fs::write(live.join("PG_VERSION"), "15\n").expect("ours");
    for data in [live.clone(), live.join("restored")] {
        bed.destination.data = data;
        fs::write(live.join("postmaster.pid"), format!("{}\n/x\n", std::process::id())).expect("ours");
        let text = refusal(&bed);
        assert!(text.contains("runs now") && text.contains(&std::process::id().to_string()), "{text}");
        fs::write(live.join("postmaster.pid"), "999999999\n").expect("ours");
        let text = refusal(&bed);
        assert!(text.contains("data directory of a cluster") && !text.contains("runs now"), "{text}");
    }
}

#[tokio::test]
async fn a_target_whose_parent_is_missing_says_what_to_make() {
    let toy = Toy::new().await;
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    bed.destination.data = toy.folder().join("a/b");
    let text = refusal(&bed);
    assert!(text.contains("mkdir -p") && text.contains("/a"), "{text}");
}

#[tokio::test]
async fn case_28_a_tablespace_without_a_place_is_refused_with_the_flags_to_give() {
    let mut toy = Toy::new().await;
    let old = toy.folder().join("fast");
    toy.tablespace(16384, old.to_str());
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    let text = refusal(&bed);
    assert!(text.contains(&format!("--tablespace {}=NEW", old.display())) && text.contains("not exist"), "{text}");
    assert!(text.contains(&format!("mkdir -p {}", old.display())), "{text}");
    fs::create_dir(&old).expect("ours");
    assert!(bed.decide().is_ok(), "an empty folder in its old place was made ready for it");
    fs::write(old.join("x"), "").expect("ours");
    let text = refusal(&bed);
    assert!(text.contains("living cluster") && text.contains("--tablespace-dir"), "{text}");
    bed.destination.tablespaces.pairs = vec![(path("/nowhere"), toy.folder().join("new"))];
    let text = refusal(&bed);
    assert!(text.contains("no tablespace at /nowhere") && text.contains(&old.display().to_string()), "{text}");
    bed.destination.tablespaces.pairs = vec![(old.clone(), bed.destination.data.join("inside"))];
    assert!(refusal(&bed).contains("data"), "a tablespace inside the data directory");
    bed.destination.tablespaces.pairs = vec![(old, toy.folder().join("new"))];
    assert!(bed.decide().expect("a free place").is_remapped());
}

#[tokio::test]
async fn case_28_all_tablespaces_without_a_place_are_named_in_one_refusal() {
    let mut toy = Toy::new().await;
    let old = [toy.folder().join("fast"), toy.folder().join("slow")];
    toy.tablespace(16384, old[0].to_str());
    toy.tablespace(16390, old[1].to_str());
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    let text = refusal(&bed);
    let flags = format!("--tablespace {}=NEW --tablespace {}=NEW", old[0].display(), old[1].display());
    assert!(text.contains(&flags) && text.contains("16384") && text.contains("16390"), "{text}");
    bed.destination.tablespaces.folder = Some(toy.folder().join("spaces"));
    fs::create_dir(toy.folder().join("spaces")).expect("ours");
    let places = bed.decide().expect("free places").tablespaces;
    assert!(places[0].place.ends_with("spaces/16384") && places[1].place.ends_with("spaces/16390"));
}

#[test]
fn a_tablespace_pair_is_two_absolute_paths() {
    let pair = |text: &str| TablespaceMapping::parse_pair(text);
    assert_eq!(pair("/a/=/b"), Ok((path("/a"), path("/b"))));
    assert_eq!(pair(r"/a\=1=/b"), Ok((path("/a=1"), path("/b"))));
    for text in ["/a", "a=/b", "/a=b", "/a=/b=/c", ""] {
        assert!(pair(text).is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn too_little_space_is_refused_with_both_numbers() {
    let toy = Toy::new().await;
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    let layout = bed.decide().expect("free places");
    let needs = |survey: &Survey, wal| needs(&rooms(&layout, survey, wal).expect("a file system"));
    check_space(&needs(&bed.survey, 0)).expect("a few KiB");
    bed.survey.data_bytes = 1 << 60;
    let error = check_space(&needs(&bed.survey, 1 << 30)).expect_err("an exbibyte");
    let text = error.to_string();
    assert!(text.contains("free") && text.contains("1 EiB") && text.contains("1 GiB of WAL"), "{text}");
}

#[tokio::test]
async fn space_is_told_folder_by_folder_and_what_is_written_over_counts_once() {
    let mut toy = Toy::new().await;
    let old = toy.folder().join("fast");
    toy.tablespace(16384, old.to_str());
    toy.file("pg_tblspc/16384/PG_15_202209061/5/100", &[7; 5000]);
    toy.file("base/5/1259", &super::toy::noise(3 << 20, 1));
    let label = toy.store().await;
    let mut bed = toy.bed_without_layout(&label).await;
    bed.destination.tablespaces.pairs = vec![(old, toy.folder().join("new"))];
    bed.destination.waldir = Some(toy.folder().join("wal"));
    let layout = bed.decide().expect("free places");
    let told = rooms(&layout, &bed.survey, 77).expect("a file system");
    let words: Vec<_> = told.iter().map(|room| (room.what.as_str(), room.files, room.wal)).collect();
    let data = bed.survey.data_bytes;
    assert_eq!(words, [("data directory", data, 0), ("pg_wal", 0, 77), ("tablespace 16384", 5000, 0)]);
    assert!(told.iter().all(|room| room.filesystem == told[0].filesystem && room.free > 0), "{told:?}");
    let need = &needs(&told)[0];
    assert_eq!((need.files, need.wal), (data + 5000, 77), "one file system");
    rebuild(bed.source(), layout, 1, &super::silent()).await.expect("sound").finish().expect("ours");
    bed.destination.delta = true;
    let told = rooms(&bed.decide().expect("a cluster"), &bed.survey, 0).expect("a file system");
    assert!(told[0].files < data / 2, "{told:?}");
}

/// Accounts of this machine, with root and the user that PostgreSQL's package makes.
fn accounts() -> Accounts {
    Accounts::of_this_machine().expect("accounts")
}

#[test]
fn root_restores_for_the_owner_of_the_parent_and_else_for_postgres() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("data");
    let own = rustix::process::geteuid().as_raw();
    let decide = |process, asked| Owner::decide(&accounts(), process, asked, &target);
    let postgres = decide(0, Some("postgres")).expect("PostgreSQL's user; run: apt-get install postgresql-15");
    assert!(postgres.is_other && postgres.uid != 0);
    if own == 0 {
        // The folder is root's.
        assert_eq!(decide(0, None).expect("postgres"), postgres);
        std::os::unix::fs::chown(folder.path(), Some(postgres.uid), None).expect("root may");
        assert_eq!(decide(0, None).expect("the parent's owner").uid, postgres.uid);
    }
    let text = |error: RebuildError| error.to_string();
    assert!(text(decide(0, Some("root")).expect_err("root")).contains("does not run as root"));
    assert!(text(decide(0, Some("nobody-of-that-name")).expect_err("nobody")).contains("no user"));
    assert!(text(decide(4_000_000, Some("postgres")).expect_err("not root")).contains("only root"));
    assert!(!decide(postgres.uid, None).expect("oneself").is_other);
}

#[test]
fn what_the_owner_cannot_read_is_named_with_the_command_that_helps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("identity.key");
    fs::write(&file, "secret").expect("ours");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    let stranger = Owner { name: "dbuser".to_owned(), uid: 4_000_000, gid: 4_000_001, groups: vec![], is_other: true };
    let check = |access| stranger.check_access(&file, access, "it opens the WAL").expect_err("closed");
    set(folder.path(), 0o700);
    set(&file, 0o644);
    let error = check(Access::Read);
    assert!(error.to_string().contains("cannot pass through") && error.next()[0].contains("chmod a+x"), "{error}");
    set(folder.path(), 0o711);
    assert!(stranger.check_access(&file, Access::Read, "x").is_ok());
    set(&file, 0o600);
    let error = check(Access::Read);
    assert!(error.to_string().contains("dbuser") && error.next()[0].contains("chgrp 4000001"), "{error}");
    set(&file, 0o640);
    let own_group = rustix::process::getegid().as_raw();
    let member = Owner { groups: vec![own_group], ..stranger.clone() };
    assert!(member.check_access(&file, Access::Read, "x").is_ok());
    assert!(check(Access::Run).next()[0].contains("chmod a+rx"));
}
