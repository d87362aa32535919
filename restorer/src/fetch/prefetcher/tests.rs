#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use walseal_common::config::{Config, Environment, Sources};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::ObjectName;
use walseal_common::segment::SegmentNumber;

use super::*;
use crate::fetch::{Opening, Reply, WorkingDirectory};
use crate::rebuild::{Owner, companion_folder};
use crate::sample::{SYSTEM, SampleRepository, SampleWal};

const MIB: u64 = 1 << 20;

/// Long enough for any machine; what is waited for comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A repository with ten whole segments from number 3 on and a tail, and a data directory that asks for them.
struct Bed {
    sample: SampleRepository,
    wal: SampleWal,
    home: tempfile::TempDir,
}

fn name(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

fn me() -> Owner {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Owner { name: "me".to_owned(), uid, gid, groups: vec![gid], is_other: false }
}

impl Bed {
    async fn new() -> Bed {
        let sample = SampleRepository::new().await;
        let mut wal = SampleWal::from(Lsn(3 * MIB));
        while wal.end() < Lsn(13 * MIB + 5000) {
            wal.filler(4000);
        }
        sample.put_wal(sample.branch(), &wal, Lsn(3 * MIB)).await;
        let bed = Bed { sample, wal, home: tempfile::tempdir().expect("a temporary folder") };
        bed.make_data("data");
        let key = bed.home.path().join("identity.key");
        fs::write(&key, bed.sample.identities[0].to_file()).expect("ours");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        bed
    }

    /// A data directory, as far as `fetch` looks at it.
    fn make_data(&self, name: &str) -> PathBuf {
        let data = self.home.path().join(name);
        fs::create_dir_all(data.join("global")).expect("ours");
        fs::create_dir_all(data.join("pg_wal")).expect("ours");
        fs::write(data.join("global/pg_control"), SYSTEM.0.to_ne_bytes()).expect("ours");
        data
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn opening(&self, data: &Path) -> Opening {
        let file = self.home.path().join("walseal.toml");
        let config = format!(
            "[repository]\nurl = \"file://{}\"\n[keys]\nidentity_files = [\"identity.key\"]\ntrusted_writers = [\"{}\"]\n\
             [fetch]\nretry = \"0s\"\nretry_standby = \"0s\"\n",
            self.sample.folder.path().display(),
            self.sample.writer.public()
        );
        if !file.exists() {
            fs::write(&file, config).expect("ours");
        }
        let mut sources = Sources::new(Environment::default());
        sources.config_flag = Some(file);
        let config = Arc::new(Config::load(&sources).expect("legal"));
        Opening { config, plan: None, cluster: None, place: WorkingDirectory::at(data) }
    }

    /// Somebody who serves everybody, with `ahead` segments ready.
    fn serve(&self, data: &Path, ahead: u64) -> Serving {
        self.move_in(data, ahead).expect("nobody else is there").serve_all()
    }

    fn move_in(&self, data: &Path, ahead: u64) -> Result<Prefetcher, PremisesError> {
        let premises = Premises::beside(data, me().uid, true)?;
        Prefetcher::move_in(premises, data, &me(), self.opening(data), ahead * MIB)
    }

    fn target(&self) -> PathBuf {
        self.data().join("pg_wal/RECOVERYXLOG")
    }

    fn part(&self, number: u64) -> &[u8] {
        self.wal.slice(LsnRange { start: Lsn(number * MIB), end: Lsn((number + 1) * MIB) })
    }

    async fn remove(&self, number: u64) {
        let name = name(number).parse().expect("a name");
        self.sample.remove(&ObjectName::Wal(self.sample.branch(), name, None)).await;
    }

    /// Files that are ready.
    fn ready(&self) -> usize {
        fs::read_dir(companion_folder(&self.data()).join("fetch.ready")).map_or(0, Iterator::count)
    }

    async fn until(&self, what: &str, mut look: impl FnMut() -> bool) {
        let begun = std::time::Instant::now();
        while !look() {
            assert!(begun.elapsed() < PATIENCE, "still waiting for {what}");
            // Only the rate of looking.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn delivers(&self, number: u64) {
        assert_eq!(ask_for(&self.data(), &name(number)).await.expect("answered"), Reply::Delivered, "{number}");
        assert!(fs::read(self.target()).expect("delivered") == self.part(number), "{number}");
        fs::remove_file(self.target()).expect("PostgreSQL has taken it");
    }
}

async fn ask_for(data: &Path, file: &str) -> Result<Reply, NoReply> {
    ask_as(data, file, None).await
}

async fn ask_as(data: &Path, file: &str, fingerprint: Option<Fingerprint>) -> Result<Reply, NoReply> {
    let (data, file) = (data.to_owned(), file.to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        let premises = Premises::beside(&data, me().uid, false).expect("private");
        ask(&premises, &file, fingerprint.as_ref(), &data.join("pg_wal/RECOVERYXLOG"))
    });
    asked.await.expect("it does not panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_ahead_is_only_renamed() {
    let bed = Bed::new().await;
    let _serving = bed.serve(&bed.data(), 4);
    bed.delivers(3).await;
    bed.until("four segments to be ready", || bed.ready() == 4).await;
    // They do not come from the repository any more.
    for number in 4..8 {
        bed.remove(number).await;
    }
    bed.delivers(4).await;
    bed.delivers(5).await;
    // What recovery asks for again is found out anew.
    let reply = ask_for(&bed.data(), &name(4)).await.expect("answered");
    assert!(matches!(&reply, Reply::Failed(why) if why.contains("a hole")), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_no_more_than_the_limit_is_ready_and_what_lies_behind_goes() {
    let bed = Bed::new().await;
    let serving = bed.serve(&bed.data(), 3);
    bed.delivers(3).await;
    bed.until("three segments to be ready", || bed.ready() == 3).await;
    // Recovery goes elsewhere: the ones between are of no use.
    bed.delivers(8).await;
    bed.until("the three after it", || bed.ready() == 3).await;
    for number in 9..12 {
        bed.remove(number).await;
    }
    for number in 9..12 {
        bed.delivers(number).await;
    }
    drop(serving);
    bed.until("its files and its socket to go", || {
        let folder = companion_folder(&bed.data());
        !folder.join("fetch.ready").exists() && !folder.join("fetch.sock").exists()
    })
    .await;
    assert_eq!(ask_for(&bed.data(), &name(3)).await, Err(NoReply::Nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_a_hole_behind_segments_that_are_ready_is_a_hole_until_it_is_filled() {
    let bed = Bed::new().await;
    bed.remove(6).await;
    let _serving = bed.serve(&bed.data(), 8);
    for number in 3..6 {
        bed.delivers(number).await;
    }
    for _ in 0..2 {
        let reply = ask_for(&bed.data(), &name(6)).await.expect("answered");
        assert!(matches!(&reply, Reply::Failed(why) if why.contains("a hole")), "{reply:?}");
        assert!(!bed.target().exists());
    }
    let whole = bed.part(6).to_vec();
    bed.sample.put_segment(bed.sample.branch(), SegmentNumber(6), &whole).await;
    bed.delivers(6).await;
    bed.delivers(7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_01_the_end_is_found_out_anew_for_each_request_and_a_tail_only_grows() {
    let bed = Bed::new().await;
    let _serving = bed.serve(&bed.data(), 8);
    bed.delivers(12).await;
    let valid = usize::try_from(bed.wal.end().0 - 13 * MIB).expect("small");
    let tail = |bed: &Bed| fs::read(bed.target()).expect("delivered");
    for _ in 0..2 {
        assert_eq!(ask_for(&bed.data(), &name(13)).await.expect("answered"), Reply::Delivered);
        let bytes = tail(&bed);
        assert_eq!(bytes.len() as u64, MIB);
        assert!(bytes[..valid] == *bed.wal.slice(LsnRange { start: Lsn(13 * MIB), end: bed.wal.end() }));
        assert!(bytes[valid..].iter().all(|byte| *byte == 0));
    }
    let reply = ask_for(&bed.data(), &name(14)).await.expect("answered");
    assert!(matches!(reply, Reply::NotThere(_)), "{reply:?}");
    // More arrives, in both places.
    let mut longer = bed.wal.clone();
    while longer.end() < Lsn(14 * MIB + 5000) {
        longer.filler(4000);
    }
    bed.sample.put_wal(bed.sample.branch(), &longer, Lsn(13 * MIB)).await;
    assert_eq!(ask_for(&bed.data(), &name(13)).await.expect("answered"), Reply::Delivered);
    assert!(tail(&bed) == longer.slice(LsnRange { start: Lsn(13 * MIB), end: Lsn(14 * MIB) }));
    assert_eq!(ask_for(&bed.data(), &name(14)).await.expect("answered"), Reply::Delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_02_histories_that_are_there_are_kept_and_a_free_number_is_asked_for_each_time() {
    let bed = Bed::new().await;
    let root = walseal_common::timeline::TimelineHistory::root(walseal_common::timeline::TimelineId::FIRST);
    let two = bed.sample.put_history(&root, 2, Lsn(4 * MIB)).await;
    let three = bed.sample.put_history(&two, 3, Lsn(5 * MIB)).await;
    let _serving = bed.serve(&bed.data(), 0);
    assert_eq!(ask_for(&bed.data(), "00000002.history").await.expect("answered"), Reply::Delivered);
    assert_eq!(fs::read(bed.target()).expect("delivered"), two.render());
    let reply = ask_for(&bed.data(), "00000004.history").await.expect("answered");
    assert!(matches!(reply, Reply::NotThere(_)), "{reply:?}");
    let four = bed.sample.put_history(&three, 4, Lsn(6 * MIB)).await;
    assert_eq!(ask_for(&bed.data(), "00000004.history").await.expect("answered"), Reply::Delivered);
    assert_eq!(fs::read(bed.target()).expect("delivered"), four.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn recoveries_beside_each_other_do_not_meet_and_one_data_directory_has_one_prefetcher() {
    let bed = Bed::new().await;
    let other = bed.make_data("other");
    let _serving = bed.serve(&bed.data(), 2);
    let _second = bed.serve(&other, 2);
    assert!(matches!(bed.move_in(&bed.data(), 2), Err(PremisesError::Taken(_))));
    bed.delivers(3).await;
    assert_eq!(ask_for(&other, &name(8)).await.expect("answered"), Reply::Delivered);
    bed.delivers(4).await;
    assert!(fs::read(other.join("pg_wal/RECOVERYXLOG")).expect("delivered") == bed.part(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_data_directory_that_became_another_clusters_gets_nothing() {
    let bed = Bed::new().await;
    let _serving = bed.serve(&bed.data(), 4);
    bed.delivers(3).await;
    bed.until("segments to be ready", || bed.ready() == 4).await;
    fs::write(bed.data().join("global/pg_control"), 7u64.to_ne_bytes()).expect("ours");
    let reply = ask_for(&bed.data(), &name(4)).await.expect("answered");
    assert!(matches!(reply, Reply::Failed(_)), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_can_use_is_not_trusted_with_wal() {
    let bed = Bed::new().await;
    let folder = companion_folder(&bed.data());
    fs::create_dir(&folder).expect("ours");
    for mode in [0o777, 0o770, 0o701] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("ours");
        let error = Premises::beside(&bed.data(), me().uid, true).expect_err("others can put WAL there");
        assert!(error.to_string().contains("others than its owner"), "{error}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("ours");
    let error = Premises::beside(&bed.data(), me().uid + 1, true).expect_err("somebody else's");
    assert!(error.to_string().contains("belongs to user"), "{error}");
    fs::remove_dir(&folder).expect("ours");
    std::os::unix::fs::symlink(bed.home.path(), &folder).expect("ours");
    Premises::beside(&bed.data(), me().uid, true).expect_err("a link may lead anywhere");
}

/// Serves as the process does, and says why it ended.
async fn over(bed: &Bed, idle: Duration, meanwhile: impl AsyncFnOnce(Fingerprint)) -> Over {
    let fingerprint = Fingerprint::of(&bed.opening(&bed.data()));
    let prefetcher = bed.move_in(&bed.data(), 4).expect("nobody else is there");
    let serving = tokio::spawn(prefetcher.serve(fingerprint.clone(), idle, None));
    meanwhile(fingerprint).await;
    let over = tokio::time::timeout(PATIENCE, serving).await.expect("it ends").expect("it does not panic");
    assert!(bed.ready() == 0 && !companion_folder(&bed.data()).join("fetch.sock").exists(), "nothing is left");
    over
}

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_nobody_asks_when_its_folder_goes_and_when_keys_or_configuration_change() {
    let bed = Bed::new().await;
    let answered = async |own: Fingerprint| {
        let reply = ask_as(&bed.data(), &name(3), Some(own)).await.expect("the same configuration");
        assert_eq!(reply, Reply::Delivered);
    };
    assert_eq!(over(&bed, Duration::from_millis(200), answered).await, Over::Idle);
    let moved = async |_| fs::rename(companion_folder(&bed.data()), bed.home.path().join("away")).expect("ours");
    assert_eq!(over(&bed, NEVER, moved).await, Over::Evicted);
    let touched = async |_| {
        let key = bed.home.path().join("identity.key");
        fs::write(&key, fs::read(&key).expect("ours")).expect("ours");
    };
    assert_eq!(over(&bed, NEVER, touched).await, Over::Stale);
    let asked = async |_| {
        let mut opening = bed.opening(&bed.data());
        opening.cluster = Some(SYSTEM);
        let other = Fingerprint::of(&opening);
        assert_eq!(ask_as(&bed.data(), &name(3), Some(other)).await, Err(NoReply::Stale));
    };
    assert_eq!(over(&bed, NEVER, asked).await, Over::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_with_what_follows_the_segment_that_the_hook_delivers_itself() {
    let bed = Bed::new().await;
    let fingerprint = Fingerprint::of(&bed.opening(&bed.data()));
    let prefetcher = bed.move_in(&bed.data(), 2).expect("nobody else is there");
    let serving = tokio::spawn(prefetcher.serve(fingerprint, NEVER, Some(name(3).parse().expect("a name"))));
    bed.until("two segments to be ready", || bed.ready() == 2).await;
    serving.abort();
}
