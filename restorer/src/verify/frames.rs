//! Frames of a base backup's data objects. Files mostly take them in the order in which they lie, so that the last few objects are kept.

use std::collections::VecDeque;

use walseal_common::repository::{Extent, FrameDigest, Label, Layer, Repository, RepositoryError};
use walseal_common::seal::{Envelope, Identity, Opener, SealError};

/// Bytes of objects that are kept (I11): those of a chain of backups that take turns.
const KEPT: usize = 256 << 20;

/// Opens frames of the objects of one label.
pub(super) struct Frames<'a> {
    repository: &'a Repository,
    identities: &'a [Identity],
    pub(super) label: &'a Label,
    /// The one that was used last is the last.
    kept: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    object: u32,
    size: usize,
    envelope: Envelope,
    opener: Opener,
}

impl<'a> Frames<'a> {
    pub(super) fn new(repository: &'a Repository, identities: &'a [Identity], label: &'a Label) -> Frames<'a> {
        Frames { repository, identities, label, kept: VecDeque::new(), bytes: 0 }
    }

    /// The plaintext of a frame, which has this digest by the list of files.
    ///
    /// Errors: there is no such frame; it is not what the list of files says; the store.
    pub(super) async fn frame(
        &mut self,
        object: u32,
        frame: u32,
        digest: Option<&FrameDigest>,
    ) -> Result<Vec<u8>, RepositoryError> {
        self.keep(object).await?;
        let reference = self.label.objects.get(object as usize);
        let name = reference.map(|reference| reference.name.clone()).unwrap_or_default();
        let refuse = |source| RepositoryError::Object { name: name.clone(), source };
        let Some(kept) = self.kept.back_mut() else { return Err(refuse(SealError::Truncated("it was not read"))) };
        let plain = kept.envelope.read_frame(&mut kept.opener, frame as usize).map_err(refuse)?;
        if digest != Some(&FrameDigest::of(&plain)) {
            let why =
                format!("frame {frame} is not the one that the list of files of base backup {} means", self.label.id);
            return Err(refuse(SealError::Structure(why)));
        }
        Ok(plain)
    }

    /// Puts an object at the end of those that are kept.
    async fn keep(&mut self, object: u32) -> Result<(), RepositoryError> {
        if let Some(at) = self.kept.iter().position(|kept| kept.object == object) {
            if let Some(kept) = self.kept.remove(at) {
                self.kept.push_back(kept);
            }
            return Ok(());
        }
        let Some(reference) = self.label.objects.get(object as usize) else {
            let source = SealError::Structure(format!("its label lists no object {object}"));
            return Err(RepositoryError::Object { name: format!("base/{}/label", self.label.id), source });
        };
        let size = usize::try_from(reference.size).unwrap_or(usize::MAX);
        while self.bytes.saturating_add(size) > KEPT {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.size;
        }
        let envelope = self.repository.read_reference(reference).await?;
        let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
        let opener = envelope.open(self.identities).map_err(refuse)?;
        self.bytes += size;
        self.kept.push_back(Kept { object, size, envelope, opener });
        Ok(())
    }
}

/// The frames of a layer, by their number in it.
pub(super) struct LayerFrames<'a> {
    layer: &'a Layer,
    /// The frame that was read last.
    last: Option<(usize, Vec<u8>)>,
    /// Bytes of each frame but the last one, once the first was read.
    length: Option<u64>,
}

impl<'a> LayerFrames<'a> {
    pub(super) fn new(layer: &'a Layer) -> LayerFrames<'a> {
        LayerFrames { layer, last: None, length: None }
    }

    /// The bytes at `stream` of the layer's joined frames, up to the end of a frame and at most `most` of them.
    ///
    /// Errors: as [`Frames::frame`].
    pub(super) async fn at(
        &mut self,
        frames: &mut Frames<'_>,
        stream: u64,
        most: u64,
    ) -> Result<&[u8], RepositoryError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                self.read(frames, 0).await?;
                let length = self.last.as_ref().map_or(0, |(_, plain)| plain.len() as u64).max(1);
                *self.length.insert(length)
            }
        };
        let (number, offset) = ((stream / length) as usize, (stream % length) as usize);
        self.read(frames, number).await?;
        let plain = self.last.as_ref().map(|(_, plain)| plain.as_slice()).unwrap_or_default();
        let rest = plain.get(offset..).unwrap_or_default();
        Ok(rest.get(..usize::try_from(most).unwrap_or(usize::MAX).min(rest.len())).unwrap_or_default())
    }

    async fn read(&mut self, frames: &mut Frames<'_>, number: usize) -> Result<(), RepositoryError> {
        if self.last.as_ref().is_some_and(|(known, _)| *known == number) {
            return Ok(());
        }
        let Some((object, frame)) = nth(&self.layer.extents, number) else {
            let source =
                SealError::Structure(format!("its list of files speaks of a frame {number} that no extent has"));
            return Err(RepositoryError::Object { name: format!("base/{}/label", frames.label.id), source });
        };
        let plain = frames.frame(object, frame, self.layer.digests.get(number)).await?;
        self.last = Some((number, plain));
        Ok(())
    }
}

/// Which frame of which object is frame `number` of these extents.
fn nth(extents: &[Extent], number: usize) -> Option<(u32, u32)> {
    let mut left = u32::try_from(number).ok()?;
    for extent in extents {
        if left < extent.count {
            return Some((extent.object, extent.frame.checked_add(left)?));
        }
        left -= extent.count;
    }
    None
}
