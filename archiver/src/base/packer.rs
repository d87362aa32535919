//! Files into frames, frames into runs, runs into data objects.

use std::sync::LazyLock;

use walseal_common::buffer::Spares;
use walseal_common::repository::{Extent, FrameDigest};
use walseal_common::seal::MAX_PLAINTEXT;

/// Plaintext in a frame, in bytes.
const FRAME: usize = 64 << 10;

/// Plaintext in a frame of a large file: it has fewer of them, so that its line in the manifest fits into a page.
const LARGE_FRAME: usize = 1 << 20;

/// From this size on a file is cut into large frames. Relations come in files of 1 GiB, so this is for strays.
const LARGE_FILE: u64 = 8 << 30;

/// Most frames in an object, however small they are: each has 24 bytes in its trailer.
const MAX_FRAMES: u64 = 8_192;

/// A run is passed on once it has this much plaintext, in bytes: enough to be worth a thread's while, and small enough that
/// several threads share the work on one object.
pub const RUN: usize = 1 << 20;

/// Plaintexts of runs, used again; as many as wait to be sealed.
pub(super) static PLAINS: LazyLock<Spares> = LazyLock::new(|| Spares::new(RUN + LARGE_FRAME, 4));

/// Frames of one data object that follow one another, ready to be sealed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackedRun {
    /// The object's number in the backup, from 0.
    pub object: u32,
    /// Number of the first frame in the object, from 0.
    pub first: u64,
    /// Most bytes in a frame of the object.
    pub frame_size: u32,
    /// The plaintext of all frames, one after the other.
    pub plain: Vec<u8>,
    /// How many bytes of it each frame has.
    pub lengths: Vec<u32>,
    /// Whether the object ends with it.
    pub last: bool,
}

impl PackedRun {
    /// The plaintext of each frame.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.plain.as_slice();
        self.lengths.iter().map(move |length| {
            let (frame, behind) = rest.split_at_checked(*length as usize).unwrap_or_default();
            rest = behind;
            frame
        })
    }

    fn end(&self) -> u64 {
        self.first + self.lengths.len() as u64
    }
}

/// Where the content of a file went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackedFile {
    /// Bytes of the file.
    pub size: u64,
    /// Its frames, in order.
    pub extents: Vec<Extent>,
    /// The digest of each frame's plaintext, in order.
    pub digests: Vec<FrameDigest>,
}

/// Cuts files into frames and packs those into objects of at most [`MAX_PLAINTEXT`] bytes, in the order of arrival.
/// A frame holds bytes of one file only. Holds two runs at most (I11).
#[derive(Debug, Default)]
pub struct Packer {
    /// Plaintext of the object's frames that are closed, in bytes.
    plain: u64,
    /// A run that is full, as long as it is not known whether the object ends with it.
    held: Option<PackedRun>,
    /// The run that is being filled; the frame that is being filled is the end of its plaintext.
    run: PackedRun,
    /// Bytes of that frame, and its size when it is full.
    open: usize,
    frame_size: usize,
    file: PackedFile,
}

impl Packer {
    /// Begins a file of `size` bytes; `None` where that is not known. What that completes is appended to `full`. It is a bug
    /// to begin one before the last ended.
    pub fn begin(&mut self, size: Option<u64>, full: &mut Vec<PackedRun>) {
        debug_assert!(self.open == 0 && self.file == PackedFile::default(), "the last file has not ended");
        self.frame_size = if size.is_some_and(|size| size >= LARGE_FILE) { LARGE_FRAME } else { FRAME };
        if self.frame_size > self.run.frame_size as usize && self.run.end() > 0 {
            // The header of the object that is open promises smaller frames.
            self.end_object(full);
        }
        self.run.frame_size = self.run.frame_size.max(self.frame_size as u32);
    }

    /// Adds bytes to the file, and passes on each run that they complete.
    pub fn add(&mut self, mut bytes: &[u8], full: &mut Vec<PackedRun>) {
        self.file.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.open == 0 && self.run.plain.len() >= RUN {
                let next = PackedRun { first: self.run.end(), ..self.empty_run(self.run.object) };
                full.extend(self.held.replace(std::mem::replace(&mut self.run, next)));
            }
            if self.run.plain.capacity() == 0 {
                self.run.plain = PLAINS.take_vec();
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.frame_size - self.open));
            self.run.plain.extend_from_slice(now);
            self.open += now.len();
            bytes = later;
            if self.open == self.frame_size {
                self.close_frame(full);
            }
        }
    }

    /// Ends the file.
    pub fn end(&mut self, full: &mut Vec<PackedRun>) -> PackedFile {
        if self.open > 0 {
            self.close_frame(full);
        }
        std::mem::take(&mut self.file)
    }

    /// The last runs, after the last file.
    pub fn finish(mut self, full: &mut Vec<PackedRun>) {
        if self.run.end() > 0 {
            self.end_object(full);
        }
    }

    fn empty_run(&self, object: u32) -> PackedRun {
        PackedRun { object, frame_size: self.run.frame_size, ..PackedRun::default() }
    }

    fn close_frame(&mut self, full: &mut Vec<PackedRun>) {
        let length = std::mem::take(&mut self.open);
        if self.plain + length as u64 > MAX_PLAINTEXT || self.run.end() == MAX_FRAMES {
            let mut next = PLAINS.take_vec();
            let closed = self.run.plain.len() - length;
            next.extend_from_slice(self.run.plain.get(closed..).unwrap_or_default());
            self.run.plain.truncate(closed);
            self.end_object(full);
            self.run.plain = next;
        }
        let frame = self.run.plain.get(self.run.plain.len() - length..).unwrap_or_default();
        self.file.digests.push(FrameDigest::of(frame));
        let (object, number) = (self.run.object, self.run.end() as u32);
        match self.file.extents.last_mut() {
            Some(extent) if extent.object == object => extent.count += 1,
            _ => self.file.extents.push(Extent { object, frame: number, count: 1 }),
        }
        self.plain += length as u64;
        self.run.lengths.push(length as u32);
    }

    /// Passes on what the object has left, and begins another one.
    fn end_object(&mut self, full: &mut Vec<PackedRun>) {
        let next = PackedRun { frame_size: self.frame_size as u32, ..self.empty_run(self.run.object + 1) };
        let run = std::mem::replace(&mut self.run, next);
        let held = self.held.take();
        self.plain = 0;
        if run.lengths.is_empty() {
            full.extend(held.map(|held| PackedRun { last: true, ..held }));
        } else {
            full.extend(held);
            full.push(PackedRun { last: true, ..run });
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frames of an object, put together from its runs.
    #[derive(Debug, PartialEq, Eq, Default)]
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
        let (mut packer, mut full) = (Packer::default(), Vec::new());
        let packed = files
            .iter()
            .map(|file| {
                packer.begin(Some(file.len() as u64), &mut full);
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
        let (mut packer, mut full) = (Packer::default(), Vec::new());
        packer.begin(Some(10), &mut full);
        packer.add(b"0123456789", &mut full);
        packer.end(&mut full);
        packer.begin(Some(LARGE_FILE), &mut full);
        packer.add(&content(17 << 20, 1), &mut full);
        let file = packer.end(&mut full);
        packer.begin(Some(10), &mut full);
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
    }
}
