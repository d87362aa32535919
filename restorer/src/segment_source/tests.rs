#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;
use walseal_common::seal::{Kind, WriterKey};

use super::*;
use crate::sample::{LateStore, SYSTEM, SampleRepository};

const SEGMENT: SegmentNumber = SegmentNumber(3);

/// Bytes that are neither constant nor random.
fn content(size: SegmentSize) -> Vec<u8> {
    (0..size.bytes() as usize).map(|at| ((at / 7) ^ (at >> 9)) as u8).collect()
}

fn range(sample: &SampleRepository, from: u64, to: u64) -> LsnRange {
    let start = SEGMENT.start(sample.size);
    LsnRange { start: start.advance(from), end: start.advance(to) }
}

async fn read(sample: &SampleRepository) -> Result<SegmentBytes, SegmentError> {
    read_segment(&sample.repository, sample.branch(), SEGMENT, sample.size, &sample.identities).await
}

fn zero_filled(content: &[u8], valid: usize) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes[valid..].fill(0);
    bytes
}

#[tokio::test]
async fn a_whole_segment_comes_back_as_it_was() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    sample.put_segment(sample.branch(), SEGMENT, &bytes).await;
    let read = read(&sample).await.expect("a whole segment");
    assert!(read.whole && read.bytes == bytes);
    assert_eq!((read.valid_end, read.known_end), (SEGMENT.end(sample.size), SEGMENT.end(sample.size)));
}

#[tokio::test]
async fn case_03_what_a_room_held_before_is_in_no_segment() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    let next = SegmentNumber(SEGMENT.0 + 1);
    sample.put_segment(sample.branch(), SEGMENT, &bytes).await;
    let start = next.start(sample.size);
    sample.put_tail(sample.branch(), LsnRange { start, end: start.advance(500) }, &bytes).await;
    let used = || {
        let mut room = vec![0xff; 2 * bytes.len()];
        room.clear();
        room
    };
    let read = async |segment, room| {
        let (repository, branch) = (&sample.repository, sample.branch());
        read_segment_into(repository, branch, segment, sample.size, &sample.identities, room)
            .await
            .expect("it is there")
    };
    let room = used();
    let place = room.as_ptr();
    let whole = read(SEGMENT, room).await;
    assert!(whole.whole && whole.bytes == bytes);
    assert_eq!(whole.bytes.as_ptr(), place, "it was copied");
    let tail = read(next, used()).await;
    assert!(!tail.whole && tail.bytes == zero_filled(&bytes, 500));
}

#[tokio::test]
async fn case_18_a_segment_over_16_mib_comes_back_from_its_parts() {
    let sample = SampleRepository::with_size(32).await;
    let bytes = content(sample.size);
    sample.put_segment(sample.branch(), SEGMENT, &bytes).await;
    assert!(read(&sample).await.expect("both parts").bytes == bytes);
}

#[tokio::test]
async fn case_18_a_large_segment_that_is_being_filled_is_parts_and_tails() {
    let sample = SampleRepository::with_size(32).await;
    let bytes = content(sample.size);
    sample.put_part(sample.branch(), SEGMENT, 0, &bytes).await;
    sample.put_tail(sample.branch(), range(&sample, 16 << 20, (16 << 20) + 500), &bytes).await;
    let read = read(&sample).await.expect("a part and a tail");
    assert_eq!(read.valid_end, SEGMENT.start(sample.size).advance((16 << 20) + 500));
    assert!(!read.whole && read.bytes == zero_filled(&bytes, (16 << 20) + 500));
}

#[tokio::test]
async fn case_03_a_tail_is_zero_filled_to_a_whole_segment() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    for (from, to) in [(0, 1000), (1000, 1500), (0, 1500), (1500, 70_000), (1200, 60_000)] {
        sample.put_tail(sample.branch(), range(&sample, from, to), &bytes).await;
    }
    let read = read(&sample).await.expect("tails");
    assert_eq!(read.valid_end, SEGMENT.start(sample.size).advance(70_000));
    assert!(!read.whole && read.bytes == zero_filled(&bytes, 70_000));
}

#[tokio::test]
async fn case_04_a_partial_serves_when_its_tails_are_gone_and_when_they_are_not() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    sample.put_partial(sample.branch(), range(&sample, 0, 9000), &bytes).await;
    let alone = read(&sample).await.expect("a partial");
    sample.put_tail(sample.branch(), range(&sample, 0, 9000), &bytes).await;
    sample.put_tail(sample.branch(), range(&sample, 0, 400), &bytes).await;
    assert_eq!(read(&sample).await.expect("a partial and tails"), alone);
    assert_eq!(alone.valid_end, SEGMENT.start(sample.size).advance(9000));
}

#[tokio::test]
async fn case_01_a_hole_between_tails_shows_in_the_known_end() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    sample.put_tail(sample.branch(), range(&sample, 0, 1000), &bytes).await;
    sample.put_tail(sample.branch(), range(&sample, 2000, 3000), &bytes).await;
    let read = read(&sample).await.expect("what lies before the hole");
    let start = SEGMENT.start(sample.size);
    assert_eq!((read.valid_end, read.known_end), (start.advance(1000), start.advance(3000)));
    assert!(read.bytes[1000..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_segment_of_which_nothing_is_there_is_missing() {
    let sample = SampleRepository::new().await;
    let error = read(&sample).await.expect_err("nothing was stored");
    assert!(error.is_missing(), "{error}");
}

#[tokio::test]
async fn case_17_tails_that_follow_each_other_but_do_not_belong_together_are_refused() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    let mut other = bytes.clone();
    other[10] ^= 1;
    sample.put_tail(sample.branch(), range(&sample, 0, 1000), &bytes).await;
    sample.put_tail(sample.branch(), range(&sample, 1000, 2000), &other).await;
    let error = read(&sample).await.expect_err("the first 1000 bytes differ");
    assert!(matches!(error, SegmentError::Disagreement { .. }), "{error}");
    assert!(error.to_string().contains("disagree about the WAL before 0/3003E8"), "{error}");
}

#[tokio::test]
async fn case_17_overlapping_tails_are_refused_when_the_overlap_or_what_lies_before_it_differs() {
    for changed in [10, 950] {
        let sample = SampleRepository::new().await;
        let bytes = content(sample.size);
        let mut other = bytes.clone();
        other[changed] ^= 1;
        sample.put_tail(sample.branch(), range(&sample, 0, 1000), &bytes).await;
        sample.put_tail(sample.branch(), range(&sample, 900, 2000), &other).await;
        let error = read(&sample).await.expect_err("byte differs");
        assert!(matches!(error, SegmentError::Disagreement { .. }), "byte {changed}: {error}");
    }
}

#[tokio::test]
async fn tails_of_different_compare_keys_are_not_joined() {
    let mut sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    sample.put_tail(sample.branch(), range(&sample, 0, 1000), &bytes).await;
    let stranger = WriterKey::generate().expect("random bytes");
    let mut trust = sample.repository.trust().clone();
    trust.add(walseal_common::seal::TrustedWriter::archiver(stranger.public()));
    sample.repository = Repository::new(sample.repository.store().clone(), SYSTEM, trust);
    sample.writer = stranger;
    sample.put_tail(sample.branch(), range(&sample, 1000, 2000), &bytes).await;
    let error = read(&sample).await.expect_err("nobody can tell");
    assert!(matches!(error, SegmentError::Incomparable { .. }), "{error}");
}

#[tokio::test]
async fn an_object_whose_header_speaks_of_another_place_is_refused() {
    let sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    let name = ObjectName::Tail(sample.branch(), sample.segment(sample.branch(), SEGMENT), range(&sample, 0, 1000));
    sample.put_piece(Kind::Tail, name, sample.branch(), range(&sample, 0, 900), &bytes).await;
    let error = read(&sample).await.expect_err("the name promises more");
    assert!(matches!(error, SegmentError::Misplaced { .. }), "{error}");
}

#[tokio::test]
async fn a_tail_that_vanishes_makes_the_reader_look_for_the_whole_segment() {
    let mut sample = SampleRepository::new().await;
    let bytes = content(sample.size);
    sample.put_tail(sample.branch(), range(&sample, 0, 1000), &bytes).await;
    sample.put_segment(sample.branch(), SEGMENT, &bytes).await;
    let segment = sample.segment(sample.branch(), SEGMENT);
    let whole = ObjectName::Wal(sample.branch(), segment, None).key(SYSTEM);
    // The whole segment appears, and the tails go, between a listing and the next get.
    let mut late = LateStore::new(sample.repository.store().clone(), whole, 1);
    late.vanishing = Some(format!("{SYSTEM}/{}", ObjectName::tail_prefix(sample.branch())));
    sample.repository = Repository::new(Arc::new(late), SYSTEM, sample.repository.trust().clone());
    assert!(read(&sample).await.expect("the whole segment").bytes == bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_set_of_tails_gives_exactly_the_bytes_up_to_the_first_hole(
        cuts in prop::collection::vec((0u64..5000, 1u64..2000), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let sample = SampleRepository::new().await;
            let bytes = content(sample.size);
            for (from, length) in &cuts {
                sample.put_tail(sample.branch(), range(&sample, *from, from + length), &bytes).await;
            }
            let covered = |at: u64| cuts.iter().any(|(from, length)| *from <= at && at < from + length);
            let end = (0..).find(|at| !covered(*at)).unwrap_or(0);
            let read = read(&sample).await.expect("tails");
            assert_eq!(read.valid_end, SEGMENT.start(sample.size).advance(end));
            assert!(read.bytes == zero_filled(&bytes, end as usize));
        });
    }
}

#[tokio::test]
async fn a_damaged_piece_is_left_out_where_others_cover_its_bytes_and_named_where_they_do_not() {
    let sample = SampleRepository::new().await;
    let (bytes, branch) = (content(sample.size), sample.branch());
    let tail = |from, to| ObjectName::Tail(branch, sample.segment(branch, SEGMENT), range(&sample, from, to));
    for (from, to) in [(0, 1000), (1000, 2000), (900, 2000), (2000, 3000)] {
        sample.put_tail(branch, range(&sample, from, to), &bytes).await;
    }
    sample.garble_frames(&tail(1000, 2000));
    sample.garble(&tail(900, 2000));
    let start = SEGMENT.start(sample.size);
    let short = read(&sample).await.expect("what lies before");
    assert_eq!((short.valid_end, short.known_end), (start.advance(1000), start.advance(3000)));
    let names: Vec<String> = short.lost.iter().map(|damage| damage.name.to_string()).collect();
    assert_eq!(names, [tail(1000, 2000).to_string(), tail(900, 2000).to_string()]);
    // One that covers them both.
    sample.put_tail(branch, range(&sample, 0, 2500), &bytes).await;
    let read = read(&sample).await.expect("all of it");
    assert_eq!((read.valid_end, read.lost), (start.advance(3000), Vec::new()));
    assert!(read.bytes == zero_filled(&bytes, 3000));
}

#[tokio::test]
async fn a_segment_of_which_only_damaged_objects_are_there_is_an_error_that_names_one() {
    let sample = SampleRepository::new().await;
    let whole = ObjectName::Wal(sample.branch(), sample.segment(sample.branch(), SEGMENT), None);
    sample.put_segment(sample.branch(), SEGMENT, &content(sample.size)).await;
    sample.garble_frames(&whole);
    let error = read(&sample).await.expect_err("nothing can be had");
    assert_eq!(error.damage(&sample.repository)[0].name, whole, "{error}");
    assert!(error.is_permanent() && !error.is_missing());
}
