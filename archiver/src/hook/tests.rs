//! Files of `pg_wal` against a repository in a folder. Their WAL is made by hand, laid out as PostgreSQL does.

mod finish;
mod kinship;

use std::path::PathBuf;
use std::sync::Arc;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{ObjectName, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::seal::{Identity, WriterKey};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::store::fault::{Call, Effect, Faulty};
use walseal_common::store::{Capabilities, DirectoryStore, StoreErrorKind};
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};
use walseal_common::wal::WalVersion;
use walseal_common::wal::sample::{self, Sample};

use super::freight::Freight;
use super::lineage::Lineage;
use super::*;
use crate::keys::ArchiveKeys;
use crate::landed::Landed;
use crate::shipment::{Piece, PieceKind, ShipError};
use crate::stream::{Cutter, ProgressSender};

const SYSTEM: SystemIdentifier = SystemIdentifier(sample::SYSTEM);
const HISTORY: &[u8] = b"1\t0/300158\tno recovery target specified\n";
const MIB: u64 = 1 << 20;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).expect("not zero")
}

fn history() -> TimelineHistory {
    TimelineHistory::parse(timeline(2), HISTORY).expect("a legal history")
}

/// WAL from the start of a segment on, with some records in it.
fn begun(timeline: u32, start: Lsn, size: SegmentSize) -> Sample {
    let mut wal = Sample::of(WalVersion::V15, size, start);
    wal.timeline = timeline;
    wal.filler(100);
    wal.commit(701, 1_000);
    wal
}

/// A finished segment.
fn finished(mut wal: Sample) -> Vec<u8> {
    wal.fill_segment_but(0);
    wal.bytes
}

struct Bed {
    folder: tempfile::TempDir,
    store: Arc<Faulty>,
    size: SegmentSize,
    keys: Arc<ArchiveKeys>,
    repository: Repository,
}

impl Bed {
    fn new(segment_mib: u64) -> Bed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["repository", "pg_wal", "pg_wal/archive_status"] {
            std::fs::create_dir(folder.path().join(name)).expect("a new folder");
        }
        let store = Arc::new(Faulty::new(Arc::new(DirectoryStore::new(folder.path().join("repository")))));
        let identity = Identity::generate().expect("random bytes");
        let writer = WriterKey::generate().expect("random bytes");
        let keys = Arc::new(ArchiveKeys { recipients: vec![identity.recipient().clone()], writer });
        let repository = Repository::new(store.clone(), SYSTEM, keys.trust(Vec::new()));
        let size = SegmentSize::new(segment_mib * MIB).expect("a legal size");
        Bed { folder, store, size, keys, repository }
    }

    fn archivist(&self, stream: Option<crate::stream::ProgressWatch>) -> Arc<Archivist> {
        let identity = RepositoryIdentity {
            format: 1,
            cluster: SYSTEM,
            postgres_major: 15,
            segment_size: self.size,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        Arc::new(Archivist::new(self.repository.clone(), identity, self.keys.clone(), stream))
    }

    fn pg_wal(&self) -> PathBuf {
        self.folder.path().join("pg_wal")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.pg_wal().join(name);
        std::fs::write(&path, bytes).expect("our own folder");
        path
    }

    fn name(&self, tli: u32, number: u64) -> SegmentName {
        SegmentName::new(timeline(tli), SegmentNumber(number), self.size)
    }

    fn start(&self, number: u64) -> Lsn {
        SegmentNumber(number).start(self.size)
    }

    /// WAL from the start of that segment on.
    fn begun(&self, tli: u32, number: u64) -> Sample {
        begun(tli, self.start(number), self.size)
    }

    fn bytes(&self, tli: u32, number: u64) -> Vec<u8> {
        finished(self.begun(tli, number))
    }

    fn segment(&self, tli: u32, number: u64) -> PathBuf {
        self.file(&self.name(tli, number).to_string(), &self.bytes(tli, number))
    }

    /// A segment that PostgreSQL has queued.
    fn ready(&self, number: u64) -> PathBuf {
        self.file(&format!("archive_status/{}.ready", self.name(1, number)), b"");
        self.segment(1, number)
    }

    fn root(&self) -> Branch {
        TimelineHistory::root(TimelineId::FIRST).branch(SYSTEM)
    }

    /// Names of all objects, as a listing of the folder shows them.
    fn objects(&self) -> Vec<String> {
        let root = self.folder.path().join("repository").join(SYSTEM.to_string());
        let mut folders = vec![root.clone()];
        let mut names = Vec::new();
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    names.push(path.strip_prefix(&root).expect("below it").to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        names
    }

    /// The first `length` bytes of a segment, as the piece that a `.partial` of that length is stored as.
    fn partial(&self, bytes: &[u8], number: u64, length: usize) -> Piece {
        let start = self.start(number);
        let mut cutter = Cutter::new(self.root(), self.size, self.keys.writer.compare(), start, None);
        cutter.push(&bytes[..length], &mut Vec::new()).expect("nothing to differ from");
        cutter.partial().expect("less than a segment")
    }

    fn freight(&self, number: u64) -> Arc<Freight> {
        let segment = self.name(1, number);
        let lineage = Lineage { branch: self.root(), origin: self.root(), history: None };
        let path = self.pg_wal().join(segment.to_string());
        let name = walseal_common::segment::WalFileName::Segment(segment);
        Arc::new(Freight::open(&path, name, segment, SYSTEM, self.size, &lineage).expect("a whole segment"))
    }
}

fn is_conflict(error: &PushError) -> bool {
    matches!(error, PushError::Ship(ShipError::Repository(RepositoryError::Conflict { .. })))
}

#[tokio::test]
async fn case_21_a_segment_that_comes_again_is_success_and_is_not_sent_again() {
    let bed = Bed::new(1);
    let path = bed.segment(1, 3);
    let archivist = bed.archivist(None);
    assert_eq!(archivist.push(&path).await.expect("stored"), Pushed::Shipped);
    let puts = bed.store.calls(Call::Put);
    assert_eq!(archivist.push(&path).await.expect("there"), Pushed::AlreadyThere);
    assert_eq!(bed.archivist(None).push(&path).await.expect("there, for another process"), Pushed::AlreadyThere);
    assert_eq!(bed.store.calls(Call::Put), puts, "it was sent again");
    assert_eq!(bed.objects(), [format!("wal/{}/{}", bed.root(), bed.name(1, 3))]);
}

#[tokio::test]
async fn i1_what_the_stream_has_brought_is_compared_without_a_look_at_the_repository() {
    let bed = Bed::new(1);
    let (same, other) = (bed.segment(1, 3), bed.segment(1, 4));
    let landed = Landed::default();
    for number in [3, 5] {
        let mut hasher = bed.keys.writer.compare().hasher();
        hasher.update(&bed.bytes(1, number));
        // Segment 4 is said to have other bytes: the repository decides then.
        landed.note(bed.root(), SegmentNumber(number.min(4)), hasher.digest());
    }
    let archivist = Arc::into_inner(bed.archivist(None)).expect("ours alone").knowing(landed);
    assert_eq!(archivist.push(&same).await.expect("there"), Pushed::AlreadyThere);
    // Whether anything was adopted is read once.
    let calls = [Call::Get, Call::GetRange, Call::List, Call::Put].map(|call| bed.store.calls(call));
    assert_eq!(calls, [0, 0, 1, 0], "the repository was asked");
    assert_eq!(archivist.push(&other).await.expect("stored"), Pushed::Shipped);
    assert_eq!(bed.objects(), [format!("wal/{}/{}", bed.root(), bed.name(1, 4))]);
}

#[tokio::test]
async fn i3_case_23_other_bytes_under_a_name_are_refused_and_kept() {
    let bed = Bed::new(1);
    let path = bed.segment(1, 3);
    let archivist = bed.archivist(None);
    archivist.push(&path).await.expect("stored");
    let mut other = bed.begun(1, 3);
    other.commit(999, 2_000);
    bed.file(&bed.name(1, 3).to_string(), &finished(other));
    for _ in 0..2 {
        let error = archivist.push(&path).await.expect_err("other bytes");
        assert!(is_conflict(&error), "{error}");
    }
    let conflicts = bed.objects().iter().filter(|name| name.starts_with("conflict/")).count();
    assert_eq!(conflicts, 1, "kept once: {:?}", bed.objects());
}

#[tokio::test]
async fn i1_case_22_nothing_is_claimed_while_the_store_does_not_take_it() {
    let bed = Bed::new(1);
    let path = bed.segment(1, 3);
    let archivist = bed.archivist(None);
    bed.store.plan(Call::Put, 1..=1, Effect::FailBefore(StoreErrorKind::Full));
    bed.store.plan(Call::Put, 2..=2, Effect::FailAfter(StoreErrorKind::Unreachable));
    assert!(!archivist.push(&path).await.expect_err("the store is full").is_permanent());
    assert_eq!(bed.objects(), Vec::<String>::new());
    assert!(!archivist.push(&path).await.expect_err("the answer is lost").is_permanent());
    assert_eq!(archivist.push(&path).await.expect("its bytes are there"), Pushed::AlreadyThere);
    bed.store.set_down(Some(StoreErrorKind::Unreachable));
    archivist.push(&path).await.expect_err("what is there cannot be verified now");
}

#[tokio::test]
async fn case_25_a_strangers_wal_and_a_wrong_name_and_a_cut_off_file_are_refused() {
    let bed = Bed::new(1);
    let archivist = bed.archivist(None);
    let mut stranger = Sample::of(WalVersion::V15, bed.size, bed.start(3));
    stranger.system = 99;
    let stranger = finished(stranger);
    let cases: [(String, Vec<u8>, &[&str]); 6] = [
        (bed.name(1, 3).to_string(), stranger, &["99", "7437123456789012345", "archive_command"]),
        (bed.name(1, 4).to_string(), bed.bytes(1, 3), &["000000010000000000000004", "0/300000"]),
        (bed.name(1, 3).to_string(), bed.bytes(2, 3), &["timeline 2", "expected 1"]),
        (bed.name(1, 3).to_string(), bed.bytes(1, 3)[..1000].to_vec(), &["1000 bytes", "1048576"]),
        (bed.name(1, 3).to_string(), vec![0; MIB as usize], &["magic"]),
        (format!("{}.partial", bed.name(1, 3)), bed.bytes(1, 4), &["0/400000"]),
    ];
    for (name, bytes, words) in cases {
        let path = bed.file(&name, &bytes);
        let message = archivist.push(&path).await.expect_err("refused").to_string();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
        assert!(!message.contains('\n'), "one line: {message}");
    }
    assert_eq!(bed.objects(), Vec::<String>::new());
}

#[tokio::test]
async fn case_24_unknown_names_are_refused_and_backup_files_need_nothing() {
    let bed = Bed::new(1);
    let archivist = bed.archivist(None);
    for name in ["notes.txt", "000000010000000000000003.tmp", "00000001000000000000003", "postgresql.conf"] {
        let message = archivist.push(&bed.file(name, b"x")).await.expect_err("a stranger").to_string();
        assert!(message.contains(name), "{name} is not named: {message}");
    }
    let backup = bed.pg_wal().join("000000010000000000000003.00000028.backup");
    assert!(archivist.push(&backup).await.is_err(), "a file that is not there");
    std::fs::write(&backup, "START WAL LOCATION: 0/3000028").expect("our own folder");
    assert_eq!(archivist.push(&backup).await.expect("accepted"), Pushed::NotNeeded);
    assert_eq!(bed.objects(), Vec::<String>::new());
}

#[tokio::test]
async fn case_18_a_segment_over_16_mib_is_stored_in_parts_and_completed_after_a_failure() {
    let bed = Bed::new(32);
    let path = bed.segment(1, 3);
    let archivist = bed.archivist(None);
    bed.store.plan(Call::Put, 2..=2, Effect::FailBefore(StoreErrorKind::Unreachable));
    archivist.push(&path).await.expect_err("the second part fails");
    assert_eq!(archivist.push(&path).await.expect("the rest"), Pushed::Shipped);
    let name = |part: &str| format!("wal/{}/{}/{part}", bed.root(), bed.name(1, 3));
    assert_eq!(bed.objects(), [name("00"), name("01")]);
    assert_eq!(archivist.push(&path).await.expect("all of it"), Pushed::AlreadyThere);
}

#[tokio::test]
async fn case_02_a_segment_brings_the_history_of_its_timeline() {
    let bed = Bed::new(1);
    let archivist = bed.archivist(None);
    let path = bed.segment(2, 3);
    let message = archivist.push(&path).await.expect_err("no history").to_string();
    assert!(message.contains("00000002.history"), "{message}");
    bed.file("00000002.history", HISTORY);
    assert_eq!(archivist.push(&path).await.expect("stored"), Pushed::Shipped);
    let branch = history().branch(SYSTEM);
    assert_eq!(bed.objects(), [format!("history/{branch}"), format!("wal/{branch}/{}", bed.name(2, 3))]);

    // Without the file the repository's names tell, as long as there is one branch of that number.
    std::fs::remove_file(bed.pg_wal().join("00000002.history")).expect("it is there");
    assert_eq!(bed.archivist(None).push(&path).await.expect("one branch"), Pushed::AlreadyThere);
    bed.file("00000002.history", b"1\t0/300200\tanother\n");
    let other = bed.archivist(None).push(&bed.pg_wal().join("00000002.history")).await;
    assert_eq!(other.expect("a history"), Pushed::Shipped);
    std::fs::remove_file(bed.pg_wal().join("00000002.history")).expect("it is there");
    let message = bed.archivist(None).push(&path).await.expect_err("two branches").to_string();
    assert!(message.contains(&branch.to_string()), "{message}");
}

#[tokio::test]
async fn case_24_a_history_file_is_stored_once_and_a_broken_one_is_refused() {
    let bed = Bed::new(1);
    let archivist = bed.archivist(None);
    let path = bed.file("00000002.history", HISTORY);
    assert_eq!(archivist.push(&path).await.expect("stored"), Pushed::Shipped);
    assert_eq!(archivist.push(&path).await.expect("there"), Pushed::AlreadyThere);
    assert_eq!(bed.objects(), [format!("history/{}", history().branch(SYSTEM))]);
    assert!(archivist.push(&bed.file("00000003.history", b"3\t0/1\tx\n")).await.is_err(), "not increasing");
    assert!(archivist.push(&bed.file("00000003.history", &vec![b'#'; 2 << 20])).await.is_err(), "too large");
}

#[tokio::test]
async fn looking_ahead_ships_what_is_queued_next_and_nothing_else() {
    let bed = Bed::new(1);
    let pushed = bed.ready(3);
    for number in [4, 5, 7] {
        bed.ready(number);
    }
    let archivist = bed.archivist(None);
    let (enough, told) = tokio::sync::watch::channel(false);
    archivist.clone().look_ahead(pushed.clone(), told.clone()).await;
    let name = |number| format!("wal/{}/{}", bed.root(), bed.name(1, number));
    assert_eq!(bed.objects(), [name(4), name(5)], "6 is not queued, so nothing after it is the next");
    for number in 6..40 {
        bed.ready(number);
    }
    // A failure is told by the call for that file, and does not end the look.
    std::fs::write(bed.pg_wal().join(bed.name(1, 6).to_string()), "cut off").expect("our own folder");
    archivist.clone().look_ahead(pushed.clone(), told.clone()).await;
    assert_eq!(bed.objects().len(), 15, "16 ahead of 3, without 6: {:?}", bed.objects());
    enough.send_replace(true);
    archivist.clone().look_ahead(bed.pg_wal().join(bed.name(1, 30).to_string()), told).await;
    assert_eq!(bed.objects().len(), 15, "somebody had said that it is enough");
}

#[tokio::test]
async fn looking_ahead_goes_on_from_what_is_asked_for_meanwhile() {
    let bed = Bed::new(1);
    let pushed = bed.ready(3);
    let next = bed.ready(4);
    for number in 5..40 {
        bed.ready(number);
    }
    let archivist = bed.archivist(None);
    let (_enough, told) = tokio::sync::watch::channel(false);
    let (outcome, ()) = tokio::join!(archivist.push(&next), archivist.clone().look_ahead(pushed.clone(), told.clone()));
    outcome.expect("shipped by either");
    assert_eq!(bed.objects().len(), 17, "4, and 16 ahead of it: {:?}", bed.objects());
    // A hand that asks for what is far ahead, or for what lies behind, moves nothing.
    for asked in [39, 2] {
        archivist.push(&bed.ready(asked)).await.expect("shipped");
        archivist.clone().look_ahead(pushed.clone(), told.clone()).await;
    }
    assert_eq!(bed.objects().len(), 19, "4 to 20, and what the hand asked for: {:?}", bed.objects());
}

#[tokio::test]
async fn i1_what_was_verified_ahead_is_not_read_again_unless_its_file_changed() {
    let bed = Bed::new(1);
    let pushed = bed.ready(3);
    let (shipped, streamed, touched) = (bed.ready(4), bed.ready(5), bed.ready(6));
    let stream = ProgressSender::default();
    let archivist = bed.archivist(Some(stream.watch()));
    for path in [&streamed, &touched] {
        bed.archivist(None).push(path).await.expect("stored");
    }
    let (_enough, told) = tokio::sync::watch::channel(false);
    archivist.clone().look_ahead(pushed, told).await;
    let mut other = bed.begun(1, 6);
    other.commit(999, 2_000);
    bed.file(&bed.name(1, 6).to_string(), &finished(other));
    bed.store.set_down(Some(StoreErrorKind::Denied));
    for path in [&shipped, &streamed] {
        assert_eq!(archivist.push(path).await.expect("known"), Pushed::AlreadyThere);
        archivist.push(path).await.expect_err("known once, and then looked at again");
    }
    archivist.push(&touched).await.expect_err("the file is not the one that was compared");
}

#[tokio::test]
async fn looking_ahead_leaves_what_has_a_name_to_the_call_for_it() {
    let bed = Bed::new(1);
    let pushed = bed.ready(3);
    let (taken, next) = (bed.ready(4), bed.ready(5));
    let archivist = bed.archivist(None);
    archivist.push(&taken).await.expect("stored");
    let mut other = bed.begun(1, 4);
    other.commit(999, 2_000);
    bed.file(&bed.name(1, 4).to_string(), &finished(other));
    let (_enough, told) = tokio::sync::watch::channel(false);
    archivist.clone().look_ahead(pushed, told).await;
    let name = |number| format!("wal/{}/{}", bed.root(), bed.name(1, number));
    assert_eq!(bed.objects(), [name(4), name(5)], "the other bytes are no business of this call");
    assert!(is_conflict(&archivist.push(&taken).await.expect_err("other bytes")));
    assert_eq!(archivist.push(&next).await.expect("there"), Pushed::AlreadyThere);
}

#[tokio::test]
async fn one_file_pushed_twice_at_once_is_sent_once() {
    let bed = Bed::new(1);
    let path = bed.segment(1, 3);
    let archivist = bed.archivist(None);
    let (one, other) = tokio::join!(archivist.push(&path), archivist.push(&path));
    // Whoever comes first ships it.
    let outcomes = [one.expect("durable"), other.expect("durable")];
    assert!(outcomes.contains(&Pushed::Shipped) && outcomes.contains(&Pushed::AlreadyThere), "{outcomes:?}");
    assert_eq!(bed.store.calls(Call::Put), 1);
}

#[tokio::test]
async fn what_the_stream_is_about_to_bring_is_not_sent_twice() {
    let bed = Bed::new(1);
    let path = bed.segment(1, 3);
    let stream = ProgressSender::default();
    let branch = bed.root();
    stream.update(|progress| {
        progress.connected = true;
        progress.branch = Some(branch);
        progress.frontier = bed.start(3);
    });
    let archivist = bed.archivist(Some(stream.watch()));
    let pushing = archivist.push(&path);
    tokio::pin!(pushing);
    let mut cutter = Cutter::new(branch, bed.size, bed.keys.writer.compare(), bed.start(3), None);
    let mut pieces = Vec::new();
    cutter.push(&bed.bytes(1, 3), &mut pieces).expect("nothing to differ from");
    let streamed = async {
        pieces[0].clone().ship(&bed.repository, &bed.keys, &crate::memory::Room::elsewhere()).await.expect("stored");
        stream.update(|progress| progress.frontier = bed.start(4));
    };
    let (outcome, ()) = tokio::join!(&mut pushing, streamed);
    assert_eq!(outcome.expect("there"), Pushed::AlreadyThere);
    assert_eq!(bed.store.calls(Call::Put), 1, "the push waited for the stream");

    // A stream that breaks off is not waited for.
    let path = bed.segment(1, 4);
    let broken = async { stream.update(|progress| progress.connected = false) };
    let (outcome, ()) = tokio::join!(archivist.push(&path), broken);
    assert_eq!(outcome.expect("stored"), Pushed::Shipped);
}

#[tokio::test]
async fn case_04_a_partial_is_compared_by_the_part_that_both_have() {
    let bed = Bed::new(1);
    bed.segment(1, 3);
    let (bytes, archivist, freight) = (bed.bytes(1, 3), bed.archivist(None), bed.freight(3));
    let ensure = async |length| {
        let room = &crate::memory::Room::elsewhere();
        archivist.ensure_partial(bed.partial(&bytes, 3, length), freight.clone(), room).await
    };
    ensure(600_000).await.expect("stored");
    let name = ObjectName::Partial(bed.root(), bed.name(1, 3)).to_string();
    assert_eq!(bed.objects(), [name.as_str()]);
    ensure(600_000).await.expect("the same");
    ensure(500_000).await.expect("less of the same");
    assert_eq!(bed.objects(), [name.as_str()]);
    // More of the same: what the object lacks must be durable, too, before success is said (I1).
    ensure(700_000).await.expect("more of the same");
    let range = LsnRange { start: bed.start(3), end: bed.start(3).advance(700_000) };
    let tail = ObjectName::Tail(bed.root(), bed.name(1, 3), range).to_string();
    assert_eq!(bed.objects(), [tail, name]);

    let mut other = bytes.clone();
    other[400_000] ^= 1;
    bed.file(&bed.name(1, 3).to_string(), &other);
    for length in [500_000, 600_000, 700_000] {
        let error = archivist
            .ensure_partial(bed.partial(&other, 3, length), bed.freight(3), &crate::memory::Room::elsewhere())
            .await;
        assert!(is_conflict(&error.expect_err("other bytes")), "{length}");
    }
    let kept = bed.partial(&other, 3, 600_000);
    assert_eq!(kept.kind, PieceKind::Partial);
}

#[tokio::test]
async fn case_04_a_partial_without_a_single_record_is_refused() {
    let bed = Bed::new(1);
    let mut bytes = bed.bytes(1, 3);
    bytes[40..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at ^ (at >> 9)) as u8);
    let path = bed.file(&format!("{}.partial", bed.name(1, 3)), &bytes);
    let message = bed.archivist(None).push(&path).await.expect_err("noise").to_string();
    assert!(message.contains("no valid WAL"), "{message}");
    assert_eq!(bed.objects(), Vec::<String>::new());
}

#[test]
fn case_04_the_fork_is_that_of_our_branch_within_the_segment() {
    let bed = Bed::new(1);
    let segment = SegmentNumber(3).range(bed.size);
    let fork = |bed: &Bed, branch| lineage::fork_within(&bed.pg_wal(), branch, segment, SYSTEM).expect("readable");
    assert_eq!(fork(&bed, bed.root()), None);
    bed.file("00000002.history", HISTORY);
    bed.file("00000003.history", b"1\t0/200000\tbefore this segment\n");
    bed.file("00000004.history", b"not a history");
    assert_eq!(fork(&bed, bed.root()), Some(Lsn(0x30_0158)));
    bed.file("00000005.history", b"1\t0/300158\tno recovery target specified\n2\t0/300200\tx\n");
    bed.file("00000006.history", b"1\t0/300100\tof another timeline 2\n2\t0/300300\tx\n");
    assert_eq!(fork(&bed, history().branch(SYSTEM)), Some(Lsn(0x30_0200)));
}
