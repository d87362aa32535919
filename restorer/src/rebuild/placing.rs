//! Writing frames where they belong.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use walseal_common::buffer::{Spare, Spares};
use walseal_common::repository::{FrameDigest, ObjectReference, RepositoryError};
use walseal_common::seal::SealError;
use walseal_common::uncached::{BLOCK, Uncached, aligned};

use super::object::Object;
use super::retrieval::{Retrieved, Way};
use super::target_file::{TargetFile, TargetLayer};
use super::window::{Piece, Window};
use super::{RebuildError, Source, Toll};

/// Frames that follow one another in a file are written at once, up to so many bytes: the disk is waited for each time.
const RUN: usize = 1 << 20;

/// Fetches one object, or what is needed of it, and writes all its frames of this window; the files of which nothing is
/// missing any more. `pieces` is one of [`Window::objects`].
pub(super) async fn place_object(
    source: Source<'_>,
    window: &Window,
    pieces: Range<usize>,
    toll: &Arc<Toll>,
) -> Result<Vec<usize>, RebuildError> {
    let Some(first) = window.pieces(pieces.clone()).first() else { return Ok(Vec::new()) };
    let reference = source.reference(first.object)?;
    let way = window.way_to(reference, pieces.clone());
    match attempt(source, reference, way, window, pieces.clone(), toll).await {
        Err(error) if is_damage(&error) => attempt(source, reference, Way::Whole, window, pieces, toll).await,
        placed => placed,
    }
}

/// Whether to read an object again: bytes may be damaged on their way, too, and what is damaged in the store is so the second
/// time as well.
fn is_damage(error: &RebuildError) -> bool {
    let RebuildError::Repository(RepositoryError::Object { name, source }) = error else { return false };
    tracing::warn!("object {name}: {source}; reading it again");
    true
}

async fn attempt(
    source: Source<'_>,
    reference: &ObjectReference,
    way: Way,
    window: &Window,
    pieces: Range<usize>,
    toll: &Arc<Toll>,
) -> Result<Vec<usize>, RebuildError> {
    let frames = window.pieces(pieces.clone()).iter().map(Piece::frames);
    let retrieved = Retrieved::get(source, reference, way, frames, toll).await?;
    let (reference, repository) = (reference.clone(), source.repository.clone());
    let (identities, window, toll) = (source.identities.to_vec(), window.clone(), toll.clone());
    let work = move || {
        let object = Object::open(retrieved, &repository, &reference, &identities)?;
        Placing { object, run: Run::new() }.place(&window, pieces, &toll)
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string())))
}

/// Puts a layer of a file together frame by frame, for those whose frames have uneven lengths.
pub(super) async fn place_in_order(
    source: Source<'_>,
    file: &TargetFile,
    layer: &TargetLayer,
    toll: &Toll,
) -> Result<(), RebuildError> {
    let mut target = Uncached::new(file.open()?, 0);
    let (mut at, mut index, mut plain) = (0, 0, Vec::new());
    for extent in &layer.extents {
        let reference = source.reference(extent.object)?;
        let mut object = match whole(source, reference, toll).await {
            Err(error) if is_damage(&error) => whole(source, reference, toll).await?,
            object => object?,
        };
        for frame in extent.frame..extent.frame.saturating_add(extent.count) {
            plain.clear();
            append_frame(&mut object, frame, file, layer, index, &mut plain)?;
            toll.wrote(file.write(&mut target, layer, &plain, at)?);
            at += plain.len() as u64;
            index += 1;
        }
    }
    if at == layer.size {
        Ok(())
    } else {
        let why =
            format!("the frames of {} have {at} bytes, its list of files says {}", file.path.display(), layer.size);
        Err(RebuildError::backup(source.label, why))
    }
}

async fn whole(source: Source<'_>, reference: &ObjectReference, toll: &Toll) -> Result<Object, RebuildError> {
    let retrieved = Retrieved::get(source, reference, Way::Whole, std::iter::empty(), toll).await?;
    Object::open(retrieved, source.repository, reference, source.identities)
}

/// Appends the plaintext of a frame, which is frame `index` of `layer` of `file`; how many bytes that are.
fn append_frame(
    object: &mut Object,
    frame: u32,
    file: &TargetFile,
    layer: &TargetLayer,
    index: usize,
    plain: &mut Vec<u8>,
) -> Result<usize, RebuildError> {
    let before = plain.len();
    object.frame_into(frame, plain)?;
    let found = plain.get(before..).unwrap_or_default();
    if layer.digests.get(index) != Some(&FrameDigest::of(found)) {
        let why = format!("frame {frame} is not frame {index} of {}, as the list of files says", file.path.display());
        return Err(object.refuse(SealError::Structure(why)));
    }
    Ok(found.len())
}

/// One object on its way into files, on a thread of its own.
struct Placing {
    object: Object,
    run: Run,
}

/// Frames that are opened and not written yet, in memory that begins at a block.
struct Run {
    bytes: Spare,
    begin: usize,
}

/// Memory of runs, used again; as many as are usually written at once.
static RUNS: LazyLock<Spares> = LazyLock::new(|| Spares::new(RUN + BLOCK, 8));

impl Run {
    fn new() -> Run {
        let mut bytes = RUNS.take();
        let begin = aligned(bytes.vec(), RUN);
        Run { bytes, begin }
    }

    fn clear(&mut self) {
        self.bytes.vec().truncate(self.begin);
    }

    fn plain(&self) -> &[u8] {
        self.bytes.as_ref().get(self.begin..).unwrap_or_default()
    }
}

impl Placing {
    fn place(mut self, window: &Window, pieces: Range<usize>, toll: &Toll) -> Result<Vec<usize>, RebuildError> {
        let (mut written, mut open): (u64, Option<(u32, Uncached)>) = (0, None);
        for piece in window.pieces(pieces.clone()) {
            let Some((file, layer)) = window.layer(piece.file, piece.layer) else { continue };
            let (_, target) = match open.take().filter(|(number, _)| *number == piece.file) {
                Some(same) => open.insert(same),
                None => open.insert((piece.file, Uncached::new(file.open()?, file.size))),
            };
            written += self.place_piece(piece, file, layer, target)?;
        }
        drop(open);
        // Only now, so that an object that is read again counts once.
        toll.wrote(written);
        let done = |piece: &Piece| window.placed(piece.file).then_some(piece.file as usize);
        Ok(window.pieces(pieces).iter().filter_map(done).collect())
    }

    /// Writes a piece, unless its frames turn out to be of other lengths than they should; how many bytes that were.
    fn place_piece(
        &mut self,
        piece: &Piece,
        file: &TargetFile,
        layer: &TargetLayer,
        target: &mut Uncached,
    ) -> Result<u64, RebuildError> {
        let (mut written, mut at) = (0, u64::from(piece.index) * layer.frame_size);
        self.run.clear();
        for step in 0..piece.count {
            let (frame, index) = (piece.frame.saturating_add(step), piece.index as usize + step as usize);
            let expected = layer.frame_length(index);
            let opened = self.run.plain().len() as u64;
            if opened + expected > RUN as u64 {
                written += file.write(target, layer, self.run.plain(), at)?;
                at += opened;
                self.run.clear();
            }
            let length = append_frame(&mut self.object, frame, file, layer, index, self.run.bytes.vec())?;
            if length as u64 != expected {
                layer.mark_uneven();
                return Ok(written);
            }
        }
        Ok(written + file.write(target, layer, self.run.plain(), at)?)
    }
}
