//! Files into frames, frames into data objects.

use walseal_common::repository::{Extent, FrameDigest};
use walseal_common::seal::MAX_PLAINTEXT;

/// Plaintext in a frame, in bytes.
const FRAME: usize = 64 << 10;

/// Plaintext in a frame of a large file: it has fewer of them, so that its line in the manifest fits into a page.
const LARGE_FRAME: usize = 1 << 20;

/// From this size on a file is cut into large frames. Relations come in files of 1 GiB, so this is for strays.
const LARGE_FILE: u64 = 8 << 30;

/// Most frames in an object, however small they are: each has 24 bytes in its trailer.
const MAX_FRAMES: usize = 8_192;

/// Frames of one data object, ready to be sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct PackedObject {
    /// Its number in the backup, from 0.
    pub number: u32,
    /// The plaintext of each frame.
    pub frames: Vec<Vec<u8>>,
}

impl PackedObject {
    /// Bytes of plaintext in the largest frame; at least the smallest frame size of the format.
    pub fn frame_size(&self) -> u32 {
        let largest = self.frames.iter().map(Vec::len).max().unwrap_or(0);
        if largest > FRAME { LARGE_FRAME as u32 } else { FRAME as u32 }
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
/// A frame holds bytes of one file only.
#[derive(Debug, Default)]
pub struct Packer {
    object: u32,
    frames: Vec<Vec<u8>>,
    plain: u64,
    /// The frame that is being filled.
    open: Vec<u8>,
    /// Its size when it is full.
    frame_size: usize,
    file: PackedFile,
}

impl Packer {
    /// Begins a file of `size` bytes; `None` where that is not known. It is a bug to begin one before the last ended.
    pub fn begin(&mut self, size: Option<u64>) {
        debug_assert!(self.open.is_empty() && self.file == PackedFile::default(), "the last file has not ended");
        self.frame_size = if size.is_some_and(|size| size >= LARGE_FILE) { LARGE_FRAME } else { FRAME };
    }

    /// Adds bytes to the file, and passes on each object that they complete.
    pub fn add(&mut self, mut bytes: &[u8], full: &mut Vec<PackedObject>) {
        self.file.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.frame_size - self.open.len()));
            if self.open.capacity() == 0 {
                // Most files are small; a frame that is filled in several pieces is worth its whole size at once.
                self.open.reserve_exact(if now.len() < FRAME / 4 && later.is_empty() {
                    now.len()
                } else {
                    self.frame_size
                });
            }
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == self.frame_size {
                self.close_frame(full);
            }
        }
    }

    /// Ends the file.
    pub fn end(&mut self, full: &mut Vec<PackedObject>) -> PackedFile {
        if !self.open.is_empty() {
            self.close_frame(full);
        }
        std::mem::take(&mut self.file)
    }

    /// The last object, after the last file; `None` where all frames have been passed on.
    pub fn finish(mut self) -> Option<PackedObject> {
        (!self.frames.is_empty()).then(|| self.close_object())
    }

    fn close_frame(&mut self, full: &mut Vec<PackedObject>) {
        let frame = std::mem::take(&mut self.open);
        if self.plain + frame.len() as u64 > MAX_PLAINTEXT || self.frames.len() == MAX_FRAMES {
            full.push(self.close_object());
        }
        self.file.digests.push(FrameDigest::of(&frame));
        let number = self.frames.len() as u32;
        match self.file.extents.last_mut() {
            Some(extent) if extent.object == self.object => extent.count += 1,
            _ => self.file.extents.push(Extent { object: self.object, frame: number, count: 1 }),
        }
        self.plain += frame.len() as u64;
        self.frames.push(frame);
    }

    fn close_object(&mut self) -> PackedObject {
        let packed = PackedObject { number: self.object, frames: std::mem::take(&mut self.frames) };
        self.object += 1;
        self.plain = 0;
        packed
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packs files that arrive in pieces of `piece` bytes.
    fn pack(files: &[Vec<u8>], piece: usize) -> (Vec<PackedFile>, Vec<PackedObject>) {
        let (mut packer, mut full) = (Packer::default(), Vec::new());
        let packed = files
            .iter()
            .map(|file| {
                packer.begin(Some(file.len() as u64));
                file.chunks(piece).for_each(|bytes| packer.add(bytes, &mut full));
                packer.end(&mut full)
            })
            .collect();
        full.extend(packer.finish());
        (packed, full)
    }

    /// The file as a reader puts it together.
    fn unpack(file: &PackedFile, objects: &[PackedObject]) -> Vec<u8> {
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
        assert!(objects.iter().enumerate().all(|(n, object)| object.number as usize == n));
        for object in &objects {
            assert!(object.frames.iter().map(Vec::len).sum::<usize>() as u64 <= MAX_PLAINTEXT);
            assert_eq!(object.frame_size() as usize, FRAME);
        }
        assert_eq!(packed[1].extents.len(), 3);
        assert_eq!(packed[2], PackedFile::default());
        for (file, whole) in packed.iter().zip(&files) {
            assert_eq!(&unpack(file, &objects), whole);
            assert_eq!(file.size, whole.len() as u64);
        }
    }

    #[test]
    fn tiny_files_do_not_make_endless_trailers() {
        let files: Vec<Vec<u8>> = (0..MAX_FRAMES + 1).map(|n| vec![n as u8]).collect();
        let (packed, objects) = pack(&files, 1);
        assert_eq!(objects.iter().map(|object| object.frames.len()).collect::<Vec<_>>(), [MAX_FRAMES, 1]);
        assert!(packed.iter().zip(&files).all(|(file, whole)| &unpack(file, &objects) == whole));
    }

    #[test]
    fn large_files_have_large_frames() {
        let (mut packer, mut full) = (Packer::default(), Vec::new());
        packer.begin(Some(10));
        packer.add(b"0123456789", &mut full);
        packer.end(&mut full);
        packer.begin(Some(LARGE_FILE));
        packer.add(&content(17 << 20, 1), &mut full);
        let file = packer.end(&mut full);
        full.extend(packer.finish());
        assert_eq!(file.digests.len(), 17);
        assert_eq!(full.iter().map(PackedObject::frame_size).collect::<Vec<_>>(), [LARGE_FRAME as u32; 2]);
        assert_eq!(unpack(&file, &full), content(17 << 20, 1));
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
