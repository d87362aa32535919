//! What stays, and why. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::clock;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{BaseId, HeldLease};
use walseal_common::segment::SegmentNumber;
use walseal_common::timeline::Branch;

use super::holdings::{Base, Holdings};
use super::path::{Path, Segments, paths};
use super::policy::{Period, Policy};

/// Why a base backup stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The window begins with it.
    Anchor,
    /// It lies in the window.
    Window,
    /// It is the last one of a day.
    Daily,
    /// Of a week.
    Weekly,
    /// Of a month.
    Monthly,
    /// Somebody holds it.
    Hold,
    /// A writer at work relies on it.
    Lease,
    /// It is among the last that are proven.
    Proven,
    /// Object lock does not let its label go.
    Locked,
    /// Nobody can tell whether it may go.
    HeldBack,
}

impl Reason {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Anchor => "start of the window",
            Reason::Window => "window",
            Reason::Daily => "daily",
            Reason::Weekly => "weekly",
            Reason::Monthly => "monthly",
            Reason::Hold => "hold",
            Reason::Lease => "in use",
            Reason::Proven => "proven",
            Reason::Locked => "locked",
            Reason::HeldBack => "held back",
        }
    }
}

/// A base backup and the WAL after it that are promised: any point from the backup's stop point up to there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// Where it leads.
    pub branch: Branch,
    /// The backup from which each point of it is restored, at the latest.
    pub base: BaseId,
    /// Where replay begins, and where it ends.
    pub wal: LsnRange,
}

/// What stays.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Base backups, with all reasons.
    pub bases: BTreeMap<BaseId, BTreeSet<Reason>>,
    /// WAL.
    pub wal: Segments,
    /// What is promised, at the least.
    pub promises: Vec<Promise>,
    /// What nobody can tell, so that more stays than has to; a sentence each.
    pub held_back: Vec<String>,
    /// Whether all base backups and all WAL stay.
    pub everything: bool,
}

/// What stays of `holdings` at `now`, the lower of this host's time and the store's, while these leases are held and the labels of these
/// base backups do not go: a backup that anybody can see has all that it needs (I7).
pub fn keep(
    holdings: &Holdings,
    leases: &[&HeldLease],
    locked: &BTreeSet<BaseId>,
    policy: &Policy,
    now: Timestamp,
) -> Keep {
    let paths = paths(holdings);
    let whole: BTreeSet<&BaseId> =
        holdings.bases.iter().filter(|base| holdings.is_whole(base)).map(|base| &base.id).collect();
    let keeper = Keeper { holdings, locked, whole, now, begin: policy.begin(now), keep: Keep::default() };
    keeper.decide(&paths, leases, policy)
}

struct Keeper<'a> {
    holdings: &'a Holdings,
    /// Backups of which the label does not go.
    locked: &'a BTreeSet<BaseId>,
    /// Backups of which no object is missing.
    whole: BTreeSet<&'a BaseId>,
    now: Timestamp,
    /// Where the window begins.
    begin: Timestamp,
    keep: Keep,
}

impl<'a> Keeper<'a> {
    fn decide(mut self, paths: &[Path], leases: &[&HeldLease], policy: &Policy) -> Keep {
        if !self.holdings.unreadable.is_empty() {
            let labels = self.holdings.unreadable.len();
            self.keep.everything = true;
            self.keep.held_back.push(format!(
                "{labels} label{} of base backups cannot be verified, so that nobody can tell what they need: no base backup and no \
                 WAL goes; the first is base/{}/label: {}",
                if labels == 1 { "" } else { "s" },
                self.holdings.unreadable[0].id,
                self.holdings.unreadable[0].why
            ));
        }
        let newest = paths.iter().map(|path| self.last_stored(path)).max();
        for path in paths {
            let last = self.last_stored(path);
            if Some(last) == newest || self.is_recent(last) {
                self.keep_window(path);
            }
        }
        self.keep_periods(paths, policy);
        let held: Vec<BaseId> =
            self.holdings.holds.iter().filter(|(_, until)| **until > self.now).map(|(id, _)| id.clone()).collect();
        for base in self.holdings.bases.iter().filter(|base| held.contains(&base.id)) {
            self.keep_alone(base, paths, Reason::Hold);
        }
        for lease in leases {
            let named = |base: &&Base| lease.covers(&format!("base/{}/label", base.id));
            for base in self.holdings.bases.iter().filter(named) {
                self.keep_alone(base, paths, Reason::Lease);
            }
        }
        self.keep_proven(paths, policy.min_proven as usize);
        let locked = |base: &&Base| self.locked.contains(&base.id);
        for base in self.holdings.bases.iter().filter(locked).collect::<Vec<_>>() {
            self.keep_alone(base, paths, Reason::Locked);
        }
        if self.keep.everything {
            for base in &self.holdings.bases {
                self.keep.bases.entry(base.id.clone()).or_default().insert(Reason::HeldBack);
            }
        }
        self.keep
    }

    /// When the store took the last WAL of the branch that the path ends on; the end of time where that is not known.
    fn last_stored(&self, path: &Path) -> i64 {
        let held = path.branch().and_then(|branch| self.holdings.branches.get(&branch));
        match held {
            Some(held) if held.wal.is_empty() => i64::MIN,
            Some(held) => held.last_stored().unwrap_or(i64::MAX),
            None => i64::MIN,
        }
    }

    /// Whether what the store took then may belong to the window.
    fn is_recent(&self, stored: i64) -> bool {
        // The store's clock and the server's may be apart before WAL that is still promised would be taken for older.
        let begin = self.begin.checked_sub(clock::APART).unwrap_or(Timestamp::MIN);
        stored >= begin.as_second()
    }

    /// Whether the backup was ready before the window begins, by the clocks of those who took it and by the store's: one that was behind must
    /// not let the window begin later (case 44).
    fn is_before(&self, base: &Base) -> bool {
        base.ready <= self.begin && self.stored(base).is_none_or(|stored| stored <= self.begin.as_second())
    }

    /// Whether a clock that was ahead dates the backup, so that its time tells nothing of those after it.
    fn is_ahead(&self, base: &Base) -> bool {
        let latest = self.now.as_second().saturating_add(clock::APART.as_secs());
        clock::was_wrong(base.ready, self.now) || self.stored(base).is_some_and(|stored| stored > latest)
    }

    /// When the store took the last of it; `None` where it does not tell.
    fn stored(&self, base: &Base) -> Option<i64> {
        self.holdings.folders.get(&base.id).and_then(|folder| folder.newest)
    }

    /// Backups that a restore along `path` can begin from, by their stop points.
    fn usable(&self, path: &Path) -> Vec<(&'a Base, LsnRange)> {
        let sound = |base: &&Base| base.suspect == 0 && self.whole.contains(&base.id) && path.has(base);
        let bases = self.holdings.bases.iter().filter(sound);
        let mut usable: Vec<_> = bases.filter_map(|base| Some((base, path.extent_of(base)?))).collect();
        usable.sort_by_key(|(base, _)| (base.stop, &base.id));
        usable
    }

    /// The window along one path: of each range of WAL without a hole that reaches into it, the last backup before it and all that
    /// follows.
    fn keep_window(&mut self, path: &Path) {
        let usable = self.usable(path);
        let mut anchors: Vec<(&Base, LsnRange)> = Vec::new();
        for extent in &path.extents {
            let inside = || usable.iter().filter(|(_, own)| own == extent).map(|(base, _)| *base);
            // By position, which is right where a clock was not: what stops after a backup within the window is within it, too (case 44).
            let told = inside().filter(|base| !self.is_ahead(base));
            let before = told.take_while(|base| self.is_before(base)).last();
            let anchor = before.or_else(|| inside().next());
            let is_last = path.extents.last() == Some(extent);
            let reaches = is_last
                || inside().any(|base| base.ready > self.begin)
                || self.is_recent(self.stored_at_the_end(path, *extent));
            if let Some(anchor) = anchor.filter(|_| reaches) {
                anchors.push((anchor, *extent));
            }
        }
        // Where nothing leads into what the window needs, the last that can be restored stays.
        if anchors.is_empty() {
            anchors.extend(usable.last().copied());
        }
        let from = anchors.iter().map(|(base, _)| base.start).min();
        for (base, extent) in &anchors {
            self.keep.bases.entry(base.id.clone()).or_default().insert(Reason::Anchor);
            if let Some(branch) = path.branch() {
                let wal = LsnRange { start: base.start, end: extent.end };
                self.keep.promises.push(Promise { branch, base: base.id.clone(), wal });
            }
        }
        let anchored = anchors.iter().any(|(base, _)| self.is_before(base));
        if !path.is_known && !anchored {
            self.hold_ancestors_back(path);
        }
        // Also what lies beyond a hole: a backup that is under way may need it.
        let from = from.unwrap_or(Lsn::INVALID);
        self.keep.wal.merge(&path.segments(from, None, self.holdings.size));
        for base in self.holdings.bases.iter().filter(|base| path.has(base) && base.start >= from) {
            self.keep.bases.entry(base.id.clone()).or_default().insert(Reason::Window);
        }
    }

    /// The branch begins within the window, and nobody can tell on what: any earlier timeline may be what it relies on.
    fn hold_ancestors_back(&mut self, path: &Path) {
        let Some(branch) = path.branch() else { return };
        self.keep.held_back.push(format!(
            "the repository does not tell from which branches {branch} comes, and it has no backup of its own from before the window: \
             all of earlier timelines stays"
        ));
        let earlier = |other: Branch| other.timeline < branch.timeline;
        for other in self.holdings.branches.keys().filter(|other| earlier(**other)) {
            self.keep.wal.add(*other, SegmentNumber(0), SegmentNumber(u64::MAX));
        }
        for base in self.holdings.bases.iter().filter(|base| earlier(base.branch)) {
            self.keep.bases.entry(base.id.clone()).or_default().insert(Reason::HeldBack);
        }
    }

    /// When the store took the last object of the last segment of `extent`.
    fn stored_at_the_end(&self, path: &Path, extent: LsnRange) -> i64 {
        let number = self.holdings.size.number(Lsn(extent.end.0.saturating_sub(1)));
        let held = path.steps.iter().filter_map(|step| self.holdings.branches.get(&step.branch));
        let last = held.flat_map(|held| &held.wal).filter(|object| object.number == number);
        last.map(|object| object.stored.unwrap_or(i64::MAX)).max().unwrap_or(i64::MIN)
    }

    /// Beyond the window: the last backup of each of the newest days, weeks and months that have one.
    fn keep_periods(&mut self, paths: &[Path], policy: &Policy) {
        let mut beyond: Vec<&Base> = Vec::new();
        for path in paths {
            beyond.extend(self.usable(path).into_iter().map(|(base, _)| base));
        }
        beyond.retain(|base| base.ready <= self.begin && !self.is_in_window(&base.id));
        beyond.sort_by_key(|base| std::cmp::Reverse((base.ready, &base.id)));
        beyond.dedup_by_key(|base| &base.id);
        for (period, count, reason) in [
            (Period::Day, policy.daily, Reason::Daily),
            (Period::Week, policy.weekly, Reason::Weekly),
            (Period::Month, policy.monthly, Reason::Monthly),
        ] {
            let mut seen = BTreeSet::new();
            for base in &beyond {
                let fresh = seen.len() < count as usize && seen.insert(period.of(base.ready));
                if fresh {
                    self.keep_alone(base, paths, reason);
                }
            }
        }
    }

    fn is_in_window(&self, id: &BaseId) -> bool {
        let reasons = self.keep.bases.get(id);
        reasons.is_some_and(|reasons| reasons.contains(&Reason::Window) || reasons.contains(&Reason::Anchor))
    }

    /// A backup with just the WAL from its start to its stop point.
    fn keep_alone(&mut self, base: &Base, paths: &[Path], reason: Reason) {
        self.keep.bases.entry(base.id.clone()).or_default().insert(reason);
        let size = self.holdings.size;
        // Recovery reads ahead of where it stops (`recovery_prefetch`): the segment after the last one, too.
        let to = size.number(base.stop).end(size);
        match paths.iter().find(|path| path.has(base)) {
            Some(path) => self.keep.wal.merge(&path.segments(base.start, Some(to), size)),
            None => self.keep.wal.add(base.branch, size.number(base.start), size.number(to)),
        }
    }

    fn keep_proven(&mut self, paths: &[Path], least: usize) {
        let mut proven: Vec<&Base> = Vec::new();
        for path in paths {
            proven.extend(self.usable(path).into_iter().map(|(base, _)| base).filter(|base| base.proven));
        }
        proven.sort_by_key(|base| std::cmp::Reverse((base.ready, &base.id)));
        proven.dedup_by_key(|base| &base.id);
        let stays = proven.iter().filter(|base| self.keep.bases.contains_key(&base.id)).count();
        let more: Vec<&Base> = proven
            .into_iter()
            .filter(|base| !self.keep.bases.contains_key(&base.id))
            .take(least.saturating_sub(stays))
            .collect();
        for base in more {
            self.keep_alone(base, paths, Reason::Proven);
        }
    }
}
