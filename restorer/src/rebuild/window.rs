//! Which frame goes where, for as much of the list of files as fits into bounded memory.

use std::ops::Range;
use std::sync::Arc;

use walseal_common::repository::{Extent, ManifestEntry, ObjectReference};

use super::comparison::compare;
use super::retrieval::Way;
use super::skeleton::Skeleton;
use super::target_file::{TargetFile, TargetLayer};
use super::{RebuildError, Source, Toll};

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

impl Piece {
    /// The frames in the object.
    pub(super) fn frames(&self) -> Range<usize> {
        let first = self.frame as usize;
        first..first + self.count as usize
    }
}

/// A part of the list of files, with its frames by object.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) files: Arc<Vec<TargetFile>>,
    pieces: Arc<Vec<Piece>>,
}

impl Window {
    /// The objects that are needed, each once, with the pieces in them.
    pub(super) fn objects(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut start = 0;
        for chunk in self.pieces.chunk_by(|one, other| one.object == other.object) {
            ranges.push(start..start + chunk.len());
            start += chunk.len();
        }
        ranges
    }

    /// The pieces of an object, in order of its frames.
    pub(super) fn pieces(&self, object: Range<usize>) -> &[Piece] {
        self.pieces.get(object).unwrap_or_default()
    }

    /// A layer of one of the files.
    pub(super) fn layer(&self, file: u32, layer: u32) -> Option<(&TargetFile, &TargetLayer)> {
        let file = self.files.get(file as usize)?;
        Some((file, file.layers.get(layer as usize)?))
    }

    /// How to get these pieces of an object.
    pub(super) fn way_to(&self, reference: &ObjectReference, pieces: Range<usize>) -> Way {
        let all = self.pieces(pieces);
        let (frames, until) =
            (all.iter().map(|piece| u64::from(piece.count)).sum(), all.last().map_or(0, |last| last.frames().end));
        Way::to(reference, self.plain_bytes(all), frames, until as u64)
    }

    /// Bytes of plaintext in these pieces, where all frames of a layer but the last are equally long.
    fn plain_bytes(&self, pieces: &[Piece]) -> u64 {
        let frames = |piece: &Piece| {
            let layer = self.layer(piece.file, piece.layer);
            let length = |index| layer.map_or(0, |(_, layer)| layer.frame_length(index as usize));
            (piece.index..piece.index + piece.count).map(length).sum::<u64>()
        };
        pieces.iter().map(frames).sum()
    }

    /// A piece of a file was placed: whether nothing of the file is missing any more.
    pub(super) fn placed(&self, file: u32) -> bool {
        self.files.get(file as usize).is_some_and(TargetFile::placed)
    }

    /// Files that are what they should be without a piece being placed.
    pub(super) fn untouched(&self) -> impl Iterator<Item = usize> {
        self.files.iter().enumerate().filter(|(_, file)| file.needs_nothing()).map(|(number, _)| number)
    }

    /// Files with layers that must be put together in order.
    pub(super) fn uneven(&self) -> impl Iterator<Item = (usize, &TargetFile)> {
        self.files.iter().enumerate().filter(|(_, file)| file.has_uneven_layers())
    }
}

/// Reads the list of files window by window, making folders on the way.
pub(super) struct Windows<'a> {
    source: Source<'a>,
    page: usize,
}

impl<'a> Windows<'a> {
    pub(super) fn new(source: Source<'a>) -> Windows<'a> {
        Windows { source, page: 0 }
    }

    /// The next window; `None` after the last page.
    pub(super) async fn next(
        &mut self,
        skeleton: &mut Skeleton,
        jobs: usize,
        toll: &Arc<Toll>,
    ) -> Result<Option<Window>, RebuildError> {
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
                        files.push(file);
                    }
                }
            }
            self.page += 1;
        }
        if skeleton.stands() {
            files = compare(files, jobs, toll).await?;
        }
        for (number, file) in files.iter().enumerate() {
            add_pieces(file, number, &mut pieces);
        }
        pieces.sort_unstable();
        Ok(Some(Window { files: Arc::new(files), pieces: Arc::new(pieces) }))
    }
}

/// Adds the frames of a file that it has any byte of.
fn add_pieces(file: &TargetFile, number: usize, pieces: &mut Vec<Piece>) {
    let before = pieces.len();
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
    // As above: fewer than 32 bits count.
    file.expect((pieces.len() - before) as u32);
}
