//! Which frame goes where, for as much of the list of files as fits into bounded memory.

use std::fs::{FileTimes, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::repository::{Extent, FileEntry, FrameDigest, ManifestEntry};

use super::skeleton::Skeleton;
use super::{Owner, RebuildError, Source};

/// A window ends after the page in which it gets this many frames or files: with frames of 64 KiB, 256 GiB of a cluster.
/// That is 64 MiB of digests and as much again for paths and places, so memory does not grow with the cluster (I11). An
/// object that frames of several windows need is fetched for each of them.
const WINDOW: usize = 4 << 20;

/// How a file counts against [`WINDOW`], in frames.
const FILE_WEIGHT: usize = 16;

/// A file whose frames are to be written.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    mode: u32,
    mtime: i64,
    pub(super) size: u64,
    pub(super) extents: Vec<Extent>,
    pub(super) digests: Vec<FrameDigest>,
    /// Plaintext of each frame but the last; 0 where the frames' number and the size do not tell.
    pub(super) frame_size: u64,
    /// Set where frames turn out to have other lengths than that: the file is then put together in order.
    uneven: AtomicBool,
}

impl OpenFile {
    fn new(path: PathBuf, entry: FileEntry) -> OpenFile {
        let FileEntry { mode, mtime, size, extents, digests, .. } = entry;
        let frame_size = even_frame_size(size, digests.len() as u64);
        let uneven = AtomicBool::new(frame_size == 0 && size > 0);
        OpenFile { path, mode, mtime, size, extents, digests, frame_size, uneven }
    }

    /// How long frame `index` of the file is, where all but the last are equally long.
    pub(super) fn frame_length(&self, index: usize) -> u64 {
        let before = (index as u64).saturating_mul(self.frame_size);
        self.size.saturating_sub(before).min(self.frame_size)
    }

    /// Notes that the frames are not equally long.
    pub(super) fn mark_uneven(&self) {
        self.uneven.store(true, Ordering::Relaxed);
    }

    /// Whether the file must be put together in order.
    pub(super) fn is_uneven(&self) -> bool {
        self.uneven.load(Ordering::Relaxed)
    }

    /// Everything is written: makes it durable and gives it its time, permissions and owner.
    fn finish(&self, owner: &Owner) -> Result<(), RebuildError> {
        let file = OpenOptions::new().write(true).open(&self.path).map_err(RebuildError::io("open", &self.path))?;
        let distance = Duration::from_secs(self.mtime.unsigned_abs());
        let moment = if self.mtime < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        if let Some(moment) = moment {
            file.set_times(FileTimes::new().set_modified(moment))
                .map_err(RebuildError::io("set the time of", &self.path))?;
        }
        owner.take_file(&file, &self.path, self.mode)?;
        file.sync_all().map_err(RebuildError::io("sync", &self.path))
    }
}

/// The frame size of a file of `size` bytes in `frames` frames, when it is a power of two and all frames but the last have
/// it: there is at most one such. For a single frame that is the whole file.
fn even_frame_size(size: u64, frames: u64) -> u64 {
    match frames {
        0 => 0,
        1 => size,
        _ => (16..=20).map(|bits| 1 << bits).find(|frame| size.div_ceil(*frame) == frames).unwrap_or(0),
    }
}

/// A run of frames in an object, and where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Piece {
    /// Which of the label's objects.
    pub(super) object: u32,
    /// The first frame.
    pub(super) frame: u32,
    /// How many.
    pub(super) count: u32,
    /// Which of the window's files.
    pub(super) file: u32,
    /// The number of the first frame in the file.
    pub(super) index: u32,
}

/// A part of the list of files, with its frames by object.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) files: Arc<Vec<OpenFile>>,
    pieces: Arc<Vec<Piece>>,
}

impl Window {
    /// The objects that are needed, each once, with the pieces in them.
    pub(super) fn objects(&self) -> Vec<std::ops::Range<usize>> {
        let mut ranges = Vec::new();
        let mut start = 0;
        for chunk in self.pieces.chunk_by(|one, other| one.object == other.object) {
            ranges.push(start..start + chunk.len());
            start += chunk.len();
        }
        ranges
    }

    /// The pieces of an object, in order of its frames.
    pub(super) fn pieces(&self, object: std::ops::Range<usize>) -> &[Piece] {
        self.pieces.get(object).unwrap_or_default()
    }

    /// Files that must be put together in order.
    pub(super) fn uneven_files(&self) -> impl Iterator<Item = usize> {
        self.files.iter().enumerate().filter(|(_, file)| file.is_uneven()).map(|(index, _)| index)
    }

    /// All frames are written: makes the files durable, and gives them their times, permissions and owner.
    pub(super) async fn finish(self, owner: &Owner, jobs: usize) -> Result<(), RebuildError> {
        let count = self.files.len();
        let share = count.div_ceil(jobs.max(1)).max(1);
        let tasks = (0..count).step_by(share).map(|start| {
            let (files, owner) = (self.files.clone(), owner.clone());
            let task = tokio::task::spawn_blocking(move || {
                let files = files.get(start..(start + share).min(count)).unwrap_or_default();
                files.iter().try_for_each(|file| file.finish(&owner))
            });
            async { task.await.unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string()))) }
        });
        stream::iter(tasks).buffer_unordered(jobs.max(1)).try_collect::<()>().await
    }
}

/// Reads the list of files window by window, making folders and empty files on the way.
pub(super) struct Windows<'a> {
    source: Source<'a>,
    page: usize,
}

impl<'a> Windows<'a> {
    pub(super) fn new(source: Source<'a>) -> Windows<'a> {
        Windows { source, page: 0 }
    }

    /// The next window; `None` after the last page.
    pub(super) async fn next(&mut self, skeleton: &mut Skeleton) -> Result<Option<Window>, RebuildError> {
        let (mut files, mut pieces, mut weight) = (Vec::new(), Vec::new(), 0);
        let pages = self.source.label.manifest.len();
        if self.page >= pages {
            return Ok(None);
        }
        while self.page < pages && weight < WINDOW {
            for entry in self.source.page(self.page).await? {
                match entry {
                    ManifestEntry::Tablespace { .. } => {} // The layout has them.
                    ManifestEntry::Directory { path, mode } => skeleton.folder(&path.0, mode)?,
                    ManifestEntry::File(entry) => {
                        let file = OpenFile::new(skeleton.file(&entry)?, entry);
                        weight += file.digests.len() + FILE_WEIGHT;
                        add_pieces(&file, files.len(), &mut pieces);
                        files.push(file);
                    }
                }
            }
            self.page += 1;
        }
        pieces.sort_unstable();
        Ok(Some(Window { files: Arc::new(files), pieces: Arc::new(pieces) }))
    }
}

fn add_pieces(file: &OpenFile, number: usize, pieces: &mut Vec<Piece>) {
    if file.is_uneven() {
        return; // Put together in order, later.
    }
    let mut index = 0;
    for extent in &file.extents {
        let Extent { object, frame, count } = *extent;
        // A window has fewer files and frames than 32 bits count.
        pieces.push(Piece { object, frame, count, file: number as u32, index });
        index += count;
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
