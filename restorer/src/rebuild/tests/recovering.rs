//! A restore whose recovery was interrupted, and the command that comes after.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use walseal_common::lsn::Lsn;
use walseal_common::timeline::SystemIdentifier;

use crate::plan::{Action, Plan, Request, Target};
use crate::rebuild::mark::MARK;
use crate::rebuild::*;
use crate::sample::SYSTEM;

fn me() -> Owner {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Owner { name: "me".to_owned(), uid, gid, groups: vec![gid], is_other: false }
}

/// A data directory in which a restore left its files, and its mark beside it.
struct Left {
    _folder: tempfile::TempDir,
    data: PathBuf,
    destination: Destination,
    plan: Plan,
}

impl Left {
    fn new(delta: bool) -> Left {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().canonicalize().expect("there").join("data");
        fs::DirBuilder::new().mode(0o700).create(&data).expect("ours");
        fs::create_dir(data.join("global")).expect("ours");
        fs::write(data.join("global/pg_control"), SYSTEM.0.to_ne_bytes()).expect("ours");
        fs::write(data.join("PG_VERSION"), "15\n").expect("ours");
        fs::write(data.join("recovery.signal"), "").expect("ours");
        let tablespaces = TablespaceMapping::default();
        let destination = Destination { data: data.clone(), waldir: None, tablespaces, owner: me(), delta };
        let plan = crate::plan::sample::plan(Request::to(Target::Latest), Lsn(3 << 20), Lsn(4 << 20));
        write_plan(&plan, &data, &me()).expect("ours");
        let left = Left { _folder: folder, data, destination, plan };
        left.mark().put(&left.layout()).expect("ours");
        left
    }

    fn mark(&self) -> Recovering {
        let config_files = ConfigFiles { missing: vec!["hba_file: gone".to_owned()], ..ConfigFiles::default() };
        Recovering {
            directory: Recovering::directory_of(&self.data).expect("there"),
            delta: self.destination.delta,
            keep_archiving: false,
            waldir: None,
            tablespaces: TablespaceMapping::default(),
            has_configuration: true,
            bytes: 77,
            config_files,
        }
    }

    fn layout(&self) -> Layout {
        Layout {
            data: self.data.clone(),
            mode: 0o700,
            waldir: None,
            tablespaces: Vec::new(),
            owner: me(),
            existing: Vec::new(),
            stands: true,
        }
    }

    fn asked(&self) -> Asked<'_> {
        let (request, destination) = (&self.plan.request, &self.destination);
        Asked { request, cluster: SYSTEM, destination, keep_archiving: false, starts: true }
    }
}

fn refusal(asked: &Asked<'_>) -> String {
    let error = Interrupted::find(asked).expect_err("refused");
    assert!(matches!(error, RebuildError::Refused { .. }), "{error:?}");
    format!("{error}\n{}", error.next().join("\n"))
}

#[test]
fn the_same_command_goes_on_with_a_restore_whose_recovery_was_interrupted() {
    for delta in [false, true] {
        let left = Left::new(delta);
        // It may have been killed between pg_control and its own mark.
        fs::write(left.data.join(MARK), "{}").expect("ours");
        let found = Interrupted::find(&left.asked()).expect("the same").expect("it was interrupted");
        assert_eq!(found.plan, left.plan);
        let restored = found.take_up(&me()).expect("ours");
        assert_eq!((restored.bytes, restored.has_configuration, restored.layout.mode), (77, true, 0o700));
        assert_eq!(restored.config_files, left.mark().config_files);
        assert_eq!(restored.plan_file, companion_folder(&left.data).join("plan.json"));
        assert!(!left.data.join(MARK).exists());
        Recovering::remove(&left.data).expect("ours");
        assert_eq!(Interrupted::find(&left.asked()).expect("nothing left"), None);
        Recovering::remove(&left.data).expect("it is gone already");
    }
}

#[test]
fn another_command_is_refused_with_the_one_that_goes_on() {
    let left = Left::new(false);
    let asked = left.asked();
    let immediate = Request { action: Action::Pause, ..Request::to(Target::Immediate) };
    let elsewhere = Destination { waldir: Some(left.data.join("elsewhere")), ..left.destination.clone() };
    for (other, why) in [
        (Asked { request: &immediate, ..asked }, "that one leads --to latest"),
        (Asked { cluster: SystemIdentifier(7), ..asked }, "that one is of cluster 7437123456789012345"),
        (Asked { keep_archiving: true, ..asked }, "that one was begun without --keep-archiving"),
        (Asked { starts: false, ..asked }, "that one was begun with --start"),
        (Asked { destination: &elsewhere, ..asked }, "with another --waldir"),
    ] {
        let text = refusal(&other);
        assert!(text.contains("not seen to its end") && text.contains(why), "{text}");
        let command = format!("walseal-restorer restore --to latest --target-dir {} --start\n", left.data.display());
        assert!(text.contains(&command) && text.contains("--delta"), "{text}");
    }
}

#[test]
fn delta_writes_over_a_restore_that_another_command_began() {
    let left = Left::new(false);
    let delta = Destination { delta: true, ..left.destination.clone() };
    assert_eq!(Interrupted::find(&Asked { destination: &delta, ..left.asked() }).expect("it may"), None);
    let left = Left::new(true);
    let immediate = Request::to(Target::Immediate);
    assert_eq!(Interrupted::find(&Asked { request: &immediate, ..left.asked() }).expect("it may"), None);
    fs::remove_file(left.data.join("recovery.signal")).expect("ours");
    assert_eq!(Interrupted::find(&left.asked()).expect("its recovery has ended"), None);
}

#[test]
fn case_27_a_mark_beside_a_directory_that_is_not_whole_or_another_clusters_counts_for_nothing() {
    let left = Left::new(false);
    let control = left.data.join("global/pg_control");
    fs::write(&control, SystemIdentifier(7).0.to_ne_bytes()).expect("ours");
    assert_eq!(Interrupted::find(&left.asked()).expect("another one"), None);
    fs::write(&control, SYSTEM.0.to_ne_bytes()).expect("ours");
    assert!(Interrupted::find(&left.asked()).expect("the same again").is_some());
    let mark = Recovering { directory: (7, 7), ..left.mark() };
    mark.put(&left.layout()).expect("ours");
    assert_eq!(Interrupted::find(&left.asked()).expect("another directory of the same cluster"), None);
    left.mark().put(&left.layout()).expect("ours");
    fs::remove_file(&control).expect("ours");
    assert_eq!(Interrupted::find(&left.asked()).expect("half rebuilt"), None);
}

#[test]
fn a_mark_or_a_plan_that_cannot_be_read_is_named() {
    let left = Left::new(false);
    let folder = companion_folder(&left.data);
    fs::write(folder.join("plan.json"), "{}").expect("ours");
    assert!(refusal(&left.asked()).contains("plan.json is not a plan"));
    fs::write(folder.join("recovering.json"), "?").expect("ours");
    assert!(refusal(&left.asked()).contains("recovering.json is not what a restore leaves there"));
}

#[test]
fn only_one_runs_recovery_in_a_data_directory() {
    let left = Left::new(false);
    let alone = Alone::in_recovery(&left.data).expect("nobody else");
    let error = Alone::in_recovery(&left.data).expect_err("somebody else");
    assert!(error.to_string().contains("another walseal-restorer runs recovery"), "{error}");
    drop(alone);
    Alone::in_recovery(&left.data).expect("nobody else");
}
