//! How many tails a reader needs for the part of a segment that is being filled, and when some of them are joined into one.

use walseal_common::lsn::LsnRange;

/// So many tails are joined at a time. Every byte is then shipped about twice as a tail, however small tails are: joining from
/// the part's start each time would ship most bytes again and again.
const JOINED: u32 = 16;

/// So many joined ones are replaced by one that covers the part from its start.
const MOST_JOINED: u32 = 16;

/// As many tails as a reader may need before the next one covers the part from its start, whatever is on its way: with those that a
/// kill leaves on their way, never more than 64 gets for a segment.
const MOST: u32 = 48;

/// What the tails of a part are.
#[derive(Debug, Default)]
pub(super) struct Tails {
    /// Those that cover many others, behind one another from the part's start on.
    joined: u32,
    /// Those behind them.
    loose: u32,
    /// What is joined at the moment, and how many of the loose ones it replaces.
    under_way: Option<(LsnRange, Join)>,
}

#[derive(Clone, Copy, Debug)]
struct Join {
    replaced: u32,
    from_start: bool,
}

impl Tails {
    /// So many were there before this stream.
    pub(super) fn found(count: u32) -> Tails {
        Tails { loose: count, ..Tails::default() }
    }

    /// Whether the next one has to cover the part from its start.
    pub(super) fn are_too_many(&self) -> bool {
        self.joined + self.loose >= MOST
    }

    /// One more was cut; `covers` says that it covers the part from its start.
    pub(super) fn cut(&mut self, covers: bool) {
        if covers {
            *self = Tails { joined: 1, ..Tails::default() };
        } else {
            self.loose += 1;
        }
    }

    /// Whether tails are to be joined now, and whether from the part's start on.
    pub(super) fn to_join(&self) -> Option<bool> {
        (self.under_way.is_none() && self.loose >= JOINED).then_some(self.joined >= MOST_JOINED)
    }

    /// All that are there by now are on their way as one that covers `range`.
    pub(super) fn join(&mut self, range: LsnRange, from_start: bool) {
        self.under_way = Some((range, Join { replaced: self.loose, from_start }));
    }

    /// Whether these are tails that are joined.
    pub(super) fn is_joining(&self, range: LsnRange) -> bool {
        self.under_way.is_some_and(|(joining, _)| joining == range)
    }

    /// A piece is durable: where it is the joined one, a reader needs no more those that it replaces.
    pub(super) fn landed(&mut self, range: LsnRange) {
        if let Some((_, join)) = self.under_way.take_if(|(joining, _)| *joining == range) {
            self.loose = self.loose.saturating_sub(join.replaced);
            self.joined = if join.from_start { 1 } else { self.joined + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use walseal_common::lsn::Lsn;

    use super::*;

    #[test]
    fn what_is_joined_counts_once_it_is_durable() {
        let mut tails = Tails::default();
        (0..JOINED).for_each(|_| tails.cut(false));
        assert_eq!(tails.to_join(), Some(false));
        let range = LsnRange { start: Lsn(1), end: Lsn(2) };
        tails.join(range, false);
        assert!(tails.to_join().is_none(), "one at a time");
        while !tails.are_too_many() {
            tails.cut(false);
        }
        assert_eq!(tails.loose, MOST);
        tails.landed(LsnRange { start: Lsn(0), ..range });
        assert!(tails.are_too_many(), "that was another piece");
        tails.landed(range);
        assert_eq!((tails.joined, tails.loose), (1, MOST - JOINED));
    }

    #[test]
    fn many_joined_ones_are_replaced_by_one() {
        let mut tails = Tails::default();
        for step in 0..u64::from(MOST_JOINED) {
            assert_eq!(tails.joined, step as u32);
            (0..JOINED).for_each(|_| tails.cut(false));
            let range = LsnRange { start: Lsn(step), end: Lsn(step + 1) };
            tails.join(range, tails.to_join().expect("many"));
            tails.landed(range);
        }
        (0..JOINED).for_each(|_| tails.cut(false));
        let (all, from_start) = (LsnRange { start: Lsn(0), end: Lsn(99) }, tails.to_join().expect("many"));
        assert!(from_start);
        tails.join(all, from_start);
        tails.landed(all);
        assert_eq!((tails.joined, tails.loose), (1, 0));
    }
}
