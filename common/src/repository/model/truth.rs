//! What a repository holds, told from nothing but the list of what was put and taken away: sets of units of WAL, and no cleverness.

use std::collections::{BTreeMap, BTreeSet};

use crate::lsn::{Lsn, LsnRange};
use crate::repository::{BaseId, CatalogPage, Gap, ObjectName};
use crate::segment::{SegmentNumber, SegmentSize};
use crate::timeline::{Branch, TimelineId};

/// Units in a segment: everything begins and ends with one.
pub(super) const UNITS: u64 = 16;

/// Writers that are trusted, the first of those that there are.
pub(super) const TRUSTED: usize = 2;

/// WAL in units, from the beginning of all WAL on.
pub(super) type Units = BTreeSet<u64>;

/// An object of WAL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Up to where its writer knew WAL to be durable, in units.
    pub(super) durable: Option<u64>,
}

/// What the header of a whole segment says of transactions: the time of the one that ends in it, if any does, and whether one more may.
pub(super) type Times = (Option<i64>, bool);

/// A catalog page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// Whether it is the page that its name tells.
    pub(super) fits: bool,
    /// The first segment of the pages that were there, one behind the other, when it was made.
    pub(super) chain: u64,
    /// The segment of which it says what no header does.
    pub(super) wrong: Option<u64>,
}

/// A base backup.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub(super) branch: Branch,
    pub(super) start: u64,
    pub(super) stop: u64,
    /// Every data object that its label names.
    pub(super) needs: BTreeSet<ObjectName>,
    pub(super) labelled: bool,
}

/// WAL that was recorded as lost.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    pub(super) gap: Gap,
    /// What was lost of each branch; nobody knows what of which where the record does not tell the way between two.
    pub(super) of: Vec<(Branch, Units)>,
    /// Up to where WAL of a branch was there once.
    pub(super) known: Vec<(Branch, u64)>,
}

/// An adoption: WAL of `branch` lies on `to` from `from` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    pub(super) branch: Branch,
    pub(super) from: u64,
    pub(super) to: Branch,
    /// Whether later timelines that were there by then come from the other server.
    pub(super) apart: bool,
}

/// Everything that was done to a repository, and not undone.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) size: SegmentSize,
    pub(super) wal: BTreeMap<Branch, BTreeMap<ObjectName, Piece>>,
    pub(super) bases: BTreeMap<BaseId, Backup>,
    /// Data objects of base backups that are there.
    pub(super) data: BTreeSet<ObjectName>,
    pub(super) losses: Vec<Loss>,
    /// On which branches the WAL lies that leads to the end of a branch, oldest first, each with the unit from which on it does.
    pub(super) routes: BTreeMap<Branch, Vec<(Branch, u64)>>,
    pub(super) adopted: Vec<Adopted>,
    pub(super) pruned: BTreeMap<Branch, Units>,
    pub(super) pruned_bases: BTreeSet<BaseId>,
    /// Up to where the WAL of each branch was durable, as records of frontiers say, by writer and number. Numbers count down.
    pub(super) words: BTreeMap<(usize, u64), BTreeMap<Branch, u64>>,
    /// What somebody outside remembers: up to where he saw the WAL of each branch, and the newest base backup.
    pub(super) seen: BTreeMap<Branch, u64>,
    pub(super) seen_base: Option<BaseId>,
    pub(super) holds: BTreeMap<BaseId, bool>,
    /// By branch and first segment.
    pub(super) pages: BTreeMap<(Branch, u64), Page>,
    /// Of each segment that ever was whole.
    pub(super) times: BTreeMap<(Branch, u64), Times>,
}

impl Truth {
    pub(super) fn of(size: SegmentSize) -> Truth {
        Truth {
            size,
            wal: BTreeMap::new(),
            bases: BTreeMap::new(),
            data: BTreeSet::new(),
            losses: Vec::new(),
            routes: BTreeMap::new(),
            adopted: Vec::new(),
            pruned: BTreeMap::new(),
            pruned_bases: BTreeSet::new(),
            words: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_base: None,
            holds: BTreeMap::new(),
            pages: BTreeMap::new(),
            times: BTreeMap::new(),
        }
    }

    pub(super) fn lsn(&self, unit: u64) -> Lsn {
        Lsn(self.size.bytes() / UNITS * unit)
    }

    pub(super) fn unit(&self, lsn: Lsn) -> u64 {
        lsn.0 / (self.size.bytes() / UNITS)
    }

    pub(super) fn range(&self, start: u64, end: u64) -> LsnRange {
        LsnRange { start: self.lsn(start), end: self.lsn(end) }
    }

    pub(super) fn units(&self, range: LsnRange) -> impl Iterator<Item = u64> {
        self.unit(range.start)..self.unit(range.end)
    }

    pub(super) fn all_units(&self, ranges: &[LsnRange]) -> Units {
        ranges.iter().flat_map(|range| self.units(*range)).collect()
    }

    /// The objects of WAL of a branch.
    pub(super) fn pieces(&self, branch: Branch) -> impl Iterator<Item = (&ObjectName, &Piece)> {
        self.wal.get(&branch).into_iter().flatten()
    }

    /// What can be read of a branch: each segment from its start to the first unit that no object of it holds. Of `.partial` objects
    /// only where `with_partials`, because names alone do not tell what they hold.
    pub(super) fn readable(&self, branch: Branch, with_partials: bool) -> Units {
        let counting =
            self.pieces(branch).filter(|(name, _)| with_partials || !matches!(name, ObjectName::Partial(..)));
        let held: Units = counting.flat_map(|(_, piece)| piece.start..piece.end).collect();
        let segments: BTreeSet<u64> = held.iter().map(|unit| unit / UNITS).collect();
        let of_segment = |number: u64| (number * UNITS..(number + 1) * UNITS).take_while(|unit| held.contains(unit));
        segments.into_iter().flat_map(of_segment).collect()
    }

    /// The segments of a branch of which the first bytes are there, or a `.partial`, by name.
    pub(super) fn begun(&self, branch: Branch) -> BTreeSet<u64> {
        let first = |(name, piece): &(&ObjectName, &Piece)| {
            piece.start.is_multiple_of(UNITS) || matches!(name, ObjectName::Partial(..))
        };
        self.pieces(branch).filter(first).map(|(_, piece)| piece.start / UNITS).collect()
    }

    /// The whole segments of a branch: those of which every part is there.
    pub(super) fn whole(&self, branch: Branch) -> BTreeSet<u64> {
        let mut units: BTreeMap<u64, u64> = BTreeMap::new();
        for (name, piece) in self.pieces(branch) {
            if matches!(name, ObjectName::Wal(..)) {
                *units.entry(piece.start / UNITS).or_default() += piece.end - piece.start;
            }
        }
        units.into_iter().filter(|(_, units)| *units == UNITS).map(|(number, _)| number).collect()
    }

    /// The segments of a branch about which there is something to ask: not those amid whole ones, nor those amid none.
    pub(super) fn asked(&self, branch: Branch) -> Vec<u64> {
        let whole = self.whole(branch);
        let mut objects: BTreeMap<u64, usize> = BTreeMap::new();
        for (_, piece) in self.pieces(branch) {
            *objects.entry(piece.start / UNITS).or_default() += 1;
        }
        let last = objects.last_key_value().map_or(0, |(number, _)| number + 2);
        let around = |number: &u64| number.saturating_sub(1)..=number + 1;
        let of_one = |number: u64| whole.contains(&number) && objects.get(&number) == Some(&1);
        let none = |number: u64| !objects.contains_key(&number);
        (0..last).filter(|number| !around(number).all(of_one) && !around(number).all(none)).collect()
    }

    /// What a page of the segments from `first` on says when it is made of their headers: from which segment on it misses no
    /// transaction, and the highest time of those. `None` where not all are there.
    pub(super) fn page(&self, branch: Branch, first: u64) -> Option<(Page, u64, Option<i64>)> {
        let (whole, end) = (self.whole(branch), first + CatalogPage::SEGMENTS);
        if !(first..end).all(|number| whole.contains(&number)) {
            return None;
        }
        let before = first.checked_sub(CatalogPage::SEGMENTS).and_then(|before| self.pages.get(&(branch, before)));
        let chain = before.filter(|page| page.fits).map_or(first, |page| page.chain);
        let (begin, highest) = self.running(branch, chain, end);
        Some((Page { fits: true, chain, wrong: None }, begin, highest))
    }

    /// From which segment on none before `end` may lack a transaction, and the highest time in them.
    pub(super) fn running(&self, branch: Branch, chain: u64, end: u64) -> (u64, Option<i64>) {
        let times = |from: u64| self.times.range((branch, from)..(branch, end));
        let mut unread = times(chain).filter(|(_, (_, unread))| *unread).map(|((_, number), _)| number + 1);
        let begin = unread.next_back().unwrap_or(chain);
        (begin, times(begin).filter_map(|(_, (time, _))| *time).max())
    }

    /// Where the WAL from `unit` on ends that has no hole: the start of its segment where that is not begun.
    pub(super) fn end_of(readable: &Units, unit: u64) -> u64 {
        let start = unit / UNITS * UNITS;
        (start..).find(|at| !readable.contains(at)).unwrap_or(start)
    }

    /// What is recorded as lost on a branch.
    pub(super) fn recorded(&self, branch: Branch) -> Units {
        let all = self.losses.iter().flat_map(|loss| &loss.of);
        all.filter(|(of, _)| *of == branch).flat_map(|(_, units)| units).copied().collect()
    }

    /// Up to where the newest record of any trusted writer says that the WAL of a branch was durable.
    pub(super) fn frontier(&self, branch: Branch) -> Option<u64> {
        let newest = |writer: usize| self.words.range((writer, 0)..(writer + 1, 0)).next();
        let words = (0..TRUSTED).filter_map(newest).map(|(_, word)| word);
        words.filter_map(|word| word.get(&branch)).copied().max()
    }

    /// Up to where something in the repository says that WAL of a branch was there.
    pub(super) fn vouched(&self, branch: Branch) -> Option<u64> {
        let labels = self.bases.values().filter(|base| base.labelled && base.branch == branch).map(|base| base.stop);
        let known = self.losses.iter().flat_map(|loss| &loss.known);
        let gaps = known.filter(|(of, _)| *of == branch).map(|(_, unit)| *unit);
        let pages = self.pages.iter().filter(|((of, _), page)| *of == branch && page.fits);
        let pages = pages.map(|((_, first), _)| (first + CatalogPage::SEGMENTS) * UNITS);
        // What lies before all that is of use may have been removed.
        let pages = pages.filter(|end| *end > self.wanted_from(branch));
        self.frontier(branch).into_iter().chain(labels).chain(gaps).chain(pages).max()
    }

    /// A timeline leaves the way to the end of `branch` at `switch`, and goes on on `child`.
    pub(super) fn fork(&mut self, branch: Branch, switch: u64, child: Branch) {
        let mut route = self.routes[&branch].clone();
        route.retain(|(_, begin)| *begin < switch);
        route.push((child, switch));
        self.routes.insert(child, route);
    }

    /// WAL of the timeline of `branch`, the last one of its way, goes on on another one.
    pub(super) fn adopt(&mut self, adopted: Adopted) {
        let Adopted { branch, from, to, apart } = adopted;
        let mut route = self.routes[&branch].clone();
        let begin = route.last().map_or(from, |(_, begin)| from.max(*begin));
        for other in self.routes.values_mut().filter(|_| !apart) {
            let at = other.iter().position(|(passed, _)| *passed == branch);
            if let Some(at) = at.filter(|at| other.get(at + 1).is_some_and(|(_, left)| *left > from)) {
                other.insert(at + 1, (to, begin));
            }
        }
        route.push((to, begin));
        self.routes.insert(to, route);
        self.adopted.push(adopted);
    }

    /// The branch of a timeline by its history alone, of any of its branches.
    pub(super) fn origin(&self, branch: Branch) -> Branch {
        let first = self.routes[&branch].iter().find(|(passed, _)| passed.timeline == branch.timeline);
        first.map_or(branch, |(origin, _)| *origin)
    }

    /// What can be read on the way to the end of a branch: each segment of the newest branch that reaches it and holds anything of its
    /// own.
    pub(super) fn along(&self, end: Branch) -> Units {
        let mut units = Units::new();
        let route = &self.routes[&end];
        for (at, (branch, begin)) in route.iter().enumerate() {
            let until = match route.get(at + 1) {
                Some((child, left)) if self.readable(*child, true).last() >= Some(left) => left / UNITS * UNITS,
                Some((_, left)) => *left,
                None => u64::MAX,
            };
            let own = self.readable(*branch, true);
            units.extend(own.into_iter().filter(|unit| *unit >= begin / UNITS * UNITS && *unit < until));
        }
        units
    }

    /// From where on the WAL of a branch is of use to anybody.
    fn wanted_from(&self, branch: Branch) -> u64 {
        let labelled = || self.bases.values().filter(|base| base.labelled);
        let oldest: Option<TimelineId> = labelled().map(|base| base.branch.timeline).min();
        let start = labelled().filter(|base| base.branch == branch).map(|base| base.start / UNITS * UNITS).min();
        let begun = self.begun(branch).first().map(|number| number * UNITS);
        match start {
            Some(start) if oldest == Some(branch.timeline) => start,
            start => start.into_iter().chain(begun).min().unwrap_or(0),
        }
    }

    /// What of a branch is lost without a word: something says that it was there, or that it was confirmed, it is not there, nobody
    /// recorded that, and retention did not remove it, or a base backup needs it (I5). Who asks may know what somebody outside saw.
    pub(super) fn missing(&self, branch: Branch, seen: Option<u64>) -> Units {
        let readable = self.readable(branch, true);
        let from = self.wanted_from(branch);
        let inside = self.vouched(branch);
        let vouched = inside.max(seen).unwrap_or(from);
        // Behind what is told inside WAL was there, too.
        let from = inside.unwrap_or(from).min(from);
        let mut missing: Units = (from..vouched).filter(|unit| !readable.contains(unit)).collect();
        // Beyond, an object tells that what lies before it had been confirmed when it was made, or does not tell.
        let tells = |unit: u64| {
            let mut beyond = self.pieces(branch).filter(|(_, piece)| piece.end > unit);
            beyond.any(|(_, piece)| piece.durable.is_none_or(|durable| durable > unit))
        };
        let last = self.begun(branch).last().map_or(0, |number| number * UNITS);
        let mut hole = Self::end_of(&readable, vouched).max(vouched);
        while hole < last {
            let next = self.begun(branch).into_iter().map(|number| number * UNITS).find(|start| *start > hole);
            let Some(next) = next else { break };
            let recorded = self.recorded(branch);
            if !(hole..next).all(|unit| recorded.contains(&unit)) && !tells(hole) {
                break;
            }
            missing.extend(hole..next);
            hole = Self::end_of(&readable, next).max(next);
        }
        let explained = self.explained(branch);
        missing.retain(|unit| !explained.contains(unit));
        missing
    }

    /// What of a branch is recorded as lost, or was removed.
    pub(super) fn explained(&self, branch: Branch) -> Units {
        let mut pruned = self.pruned.get(&branch).cloned().unwrap_or_default();
        // What a base backup that is there needs is missed, whatever an earlier prune had been about to remove.
        for base in self.bases.values().filter(|base| base.labelled && base.branch == branch) {
            let segments = base.start / UNITS * UNITS..base.stop.div_ceil(UNITS) * UNITS;
            pruned.retain(|unit| !segments.contains(unit));
        }
        pruned.extend(self.recorded(branch));
        pruned
    }

    pub(super) fn number(unit: u64) -> SegmentNumber {
        SegmentNumber(unit / UNITS)
    }
}
