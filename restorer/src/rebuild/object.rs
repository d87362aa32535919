//! An object, or some frames of one, from which plaintext is taken.

use bytes::Bytes;
use walseal_common::repository::{ObjectReference, Repository, RepositoryError};
use walseal_common::seal::{Identity, Opener, Outline, SealError};

use super::RebuildError;
use super::retrieval::Retrieved;

/// A verified object that frames are taken from.
pub(super) struct Object {
    outline: Outline,
    opener: Opener,
    name: String,
    /// Its bytes, or parts of them, each with where it begins, in ascending order.
    parts: Vec<(u64, Bytes)>,
}

impl Object {
    /// Verifies what was retrieved of an object of the label, and opens it.
    ///
    /// Errors: it is not the very object that the label refers to; none of `identities` opens it.
    pub(super) fn open(
        retrieved: Retrieved,
        repository: &Repository,
        reference: &ObjectReference,
        identities: &[Identity],
    ) -> Result<Object, RebuildError> {
        let name = reference.name.clone();
        let refuse = |source| RepositoryError::Object { name: name.clone(), source };
        let (outline, opener, parts) = match retrieved {
            Retrieved::Whole(bytes) => {
                let (outline, bytes) = repository.verify_reference(reference, bytes)?.into_parts();
                let opener = outline.opener(identities).map_err(refuse)?.of_compared();
                (outline, opener, vec![(0, bytes)])
            }
            Retrieved::Parts(outline, parts) => {
                let opener = outline.opener(identities).map_err(refuse)?;
                (*outline, opener, parts)
            }
        };
        Ok(Object { outline, opener, name, parts })
    }

    /// Appends the plaintext of frame `frame`, which is one of those that were retrieved.
    pub(super) fn frame_into(&mut self, frame: u32, plain: &mut Vec<u8>) -> Result<(), RebuildError> {
        let number = frame as usize;
        let refuse = |source| RepositoryError::Object { name: self.name.clone(), source };
        let absent = SealError::Truncated("there is no such frame");
        let Some(range) = self.outline.trailer.frames.get(number).map(|entry| entry.range()) else {
            return Err(refuse(absent).into());
        };
        let after = self.parts.partition_point(|(at, _)| *at <= range.start);
        let part = after.checked_sub(1).and_then(|number| self.parts.get(number));
        let bytes = part.and_then(|(at, bytes)| {
            let (from, to) = (range.start.checked_sub(*at)?, range.end.checked_sub(*at)?);
            bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
        });
        let Some(bytes) = bytes else { return Err(refuse(absent).into()) };
        Ok(self.opener.frame_into(number, bytes, plain).map_err(refuse)?)
    }

    /// An error about this object.
    pub(super) fn refuse(&self, source: SealError) -> RebuildError {
        RepositoryError::Object { name: self.name.clone(), source }.into()
    }
}
