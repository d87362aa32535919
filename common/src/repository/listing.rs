//! What lies in a repository, by name. Names are hints: what counts is verified when it is read.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::lsn::LsnRange;
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::store::LONGEST_PAGE;
use crate::timeline::{Branch, TimelineId};

use super::wal_listing::{Runs, WalListing, parts, whole_names};
use super::{BaseId, ObjectName, Repository, RepositoryError};

/// Names to be listed: those after a key and before another one, about so many.
struct Between {
    after: Option<String>,
    end: Option<String>,
    length: u64,
}

impl Between {
    /// The names of segments of a branch below `prefix`.
    fn segments(
        prefix: &str,
        branch: Branch,
        size: SegmentSize,
        (first, last): (SegmentNumber, SegmentNumber),
    ) -> Between {
        let end = (last.0 < u64::MAX / size.bytes())
            .then(|| format!("{prefix}{}~", SegmentName::new(branch.timeline, last, size)));
        let length = last.0.saturating_sub(first.0).saturating_add(1).saturating_mul(parts(size));
        Between { after: before(prefix, branch, size, Some(first)), end, length }
    }
}

impl Default for Between {
    fn default() -> Self {
        Between { after: None, end: None, length: LONGEST_PAGE as u64 }
    }
}

/// Base backups that are looked for one after another before several walks begin.
const ALONE: usize = 8;

/// Walks over base backups at a time.
const WALKS: usize = 16;

/// Keys at which walks over the base backups after `first` begin, so that each has about as much time between.
fn stretches(first: Option<&BaseId>, now: Timestamp) -> Vec<String> {
    let Some(first) = first.and_then(BaseId::begun) else {
        return Vec::new();
    };
    let length = now.duration_since(first).as_secs() / WALKS as i64;
    let start = |walk: i64| first + jiff::SignedDuration::from_secs(walk.saturating_mul(length));
    let starts = (1..WALKS as i64).filter(|_| length > 0).map(start);
    starts.map(|start| format!("base/{}", start.strftime("%Y%m%dT%H%M%SZ"))).collect()
}

/// Names beyond a range that are listed with it: `.partial` objects lie between, too.
const BEYOND: u64 = 4;

/// The key after which the names of segment `from` begin: "…/000…03" sorts after "…/000…02~".
fn before(prefix: &str, branch: Branch, size: SegmentSize, from: Option<SegmentNumber>) -> Option<String> {
    let before = from.and_then(|from| from.0.checked_sub(1)).map(SegmentNumber);
    before.map(|number| format!("{prefix}{}~", SegmentName::new(branch.timeline, number, size)))
}

impl Repository {
    /// The WAL of `branch`, by name, from segment `from` on.
    pub async fn wal_listing(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        from: Option<SegmentNumber>,
    ) -> Result<WalListing, RepositoryError> {
        let all = (from.unwrap_or(SegmentNumber(0)), SegmentNumber(u64::MAX));
        self.wal_listing_of(branch, segment_size, &[all]).await
    }

    /// The same of no more than these segments, first and last of each range; the ranges are in order and apart.
    pub async fn wal_listing_of(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        ranges: &[(SegmentNumber, SegmentNumber)],
    ) -> Result<WalListing, RepositoryError> {
        // Tails first: were `wal/` read first, a segment that becomes whole in between would look like a hole before
        // the tails of the next one.
        let tails = self.tails_in(branch, segment_size, ranges).await?;
        Ok(WalListing { tails, ..self.segments_in(branch, segment_size, ranges).await? })
    }

    /// As [`Repository::wal_listing_of`], without the tails of whole segments: those hold nothing that is not there anyway, and a
    /// synchronous archiver leaves hundreds for each segment until they are tidied up. Who finds out that a whole segment is of no
    /// use leaves it out with [`Repository::leave_out`].
    pub async fn wal_outline(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        ranges: &[(SegmentNumber, SegmentNumber)],
    ) -> Result<WalListing, RepositoryError> {
        let seen = self.segments_in(branch, segment_size, ranges).await?;
        let open = seen.not_whole(ranges);
        // Then as ever: what became whole in between, with its tails, is whole in what is read last.
        let rest = self.wal_listing_of(branch, segment_size, &open).await?;
        Ok(seen.with(rest))
    }

    /// Forgets an object that cannot be used, as [`WalListing::leave_out`] does, and makes the tails of its segment known where
    /// `listing` is an outline without them.
    ///
    /// Errors: the store's.
    pub async fn leave_out(
        &self,
        listing: &mut WalListing,
        name: &ObjectName,
    ) -> Result<Option<LsnRange>, RepositoryError> {
        if let ObjectName::Wal(branch, segment, _) = name
            && let Some(number) = segment.number(listing.segment_size)
            && *branch == listing.branch
            && listing.has_segment(number)
            && listing.tails_of(number).is_empty()
        {
            let tails = self.tails(*branch, *segment).await?;
            if !tails.is_empty() {
                listing.tails.insert(number, tails);
            }
        }
        Ok(listing.leave_out(name))
    }

    async fn tails_in(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        ranges: &[(SegmentNumber, SegmentNumber)],
    ) -> Result<BTreeMap<SegmentNumber, Vec<LsnRange>>, RepositoryError> {
        let mut tails: BTreeMap<SegmentNumber, Vec<LsnRange>> = BTreeMap::new();
        let prefix = ObjectName::tail_prefix(branch);
        for range in ranges {
            // A segment may have hundreds.
            let length = LONGEST_PAGE as u64;
            let between = Between { length, ..Between::segments(&prefix, branch, segment_size, *range) };
            self.for_each_name(&prefix, between, |name| {
                if let ObjectName::Tail(_, segment, range) = name
                    && let Some(number) = segment.number(segment_size)
                {
                    tails.entry(number).or_default().push(range);
                }
            })
            .await?;
        }
        Ok(tails)
    }

    /// What lies below `wal/`: a listing without tails.
    async fn segments_in(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        ranges: &[(SegmentNumber, SegmentNumber)],
    ) -> Result<WalListing, RepositoryError> {
        let mut runs = Runs::default();
        let mut partials = Vec::new();
        let prefix = ObjectName::wal_prefix(branch);
        for range in ranges {
            let between = Between::segments(&prefix, branch, segment_size, *range);
            self.for_each_name(&prefix, between, |name| match name {
                ObjectName::Wal(_, segment, part) => runs.add(segment, part, segment_size),
                ObjectName::Partial(_, segment) => partials.push(segment),
                _ => {}
            })
            .await?;
        }
        let tails = BTreeMap::new();
        Ok(WalListing { branch, segment_size, runs: runs.runs, partials, tails, parts: runs.parts })
    }

    /// The first segment of `branch`, `from` or a later one, of which anything lies below `wal/`, by name.
    ///
    /// Errors: the store's.
    pub async fn first_segment(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        from: Option<SegmentNumber>,
    ) -> Result<Option<SegmentNumber>, RepositoryError> {
        let prefix = ObjectName::wal_prefix(branch);
        let after = before(&prefix, branch, segment_size, from);
        let mut pages = self.pages(&prefix, after, 10);
        while let Some(page) = pages.next().await? {
            let number = page.iter().find_map(|meta| match meta.key.parse() {
                Ok(ObjectName::Wal(_, segment, _) | ObjectName::Partial(_, segment)) => segment.number(segment_size),
                _ => None,
            });
            if number.is_some() {
                return Ok(number);
            }
        }
        Ok(None)
    }

    /// Whether all segments from `first` to `last` are there, whole, by name.
    ///
    /// Errors: the store's.
    pub async fn has_all(
        &self,
        branch: Branch,
        segment_size: SegmentSize,
        first: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<bool, RepositoryError> {
        let prefix = ObjectName::wal_prefix(branch);
        let mut pages = self.pages(&prefix, before(&prefix, branch, segment_size, Some(first)), LONGEST_PAGE);
        let mut due = (first.0..=last.0).flat_map(|number| whole_names(branch, SegmentNumber(number), segment_size));
        let mut next = due.next();
        while next.is_some() {
            let Some(page) = pages.next().await? else { return Ok(false) };
            for name in page.iter().filter_map(|meta| meta.key.parse::<ObjectName>().ok()) {
                match (&next, &name) {
                    (None, _) => break,
                    (Some(wanted), _) if *wanted == name => next = due.next(),
                    // Beside whole segments lie `.partial` objects, and names that mean nothing to this segment size.
                    (Some(wanted), ObjectName::Wal(..)) if name > *wanted => return Ok(false),
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    /// The tails of one segment, by name.
    pub async fn tails(&self, branch: Branch, segment: SegmentName) -> Result<Vec<LsnRange>, RepositoryError> {
        let mut tails = Vec::new();
        let prefix = format!("{}{segment}/", ObjectName::tail_prefix(branch));
        self.for_each_name(&prefix, Between::default(), |name| {
            if let ObjectName::Tail(_, _, range) = name {
                tails.push(range);
            }
        })
        .await?;
        Ok(tails)
    }

    /// Every branch that any object of WAL or history names, in order.
    pub async fn branches(&self) -> Result<Vec<Branch>, RepositoryError> {
        self.branches_like("").await
    }

    /// Those of one timeline. Where there is none, that costs the time of one call.
    pub async fn branches_of(&self, timeline: TimelineId) -> Result<Vec<Branch>, RepositoryError> {
        self.branches_like(&format!("{timeline}-")).await
    }

    /// Those whose name starts like this.
    async fn branches_like(&self, start: &str) -> Result<Vec<Branch>, RepositoryError> {
        let kinds = ["wal/", "tail/", "history/"].map(|kind| self.branches_below(kind, start));
        let found: BTreeSet<Branch> = try_join_all(kinds).await?.into_iter().flatten().collect();
        Ok(found.into_iter().collect())
    }

    /// The branches of which anything lies below `kind`, in one call each.
    async fn branches_below(&self, kind: &str, start: &str) -> Result<Vec<Branch>, RepositoryError> {
        let mut pages = self.pages(&format!("{kind}{start}"), None, 1);
        let mut branches = Vec::new();
        while let Some(page) = pages.next().await? {
            let Some(first) = page.first() else { break };
            let folder = first.key.get(kind.len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            branches.extend(folder.parse::<Branch>().ok());
            pages.pass(&format!("{kind}{folder}"));
        }
        Ok(branches)
    }

    /// Every branch that has a history, in one call for each thousand of them.
    pub async fn branches_with_history(&self) -> Result<Vec<Branch>, RepositoryError> {
        let mut branches = Vec::new();
        let each = |name| {
            if let ObjectName::History(branch) = name {
                branches.push(branch)
            }
        };
        self.for_each_name("history/", Between::default(), each).await?;
        Ok(branches)
    }

    /// Ids of all base backups that have a label, oldest first.
    pub async fn base_ids(&self) -> Result<Vec<BaseId>, RepositoryError> {
        self.bases(None, true).await
    }

    /// Ids below `base/` after `after` that have no label: attempts that were interrupted, or are under way. Oldest first.
    pub async fn unlabelled_bases(&self, after: Option<&BaseId>) -> Result<Vec<BaseId>, RepositoryError> {
        self.bases(after, false).await
    }

    /// Ids below `base/`, with a label or without one, oldest first: a label that is read tells as well, in one call less.
    pub async fn begun_bases(&self) -> Result<Vec<BaseId>, RepositoryError> {
        self.base_folders(None).await
    }

    /// Ids below `base/` after `after`, those with a label or those without, oldest first.
    async fn bases(&self, after: Option<&BaseId>, labelled: bool) -> Result<Vec<BaseId>, RepositoryError> {
        let looks = stream::iter(self.base_folders(after).await?).map(|id| async move {
            let label = ObjectName::Label(id.clone()).to_string();
            let found = self.first_objects(&label, 1).await?;
            Ok::<_, RepositoryError>((found.iter().any(|meta| meta.key == label) == labelled).then_some(id))
        });
        let found: Vec<Option<BaseId>> = looks.buffered(WALKS).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Every id below `base/` after `after`, oldest first. Where there are many they are looked for in several stretches of time at
    /// once, because each is found only from the one before it.
    async fn base_folders(&self, after: Option<&BaseId>) -> Result<Vec<BaseId>, RepositoryError> {
        let begin = after.map(|id| format!("base/{id}0"));
        let (mut ids, begin) = self.walk_bases(begin, None, ALONE).await?;
        let Some(begin) = begin else { return Ok(ids) };
        // Ids begin with a time. By whose clock does not matter: the last stretch has no end.
        let stretches = stretches(ids.last(), Timestamp::now()).into_iter().filter(|start| *start > begin);
        let starts: Vec<String> = std::iter::once(begin.clone()).chain(stretches).collect();
        let ends = starts.iter().skip(1).cloned().map(Some).chain([None]);
        let walks = stream::iter(starts.iter().cloned().zip(ends))
            .map(|(start, end)| self.walk_bases(Some(start), end, usize::MAX));
        let found: Vec<(Vec<BaseId>, Option<String>)> = walks.buffered(WALKS).try_collect().await?;
        ids.extend(found.into_iter().flat_map(|(ids, _)| ids));
        Ok(ids)
    }

    /// The ids below `base/` from the key after `after` on and before `end`, at most `most` of them; and after which key there may be
    /// more.
    async fn walk_bases(
        &self,
        after: Option<String>,
        end: Option<String>,
        most: usize,
    ) -> Result<(Vec<BaseId>, Option<String>), RepositoryError> {
        let mut ids = Vec::new();
        let mut pages = self.pages("base/", after, 1);
        while ids.len() < most {
            let Some(first) = pages.next().await?.and_then(|page| page.into_iter().next()) else {
                return Ok((ids, None));
            };
            if end.as_deref().is_some_and(|end| first.key.as_str() >= end) {
                return Ok((ids, None));
            }
            let folder = first.key.get("base/".len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            ids.extend(folder.parse::<BaseId>());
            pages.pass(&format!("base/{folder}"));
        }
        Ok((ids, pages.position()))
    }

    /// How many resume pages a base backup has without one missing, from page 0 on.
    pub async fn resume_pages(&self, id: &BaseId) -> Result<u32, RepositoryError> {
        let prefix = format!("base/{id}/resume/");
        let (mut count, mut pages) = (0, self.pages(&prefix, None, LONGEST_PAGE));
        while let Some(page) = pages.next().await? {
            for meta in &page {
                if meta.key != ObjectName::Resume(id.clone(), count).to_string() {
                    return Ok(count);
                }
                count += 1;
            }
        }
        Ok(count)
    }

    /// Calls `each` with the name and size of every data object of a base backup that is there, in order.
    pub async fn for_each_data_object(
        &self,
        id: &BaseId,
        mut each: impl FnMut(&str, u64) + Send,
    ) -> Result<(), RepositoryError> {
        let prefix = format!("base/{id}/data/");
        let mut pages = self.pages(&prefix, None, LONGEST_PAGE);
        while let Some(page) = pages.next().await? {
            page.iter().for_each(|meta| each(&meta.key, meta.size));
        }
        Ok(())
    }

    /// Calls `each` for every name below `prefix` that this format knows, in order.
    async fn for_each_name(
        &self,
        prefix: &str,
        between: Between,
        mut each: impl FnMut(ObjectName) + Send,
    ) -> Result<(), RepositoryError> {
        let Between { after, end, length } = between;
        // A few more, so that the page also shows that the range is over.
        let limit = usize::try_from(length.saturating_add(BEYOND)).unwrap_or(LONGEST_PAGE).min(LONGEST_PAGE);
        let mut pages = self.pages(prefix, after, limit);
        let inside = |key: &str| end.as_deref().is_none_or(|end| key < end);
        while let Some(page) = pages.next().await? {
            page.iter().filter(|meta| inside(&meta.key)).filter_map(|meta| meta.key.parse().ok()).for_each(&mut each);
            if page.last().is_some_and(|last| !inside(&last.key)) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
