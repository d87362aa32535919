//! What goes, and what can be restored before and after: a plain value, made without I/O, printed by a dry run and executed as it is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::repository::{BaseId, CatalogPage, FrontierRecord, HeldLease, ObjectName, Usage};
use walseal_common::segment::SegmentSize;
use walseal_common::store::Lock;
use walseal_common::timeline::Branch;

use super::branch::WalPiece;
use super::holdings::{Folder, Holdings, Small, Sum, UnreadableLabel};
use super::keep::{Keep, Promise, Reason, keep};
use super::locks::Locked;
use super::path::paths;
use super::pieces::Pieces;
use super::policy::Policy;

/// Objects without a label go when the store took the newest of them so long ago, in seconds: an attempt that is interrupted may go on
/// with them (case 36).
pub const DEBRIS_AGE: i64 = 7 * 86_400;

/// Frontiers of a writer that stay, however old. The newest counts; where it does not verify, the one before it.
const FRONTIERS: usize = 3;

/// Why an object goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The label of a base backup that nothing promises any more.
    Base,
    /// WAL that no backup which stays needs.
    Wal,
    /// The catalog page of such WAL.
    Catalog,
    /// The summary of such WAL.
    Summary,
    /// An object of a base backup that no label names any more.
    Unreferenced,
    /// What an attempt left that was interrupted.
    Debris,
    /// A tail of which every byte is in a whole segment or a `.partial`.
    SupersededTail,
    /// An older frontier of a writer.
    OldFrontier,
    /// A lease that is over.
    ExpiredLease,
}

impl Cause {
    /// Whether somebody may be about to rely on it, so that it is announced before it goes. Who reads tails reads the whole segment
    /// where they are gone; nobody relies on the rest.
    pub const fn is_announced(self) -> bool {
        !matches!(self, Cause::SupersededTail | Cause::OldFrontier | Cause::ExpiredLease)
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Cause::Base => "labels of base backups",
            Cause::Wal => "WAL that nothing needs",
            Cause::Catalog => "catalog pages of it",
            Cause::Summary => "summaries of it",
            Cause::Unreferenced => "objects of those base backups",
            Cause::Debris => "objects of interrupted base backups",
            Cause::SupersededTail => "superseded tails",
            Cause::OldFrontier => "old frontiers",
            Cause::ExpiredLease => "leases that are over",
        }
    }
}

/// An object that goes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Removal {
    /// Why.
    pub cause: Cause,
    /// Which.
    pub name: ObjectName,
    /// Its bytes.
    pub size: u64,
}

fn sum_of(removals: &[Removal]) -> Sum {
    let mut sum = Sum::default();
    removals.iter().for_each(|removal| sum.add(removal.size));
    sum
}

/// A base backup that stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Kept {
    /// Which.
    pub id: BaseId,
    /// Why.
    pub reasons: BTreeSet<Reason>,
}

/// What can be restored: every point from `from` up to `to`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Window {
    /// The branch that it ends on.
    pub branch: Branch,
    /// Where its first base backup is consistent.
    pub from: Lsn,
    /// Every time from here on can be asked for.
    pub from_time: Timestamp,
    /// Where its WAL ends.
    pub to: Lsn,
    /// Its base backups.
    pub bases: Vec<BaseId>,
}

/// What goes and what stays.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What is promised.
    pub policy: Policy,
    /// When, and where the window begins.
    pub now: Timestamp,
    /// Any second from here on is promised, as far back as there is a backup.
    pub window_begin: Timestamp,
    /// What can be restored now.
    pub before: Vec<Window>,
    /// What can be when all is gone that goes.
    pub after: Vec<Window>,
    /// The base backups that stay, oldest first.
    pub keep: Vec<Kept>,
    /// Those that go, oldest first.
    pub go: Vec<BaseId>,
    /// Everything that goes, in the order in which it does.
    #[serde(skip)]
    pub removals: Vec<Removal>,
    /// The same in sums.
    pub sums: BTreeMap<Cause, Sum>,
    /// All of them.
    pub total: Sum,
    /// What would go as well, and is locked.
    pub locked: Locked,
    /// What nobody can tell, so that more stays than has to.
    pub held_back: Vec<String>,
    /// Whether somebody relies on base backups at the moment, so that nothing of any goes that its lease names.
    #[serde(skip)]
    pub leased: bool,
    /// Labels that do not verify.
    pub unreadable: Vec<UnreadableLabel>,
    /// Names that this version does not know; never touched.
    pub unknown: Sum,
    /// The first of them.
    pub unknown_names: Vec<String>,
    /// What lies in the repository, by the first part of its name.
    pub kinds: BTreeMap<String, Sum>,
    /// Objects of it that the store took within the last day.
    pub fresh: u64,
    /// It shows the cluster as it was at this time or later, whatever is restored; before.
    pub oldest_before: Option<Timestamp>,
    /// The same after: nothing that is only needed for earlier states is needed any more.
    pub oldest_after: Option<Timestamp>,
}

/// The plan would break what is promised (I10); nothing is removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the plan would shrink a promised window (I10): {} to {} on branch {branch}, from base backup {base}, {why}. Nothing was removed; \
     this is a fault of walseal: please report it with the output of: walseal-archiver prune --dry-run --json",
    wal.start, wal.end
)]
pub struct Broken {
    branch: Branch,
    base: BaseId,
    wal: walseal_common::lsn::LsnRange,
    why: &'static str,
}

impl Plan {
    /// Plans for `now`, the lower of this host's time and the store's, and `store_now`, a time that the store's clock shows by now.
    ///
    /// Errors: what it would remove is promised.
    pub fn make(holdings: &Holdings, policy: &Policy, now: Timestamp, store_now: Option<i64>) -> Result<Plan, Broken> {
        let is_over = |lease: &HeldLease| match store_now {
            Some(now) => lease.is_over(now),
            None => lease.record.released,
        };
        let (over, held): (Vec<&HeldLease>, Vec<&HeldLease>) = holdings.leases.iter().partition(|one| is_over(one));
        let mut kept = keep(holdings, &held, &BTreeSet::new(), policy, now);
        let mut removals = all_removals(holdings, &kept, (&over, &held), store_now);
        let mut locked = Locked { sum: sum_of(&removals), ..Locked::default() };
        let locks = removals.iter().filter_map(|one| holdings.locked.get_key_value(&one.name));
        let locks: Vec<(&ObjectName, &Lock)> = locks.collect();
        locks.iter().for_each(|(_, lock)| locked.note(**lock));
        let labels: BTreeSet<BaseId> = locks.iter().filter_map(|(name, _)| label_of(name)).collect();
        if !labels.is_empty() {
            kept = keep(holdings, &held, &labels, policy, now);
            removals = all_removals(holdings, &kept, (&over, &held), store_now);
        }
        removals.retain(|removal| !holdings.locked.contains_key(&removal.name));
        locked.sum = locked.sum.less(sum_of(&removals));
        removals.sort_by_cached_key(|removal| (stage(&removal.name), age(&removal.name), removal.name.clone()));
        let gone: BTreeSet<ObjectName> = removals.iter().map(|removal| removal.name.clone()).collect();
        let after = holdings.without(&gone);
        check(&after, &kept.promises)?;
        let mut sums: BTreeMap<Cause, Sum> = BTreeMap::new();
        for removal in &removals {
            sums.entry(removal.cause).or_default().add(removal.size);
        }
        let stays = |id: &BaseId| kept.bases.get(id).map(|reasons| Kept { id: id.clone(), reasons: reasons.clone() });
        Ok(Plan {
            policy: *policy,
            now,
            window_begin: policy.begin(now),
            before: windows(holdings),
            after: windows(&after),
            keep: holdings.bases.iter().filter_map(|base| stays(&base.id)).collect(),
            go: removals.iter().filter_map(|one| label_of(&one.name)).collect(),
            sums,
            total: sum_of(&removals),
            locked,
            removals,
            held_back: kept.held_back,
            leased: !held.is_empty(),
            unreadable: holdings.unreadable.clone(),
            unknown: holdings.unknown,
            unknown_names: holdings.unknown_names.clone(),
            kinds: holdings.kinds.clone(),
            fresh: holdings.fresh,
            oldest_before: oldest(holdings),
            oldest_after: oldest(&after),
        })
    }
}

impl Plan {
    /// What lay in the repository when it was looked at, by what it is for.
    pub fn stored(&self) -> Usage {
        let mut stored = Usage::default();
        self.kinds.iter().for_each(|(first_part, sum)| stored.take(first_part, *sum));
        stored.take("", self.unknown);
        stored
    }
}

fn label_of(name: &ObjectName) -> Option<BaseId> {
    if let ObjectName::Label(id) = name { Some(id.clone()) } else { None }
}

/// The order in which objects go, so that wherever it breaks off what stays is whole:
///
/// 1. labels: a backup is gone before anything is missing that it needs (I7);
/// 2. WAL, the oldest first: what is left of it before a backup that stays always reaches up to that backup;
/// 3. catalog pages and summaries, after the WAL that they speak of;
/// 4. what no label names any more, and the rest, in any order.
///
/// Nothing that goes is needed by anything that stays; the order keeps what can be seen meanwhile honest, not more.
pub fn stage(name: &ObjectName) -> u8 {
    match name {
        ObjectName::Label(_) => 0,
        ObjectName::Wal(..) | ObjectName::Partial(..) | ObjectName::Tail(..) => 1,
        ObjectName::Catalog(..) | ObjectName::Summary(..) => 2,
        _ => 3,
    }
}

/// Sorts segments of all branches by their place, whole ones and their pieces together.
fn age(name: &ObjectName) -> u64 {
    match name {
        ObjectName::Wal(_, segment, _) | ObjectName::Partial(_, segment) | ObjectName::Tail(_, segment, _) => {
            segment.number(SegmentSize::SMALLEST).map_or(0, |number| number.0)
        }
        _ => 0,
    }
}

fn all_removals(
    holdings: &Holdings,
    kept: &Keep,
    (over, held): (&[&HeldLease], &[&HeldLease]),
    store_now: Option<i64>,
) -> Vec<Removal> {
    let mut going = Vec::new();
    let mut goes = |cause, name, size| going.push(Removal { cause, name, size });
    if !kept.everything {
        of_bases(holdings, kept, held, store_now, &mut goes);
    }
    for (branch, held) in &holdings.branches {
        let size = holdings.size;
        let needed = |first, last| kept.everything || kept.wal.touch(*branch, first, last);
        for object in &held.wal {
            let verified = held.verified.get(&object.number);
            match object.piece {
                _ if !needed(object.number, object.number) => goes(Cause::Wal, object.name(*branch, size), object.size),
                WalPiece::Tail(range)
                    if verified.is_some_and(|whole| whole.start <= range.start && range.end <= whole.end) =>
                {
                    goes(Cause::SupersededTail, object.name(*branch, size), object.size);
                }
                _ => {}
            }
        }
        for (first, bytes) in &held.pages {
            if !needed(*first, CatalogPage::last_of(*first)) {
                goes(Cause::Catalog, CatalogPage::name(*branch, *first, size), *bytes);
            }
        }
        for summary in held.summaries.iter().filter(|summary| !needed(summary.first, summary.last)) {
            goes(Cause::Summary, summary.name(*branch, size), summary.size);
        }
    }
    let is_past = |old: &&Small| match (old.stored, store_now) {
        (Some(stored), Some(now)) => now.saturating_sub(stored) > FrontierRecord::KEPT.as_secs(),
        _ => false,
    };
    for old in holdings.frontiers.values().flat_map(|all| all.iter().skip(FRONTIERS).filter(is_past)) {
        goes(Cause::OldFrontier, old.name.clone(), old.size);
    }
    for lease in over {
        let ObjectName::Lease(run, _) = &lease.name else { continue };
        for one in holdings.lease_objects.get(run).into_iter().flatten() {
            goes(Cause::ExpiredLease, one.name.clone(), one.size);
        }
    }
    going
}

/// What goes below `base/`.
fn of_bases(
    holdings: &Holdings,
    kept: &Keep,
    held: &[&HeldLease],
    store_now: Option<i64>,
    goes: &mut impl FnMut(Cause, ObjectName, u64),
) {
    let mut needed = Pieces::default();
    for base in holdings.bases.iter().filter(|base| kept.bases.contains_key(&base.id)) {
        needed.merge(&base.needs);
    }
    let relied_on = |name: &ObjectName| {
        let name = name.to_string();
        held.iter().any(|lease| lease.covers(&name))
    };
    let is_old = |folder: &Folder| match (folder.newest, store_now) {
        (Some(newest), Some(now)) => now.saturating_sub(newest) > DEBRIS_AGE,
        _ => false,
    };
    for (id, folder) in &holdings.folders {
        let label = ObjectName::Label(id.clone());
        let cause = match folder.label {
            Some(_) if kept.bases.contains_key(id) => continue,
            Some(_) => Cause::Unreferenced,
            // What is left of a removal that broke off does not wait again.
            None if holdings.announced.contains(id) || is_old(folder) => Cause::Debris,
            None => continue,
        };
        if let Some(size) = folder.label.filter(|_| !relied_on(&label)) {
            goes(Cause::Base, label, size);
        }
        for (kind, pieces) in &folder.pieces {
            for (number, size) in pieces.iter().filter(|(number, _)| !needed.has(id, *kind, *number)) {
                let name = kind.name(id, *number);
                if !relied_on(&name) {
                    goes(cause, name, u64::from(*size));
                }
            }
        }
    }
}

/// Whether every promise can still be kept: found out anew, from what will be there.
fn check(after: &Holdings, promises: &[Promise]) -> Result<(), Broken> {
    let paths = paths(after);
    for promise in promises {
        let broken = |why| {
            let Promise { branch, base, wal } = promise.clone();
            Err(Broken { branch, base, wal, why })
        };
        let Some(base) = after.bases.iter().find(|base| base.id == promise.base) else {
            return broken("which would be gone");
        };
        if !after.is_whole(base) {
            return broken("of which objects would be gone");
        }
        let path = paths.iter().find(|path| path.branch() == Some(promise.branch) && path.has(base));
        let reaches =
            |extent: &walseal_common::lsn::LsnRange| extent.start <= promise.wal.start && promise.wal.end <= extent.end;
        if !path.is_some_and(|path| path.extents.iter().any(reaches)) {
            return broken("of which WAL would be gone");
        }
    }
    Ok(())
}

/// What can be restored, by branch and position.
pub fn windows(holdings: &Holdings) -> Vec<Window> {
    let mut windows = Vec::new();
    for path in paths(holdings) {
        let Some(branch) = path.branch() else { continue };
        for extent in &path.extents {
            let usable = |base: &&super::holdings::Base| {
                base.suspect == 0 && path.has(base) && path.extent_of(base) == Some(*extent) && holdings.is_whole(base)
            };
            let mut bases: Vec<_> = holdings.bases.iter().filter(usable).collect();
            bases.sort_by_key(|base| (base.stop, &base.id));
            if let Some(first) = bases.first() {
                let ids = bases.iter().map(|base| base.id.clone()).collect();
                windows.push(Window { branch, from: first.stop, from_time: first.ready, to: extent.end, bases: ids });
            }
        }
    }
    windows
}

/// The oldest state of the cluster that anything restores to is not older.
pub fn oldest(holdings: &Holdings) -> Option<Timestamp> {
    holdings.bases.iter().map(|base| base.shows).min()
}
