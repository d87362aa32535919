//! Which objects make up the bytes of one segment.

use crate::lsn::{Lsn, LsnRange};

/// A chain of pieces that covers a range from its start on without a hole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cover {
    /// The chosen pieces in order: each begins at or before the end of the one before.
    pub pieces: Vec<LsnRange>,
    /// Where the chain ends; the start itself when nothing covers it.
    pub end: Lsn,
}

impl Cover {
    /// The chain of fewest pieces that covers from `start` on as far as `available` reaches without a hole.
    pub fn of(start: Lsn, available: &[LsnRange]) -> Cover {
        let mut cover = Cover { pieces: Vec::new(), end: start };
        // Greedy is optimal here: of all pieces that begin within what is covered, take the one that reaches furthest.
        while let Some(best) = available
            .iter()
            .filter(|piece| piece.start <= cover.end && piece.end > cover.end)
            .max_by_key(|piece| (piece.end, piece.start))
        {
            cover.end = best.end;
            cover.pieces.push(*best);
        }
        cover
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> LsnRange {
        LsnRange { start: Lsn(start), end: Lsn(end) }
    }

    #[test]
    fn i2_a_cover_never_passes_a_hole() {
        let cover = Cover::of(Lsn(10), &[range(10, 20), range(21, 30), range(15, 20)]);
        assert_eq!(cover, Cover { pieces: vec![range(10, 20)], end: Lsn(20) });
        assert_eq!(Cover::of(Lsn(9), &[range(10, 20)]), Cover { pieces: vec![], end: Lsn(9) });
    }

    #[test]
    fn a_coalesced_tail_replaces_the_small_ones() {
        let cover = Cover::of(Lsn(0), &[range(0, 5), range(5, 9), range(0, 20), range(9, 12), range(20, 22)]);
        assert_eq!(cover.pieces, vec![range(0, 20), range(20, 22)]);
    }

    proptest! {
        #[test]
        fn i2_every_byte_up_to_the_end_is_in_a_piece(raw in prop::collection::vec((0u64..60, 1u64..20), 0..20)) {
            let available: Vec<LsnRange> = raw.iter().map(|(start, length)| range(*start, start + length)).collect();
            let cover = Cover::of(Lsn(0), &available);
            for at in 0..cover.end.0 {
                prop_assert!(cover.pieces.iter().any(|piece| piece.contains(Lsn(at))));
            }
            prop_assert!(!available.iter().any(|piece| piece.contains(cover.end)));
            prop_assert!(cover.pieces.iter().all(|piece| available.contains(piece)));
        }
    }
}
