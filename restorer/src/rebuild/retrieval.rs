//! How much of an object is fetched: all of it, or, where few of its frames are needed, those.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::repository::ObjectReference;
use walseal_common::seal::{FrameEntry, MAX_PLAINTEXT, Outline};

use super::{RebuildError, Source, Toll};

/// What a request costs beside the bytes that it brings, as bytes: frames that lie less than that apart come in one.
const REQUEST: u64 = 16 << 10;

/// What is usually paid to learn where an object's frames lie, in bytes.
const OUTLINE: u64 = 16 << 10;

/// Requests for parts of one object at a time.
const AT_ONCE: usize = 8;

/// How an object is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// In one piece, compared with the label's digest.
    Whole,
    /// Header and trailer, and then the frames that are needed.
    Parts,
}

/// What was fetched of an object.
pub(super) enum Retrieved {
    /// All of it, not verified.
    Whole(Bytes),
    /// Its verified plain parts, and bytes of it, each with where they begin, ascending: frames, not verified.
    Parts(Box<Outline>, Vec<(u64, Bytes)>),
}

impl Way {
    /// How to get `plain` bytes of an object in so many `frames` of its first `until`. How well they shrank nobody knows yet: as
    /// in all objects that are full. One that is not full is needed whole, where nothing tells otherwise.
    pub(super) fn to(reference: &ObjectReference, plain: u64, frames: u64, until: u64) -> Way {
        let stored = u128::from(plain) * u128::from(reference.size.min(MAX_PLAINTEXT)) / u128::from(MAX_PLAINTEXT);
        let few = frames <= until / 2 || worth_it(plain, reference);
        if few && worth_it(stored as u64 + OUTLINE, reference) { Way::Parts } else { Way::Whole }
    }
}

/// Whether to fetch only so many bytes of an object: one request for the rest of it is soon cheaper than many.
fn worth_it(bytes: u64, reference: &ObjectReference) -> bool {
    bytes < reference.size / 2
}

impl Retrieved {
    /// Fetches an object of the label, or the `frames` that are needed of it, ascending runs.
    ///
    /// Errors: the store; an outline that is not what a trusted writer signed.
    pub(super) async fn get(
        source: Source<'_>,
        reference: &ObjectReference,
        way: Way,
        frames: impl Iterator<Item = Range<usize>>,
        toll: &Toll,
    ) -> Result<Retrieved, RebuildError> {
        let repository = source.repository;
        if way == Way::Parts {
            let (outline, read) = repository.outline_of_reference(reference).await?;
            toll.fetched(read, 2);
            let ranges = ranges(&outline.trailer.frames, frames);
            let bytes = ranges.iter().map(|range| range.end - range.start + REQUEST).sum();
            if worth_it(bytes, reference) {
                let get = |range: Range<u64>| async move {
                    let bytes = repository.part_of_reference(reference, range.clone()).await?;
                    toll.fetched(bytes.len() as u64, 1);
                    Ok::<_, RebuildError>((range.start, bytes))
                };
                let parts = stream::iter(ranges.into_iter().map(get)).buffered(AT_ONCE).try_collect().await?;
                return Ok(Retrieved::Parts(Box::new(outline), parts));
            }
        }
        let bytes = repository.unverified_reference(reference).await?;
        toll.fetched(bytes.len() as u64, 1);
        Ok(Retrieved::Whole(bytes))
    }
}

/// Where these frames lie, joined where little lies between them. Frames that are not there are left out.
fn ranges(table: &[FrameEntry], frames: impl Iterator<Item = Range<usize>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for entry in frames.flatten().filter_map(|frame| table.get(frame)) {
        let range = entry.range();
        match joined.last_mut().filter(|last| range.start <= last.end.saturating_add(REQUEST)) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use walseal_common::seal::ObjectDigest;

    use super::*;

    #[test]
    fn an_object_is_fetched_in_parts_only_where_little_of_it_is_needed() {
        let object = |size| ObjectReference { name: "x".to_owned(), size, digest: ObjectDigest::of(b"") };
        let (frame, full, last) = (64 << 10, object(5 << 20), object(350 << 10));
        for (reference, frames, until, way) in [
            (&full, 256, 256, Way::Whole),
            (&full, 1, 1, Way::Parts),
            (&full, 20, 250, Way::Parts),
            (&full, 100, 256, Way::Parts),
            (&full, 130, 256, Way::Whole),
            // The last object of a backup: all of it.
            (&last, 16, 16, Way::Whole),
            (&last, 1, 16, Way::Parts),
            // A few kilobytes are not worth two requests more.
            (&object(20 << 10), 1, 16, Way::Whole),
        ] {
            assert_eq!(
                Way::to(reference, frames * frame, frames, until),
                way,
                "{frames} of {until} in {}",
                reference.size
            );
        }
    }
}
