#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::sample::{SYSTEM, Sample};
use super::*;
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::timeline::SystemIdentifier;

/// What segment `number` of the sample, counted from its start, says; in pieces of that size.
fn finish_in(sample: &Sample, bytes: &[u8], number: usize, piece: usize) -> Finish {
    let length = sample.size.bytes() as usize;
    let first = sample.size.number(sample.start).0;
    let number = crate::segment::SegmentNumber(first + number as u64);
    let from = number.start(sample.size).bytes_since(sample.start) as usize;
    let segment = &bytes[from..bytes.len().min(from + length)];
    let mut walk =
        FinishWalk::new(number, sample.size, SystemIdentifier(SYSTEM)).expect("a segment starts with a page");
    let mut undecided = true;
    for piece in segment.chunks(piece) {
        undecided = walk.push(piece, |_| ());
    }
    let finish = walk.finish();
    assert_eq!(!undecided, matches!(&finish, Finish::Broken(end) if end.is_permanent()));
    finish
}

fn finish(sample: &Sample, number: usize) -> Finish {
    finish_in(sample, &sample.bytes, number, 100_000)
}

fn sizes() -> [SegmentSize; 2] {
    [SegmentSize::SMALLEST, SegmentSize::new(64 << 20).expect("64 MiB is legal")]
}

fn filled_but(version: WalVersion, size: SegmentSize, left: u64) -> Sample {
    let mut wal = Sample::of(version, size, Lsn(size.bytes()));
    wal.filler(100);
    wal.commit(701, 1_000);
    wal.filler(20_000);
    wal.fill_segment_but(left);
    wal
}

/// The segment's first bytes, and over the rest what `old` has there.
fn written_up_to(new: &Sample, old: &[u8], written: usize) -> Vec<u8> {
    let mut bytes = old.to_vec();
    bytes[..written].copy_from_slice(&new.bytes[..written]);
    bytes
}

#[test]
fn case_18_a_segment_whose_last_record_ends_with_it_is_finished() {
    for version in WalVersion::ALL {
        let wal = filled_but(version, SegmentSize::SMALLEST, 0);
        assert_eq!(wal.bytes.len(), 1 << 20);
        assert_eq!(finish(&wal, 0), Finish::Proven, "{version:?}");
    }
    let [_, large] = sizes();
    assert_eq!(finish(&filled_but(WalVersion::V15, large, 0), 0), Finish::Proven);
}

#[test]
fn a_record_that_goes_on_in_the_next_segment_leaves_the_end_unchecked() {
    // Down to where only a part of its header fits: PostgreSQL leaves no byte of a segment unused.
    for left in [8, 16, 24, 32, 4_000, 8_168] {
        let mut wal = filled_but(WalVersion::V16, SegmentSize::SMALLEST, left);
        let from = wal.at();
        wal.filler(9_000);
        wal.fill_segment_but(0);
        assert_eq!(finish(&wal, 0), Finish::Unproven(Doubt::Unchecked { from }), "{left} bytes left");
        assert_eq!(finish(&wal, 1), Finish::Proven, "it begins with the rest of a record");
    }
}

#[test]
fn a_record_that_fills_whole_segments_leaves_them_unchecked() {
    let mut wal = filled_but(WalVersion::V18, SegmentSize::SMALLEST, 3_000);
    wal.filler(3 << 20);
    wal.fill_segment_but(0);
    let start = |number: u64| Lsn((1 + number) << 20);
    for number in [1, 2, 3] {
        let unchecked = Finish::Unproven(Doubt::Unchecked { from: start(number) });
        assert_eq!(finish(&wal, number as usize), unchecked, "segment {number}");
    }
    assert_eq!(finish(&wal, 4), Finish::Proven);
    // Nor can it be checked where it ends with a segment's last byte.
    let mut wal = filled_but(WalVersion::V18, SegmentSize::SMALLEST, 8);
    let pages = (1 << 20) / 8192;
    wal.filler(8 + (1 << 20) - 40 - (pages - 1) * 24 - 24);
    assert_eq!(wal.bytes.len(), 2 << 20);
    assert_eq!(finish(&wal, 1), Finish::Unproven(Doubt::Unchecked { from: start(1) }));
}

#[test]
fn a_switch_and_its_padding_finish_a_segment() {
    for version in WalVersion::ALL {
        for left in [24, 48, 4_096, 8_168, 500_000] {
            let mut wal = filled_but(version, SegmentSize::SMALLEST, left);
            wal.switch();
            assert_eq!(wal.bytes.len(), 1 << 20);
            assert_eq!(finish(&wal, 0), Finish::Proven, "{version:?}, {left} bytes left");
        }
    }
    let [_, large] = sizes();
    let mut wal = filled_but(WalVersion::V14, large, 40 << 20);
    wal.switch();
    assert_eq!(finish(&wal, 0), Finish::Proven);
    let mut first = Sample::new(WalVersion::V17);
    first.switch();
    assert_eq!(finish(&first, 0), Finish::Proven, "nothing but a switch");
}

#[test]
fn a_switch_that_finds_8_or_16_bytes_left_consumes_the_next_segment() {
    for left in [8, 16] {
        let mut wal = filled_but(WalVersion::V15, SegmentSize::SMALLEST, left);
        let from = wal.at();
        wal.switch();
        assert_eq!(wal.bytes.len(), 2 << 20);
        assert_eq!(finish(&wal, 0), Finish::Unproven(Doubt::Unchecked { from }), "{left} bytes left");
        for piece in [1, 3, 41, 57, 8_192, 1 << 20] {
            assert_eq!(
                finish_in(&wal, &wal.bytes, 1, piece),
                Finish::Proven,
                "{left} bytes left, in pieces of {piece}"
            );
        }
        // The next segment is walked as ever.
        wal.fill_segment_but(0);
        assert_eq!(finish(&wal, 2), Finish::Proven);
        let mut walker = Walker::new(wal.start.advance(1 << 20), wal.size, WalkOptions::default()).expect("a page");
        walker.push(&wal.bytes[1 << 20..], |_| ()).expect("the padding is passed over");
        assert_eq!(walker.position(), wal.at());
        // Another record of that length is no switch: its segment has only begun.
        let mut other = filled_but(WalVersion::V15, SegmentSize::SMALLEST, left);
        other.record(ResourceManager::XLOG, 0x50, 0, &[]);
        other.bytes.resize(2 << 20, 0);
        assert!(matches!(finish(&other, 1), Finish::Broken(end) if end.reason == EndReason::TooShort(0)));
    }
}

#[test]
fn a_segment_that_is_being_written_is_not_finished() {
    let wal = filled_but(WalVersion::V15, SegmentSize::SMALLEST, 0);
    let mut recycled = Sample::starting_at(WalVersion::V15, Lsn(40 << 20));
    recycled.fill = 0xCD;
    recycled.fill_segment_but(0);
    let zeros = vec![0; 1 << 20];
    for (what, old) in [("recycled", &recycled.bytes), ("new", &zeros)] {
        // The first page's header is always there.
        for written in (40..1 << 20).step_by(1_016) {
            let bytes = written_up_to(&wal, old, written);
            let said = finish_in(&wal, &bytes, 0, 50_000);
            assert!(matches!(said, Finish::Broken(_)), "{what}, written up to {written}: {said:?}");
        }
    }
    // As much of it as was copied.
    assert!(matches!(finish_in(&wal, &wal.bytes[..900_000], 0, 50_000), Finish::Broken(end) if !end.is_permanent()));
}

#[test]
fn a_last_page_that_was_written_within_a_record_is_not_proven() {
    let mut wal = filled_but(WalVersion::V17, SegmentSize::SMALLEST, 4_000);
    let from = wal.at();
    wal.filler(9_000);
    wal.bytes.truncate(1 << 20);
    // Its length was there, and not yet all of its body.
    for written in [24, 100, 3_999] {
        let written = (1 << 20) - 4_000 + written;
        let bytes = written_up_to(&wal, &vec![0; 1 << 20], written);
        assert_eq!(finish_in(&wal, &bytes, 0, 50_000), Finish::Unproven(Doubt::Unchecked { from }));
    }
}

#[test]
fn padding_that_is_not_zero_proves_nothing() {
    let mut wal = filled_but(WalVersion::V16, SegmentSize::SMALLEST, 300_000);
    let switch = wal.switch().advance(24);
    for at in [switch, switch.advance(1), switch.advance(100_000), Lsn((2 << 20) - 1)] {
        let mut bytes = wal.bytes.clone();
        bytes[at.bytes_since(wal.start) as usize] = 1;
        for piece in [1_000, 1 << 20] {
            let said = finish_in(&wal, &bytes, 0, piece);
            assert_eq!(said, Finish::Unproven(Doubt::Padding { switch, at }), "in pieces of {piece}");
        }
    }
}

#[test]
fn case_04_the_segment_in_which_a_timeline_begins_is_finished_with_its_parents_pages() {
    let mut wal = Sample::new(WalVersion::V15);
    for _ in 0..50 {
        wal.filler(3_000);
    }
    wal.timeline = 2;
    wal.fill_segment_but(0);
    assert_eq!(finish(&wal, 0), Finish::Proven);
}

#[test]
fn a_record_that_was_lost_in_a_crash_does_not_keep_a_segment_unfinished() {
    let mut wal = Sample::new(WalVersion::V14);
    wal.filler(100);
    let whole = wal.encode(ResourceManager::TRANSACTION, 0, 800, &vec![255; 30_000]);
    let room = 8192 - (wal.at().0 % 8192) as usize;
    wal.bytes.extend(&whole[..room]);
    wal.page(8, 0);
    wal.main(ResourceManager::XLOG, 0xD0, 0, &[7; 16]);
    wal.fill_segment_but(0);
    assert_eq!(finish(&wal, 0), Finish::Proven);
}

#[test]
fn records_of_unknown_resource_managers_count_when_their_checksums_are_right() {
    for version in WalVersion::ALL {
        let mut wal = Sample::new(version);
        let unknown = wal.record(ResourceManager(77), 0x10, 700, &[5; 300]);
        wal.fill_segment_but(0);
        assert_eq!(finish(&wal, 0), Finish::Proven, "{version:?}");
        wal.bytes[unknown.bytes_since(wal.start) as usize + 100] ^= 1;
        let Finish::Broken(end) = finish(&wal, 0) else { panic!("it is damaged") };
        assert!(matches!(end.reason, EndReason::BadChecksum { .. }), "{end}");
        assert_eq!(end.at, unknown);
    }
}

#[test]
fn i4_another_clusters_segment_is_not_finished() {
    let mut wal = Sample::new(WalVersion::V15);
    wal.system = 99;
    wal.fill_segment_but(0);
    assert!(matches!(finish(&wal, 0), Finish::Broken(end) if end.position == wal.start));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_never_panics_and_pieces_make_no_difference(
        left in prop::sample::select(vec![0u64, 8, 16, 24, 5_000, 300_000]),
        damage in prop::collection::vec((0usize..1 << 20, any::<u8>()), 0..4),
        piece in 1usize..30_000,
    ) {
        let mut wal = filled_but(WalVersion::V15, SegmentSize::SMALLEST, left);
        if left > 0 {
            wal.switch();
        }
        for (at, value) in damage {
            wal.bytes[at] = value;
        }
        for number in 0..wal.bytes.len() >> 20 {
            let whole = finish_in(&wal, &wal.bytes, number, 1 << 20);
            prop_assert_eq!(finish_in(&wal, &wal.bytes, number, piece), whole);
        }
    }
}
