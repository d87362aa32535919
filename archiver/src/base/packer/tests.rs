#![allow(clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::base::known::KnownExtent;

/// The frames of an object, put together from its runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Object {
    frame_size: u32,
    frames: Vec<Vec<u8>>,
    ended: bool,
}

fn objects(runs: &[PackedRun]) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for run in runs {
        if run.object as usize == objects.len() {
            objects.push(Object { frame_size: run.frame_size, ..Object::default() });
        }
        let count = objects.len();
        let object = objects.last_mut().expect("there is one");
        assert_eq!(run.object as usize + 1, count, "objects come one after the other");
        assert_eq!(run.first, object.frames.len() as u64, "runs come one after the other");
        assert_eq!((run.frame_size, object.ended), (object.frame_size, false));
        assert!(run.plain.len() < RUN + run.frame_size as usize && !run.lengths.is_empty());
        assert_eq!(run.lengths.iter().map(|length| *length as usize).sum::<usize>(), run.plain.len());
        object.frames.extend(run.frames().map(<[u8]>::to_vec));
        object.ended = run.last;
    }
    for object in &objects {
        assert!(object.ended && object.frames.iter().map(Vec::len).sum::<usize>() as u64 <= MAX_PLAINTEXT);
        assert!(object.frames.iter().all(|frame| frame.len() <= object.frame_size as usize));
    }
    objects
}

/// Packs files that arrive in pieces of `piece` bytes.
fn pack(files: &[Vec<u8>], piece: usize) -> (Vec<PackedFile>, Vec<Object>) {
    let (mut packer, mut full) = (Packer::new(Packer::plains(2)), Vec::new());
    let packed = files
        .iter()
        .map(|file| {
            packer.begin(Some(file.len() as u64), Vec::new(), &mut full);
            file.chunks(piece).for_each(|bytes| packer.add(bytes, &mut full));
            packer.end(&mut full)
        })
        .collect();
    packer.finish(&mut full);
    (packed, objects(&full))
}

/// The file as a reader puts it together.
fn unpack(file: &PackedFile, objects: &[Object]) -> Vec<u8> {
    let frames: Vec<&Vec<u8>> = file
        .extents
        .iter()
        .flat_map(|e| &objects[e.object as usize].frames[e.frame as usize..(e.frame + e.count) as usize])
        .collect();
    assert_eq!(file.digests, frames.iter().map(|frame| FrameDigest::of(frame)).collect::<Vec<_>>());
    frames.into_iter().flatten().copied().collect()
}

fn content(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|n| (n / 3 + n * seed) as u8).collect()
}

#[test]
fn a_file_larger_than_an_object_is_spread_over_several() {
    let files = [content(100, 1), content((40 << 20) + 1, 2), vec![], content(FRAME, 3)];
    let (packed, objects) = pack(&files, 32 << 10);
    assert_eq!(objects.len(), 3);
    assert!(objects.iter().all(|object| object.frame_size as usize == FRAME));
    assert_eq!(packed[1].extents.len(), 3);
    assert_eq!(packed[2], PackedFile::default());
    for (file, whole) in packed.iter().zip(&files) {
        assert_eq!(&unpack(file, &objects), whole);
        assert_eq!(file.size, whole.len() as u64);
    }
}

#[test]
fn tiny_files_do_not_make_endless_trailers() {
    let files: Vec<Vec<u8>> = (0..MAX_FRAMES as usize + 1).map(|n| vec![n as u8]).collect();
    let (packed, objects) = pack(&files, 1);
    assert_eq!(objects.iter().map(|object| object.frames.len()).collect::<Vec<_>>(), [MAX_FRAMES as usize, 1]);
    assert!(packed.iter().zip(&files).all(|(file, whole)| &unpack(file, &objects) == whole));
}

#[test]
fn large_files_have_large_frames_in_objects_that_say_so() {
    let (mut packer, mut full) = (Packer::new(Packer::plains(2)), Vec::new());
    packer.begin(Some(10), Vec::new(), &mut full);
    packer.add(b"0123456789", &mut full);
    packer.end(&mut full);
    packer.begin(Some(LARGE_FILE), Vec::new(), &mut full);
    packer.add(&content(17 << 20, 1), &mut full);
    let file = packer.end(&mut full);
    packer.begin(Some(10), Vec::new(), &mut full);
    packer.add(b"9876543210", &mut full);
    packer.end(&mut full);
    packer.finish(&mut full);
    let objects = objects(&full);
    assert_eq!(file.digests.len(), 17);
    assert_eq!(objects.iter().map(|object| object.frames.len()).collect::<Vec<_>>(), [1, 16, 2]);
    assert_eq!(
        objects.iter().map(|object| object.frame_size).collect::<Vec<_>>(),
        [FRAME as u32, LARGE_FRAME as u32, LARGE_FRAME as u32]
    );
    assert_eq!(unpack(&file, &objects), content(17 << 20, 1));
}

/// What a later backup knows of these files, whose objects have the numbers that the packer listed them by.
fn known(files: &[PackedFile], usable: impl Fn(u32) -> bool) -> Vec<KnownFile> {
    let extent = |extent: &Extent| KnownExtent {
        object: Some(extent.object).filter(|object| usable(*object)),
        frame: extent.frame,
        count: extent.count,
    };
    let file =
        |file: &PackedFile| KnownFile::new(file.size, file.extents.iter().map(extent).collect(), file.digests.clone());
    files.iter().map(file).collect()
}

/// Packs files of which `known` was stored before, and puts them together again from `stored` objects and new ones. Returns
/// the bytes that were stored.
fn pack_again(files: &[Vec<u8>], known: &[KnownFile], stored: &[Object]) -> (Vec<PackedFile>, u64) {
    let (mut packer, mut full) = (Packer::new(Packer::plains(2)), Vec::new());
    let packed: Vec<PackedFile> = files
        .iter()
        .enumerate()
        .map(|(n, file)| {
            packer.begin(Some(file.len() as u64), known.get(n).cloned().into_iter().collect(), &mut full);
            file.chunks(32 << 10).for_each(|bytes| packer.add(bytes, &mut full));
            packer.end(&mut full)
        })
        .collect();
    let fresh = packer.fresh();
    let listed = packer.finish(&mut full);
    let own = objects(&full);
    assert_eq!(own.iter().flat_map(|object| &object.frames).map(Vec::len).sum::<usize>() as u64, fresh);
    let all: Vec<Object> = listed
        .iter()
        .map(|object| match object {
            Listed::Own(number) => own[*number as usize].clone(),
            Listed::Known(number) => stored[*number as usize].clone(),
        })
        .collect();
    assert_eq!(listed.iter().filter(|object| matches!(object, Listed::Own(_))).count(), own.len());
    for (file, whole) in packed.iter().zip(files) {
        assert_eq!(&unpack(file, &all), whole);
    }
    (packed, fresh)
}

#[test]
fn frames_that_did_not_change_are_referred_to_and_not_stored() {
    let mut files = vec![content(40 << 20, 1), content(100, 2), vec![], content(5 * FRAME + 9, 3)];
    let (before, stored) = pack(&files, 1 << 20);
    let (same, fresh) = pack_again(&files, &known(&before, |_| true), &stored);
    assert_eq!((&same, fresh), (&before, 0));
    // A byte in one frame, a frame that the file grew by, and a file that shrank by less than a frame.
    files[0][3 * FRAME + 7] ^= 1;
    files[0].extend_from_slice(&content(FRAME, 9));
    files[3].truncate(5 * FRAME + 1);
    let (changed, fresh) = pack_again(&files, &known(&before, |_| true), &stored);
    assert_eq!(fresh, 2 * FRAME as u64 + 1);
    assert_eq!(changed[0].extents.len(), before[0].extents.len() + 3, "{:?}", changed[0].extents);
}

#[test]
fn frames_in_objects_that_must_not_be_used_are_stored_again() {
    let files = [content(40 << 20, 1)];
    let (before, stored) = pack(&files, 1 << 20);
    let (_, fresh) = pack_again(&files, &known(&before, |object| object != 1), &stored);
    assert_eq!(fresh, MAX_PLAINTEXT);
    let (_, fresh) = pack_again(&files, &known(&before, |_| false), &stored);
    assert_eq!(fresh, 40 << 20);
}

#[test]
fn a_file_that_was_cut_in_another_way_is_stored_anew() {
    let (mut packer, mut full) = (Packer::new(Packer::plains(2)), Vec::new());
    let whole = content(4 << 20, 1);
    packer.begin(Some(LARGE_FILE), Vec::new(), &mut full);
    packer.add(&whole, &mut full);
    let large = packer.end(&mut full);
    packer.finish(&mut full);
    let (_, fresh) = pack_again(std::slice::from_ref(&whole), &known(&[large], |_| true), &objects(&full));
    assert_eq!(fresh, whole.len() as u64);
}

#[test]
fn the_first_that_knows_a_frame_is_referred_to() {
    let file = content(2 * FRAME, 1);
    let digest = FrameDigest::of(&file[..FRAME]);
    let at = |object| {
        let extents = vec![KnownExtent { object: Some(object), frame: 0, count: 2 }];
        KnownFile::new(file.len() as u64, extents, vec![digest, FrameDigest([object as u8; 16])])
    };
    let (mut packer, mut full) = (Packer::new(Packer::plains(2)), Vec::new());
    packer.begin(Some(file.len() as u64), vec![at(5), at(6)], &mut full);
    packer.add(&file, &mut full);
    let packed = packer.end(&mut full);
    assert_eq!(packer.finish(&mut full), [Listed::Known(5), Listed::Own(0)]);
    let extent = |object| Extent { object, frame: 0, count: 1 };
    assert_eq!(packed.extents, [extent(0), extent(1)]);
}

#[test]
fn an_object_can_be_cut_between_two_files() {
    let (mut packer, mut full) = (Packer::new(Packer::plains(2)), Vec::new());
    packer.cut(&mut full);
    assert!(full.is_empty());
    for number in 0..2 {
        packer.begin(Some(10), Vec::new(), &mut full);
        packer.add(b"0123456789", &mut full);
        assert_eq!(packer.end(&mut full).extents, [Extent { object: number, frame: 0, count: 1 }]);
        packer.cut(&mut full);
    }
    assert_eq!(packer.finish(&mut full), [Listed::Own(0), Listed::Own(1)]);
    assert_eq!(objects(&full).len(), 2);
}

proptest! {
    #[test]
    fn whatever_is_packed_comes_out(
        sizes in prop::collection::vec(prop_oneof![0usize..20, 60_000usize..200_000], 0..6),
        piece in 1usize..100_000,
    ) {
        let files: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| content(*size, n)).collect();
        let (packed, objects) = pack(&files, piece.max(500));
        for (file, whole) in packed.iter().zip(&files) {
            prop_assert_eq!(&unpack(file, &objects), whole);
        }
        prop_assert_eq!(pack(&files, 1 << 20), (packed, objects), "pieces matter");
    }

    #[test]
    fn whatever_changed_since_comes_out(
        sizes in prop::collection::vec(0usize..400_000, 1..4),
        later in prop::collection::vec(0usize..400_000, 1..4),
        changes in prop::collection::vec((0usize..4, 0usize..400_000), 0..6),
        barred in 0u32..3,
    ) {
        let files: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| content(*size, n)).collect();
        let (before, stored) = pack(&files, 1 << 20);
        let mut now: Vec<Vec<u8>> = later.iter().enumerate().map(|(n, size)| content(*size, n)).collect();
        for (file, at) in changes {
            if let Some(byte) = now.get_mut(file).and_then(|file| file.get_mut(at)) {
                *byte ^= 1;
            }
        }
        pack_again(&now, &known(&before, |object| object != barred), &stored);
    }
}
