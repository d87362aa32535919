//! Gaps in a repository in a folder, and WAL made by hand that would fill them, or would not.

use std::path::PathBuf;
use std::sync::Arc;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Gap, Leg, ObjectName, Repository, RepositoryIdentity, Stretch};
use walseal_common::seal::{Identity, WriterKey};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::store::{Capabilities, DirectoryStore};
use walseal_common::timeline::{Branch, HistoryEntry, SystemIdentifier, TimelineHistory, TimelineId};
use walseal_common::wal::WalVersion;
use walseal_common::wal::sample::{self, Sample};

use super::*;
use crate::keys::ArchiveKeys;
use crate::shipment::{Piece, PieceKind};
use crate::stream::Cutter;

const SYSTEM: SystemIdentifier = SystemIdentifier(sample::SYSTEM);
const MIB: u64 = 1 << 20;

/// A repository that has WAL of segments 3, 4 and a part of 5, and goes on with segment 9; and all of that WAL.
struct Bed {
    folder: tempfile::TempDir,
    repository: Repository,
    identity: RepositoryIdentity,
    keys: Arc<ArchiveKeys>,
    size: SegmentSize,
    wal: Sample,
    gap: Gap,
}

/// WAL from the start of segment 3 on, up to somewhere in segment 10.
fn wal(size: SegmentSize) -> Sample {
    let mut wal = Sample::of(WalVersion::V15, size, SegmentNumber(3).start(size));
    wal.commit(701, 1_000);
    grow(&mut wal, SegmentNumber(10).start(size).advance(300_000));
    wal
}

fn grow(wal: &mut Sample, until: Lsn) {
    let length = if wal.size.bytes() > 4 * MIB { 400_000 } else { 4_000 };
    while wal.at() < until {
        wal.filler(length);
        wal.commit(702, 2_000);
    }
}

fn root() -> Branch {
    TimelineHistory::root(TimelineId::FIRST).branch(SYSTEM)
}

/// The same up to the end of the first record after `fork`, and other WAL from there on.
fn parted(wal: &Sample, fork: Lsn) -> Sample {
    let mut other = Sample::of(wal.version, wal.size, wal.start);
    other.commit(701, 1_000);
    while other.at() < fork {
        other.filler(if wal.size.bytes() > 4 * MIB { 400_000 } else { 4_000 });
        other.commit(702, 2_000);
    }
    assert_eq!(wal.bytes[..other.bytes.len()], other.bytes[..], "made in the same way");
    other.fill = 0x11;
    let end = wal.at();
    grow(&mut other, end);
    other
}

impl Bed {
    async fn new() -> Bed {
        Bed::with_segments(1).await
    }

    async fn with_segments(mib: u64) -> Bed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["repository", "wal"] {
            std::fs::create_dir(folder.path().join(name)).expect("a new folder");
        }
        let size = SegmentSize::new(mib * MIB).expect("a legal size");
        let recipient = Identity::generate().expect("random bytes").recipient().clone();
        let writer = WriterKey::generate().expect("random bytes");
        let keys = Arc::new(ArchiveKeys { recipients: vec![recipient], writer });
        let store = Arc::new(DirectoryStore::new(folder.path().join("repository")));
        let repository = Repository::new(store, SYSTEM, keys.trust(Vec::new()));
        let identity = RepositoryIdentity {
            format: 1,
            cluster: SYSTEM,
            postgres_major: 15,
            segment_size: size,
            predecessor: None,
            capabilities: Capabilities { conditional_put: true, delete: true },
        };
        let wal = wal(size);
        let from = SegmentNumber(5).start(size).advance(size.bytes() / 3 / 8 * 8);
        let gap = Gap {
            branch: root(),
            from,
            to: SegmentNumber(9).start(size),
            next: root(),
            found: "2026-11-21T02:30:00Z".parse().expect("a time"),
            highest_time: None,
            why: "the slot was dropped".to_owned(),
            way: Vec::new(),
        };
        let bed = Bed { folder, repository, identity, keys, size, wal, gap };
        bed.archive(root(), &bed.wal, LsnRange { start: bed.wal.start, end: from }).await;
        bed.archive(root(), &bed.wal, LsnRange { start: bed.gap.to, end: bed.wal.at() }).await;
        bed.repository.put_gap(&bed.gap, &bed.keys.writer).await.expect("our own folder");
        bed
    }

    /// Stores what the stream would have.
    async fn archive(&self, branch: Branch, wal: &Sample, range: LsnRange) {
        for piece in self.pieces(branch, wal, range) {
            self.ship(piece).await;
        }
    }

    async fn ship(&self, piece: Piece) {
        let room = crate::memory::Memory::new(64 << 20).room(1).await;
        piece.ship(&self.repository, &self.keys, &room).await.expect("our own folder");
    }

    fn pieces(&self, branch: Branch, wal: &Sample, range: LsnRange) -> Vec<Piece> {
        let mut cutter = Cutter::new(branch, self.size, self.keys.writer.compare(), range.start, None);
        let mut pieces = Vec::new();
        cutter.push(slice(wal, range), &mut pieces).expect("nothing to differ from");
        pieces.extend(cutter.cut_tail());
        pieces
    }

    fn wal_folder(&self) -> PathBuf {
        self.folder.path().join("wal")
    }

    fn file(&self, timeline: u32, number: u64) -> PathBuf {
        let timeline = TimelineId::new(timeline).expect("not zero");
        self.wal_folder().join(SegmentName::new(timeline, SegmentNumber(number), self.size).to_string())
    }

    fn put_files(&self, wal: &Sample, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let bytes = slice(wal, SegmentNumber(number).range(self.size));
            std::fs::write(self.file(wal.timeline, number), bytes).expect("our own folder");
        }
    }

    fn sources(&self) -> Vec<Arc<dyn Source>> {
        let source = FolderSource::open(&self.wal_folder(), self.size, SYSTEM).expect("our own folder");
        vec![Arc::new(source)]
    }

    fn healer(&self) -> Healer {
        Healer::new(self.repository.clone(), self.identity.clone(), self.keys.clone())
    }

    async fn plan(&self) -> GapPlan {
        let healer = self.healer();
        let gaps = healer.gaps(None).await.expect("readable");
        let mut plan = healer.plan(gaps, &self.sources()).await.expect("readable");
        assert_eq!(plan.gaps.len(), 1, "{plan:?}");
        plan.gaps.remove(0)
    }

    /// Plans and stores; what was planned as left is what is left, and what was stored is what the server had.
    async fn heal(&self) -> GapPlan {
        let plan = self.plan().await;
        let whole = HealPlan { gaps: vec![plan.clone()] };
        self.healer().fill(&whole, &self.sources(), |_| ()).await.expect("our own folder");
        assert_eq!(self.missing().await, plan.left);
        plan
    }

    async fn missing(&self) -> Vec<Stretch> {
        self.repository.missing(&self.gap, self.size).await.expect("readable")
    }

    /// Everything that lies in the repository of the range is what the server wrote.
    async fn is_right(&self, branch: Branch, wal: &Sample, range: LsnRange) {
        let listing = self.repository.wal_listing(branch, self.size, None).await.expect("readable");
        let start = self.size.align_down(range.start);
        let end = self.repository.contiguous_end(&listing, start).await.expect("readable");
        assert!(end >= range.end, "{end} instead of {}", range.end);
        for piece in self.pieces(branch, wal, LsnRange { start, end: range.end }) {
            if piece.kind == PieceKind::Whole {
                assert!(piece.is_there(&self.repository, &self.keys).await.expect("readable"), "{}", piece.name());
            }
        }
    }

    fn left(&self, start: Lsn, end: Lsn) -> Stretch {
        Stretch { branch: root(), range: LsnRange { start, end }, is_end: false }
    }

    fn start(&self, number: u64) -> Lsn {
        SegmentNumber(number).start(self.size)
    }
}

fn slice(wal: &Sample, range: LsnRange) -> &[u8] {
    let from = range.start.bytes_since(wal.start) as usize;
    &wal.bytes[from..from + range.len() as usize]
}

#[tokio::test]
async fn a_folder_that_has_it_all_fills_the_gap() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 4..=9);
    let plan = bed.heal().await;
    assert_eq!((plan.left.as_slice(), plan.findings.as_slice()), (&[][..], &[][..]));
    let range = LsnRange { start: bed.start(5), end: bed.gap.to };
    assert_eq!(plan.fills.iter().map(|fill| fill.range).collect::<Vec<_>>(), [range]);
    assert_eq!(plan.fills[0].agrees_with.len(), 2, "before and behind: {plan:?}");
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: bed.wal.at() }).await;
    // There is nothing to do any more, and nothing was said to be durable that was not there.
    assert_eq!(bed.healer().gaps(None).await.expect("readable"), []);
    let name = ObjectName::Wal(root(), SegmentName::new(TimelineId::FIRST, SegmentNumber(6), bed.size), None);
    let (header, _) = bed.repository.read_header(&name).await.expect("it was stored");
    let section = header.header.wal.expect("WAL");
    assert_eq!((section.durable, section.leading_unread), (None, false));
    assert!(section.transactions.count > 0);
}

#[tokio::test]
async fn a_gap_without_one_side_in_the_folder_is_filled_from_the_other() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 5..=6);
    let plan = bed.heal().await;
    assert_eq!(plan.left, [bed.left(bed.start(7), bed.gap.to)]);
    assert!(plan.fills[0].agrees_with[0].starts_with("tail/"), "{plan:?}");
    std::fs::remove_file(bed.file(1, 5)).expect("our own folder");
    std::fs::remove_file(bed.file(1, 6)).expect("our own folder");
    bed.put_files(&bed.wal, 8..=9);
    let plan = bed.heal().await;
    assert_eq!(plan.left, [bed.left(bed.start(7), bed.start(8))]);
    // And the last one, which touches what was filled before.
    bed.put_files(&bed.wal, 6..=7);
    assert_eq!(bed.heal().await.left, []);
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: bed.wal.at() }).await;
}

#[tokio::test]
async fn case_17_wal_that_touches_nothing_is_not_believed() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 6..=7);
    let plan = bed.heal().await;
    assert_eq!((plan.fills.len(), plan.left.as_slice()), (0, &[bed.left(bed.gap.from, bed.gap.to)][..]));
    assert!(plan.findings[0].contains("nothing of it touches what the repository holds"), "{plan:?}");
}

#[tokio::test]
async fn case_17_a_copy_that_went_its_own_way_is_told_by_its_bytes() {
    let bed = Bed::new().await;
    // Before the gap; within it, so that only what lies behind tells.
    for fork in [bed.start(4).advance(200_000), bed.start(6).advance(1000)] {
        bed.put_files(&parted(&bed.wal, fork), 4..=9);
        let plan = bed.heal().await;
        assert_eq!(plan.fills.len(), 0, "{plan:?}");
        assert!(plan.findings[0].contains("is not what"), "{plan:?}");
        assert!(plan.findings[0].contains(&bed.keys.writer.public().to_string()), "{plan:?}");
    }
}

#[tokio::test]
async fn case_25_another_clusters_wal_is_refused() {
    let bed = Bed::new().await;
    let mut other = Sample::of(WalVersion::V15, bed.size, bed.wal.start);
    other.system = 99;
    grow(&mut other, bed.wal.at());
    bed.put_files(&other, 4..=9);
    let plan = bed.heal().await;
    assert_eq!(plan.fills.len(), 0, "{plan:?}");
    assert!(plan.findings.iter().all(|finding| finding.contains("99")), "{plan:?}");
}

#[tokio::test]
async fn a_torn_segment_counts_to_its_last_whole_record_and_what_follows_by_itself() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 4..=9);
    // Cut off: not even looked at.
    let bytes = std::fs::read(bed.file(1, 7)).expect("our own folder");
    std::fs::write(bed.file(1, 7), &bytes[..500_000]).expect("our own folder");
    let plan = bed.plan().await;
    assert_eq!(plan.left, [bed.left(bed.start(7), bed.start(8))]);
    assert!(plan.findings[0].contains("has 500000 bytes"), "{plan:?}");
    // Of the right size, and its end never reached the disk.
    let mut torn = bytes.clone();
    torn[500_000..].fill(0);
    std::fs::write(bed.file(1, 7), &torn).expect("our own folder");
    let plan = bed.heal().await;
    let [left] = plan.left.as_slice() else { panic!("{plan:?}") };
    assert!(left.range.start <= bed.start(7).advance(500_000), "{plan:?}");
    assert!(left.range.start > bed.start(7).advance(480_000), "{plan:?}");
    assert_eq!(left.range.end, bed.start(8));
    assert!(plan.findings[0].contains("valid WAL ends at"), "{plan:?}");
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: left.range.start }).await;
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.start(8), end: bed.wal.at() }).await;
    // A bit that flipped in the middle of a record: the same.
    let mut flipped = bytes.clone();
    flipped[500_000] ^= 4;
    std::fs::write(bed.file(1, 7), &flipped).expect("our own folder");
    let again = bed.plan().await;
    assert_eq!((again.fills.len(), again.left.as_slice()), (0, &[*left][..]), "{again:?}");
    // The right one fills what is left.
    std::fs::write(bed.file(1, 7), &bytes).expect("our own folder");
    assert_eq!(bed.heal().await.left, []);
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: bed.wal.at() }).await;
}

#[tokio::test]
async fn what_pg_receivewal_had_not_finished_is_taken_to_its_last_record() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 5..=6);
    let mut bytes = slice(&bed.wal, SegmentNumber(7).range(bed.size)).to_vec();
    bytes[700_000..].fill(0);
    let partial = format!("{}.partial", bed.file(1, 7).display());
    std::fs::write(&partial, &bytes).expect("our own folder");
    std::fs::write(format!("{}.gz", bed.file(1, 8).display()), b"x").expect("our own folder");
    let plan = bed.heal().await;
    let [left] = plan.left.as_slice() else { panic!("{plan:?}") };
    assert!(left.range.start > bed.start(7).advance(680_000), "{plan:?}");
    assert!(plan.findings.iter().any(|finding| finding.contains("look like compressed")), "{plan:?}");
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: left.range.start }).await;
    // A whole segment under that name is no whole segment: nobody has said that it is finished.
    let whole = slice(&bed.wal, SegmentNumber(7).range(bed.size));
    std::fs::write(&partial, whole).expect("our own folder");
    let plan = bed.plan().await;
    assert!(plan.left[0].range.start < bed.start(8), "{plan:?}");
}

#[tokio::test]
async fn a_folder_that_changes_between_plan_and_fill_is_noticed_before_anything_wrong_is_stored() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 4..=9);
    let plan = HealPlan { gaps: vec![bed.plan().await] };
    bed.put_files(&parted(&bed.wal, bed.start(6).advance(1000)), 6..=9);
    let error = bed.healer().fill(&plan, &bed.sources(), |_| ()).await.expect_err("other bytes");
    assert!(matches!(error, HealError::Changed { .. }), "{error}");
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: bed.start(6) }).await;
    assert_eq!(bed.missing().await, [bed.left(bed.start(6), bed.gap.to)]);
}

#[tokio::test]
async fn a_hole_that_nobody_recorded_is_filled_when_it_is_named() {
    let bed = Bed::new().await;
    bed.put_files(&bed.wal, 3..=9);
    let name = ObjectName::Wal(root(), SegmentName::new(TimelineId::FIRST, SegmentNumber(4), bed.size), None);
    bed.repository.store().delete(&name.key(SYSTEM)).await.expect("our own folder");
    let healer = bed.healer();
    let at = bed.start(4).advance(5000);
    let gaps = healer.gaps(Some(at)).await.expect("a hole");
    assert!(
        gaps.iter().all(|(gap, recorded)| !recorded && gap.range() == SegmentNumber(4).range(bed.size)),
        "{gaps:?}"
    );
    let plan = healer.plan(gaps, &bed.sources()).await.expect("readable");
    healer.fill(&plan, &bed.sources(), |_| ()).await.expect("our own folder");
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: bed.gap.from }).await;
    let error = healer.gaps(Some(at)).await.expect_err("it is whole").to_string();
    assert_eq!(error, format!("no WAL is missing at {at}; open gaps begin at {}", bed.gap.from));
}

#[tokio::test]
async fn case_18_a_large_segment_is_filled_in_parts() {
    let bed = Bed::with_segments(32).await;
    bed.put_files(&bed.wal, 5..=9);
    assert_eq!(bed.heal().await.left, []);
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: bed.wal.at() }).await;
}

/// The gap lies over a switch of timelines, in segment 7.
async fn over_a_switch() -> (Bed, Sample, TimelineHistory) {
    let mut bed = Bed::new().await;
    let name = ObjectName::Gap(root(), bed.gap.from);
    bed.repository.store().delete(&name.key(SYSTEM)).await.expect("our own folder");
    // At the end of a record.
    let mut parent = Sample::of(WalVersion::V15, bed.size, bed.wal.start);
    parent.commit(701, 1_000);
    grow(&mut parent, bed.start(7).advance(100_000));
    let switch = parent.at();
    let mut child = parent.clone();
    child.timeline = 2;
    child.fill = 0x22;
    grow(&mut child, bed.wal.at());
    let entry = HistoryEntry { timeline: TimelineId::FIRST, switch, reason: b"no recovery target specified".to_vec() };
    let history = TimelineHistory { timeline: TimelineId::new(2).expect("not zero"), entries: vec![entry] };
    let next = history.branch(SYSTEM);
    bed.archive(next, &child, LsnRange { start: bed.gap.to, end: child.at() }).await;
    bed.gap = Gap { next, way: vec![Leg { branch: root(), end: switch }], ..bed.gap };
    bed.repository.put_gap(&bed.gap, &bed.keys.writer).await.expect("our own folder");
    (bed, child, history)
}

#[tokio::test]
async fn case_11_a_gap_over_a_switch_of_timelines_is_filled_on_both() {
    let (bed, child, history) = over_a_switch().await;
    bed.put_files(&bed.wal, 5..=9);
    bed.put_files(&child, 7..=9);
    std::fs::write(bed.wal_folder().join("00000002.history"), history.render()).expect("our own folder");
    let plan = bed.heal().await;
    assert_eq!(plan.left, [], "{plan:?}");
    let switch = history.begin();
    bed.is_right(root(), &bed.wal, LsnRange { start: bed.wal.start, end: switch }).await;
    bed.is_right(history.branch(SYSTEM), &child, LsnRange { start: bed.start(7), end: child.at() }).await;
    // What the old timeline's file holds behind the switch is no WAL of this way.
    let name = SegmentName::new(TimelineId::FIRST, SegmentNumber(7), bed.size);
    let partial = bed.repository.read_header(&ObjectName::Partial(root(), name)).await.expect("its end").0;
    assert_eq!(partial.header.wal.expect("WAL").end, switch);
    let whole = ObjectName::Wal(root(), name, None);
    assert!(bed.repository.read_header(&whole).await.expect_err("never whole").is_not_found());
}

#[tokio::test]
async fn case_17_a_timeline_with_another_history_is_refused() {
    let (bed, child, history) = over_a_switch().await;
    bed.put_files(&bed.wal, 5..=6);
    bed.put_files(&child, 7..=9);
    let mut other = history.clone();
    other.entries[0].reason = b"before 2026".to_vec();
    std::fs::write(bed.wal_folder().join("00000002.history"), other.render()).expect("our own folder");
    let plan = bed.heal().await;
    assert!(plan.fills.iter().all(|fill| fill.branch == root()), "{plan:?}");
    assert!(plan.findings.iter().any(|finding| finding.contains("has another history")), "{plan:?}");
}
