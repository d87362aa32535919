//! Which frame goes where, for as much of the list of files as fits into bounded memory.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::repository::{Extent, ManifestEntry};

use super::skeleton::Skeleton;
use super::target_file::{TargetFile, TargetLayer};
use super::{Owner, RebuildError, Source};

/// A window ends after the page in which it gets this many frames or files: with frames of 64 KiB, 256 GiB of a cluster.
/// That is 64 MiB of digests and as much again for paths and places, so memory does not grow with the cluster (I11). An
/// object that frames of several windows need is fetched for each of them.
const WINDOW: usize = 4 << 20;

/// How a file counts against [`WINDOW`], in frames.
const FILE_WEIGHT: usize = 16;

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
    /// Which of its layers.
    pub(super) layer: u32,
    /// The number of the first frame in the layer.
    pub(super) index: u32,
}

/// A part of the list of files, with its frames by object.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) files: Arc<Vec<TargetFile>>,
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

    /// A layer of one of the files.
    pub(super) fn layer(&self, file: u32, layer: u32) -> Option<(&TargetFile, &TargetLayer)> {
        let file = self.files.get(file as usize)?;
        Some((file, file.layers.get(layer as usize)?))
    }

    /// Layers that must be put together in order.
    pub(super) fn uneven_layers(&self) -> impl Iterator<Item = (&TargetFile, &TargetLayer)> {
        let layers = self.files.iter().flat_map(|file| file.layers.iter().map(move |layer| (file, layer)));
        layers.filter(|(_, layer)| layer.is_uneven())
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
                        let file = TargetFile::new(skeleton.file(&entry)?, entry);
                        weight += file.weight() + FILE_WEIGHT;
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

/// Adds the frames of a file that it has any byte of.
fn add_pieces(file: &TargetFile, number: usize, pieces: &mut Vec<Piece>) {
    for (layer, place) in file.layers.iter().enumerate().filter(|(_, layer)| !layer.is_uneven()) {
        let mut index = 0;
        for extent in &place.extents {
            let Extent { object, frame, count } = *extent;
            let mut open = false;
            for step in 0..count {
                let needed = place.needs_frame((index + step) as usize);
                match pieces.last_mut().filter(|_| open && needed) {
                    Some(piece) => piece.count += 1,
                    // A window has fewer files and frames than 32 bits count.
                    None if needed => {
                        let (file, layer, frame) = (number as u32, layer as u32, frame + step);
                        pieces.push(Piece { object, frame, count: 1, file, layer, index: index + step });
                    }
                    None => {}
                }
                open = needed;
            }
            index += count;
        }
    }
}
