//! The frontier: the end of the contiguous durable WAL, and the only position that is ever confirmed.

use std::collections::BTreeMap;

use tokio::sync::watch;
use walseal_common::lsn::{Lsn, LsnRange};

/// Advances over durable ranges as they complete, in any order, and never over a hole (I2). Never decreases (I1).
#[derive(Debug)]
pub struct Frontier {
    end: watch::Sender<Lsn>,
    /// Durable ranges beyond the end, by start.
    beyond: BTreeMap<Lsn, Lsn>,
}

impl Frontier {
    /// A frontier at `end`, which must be the end of what verified objects cover; invalid as long as that is not known.
    pub fn new(end: Lsn) -> Frontier {
        Frontier { end: watch::Sender::new(end), beyond: BTreeMap::new() }
    }

    /// The end of the contiguous durable WAL.
    pub fn end(&self) -> Lsn {
        *self.end.borrow()
    }

    /// Follows the frontier.
    pub fn watch(&self) -> watch::Receiver<Lsn> {
        self.end.subscribe()
    }

    /// Notes that `range` is durable in the repository. Returns the frontier after it.
    pub fn complete(&mut self, range: LsnRange) -> Lsn {
        let longest = self.beyond.entry(range.start).or_insert(range.end);
        *longest = (*longest).max(range.end);
        let mut end = self.end();
        while let Some(first) = self.beyond.first_entry().filter(|first| *first.key() <= end) {
            end = end.max(first.remove());
        }
        self.end.send_if_modified(|frontier| {
            let further = end > *frontier;
            *frontier = end.max(*frontier);
            further
        });
        end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn i2_the_frontier_never_passes_a_hole_and_never_decreases(
            ranges in prop::collection::vec((0u64..100, 1u64..20), 0..40),
        ) {
            let mut frontier = Frontier::new(Lsn(10));
            let mut durable: Vec<bool> = (0..200).map(|at| at < 10).collect();
            let mut before = Lsn(10);
            for (start, length) in ranges {
                let end = frontier.complete(LsnRange { start: Lsn(start), end: Lsn(start + length) });
                (start..start + length).for_each(|at| durable[at as usize] = true);
                let contiguous = durable.iter().position(|is| !is).expect("the end is never durable") as u64;
                prop_assert_eq!(end, Lsn(contiguous));
                prop_assert!(end >= before);
                prop_assert_eq!(*frontier.watch().borrow(), end);
                before = end;
            }
        }
    }
}
