#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::sample::{SYSTEM, Sample};
use super::*;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::SegmentSize;
use crate::time::PgTimestamp;
use crate::timeline::SystemIdentifier;

type ToldRecord = (Lsn, Lsn, Xid, Content, Option<Vec<u8>>);

/// What a walk said: start, end, xid and content of each record, the skipped range, and the end.
#[derive(Debug, PartialEq, Clone)]
struct Told {
    records: Vec<ToldRecord>,
    skipped: Option<LsnRange>,
    summary: WalSummary,
    end: WalkEnd,
}

fn walk_in<'a>(start: Lsn, size: SegmentSize, options: WalkOptions, pieces: impl Iterator<Item = &'a [u8]>) -> Told {
    let mut walker = Walker::new(start, size, options).expect("a page");
    let (mut records, mut skipped, mut summary) = (Vec::new(), None, WalSummary::default());
    for piece in pieces {
        let pushed = walker.push(piece, |event| {
            summary.add(&event);
            match event {
                Event::LeadingSkipped { range } => skipped = Some(range),
                Event::Record(r) => records.push((r.start, r.end, r.xid, r.content, r.body.map(<[u8]>::to_vec))),
            }
        });
        assert!(walker.position() <= walker.next_byte());
        if let Err(end) = pushed {
            assert_eq!(end, walker.end());
            break;
        }
    }
    Told { records, skipped, summary, end: walker.end() }
}

fn walk(sample: &Sample) -> Told {
    walk_in(sample.start, sample.size, WalkOptions::default(), std::iter::once(&sample.bytes[..]))
}

/// A bit of everything, over two segments and a bit.
fn mixed() -> Sample {
    let mut sample = Sample::new(WalVersion::V15);
    sample.filler(100);
    sample.commit(701, 1_000);
    sample.filler(20_000);
    sample.abort(702, 500);
    let mut main = 2_000i64.to_le_bytes().to_vec();
    main.extend((1u32 << 1).to_le_bytes());
    main.extend(5_000u32.to_le_bytes());
    main.extend(vec![7; 20_000]);
    sample.main(ResourceManager::TRANSACTION, 0x80, 703, &main);
    let mut point = 1_500i64.to_le_bytes().to_vec();
    point.extend(b"before migration\0");
    point.resize(72, 0);
    sample.main(ResourceManager::XLOG, 0x70, 0, &point);
    sample.switch();
    sample.fill_segment_but(16);
    sample.commit(704, 1_800);
    sample.filler(300);
    sample
}

#[test]
fn walker_tells_every_record_and_where_it_ran_out_of_bytes() {
    let sample = mixed();
    let told = walk(&sample);
    assert_eq!(told.end, WalkEnd { position: sample.at(), at: sample.at(), reason: EndReason::OutOfBytes });
    assert_eq!(told.skipped, None);
    let summary = &told.summary;
    assert_eq!((summary.commits, summary.aborts, summary.transactions()), (3, 1, 4));
    let times = |lowest, highest| Some(TimeRange { lowest: PgTimestamp(lowest), highest: PgTimestamp(highest) });
    assert_eq!(summary.end_times, times(500, 2_000));
    assert_eq!(summary.commit_times, times(1_000, 2_000));
    assert_eq!(summary.last_commit.map(|c| (c.xid, c.time)), Some((Xid(704), PgTimestamp(1_800))));
    assert_eq!(summary.running_highest(Some(PgTimestamp(9_999))), Some(PgTimestamp(9_999)));
    assert_eq!(summary.running_highest(None), Some(PgTimestamp(2_000)));
    assert!(summary.is_complete());
    let names: Vec<_> = told
        .records
        .iter()
        .filter_map(|(_, _, _, content, _)| match content {
            Content::RestorePoint(point) => Some(point.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["before migration"]);
}

#[test]
fn case_54_a_commit_that_spans_two_segments_belongs_to_the_second() {
    let sample = mixed();
    let told = walk(&sample);
    let (start, end, ..) = told.records.iter().find(|r| r.2 == Xid(704)).expect("the commit");
    let second = sample.size.number(sample.start).next().range(sample.size);
    let third = sample.size.number(sample.start).next().next().range(sample.size);
    assert!(second.contains(*start) && third.contains(*end), "{start} to {end}");

    // The third segment alone does not know who ended there, and says so.
    let offset = third.start.bytes_since(sample.start) as usize;
    let pieces = std::iter::once(&sample.bytes[offset..]);
    let third_only = walk_in(third.start, sample.size, WalkOptions::default(), pieces);
    assert_eq!(third_only.skipped, Some(LsnRange { start: third.start, end: *end }));
    assert!(third_only.summary.leading_unread && !third_only.summary.is_complete());
    assert_eq!(third_only.summary.transactions(), 0);
    assert_eq!(third_only.records.len(), 1);

    // A record that ends with the segment's last byte belongs to that segment.
    let mut exact = Sample::new(WalVersion::V18);
    exact.fill_segment_but(0);
    let told = walk(&exact);
    let last = told.records.last().expect("records");
    assert_eq!(last.1, exact.size.number(exact.start).end(exact.size));
    let mut walker = Walker::new(exact.start, exact.size, WalkOptions::default()).expect("a page");
    let mut segments = Vec::new();
    walker
        .push(&exact.bytes, |event| {
            if let Event::Record(record) = event {
                segments.push(record.segment(exact.size));
                assert!(record.belongs_to(exact.size.number(exact.start).range(exact.size)));
            }
        })
        .expect("valid WAL");
    assert!(segments.iter().all(|number| *number == exact.size.number(exact.start)));
}

#[test]
fn a_range_in_which_nothing_ends_misses_nothing() {
    let mut sample = Sample::new(WalVersion::V16);
    sample.page(1, 3 << 20);
    sample.bytes.resize(8192, 0xCD);
    let told = walk(&sample);
    assert_eq!(told.skipped, None);
    assert!(told.summary.is_complete(), "the record ends in a later range");
    assert_eq!(told.end.position, sample.start);
}

#[test]
fn case_04_valid_wal_ends_where_a_recycled_segment_begins() {
    let mut old = Sample::starting_at(WalVersion::V15, Lsn(1 << 20));
    old.fill = 0xCD;
    while old.bytes.len() < 100_000 {
        old.filler(333);
        old.commit(650, 1);
    }
    let mut new = Sample::new(WalVersion::V15);
    let mut ends = vec![new.start];
    for length in [100, 9_000, 57, 700, 20_000, 48] {
        new.filler(length);
        ends.push(new.at());
    }
    // A link can be checked from the second record on, so the first one's header is the new one's.
    for cut in (64..new.bytes.len()).step_by(8) {
        let mut bytes = old.bytes.clone();
        bytes[..cut].copy_from_slice(&new.bytes[..cut]);
        let end = valid_end(&bytes, new.start, new.size).expect("the first page is right");
        let expected = ends.iter().rev().find(|end| end.bytes_since(new.start) <= cut as u64).expect("the start");
        assert_eq!(end.position, *expected, "cut at {cut}: {end}");
        assert_ne!(end.reason, EndReason::OutOfBytes);
    }
    assert!(valid_end(&[0; 8192], new.start, new.size).is_err(), "zeros are no WAL at all");
    assert!(valid_end(&new.bytes, new.start.advance(1 << 20), new.size).is_err(), "another segment's name");
    assert!(valid_end(&new.bytes, new.start.advance(8), new.size).is_err(), "not a page");
}

#[test]
fn a_record_that_was_lost_in_a_crash_is_passed_over() {
    let mut sample = Sample::new(WalVersion::V14);
    sample.filler(100);
    let lost = sample.at();
    let whole = sample.encode(ResourceManager::TRANSACTION, 0, 800, &vec![255; 30_000]);
    let room = 8192 - (sample.at().0 % 8192) as usize;
    sample.bytes.extend(&whole[..room]);
    sample.page(8, 0);
    let mut main = lost.0.to_le_bytes().to_vec();
    main.extend(77i64.to_le_bytes());
    let overwrite = sample.main(ResourceManager::XLOG, 0xD0, 0, &main);
    sample.commit(801, 5);
    let told = walk(&sample);
    assert_eq!(told.records[1].0, overwrite);
    assert_eq!(told.records[1].3, Content::Overwrite { lost, time: PgTimestamp(77) });
    assert_eq!(told.summary.commits, 1);
    assert_eq!(told.end.position, sample.at());

    // Also when the walk began within the lost record.
    let page = sample.start.advance(8192);
    let from = walk_in(page, sample.size, WalkOptions::default(), std::iter::once(&sample.bytes[8192..]));
    assert_eq!((from.skipped, from.records.len()), (None, 2));
    assert!(from.summary.is_complete(), "the lost record never happened");
}

type Change<'a> = &'a dyn Fn(&mut Sample);

#[test]
fn each_kind_of_damage_has_its_reason() {
    let broken = |change: &dyn Fn(&mut Sample)| {
        let mut sample = Sample::new(WalVersion::V15);
        sample.filler(8192);
        sample.filler(100);
        change(&mut sample);
        walk(&sample).end
    };
    let page = Lsn((3 << 20) + 8192);
    let cases: [(&str, EndReason, Change); 9] = [
        ("zeros", EndReason::TooShort(0), &|s| s.bytes.extend([0; 24])),
        ("length", EndReason::TooLong(0x4000_0000), &|s| s.bytes.extend(0x4000_0000u32.to_le_bytes())),
        ("manager", EndReason::UnknownManager(22), &|s| {
            s.record(ResourceManager(22), 0, 0, &[]);
        }),
        ("no continuation", EndReason::NoContinuation, &|s| s.bytes[8192 + 2] = 0),
        ("continuation", EndReason::OtherContinuation { found: 0x4A, expected: 0x40 }, &|s| s.bytes[8192 + 16] = 0x4A),
        ("flags", EndReason::Page(WalError::UnknownFlags(0x11)), &|s| s.bytes[8192 + 2] = 0x11),
        ("timeline 0", EndReason::Page(WalError::NoTimeline), &|s| s.bytes[8192 + 4] = 0),
        ("magic", EndReason::Page(WalError::OtherVersion { found: 18, expected: 15 }), &|s| s.bytes[8192] = 0x18),
        ("address", EndReason::Page(WalError::OtherAddress { found: Lsn(page.0 + 1), expected: page }), &|s| {
            s.bytes[8192 + 8] = 1;
        }),
    ];
    for (what, reason, change) in cases {
        let end = broken(change);
        assert_eq!(end.reason, reason, "{what}: {end}");
        assert!(end.position <= end.at && end.is_permanent());
    }
    let flipped = broken(&|s| s.bytes[200] ^= 1);
    assert!(matches!(flipped.reason, EndReason::BadChecksum { .. }), "{flipped}");
    let linked = broken(&|s| {
        let record = Sample::new(WalVersion::V15).encode(ResourceManager(10), 0, 0, &[]);
        s.spread(&record);
    });
    assert!(matches!(linked.reason, EndReason::BrokenLink { .. }), "{linked}");
}

#[test]
fn i4_a_walk_refuses_another_clusters_wal() {
    let sample = mixed();
    let with = |system| {
        let options = WalkOptions { system: Some(SystemIdentifier(system)), ..WalkOptions::default() };
        walk_in(sample.start, sample.size, options, std::iter::once(&sample.bytes[..])).end
    };
    assert_eq!(with(SYSTEM).reason, EndReason::OutOfBytes);
    assert!(matches!(with(5).reason, EndReason::Page(WalError::OtherCluster { .. })));
}

fn in_pieces<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut next = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let (now, later) = rest.split_at((*next.next()?).min(rest.len()));
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pieces_make_no_difference(
        sizes in prop::collection::vec(1usize..40_000, 1..20),
        small in prop::collection::vec(1usize..60, 1..20),
        body_limit in prop::option::of(0u32..30_000),
    ) {
        let sample = mixed();
        let options = WalkOptions { body_limit, ..WalkOptions::default() };
        let whole = walk_in(sample.start, sample.size, options, std::iter::once(&sample.bytes[..]));
        prop_assert_eq!(&walk_in(sample.start, sample.size, options, in_pieces(&sample.bytes, &sizes)), &whole);
        let part = &sample.bytes[..150_000];
        let whole = walk_in(sample.start, sample.size, options, std::iter::once(part));
        prop_assert_eq!(&walk_in(sample.start, sample.size, options, in_pieces(part, &small)), &whole);
    }

    #[test]
    fn damage_never_panics_and_pieces_still_make_no_difference(
        damage in prop::collection::vec((0usize..200_000, any::<u8>()), 1..6),
        headers in prop::collection::vec((0usize..24, 0usize..40, any::<u8>()), 0..4),
        sizes in prop::collection::vec(1usize..20_000, 1..20),
        check_crc: bool,
    ) {
        let sample = mixed();
        let mut bytes = sample.bytes[..200_000].to_vec();
        for (at, value) in damage {
            bytes[at] = value;
        }
        for (page, at, value) in headers {
            bytes[page * 8192 + at] = value;
        }
        let options = WalkOptions { check_crc, body_limit: Some(1000), ..WalkOptions::default() };
        let whole = walk_in(sample.start, sample.size, options, std::iter::once(&bytes[..]));
        prop_assert_eq!(walk_in(sample.start, sample.size, options, in_pieces(&bytes, &sizes)), whole);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, check_crc: bool, version in 0usize..5) {
        let mut sample = Sample::new(WalVersion::ALL[version]);
        let options = WalkOptions { check_crc, ..WalkOptions::default() };
        walk_in(sample.start, sample.size, options, std::iter::once(&bytes[..]));
        sample.page(0, 0);
        sample.bytes.extend(&bytes);
        walk(&sample);
        prop_assert!(valid_end(&sample.bytes, sample.start, sample.size).is_ok());
    }

    #[test]
    fn summaries_of_parts_add_up(cut in 0usize..1_000_000) {
        let sample = mixed();
        let mut walker = Walker::new(sample.start, sample.size, WalkOptions::default()).expect("a page");
        let (mut first, mut second) = (WalSummary::default(), WalSummary::default());
        let (head, tail) = sample.bytes.split_at(cut);
        walker.push(head, |event| first.add(&event)).expect("valid");
        walker.push(tail, |event| second.add(&event)).expect("valid");
        first.append(&second);
        prop_assert_eq!(first, walk(&sample).summary);
    }
}
