//! Writing frames where they belong.

use std::ops::Range;

use walseal_common::repository::{FrameDigest, ObjectReference, RepositoryError};
use walseal_common::seal::{Envelope, Identity, Opener, SealError};
use walseal_common::terminal::Progress;

use super::target_file::{TargetFile, TargetLayer};
use super::window::Window;
use super::{RebuildError, Source};

/// Fetches an object and checks that it is the very one that the label refers to.
async fn fetch(source: Source<'_>, reference: &ObjectReference) -> Result<Envelope, RebuildError> {
    match source.repository.read_reference(reference).await {
        // Bytes may be damaged on their way, too; what is damaged in the store is so the second time as well.
        Err(RepositoryError::Object { name, source: why }) => {
            tracing::warn!("object {name}: {why}; reading it again");
            Ok(source.repository.read_reference(reference).await?)
        }
        read => Ok(read?),
    }
}

fn reference<'a>(source: Source<'a>, object: u32) -> Result<&'a ObjectReference, RebuildError> {
    let missing = || RebuildError::backup(source.label, format!("its label lists no object {object}"));
    source.label.objects.get(object as usize).ok_or_else(missing)
}

/// Fetches one object and writes all its frames of this window. `pieces` is one of [`Window::objects`].
pub(super) async fn place_object(
    source: Source<'_>,
    window: Window,
    pieces: Range<usize>,
    progress: &Progress,
) -> Result<(), RebuildError> {
    let Some(first) = window.pieces(pieces.clone()).first() else { return Ok(()) };
    let reference = reference(source, first.object)?.clone();
    let envelope = fetch(source, &reference).await?;
    let (identities, progress) = (source.identities.to_vec(), progress.clone());
    let work = move || Object::new(envelope, &reference, &identities)?.place(&window, pieces, &progress);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string())))
}

/// Puts a layer of a file together frame by frame, for those whose frames have uneven lengths.
pub(super) async fn place_in_order(
    source: Source<'_>,
    file: &TargetFile,
    layer: &TargetLayer,
) -> Result<(), RebuildError> {
    let target = file.open()?;
    let (mut at, mut index) = (0, 0);
    for extent in &layer.extents {
        let reference = reference(source, extent.object)?;
        let mut object = Object::new(fetch(source, reference).await?, reference, source.identities)?;
        for frame in extent.frame..extent.frame.saturating_add(extent.count) {
            let plain = object.frame(frame, file, layer, index)?;
            file.write(&target, layer, plain, at)?;
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

/// A verified object that frames are taken from.
struct Object {
    envelope: Envelope,
    opener: Opener,
    name: String,
    plain: Vec<u8>,
}

impl Object {
    fn new(envelope: Envelope, reference: &ObjectReference, identities: &[Identity]) -> Result<Object, RebuildError> {
        let name = reference.name.clone();
        let opener =
            envelope.open(identities).map_err(|source| RepositoryError::Object { name: name.clone(), source })?;
        Ok(Object { envelope, opener, name, plain: Vec::new() })
    }

    fn refuse(&self, source: SealError) -> RebuildError {
        RepositoryError::Object { name: self.name.clone(), source }.into()
    }

    /// The plaintext of a frame, which is frame `index` of `layer` of `file`.
    fn frame(
        &mut self,
        frame: u32,
        file: &TargetFile,
        layer: &TargetLayer,
        index: usize,
    ) -> Result<&[u8], RebuildError> {
        self.plain = self
            .envelope
            .read_frame(&mut self.opener, frame as usize)
            .map_err(|source| RepositoryError::Object { name: self.name.clone(), source })?;
        if layer.digests.get(index) != Some(&FrameDigest::of(&self.plain)) {
            let why =
                format!("frame {frame} is not frame {index} of {}, as the list of files says", file.path.display());
            return Err(self.refuse(SealError::Structure(why)));
        }
        Ok(&self.plain)
    }

    fn place(mut self, window: &Window, pieces: Range<usize>, progress: &Progress) -> Result<(), RebuildError> {
        for piece in window.pieces(pieces) {
            let Some((file, layer)) = window.layer(piece.file, piece.layer) else { continue };
            let target = file.open()?;
            let mut written = 0;
            for step in 0..piece.count {
                let index = piece.index as usize + step as usize;
                let plain = self.frame(piece.frame.saturating_add(step), file, layer, index)?;
                if plain.len() as u64 != layer.frame_length(index) {
                    layer.mark_uneven();
                    break;
                }
                written += file.write(&target, layer, plain, index as u64 * layer.frame_size)?;
            }
            progress.advance(written);
        }
        Ok(())
    }
}
