//! A file that was stored before.

use walseal_common::repository::FrameDigest;

/// Plaintext of a frame of 64 KiB, and of a large file's.
const FRAME_SIZES: [u64; 2] = [64 << 10, 1 << 20];

/// A run of frames in a data object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownExtent {
    /// The object's number in [`super::KnownObjects`]; `None` for one that must not be referred to.
    pub object: Option<u32>,
    /// The first frame.
    pub frame: u32,
    /// How many.
    pub count: u32,
}

/// A file that was stored before, frame by frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownFile {
    size: u64,
    extents: Vec<KnownExtent>,
    digests: Vec<FrameDigest>,
    /// The extent that was asked for last, and how many frames are before it: the next question is about the same or a later one.
    at: usize,
    before: usize,
}

impl KnownFile {
    /// A file of `size` bytes in these frames.
    pub fn new(size: u64, extents: Vec<KnownExtent>, digests: Vec<FrameDigest>) -> KnownFile {
        KnownFile { size, extents, digests, at: 0, before: 0 }
    }

    /// Plaintext of each frame but the last, in bytes; `None` where there is only one, so that it does not show. 0 where
    /// the frames are not even.
    pub fn frame_size(&self) -> Option<u64> {
        (self.digests.len() > 1).then(|| even_frame_size(self.size, self.digests.len() as u64))
    }

    /// The object and the frame's number in it where frame `index` of the file was stored, if it is the one with this `digest`.
    /// Asked for in ascending order.
    pub fn place(&mut self, index: usize, digest: FrameDigest) -> Option<(u32, u32)> {
        if self.digests.get(index) != Some(&digest) {
            return None;
        }
        loop {
            let extent = self.extents.get(self.at)?;
            let within = index.checked_sub(self.before)?;
            if within < extent.count as usize {
                return Some((extent.object?, extent.frame.checked_add(within as u32)?));
            }
            self.before += extent.count as usize;
            self.at += 1;
        }
    }
}

/// The frame size of a file of `size` bytes in `frames` frames, more than one; 0 where they are not cut as this program does.
pub(super) fn even_frame_size(size: u64, frames: u64) -> u64 {
    FRAME_SIZES.into_iter().find(|frame| size.div_ceil(*frame) == frames).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_where_it_was_stored_only_if_it_is_the_same() {
        let digest = |n| FrameDigest([n; 16]);
        let extent = |object, frame, count| KnownExtent { object, frame, count };
        let extents = vec![extent(Some(7), 10, 2), extent(None, 0, 1), extent(Some(8), 3, 1)];
        let mut file = KnownFile::new((3 << 16) + 1, extents, (0..4).map(digest).collect());
        assert_eq!(file.frame_size(), Some(64 << 10));
        assert_eq!(file.place(0, digest(0)), Some((7, 10)));
        assert_eq!(file.place(1, digest(9)), None, "it changed");
        assert_eq!(file.place(2, digest(2)), None, "its object is not to be used");
        assert_eq!(file.place(3, digest(3)), Some((8, 3)));
        assert_eq!(file.place(4, digest(3)), None, "the file grew");
        assert_eq!(KnownFile::new(9 << 30, vec![], vec![digest(0); 9 << 10]).frame_size(), Some(1 << 20));
        assert_eq!(KnownFile::new(100, vec![], vec![digest(0); 2]).frame_size(), Some(0));
        assert_eq!(KnownFile::new(100, vec![], vec![digest(0)]).frame_size(), None);
    }

    #[test]
    fn a_list_that_does_not_add_up_is_no_reason_to_panic() {
        let digest = FrameDigest([1; 16]);
        let extents = vec![KnownExtent { object: Some(1), frame: u32::MAX, count: 2 }];
        let mut file = KnownFile::new(1 << 17, extents, vec![digest; 3]);
        assert_eq!(file.place(1, digest), None);
        assert_eq!(file.place(2, digest), None);
        assert_eq!(file.place(0, digest), None, "backwards");
    }
}
