//! A history of a cluster and what it leaves in a repository, event by event; and what can be restored from that.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{BaseId, CatalogPage, Step};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::{Branch, HistoryEntry, SystemIdentifier, TimelineHistory, TimelineId};

use crate::retention::branch::{BranchHoldings, Summary, WalObject, WalPiece};
use crate::retention::holdings::{Base, Folder, Holdings};
use crate::retention::pieces::{PieceKind, Pieces};

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// So many segments are filled, one an hour.
    Wal(u8),
    /// A base backup is taken: which fault it has, and how many of the parent's objects it refers to (0 for a full one).
    Base(Fault, u8),
    /// The last backup's drill passes.
    Drill,
    /// So many hours without anything.
    Quiet(u8),
    /// So many segments are lost.
    Gap(u8),
    /// Another server takes over, so many segments before the end of what was shipped.
    Failover(u8),
    /// An attempt is interrupted.
    Attempt,
}

/// What is wrong with a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Checksum failures.
    Suspect,
    /// An object is missing.
    Incomplete,
}

/// A commit: on which branch, where it ends, and when it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    pub branch: Branch,
    pub end: Lsn,
    pub time: Timestamp,
}

/// A cluster and its repository.
pub struct History {
    pub holdings: Holdings,
    pub points: Vec<Point>,
    pub now: Timestamp,
    timeline: TimelineHistory,
    end: Lsn,
    count: u32,
}

const SYSTEM: SystemIdentifier = SystemIdentifier(7);
const SIZE: SegmentSize = SegmentSize::SMALLEST;

/// Data objects that each backup writes.
const OBJECTS: u32 = 6;

impl History {
    pub fn new() -> History {
        let timeline = TimelineHistory::root(TimelineId::FIRST);
        let now = "2026-01-01T00:30:00Z".parse().expect("a time");
        let (points, end) = (Vec::new(), SegmentNumber(1).start(SIZE));
        let mut history = History { holdings: Holdings::empty(SIZE), points, now, timeline, end, count: 0 };
        history.begin_branch();
        history
    }

    pub fn of(events: &[Event]) -> History {
        let mut history = History::new();
        events.iter().for_each(|event| history.happen(*event));
        history.settle();
        history
    }

    pub fn branch(&self) -> Branch {
        self.timeline.branch(SYSTEM)
    }

    fn begin_branch(&mut self) {
        let mut way = Vec::new();
        let mut begin = Lsn::INVALID;
        for leg in self.timeline.legs(SYSTEM) {
            way.push(Step { branch: leg.branch, begin, switch: Some(leg.end) });
            begin = leg.end;
        }
        way.push(Step { branch: self.branch(), begin, switch: None });
        self.holdings.branches.insert(self.branch(), BranchHoldings { way: Some(way), ..BranchHoldings::default() });
    }

    fn held(&mut self) -> &mut BranchHoldings {
        let branch = self.branch();
        self.holdings.branches.get_mut(&branch).expect("it was begun")
    }

    pub fn pass(&mut self, hours: i64) {
        self.now += SignedDuration::from_hours(hours);
    }

    fn put(&mut self, number: SegmentNumber, piece: WalPiece) {
        let stored = Some(self.now.as_second());
        self.held().wal.push(WalObject { number, piece, size: 1000, stored });
    }

    fn fill(&mut self) {
        self.pass(1);
        let number = SIZE.number(self.end);
        self.put(number, WalPiece::Whole);
        self.end = number.end(SIZE);
        self.points.push(Point { branch: self.branch(), end: self.end, time: self.now });
    }

    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Wal(segments) => (0..segments).for_each(|_| self.fill()),
            Event::Quiet(hours) => self.pass(i64::from(hours)),
            Event::Gap(segments) => {
                self.pass(1);
                self.end = SegmentNumber(SIZE.number(self.end).0 + u64::from(segments)).start(SIZE);
            }
            Event::Base(fault, referred) => self.base(fault, u32::from(referred)),
            Event::Drill => {
                if let Some(last) = self.holdings.bases.last_mut() {
                    last.proven = true;
                }
            }
            Event::Attempt => {
                self.pass(1);
                let id = self.next_id();
                let folder = self.folder(Fault::None);
                self.holdings.folders.insert(id, Folder { label: None, ..folder });
            }
            Event::Failover(back) => self.fail_over(back),
        }
    }

    fn fail_over(&mut self, back: u8) {
        // What the old primary had of its last segment.
        self.pass(1);
        let (number, half) = (SIZE.number(self.end), self.end.advance(SIZE.bytes() / 2));
        let tail = LsnRange { start: self.end, end: half };
        let branch = self.branch();
        self.put(number, WalPiece::Tail(tail));
        self.points.push(Point { branch, end: half, time: self.now });
        if back.is_multiple_of(2) {
            self.put(number, WalPiece::Partial);
            self.held().verified.insert(number, tail);
        }
        let oldest = self.timeline.begin().0.max(SIZE.bytes() * 2).min(half.0);
        let switch = Lsn(half.0.saturating_sub(u64::from(back) * SIZE.bytes()).clamp(oldest, half.0));
        self.timeline.entries.push(HistoryEntry { timeline: self.timeline.timeline, switch, reason: b"x".to_vec() });
        self.timeline.timeline = TimelineId::new(self.timeline.timeline.number() + 1).expect("not zero");
        self.begin_branch();
        self.end = SIZE.align_down(switch);
        self.fill();
    }

    fn next_id(&mut self) -> BaseId {
        self.count += 1;
        BaseId::new(self.now, self.count)
    }

    fn folder(&self, fault: Fault) -> Folder {
        let data = (0..OBJECTS).filter(|number| fault != Fault::Incomplete || *number != 3).map(|n| (n, 500));
        let pieces = BTreeMap::from([(PieceKind::Data, data.collect()), (PieceKind::Manifest, vec![(0, 50)])]);
        Folder { label: Some(100), pieces, newest: Some(self.now.as_second()) }
    }

    fn base(&mut self, fault: Fault, referred: u32) {
        self.fill();
        let (id, start) = (self.next_id(), Lsn(self.end.0 - SIZE.bytes() / 2));
        let shows = self.now;
        self.fill();
        let mut needs = Pieces::default();
        (0..OBJECTS).for_each(|number| needs.add(&id, PieceKind::Data, number));
        needs.add(&id, PieceKind::Manifest, 0);
        if let Some(parent) = self.holdings.bases.last() {
            let some = parent.needs.iter().filter(|(_, kind, _)| *kind == PieceKind::Data).take(referred as usize);
            let some: Vec<(BaseId, u32)> = some.map(|(id, _, number)| (id.clone(), number)).collect();
            some.iter().for_each(|(id, number)| needs.add(id, PieceKind::Data, *number));
        }
        needs.settle();
        let folder = self.folder(fault);
        self.holdings.folders.insert(id.clone(), folder);
        self.holdings.bases.push(Base {
            id,
            branch: self.branch(),
            start,
            stop: Lsn(self.end.0 - 1000),
            ready: self.now,
            shows,
            suspect: u64::from(fault == Fault::Suspect),
            proven: false,
            needs,
        });
    }

    /// As a survey would read it.
    pub fn settle(&mut self) {
        let newest = self.now.as_second();
        self.holdings.newest = Some(newest);
        for (branch, held) in &mut self.holdings.branches {
            held.wal.sort_unstable();
            held.wal.dedup_by_key(|object| (object.number, object.piece));
            let listing = held.listing(*branch, SIZE);
            let verified = held.verified.clone();
            let mut extents: Vec<LsnRange> = Vec::new();
            for start in listing.begins() {
                if extents.last().is_some_and(|last| start < last.end) {
                    continue;
                }
                let mut end = listing.contiguous_end(start);
                if let Some(partial) = verified.get(&SIZE.number(end)).filter(|range| range.start <= end) {
                    end = end.max(partial.end);
                }
                match extents.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ if end > start => extents.push(LsnRange { start, end }),
                    _ => {}
                }
            }
            held.extents = extents;
            let first = held.wal.first().map(|object| CatalogPage::first_of(object.number));
            held.pages = first.map(|first| (first, 300)).into_iter().collect();
            // A run is as long as a catalog page here.
            let run = |first| Summary { first, last: CatalogPage::last_of(first), size: 200 };
            held.summaries = first.map(run).into_iter().collect();
        }
    }
}

/// Whether the bytes of `range` lie on `branch`, object by object.
fn holds(holdings: &Holdings, branch: Branch, range: LsnRange) -> bool {
    let Some(held) = holdings.branches.get(&branch) else { return false };
    let mut at = range.start;
    while at < range.end {
        let number = SIZE.number(at);
        let of = held.wal.iter().filter(|object| object.number == number);
        let reach = of.filter_map(|object| match object.piece {
            WalPiece::Whole => Some(number.range(SIZE)),
            WalPiece::Partial => held.verified.get(&number).copied(),
            WalPiece::Tail(range) => Some(range),
            WalPiece::Part(_) => None,
        });
        let next = reach.filter(|piece| piece.start <= at && at < piece.end).map(|piece| piece.end).max();
        let Some(next) = next else { return false };
        at = next;
    }
    true
}

/// Whether the WAL from `start` up to `end` lies on the way to `branch`, each byte where a restore looks for it.
fn reaches(holdings: &Holdings, branch: Branch, start: Lsn, end: Lsn) -> bool {
    let way = holdings.branches.get(&branch).and_then(|held| held.way.clone()).expect("every way is known here");
    way.iter().all(|step| {
        let until = step.switch.unwrap_or(Lsn(u64::MAX)).min(end);
        let range = LsnRange { start: step.begin.max(start), end: until };
        range.start >= range.end || holds(holdings, step.branch, range)
    })
}

/// Whether a sound and whole backup leads to the point, by its time and by its place.
pub fn restorable(holdings: &Holdings, point: &Point) -> bool {
    holdings.bases.iter().any(|base| {
        base.suspect == 0
            && base.ready <= point.time
            && base.stop <= point.end
            && holdings.is_whole(base)
            && leads_to(holdings, base, point.branch)
            && reaches(holdings, point.branch, base.start, point.end)
    })
}

/// Whether the backup lies on the way to `branch`.
fn leads_to(holdings: &Holdings, base: &Base, branch: Branch) -> bool {
    let way = holdings.branches.get(&branch).and_then(|held| held.way.as_ref());
    let step = way.and_then(|way| way.iter().find(|step| step.branch == base.branch));
    step.is_some_and(|step| step.switch.is_none_or(|switch| base.stop <= switch))
}

/// Whether the backup itself can be restored, up to where it is consistent.
pub fn stands(holdings: &Holdings, base: &Base) -> bool {
    holdings.is_whole(base) && reaches(holdings, base.branch, base.start, base.stop)
}
