//! A file under construction: which frames it is made of, and where their bytes belong.

use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use walseal_common::repository::{Extent, FileEntry, FrameDigest, Layer, Span, spans};
use walseal_common::uncached::{LARGE, Uncached};

use super::{Owner, RebuildError};

/// A file whose frames are to be written.
#[derive(Debug)]
pub(super) struct TargetFile {
    pub(super) path: PathBuf,
    mode: u32,
    mtime: i64,
    /// Bytes of all of it.
    pub(super) size: u64,
    /// Whether it was made, or was there.
    is_there: Mutex<bool>,
    /// Pieces of it that are not placed yet.
    left: AtomicU32,
    /// From the oldest to the newest; a file that was read whole has one. There is at least one.
    pub(super) layers: Vec<TargetLayer>,
}

/// What one backup has of a file.
#[derive(Debug)]
pub(super) struct TargetLayer {
    pub(super) extents: Vec<Extent>,
    pub(super) digests: Vec<FrameDigest>,
    /// Bytes of all frames.
    pub(super) size: u64,
    /// Plaintext of each frame but the last; 0 where the frames' number and the size do not tell.
    pub(super) frame_size: u64,
    /// Which of those bytes the file has, in order.
    spans: Vec<Span>,
    /// Which frames the file has already; none where nobody looked.
    pub(super) held: Vec<bool>,
    /// Set where frames turn out to have other lengths than that: the layer is then put together in order.
    uneven: AtomicBool,
}

impl TargetFile {
    /// The file of an entry that adds up, which is not there yet.
    pub(super) fn new(path: PathBuf, entry: FileEntry) -> TargetFile {
        let (mode, mtime, size) = (entry.mode, entry.mtime, entry.size);
        let layers = entry.into_layers();
        let layers =
            layers.iter().map(Layer::plain_size).zip(spans(&layers)).collect::<Vec<_>>().into_iter().zip(layers);
        let layers = layers.map(|((size, spans), layer)| TargetLayer::new(layer, size, spans)).collect();
        TargetFile { path, mode, mtime, size, is_there: Mutex::default(), left: AtomicU32::default(), layers }
    }

    /// How it counts against the memory of a window, in frames.
    pub(super) fn weight(&self) -> usize {
        self.layers.iter().map(|layer| layer.digests.len() + 2 * layer.spans.len()).sum()
    }

    /// Opens it, to write into it; the first time it is made.
    pub(super) fn open(&self) -> Result<File, RebuildError> {
        let mut is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).create_new(!*is_there).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let operation = if *is_there { "open" } else { "make the file" };
        let file = options.open(&self.path).map_err(RebuildError::io(operation, &self.path))?;
        if !*is_there {
            self.make_room(&file).map_err(RebuildError::io("make room for", &self.path))?;
        }
        *is_there = true;
        Ok(file)
    }

    /// Gives a new file its length; what no layer gives is zeros. Its parts are written in any order, and the file system is
    /// told of all of them at once, where it lets itself be told; not so for a small one, which goes through the page cache.
    fn make_room(&self, file: &File) -> io::Result<()> {
        if self.size >= LARGE {
            match fallocate(file, FallocateFlags::empty(), 0, self.size) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                made => return Ok(made?),
            }
        }
        // A file of one layer gets its length from the last byte that is written.
        if self.layers.len() > 1 { file.set_len(self.size) } else { Ok(()) }
    }

    /// Its name was taken by a file that is written over, of its full length by now.
    pub(super) fn was_there(&mut self) {
        *self.is_there.get_mut().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// So many pieces of it are going to be placed.
    pub(super) fn expect(&self, pieces: u32) {
        self.left.store(pieces, Ordering::Relaxed);
    }

    /// A piece was placed: whether nothing is missing any more.
    pub(super) fn placed(&self) -> bool {
        // Whoever places the last piece sees what others noted before they placed theirs.
        self.left.fetch_sub(1, Ordering::AcqRel) == 1 && !self.has_uneven_layers()
    }

    /// Whether it can be finished although no piece of it is placed: there is none, and no layer is put together in order.
    pub(super) fn needs_nothing(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 && !self.has_uneven_layers()
    }

    /// Whether any of its layers is put together in order.
    pub(super) fn has_uneven_layers(&self) -> bool {
        self.layers.iter().any(TargetLayer::is_uneven)
    }

    /// Writes of a layer's bytes, which begin at `at` in its joined frames, what the file has of them; how many that were.
    pub(super) fn write(
        &self,
        file: &mut Uncached,
        layer: &TargetLayer,
        plain: &[u8],
        at: u64,
    ) -> Result<u64, RebuildError> {
        let (end, mut written) = (at.saturating_add(plain.len() as u64), 0);
        for span in layer.spans_from(at).iter().take_while(|span| span.stream < end) {
            let (from, to) = (span.stream.max(at), (span.stream + span.length).min(end));
            let bytes = plain.get((from - at) as usize..(to - at) as usize).unwrap_or_default();
            file.write_all_at(bytes, span.file + (from - span.stream))
                .map_err(RebuildError::io("write", &self.path))?;
            written += bytes.len() as u64;
        }
        Ok(written)
    }

    /// Everything is written: gives it its time, permissions and owner, and makes it durable.
    pub(super) fn finish(&self, owner: &Owner) -> Result<(), RebuildError> {
        let file = self.open()?;
        let found = file.metadata().map_err(RebuildError::io("look at", &self.path))?;
        let distance = Duration::from_secs(self.mtime.unsigned_abs());
        let moment = if self.mtime < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        if let Some(moment) = moment.filter(|_| (found.mtime(), found.mtime_nsec()) != (self.mtime, 0)) {
            file.set_times(FileTimes::new().set_modified(moment))
                .map_err(RebuildError::io("set the time of", &self.path))?;
        }
        owner.take_file(&file, &self.path, self.mode)?;
        file.sync_all().map_err(RebuildError::io("sync", &self.path))
    }
}

impl TargetLayer {
    fn new(layer: Layer, size: u64, spans: Vec<Span>) -> TargetLayer {
        let Layer { extents, digests, .. } = layer;
        let frame_size = even_frame_size(size, digests.len() as u64);
        let uneven = AtomicBool::new(frame_size == 0 && !spans.is_empty());
        TargetLayer { extents, digests, size, frame_size, spans, held: Vec::new(), uneven }
    }

    /// How long frame `index` is, where all but the last are equally long.
    pub(super) fn frame_length(&self, index: usize) -> u64 {
        let before = (index as u64).saturating_mul(self.frame_size);
        self.size.saturating_sub(before).min(self.frame_size)
    }

    /// Whether any byte of frame `index` is missing that the file should have, where all frames but the last are equally long.
    pub(super) fn needs_frame(&self, index: usize) -> bool {
        if self.held.get(index) == Some(&true) {
            return false;
        }
        let at = (index as u64).saturating_mul(self.frame_size);
        let end = at.saturating_add(self.frame_length(index));
        self.spans_from(at).first().is_some_and(|span| span.stream < end)
    }

    /// Notes that the frames are not equally long.
    pub(super) fn mark_uneven(&self) {
        self.uneven.store(true, Ordering::Relaxed);
    }

    /// Whether it must be put together in order.
    pub(super) fn is_uneven(&self) -> bool {
        self.uneven.load(Ordering::Relaxed)
    }

    /// Which of its bytes the file has, in order.
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The spans that do not end before `at`.
    pub(super) fn spans_from(&self, at: u64) -> &[Span] {
        let first = self.spans.partition_point(|span| span.stream + span.length <= at);
        self.spans.get(first..).unwrap_or_default()
    }
}

/// The frame size of `size` bytes in `frames` frames, when it is a power of two and all frames but the last have it: there is
/// at most one such. For a single frame that is all of it.
fn even_frame_size(size: u64, frames: u64) -> u64 {
    match frames {
        0 => 0,
        1 => size,
        _ => (16..=20).map(|bits| 1 << bits).find(|frame| size.div_ceil(*frame) == frames).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_size_follows_from_size_and_number() {
        let (small, large) = (64 << 10, 1 << 20);
        assert_eq!(even_frame_size(0, 0), 0);
        assert_eq!(even_frame_size(5, 1), 5);
        assert_eq!(even_frame_size(1 << 30, 16_384), small);
        assert_eq!(even_frame_size((1 << 30) + 1, 16_385), small);
        assert_eq!(even_frame_size(small + 1, 2), small);
        assert_eq!(even_frame_size(9 << 30, 9 << 10), large);
        assert_eq!(even_frame_size(100, 2), 0, "frames of odd lengths");
    }
}
