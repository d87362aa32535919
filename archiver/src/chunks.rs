//! Bytes in several places, so that nothing large is moved while it grows, and each place is freed by itself.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use walseal_common::buffer::{Spare, Spares};

/// Bytes in one place of memory: a frame of WAL, so that sealing copies nothing and frees as it goes.
pub const CHUNK: usize = 1 << 20;

/// Kept even where no memory is left for them: one that is freed while the next one is filled.
const FEWEST: usize = 1;

/// What one object has: as many as are freed until the next one is read.
const MOST: usize = 16;

static SPARES: LazyLock<Spares> = LazyLock::new(|| Spares::new(CHUNK, FEWEST));

/// So many bytes are set aside for WAL and not used: chunks that nobody uses are kept in them (I11), because for fresh ones
/// the system would clear each page.
pub fn keep_within(free: u64) {
    SPARES.keep(usize::try_from(free / CHUNK as u64).unwrap_or(MOST).clamp(FEWEST, MOST));
}

/// An empty place for [`CHUNK`] bytes.
pub fn place() -> Spare {
    SPARES.take()
}

/// A copy, at most [`CHUNK`] bytes. What is small gets no place of its own, of which there are few.
pub fn copy(bytes: &[u8]) -> Bytes {
    if bytes.len() < CHUNK / 8 {
        return Bytes::copy_from_slice(bytes);
    }
    let mut place = place();
    place.extend(bytes);
    place.freeze()
}

/// Bytes that follow one another. Cheap to clone and to slice: the places are shared.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    places: VecDeque<Bytes>,
    length: u64,
}

impl Chunks {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.length += bytes.len() as u64;
            self.places.push_back(bytes);
        }
    }

    /// All but the first `from` bytes.
    pub fn after(&self, from: u64) -> Chunks {
        let mut skip = from.min(self.length);
        let mut rest = Chunks::default();
        for place in &self.places {
            let length = place.len() as u64;
            let skipped = skip.min(length);
            skip -= skipped;
            rest.push(place.slice(usize::try_from(skipped).unwrap_or(place.len())..));
        }
        rest
    }

    /// Takes the first `most` bytes, or what there is; `None` when there is nothing. They are copied only where they lie in
    /// several places.
    pub fn take_first(&mut self, most: usize) -> Option<Bytes> {
        let first = self.take_first_in_place(most)?;
        if first.len() == most || self.is_empty() {
            return Some(first);
        }
        let length = most.min(first.len() + usize::try_from(self.length).unwrap_or(most));
        let mut joined = BytesMut::with_capacity(length);
        joined.extend_from_slice(&first);
        while joined.len() < length {
            // There is enough by the length, and it is not empty.
            let Some(next) = self.take_first_in_place(length - joined.len()) else { break };
            joined.extend_from_slice(&next);
        }
        Some(joined.freeze())
    }

    /// As [`Chunks::take_first`], but no more than lies in one place.
    fn take_first_in_place(&mut self, most: usize) -> Option<Bytes> {
        let first = self.places.front_mut()?;
        let taken = if first.len() > most { first.split_to(most) } else { self.places.pop_front()? };
        self.length -= taken.len() as u64;
        Some(taken)
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Chunks {
        let mut chunks = Chunks::default();
        chunks.push(bytes);
        chunks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_hold_the_bytes_that_were_pushed_however_they_are_cut(
            lengths in prop::collection::vec(0usize..50, 0..12),
            from in 0usize..300,
            most in 1usize..80,
        ) {
            let all: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|at| at as u8).collect();
            let (mut chunks, mut at) = (Chunks::default(), 0);
            for length in lengths {
                chunks.push(Bytes::copy_from_slice(&all[at..at + length]));
                at += length;
            }
            prop_assert_eq!(chunks.len() as usize, all.len());
            let mut rest = chunks.after(from as u64);
            let expected = &all[from.min(all.len())..];
            prop_assert_eq!(rest.len() as usize, expected.len());
            for frame in expected.chunks(most) {
                let taken = rest.take_first(most);
                prop_assert_eq!(taken.as_deref(), Some(frame));
            }
            prop_assert!(rest.is_empty() && rest.take_first(most).is_none());
        }
    }
}
