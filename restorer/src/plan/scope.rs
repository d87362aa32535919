//! Which names of WAL a plan has to list: from the base backup that will most likely serve to the target, not all of a branch. Labels and
//! catalog pages tell; that what they tell of is there, the listing shows. Where the guess was wrong, everything is listed.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{BaseId, CatalogPage, GapRecord, Label, Repository, RepositoryError};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::pages::{self, Pages};
use super::{Plan, Request, Target};

/// Segments before a base backup that are listed, too: what lies shortly before it tells when the last transaction in it ended.
pub(super) const BEFORE: u64 = 64;

/// Segments after a position that are listed, too, in which the first transaction after it should lie.
const AFTER: u64 = 64;

/// Pages without a later transaction that are read one by one, where their running times do not tell.
const MOST_PAGES: u64 = 16;

/// What is listed of one branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    /// The branch.
    pub branch: Branch,
    /// The base backup from which the restore should begin.
    pub base: BaseId,
    /// First and last segments, in order, apart from each other.
    pub ranges: Vec<(SegmentNumber, SegmentNumber)>,
}

impl Scope {
    /// Guesses what a plan for `request` needs. `bases` and `gaps` are all there are; `None` where only listing everything will do.
    ///
    /// Errors: the store.
    pub(super) async fn of(
        repository: &Repository,
        bases: &[Label],
        gaps: &[GapRecord],
        size: SegmentSize,
        request: &Request,
    ) -> Result<Option<Scope>, RepositoryError> {
        if request.base.is_some() || request.timeline.is_some() {
            return Ok(None);
        }
        let mut newest: Vec<&Label> = bases.iter().collect();
        newest.sort_by_key(|base| std::cmp::Reverse((base.stop, base.id.clone())));
        let fits = |base: &&&Label| match &request.target {
            Target::Latest | Target::Immediate => true,
            Target::Lsn(lsn) => base.stop <= *lsn,
            Target::Time(time) => base.highest_time.is_some_and(|ended| !later(request, *time, ended)),
            Target::Xid(_) | Target::Name(_) => false,
        };
        let Some(at) = newest.iter().position(|base| fits(&base)) else { return Ok(None) };
        let (newer, Some(base)) = (newest.get(..at).unwrap_or_default(), newest.get(at)) else { return Ok(None) };
        // Of those that are passed over the label tells why; else their WAL has to.
        if matches!(request.target, Target::Time(_)) && newer.iter().any(|base| base.highest_time.is_none()) {
            return Ok(None);
        }
        let first = size.number(base.start);
        let named = repository.catalog_pages(base.branch, size, Some(first)).await?;
        let Some(last) = named.last().map(|page| CatalogPage::last_of(*page)) else { return Ok(None) };
        let until = match &request.target {
            Target::Immediate => Some(SegmentNumber(size.number(base.stop).0 + 1)),
            Target::Lsn(lsn) => Some(SegmentNumber(size.number(*lsn).0.saturating_add(AFTER))),
            Target::Time(time) => {
                let named = named.into_iter().collect();
                let looked = Looked { repository, branch: base.branch, size, named, pages: Pages::default() };
                looked.first_later(base.start, |ended| later(request, *time, ended)).await?
            }
            _ => None,
        };
        let end = SegmentNumber(u64::MAX);
        let begin = SegmentNumber(first.0.saturating_sub(BEFORE));
        let mut ranges = vec![(begin, until.unwrap_or(end))];
        // Whether a gap was filled, its own segments tell.
        for record in gaps.iter().filter(|record| record.branch == base.branch) {
            let Ok(gap) = &record.content else { return Ok(None) };
            ranges.push((SegmentNumber(size.number(gap.from).0.saturating_sub(1)), size.number(gap.to).next()));
        }
        // The end of the branch: what follows its last page.
        ranges.push((last.next(), end));
        Ok(Some(Scope { branch: base.branch, base: base.id.clone(), ranges: apart(ranges) }))
    }

    /// Whether nothing of `range` was left unlisted.
    pub(super) fn covers(&self, branch: Branch, range: LsnRange, size: SegmentSize) -> bool {
        let (first, last) = (size.number(range.start), size.number(Lsn(range.end.0.saturating_sub(1))));
        branch != self.branch || self.ranges.iter().any(|(begin, end)| *begin <= first && last <= *end)
    }

    /// Whether a plan that was made from no more than this is what it would be from everything.
    pub(super) fn suffices(&self, plan: &Plan) -> bool {
        let ends_here = plan.path.last().is_some_and(|step| step.branch == self.branch);
        let landed = plan.first_after.is_some() || plan.request.target == Target::Latest;
        plan.base.id == self.base && ends_here && landed
    }
}

fn later(request: &Request, time: PgTimestamp, ended: jiff::Timestamp) -> bool {
    let ended = PgTimestamp::from_jiff(ended);
    if request.exclusive { ended >= time } else { ended > time }
}

/// The same segments, in order, with ranges that touch joined.
fn apart(mut ranges: Vec<(SegmentNumber, SegmentNumber)>) -> Vec<(SegmentNumber, SegmentNumber)> {
    ranges.sort();
    let mut joined: Vec<(SegmentNumber, SegmentNumber)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first.0 <= end.0.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

struct Looked<'a> {
    repository: &'a Repository,
    branch: Branch,
    size: SegmentSize,
    named: std::collections::BTreeSet<SegmentNumber>,
    pages: Pages,
}

impl Looked<'_> {
    /// Shortly after the first segment from `from` on in which, by the pages, a transaction ends that `is_later`; `None` where they
    /// do not tell.
    async fn first_later(
        &self,
        from: Lsn,
        is_later: impl Fn(jiff::Timestamp) -> bool,
    ) -> Result<Option<SegmentNumber>, RepositoryError> {
        let begin = CatalogPage::first_of(self.size.number(from));
        let early = async |first| -> Result<bool, RepositoryError> {
            let page = self.pages.page(self.repository, self.branch, first, self.size).await?;
            let told = page.filter(|page| page.begin <= from);
            Ok(told.is_some_and(|page| page.running().is_some_and(|highest| !is_later(highest))))
        };
        let skipped = pages::last_that(&self.named, begin, SegmentNumber(u64::MAX), early).await?;
        let mut first = skipped.map_or(begin, |last| CatalogPage::last_of(last).next());
        for _ in 0..MOST_PAGES {
            if !self.named.contains(&first) {
                return Ok(None);
            }
            let page = self.pages.page(self.repository, self.branch, first, self.size).await?;
            let Some(page) = page else { return Ok(None) };
            let late = |number: &u64| {
                let entry = page.entry(SegmentNumber(*number));
                let highest = entry.and_then(|entry| entry.transactions.highest);
                SegmentNumber(*number) >= self.size.number(from) && highest.is_some_and(&is_later)
            };
            if let Some(found) = (first.0..=CatalogPage::last_of(first).0).find(late) {
                return Ok(Some(SegmentNumber(found + 2)));
            }
            first = CatalogPage::last_of(first).next();
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let range = |first, last| (SegmentNumber(first), SegmentNumber(last));
        let joined =
            apart(vec![range(9, 12), range(1, 3), range(4, 5), range(20, u64::MAX), range(30, 31), range(10, 11)]);
        assert_eq!(joined, [range(1, 5), range(9, 12), range(20, u64::MAX)]);
    }
}
