//! What lies in a repository, by name. Names are hints: what counts is verified when it is read.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::lsn::{Lsn, LsnRange};
use crate::seal::MAX_PLAINTEXT;
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::store::LARGEST_PAGE;
use crate::timeline::{Branch, TimelineId};

use super::{BaseId, Cover, ObjectName, Repository, RepositoryError};

/// The WAL of one branch, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalListing {
    /// The branch.
    pub branch: Branch,
    /// Size of its segments.
    pub segment_size: SegmentSize,
    /// Whole segments, as runs without a hole, in order.
    pub runs: Vec<LsnRange>,
    /// Segments of which a `.partial` is there.
    pub partials: Vec<SegmentName>,
    /// Tails by segment, in order.
    pub tails: BTreeMap<SegmentNumber, Vec<LsnRange>>,
    /// Parts of segments over 16 MiB that are not whole yet, in order.
    pub parts: BTreeMap<SegmentNumber, Vec<u8>>,
}

impl WalListing {
    /// Whether the whole segment is there.
    pub fn has_segment(&self, number: SegmentNumber) -> bool {
        let start = number.start(self.segment_size);
        self.runs.iter().any(|run| run.contains(start))
    }

    /// The tails of a segment.
    pub fn tails_of(&self, number: SegmentNumber) -> &[LsnRange] {
        self.tails.get(&number).map_or(&[], Vec::as_slice)
    }

    /// The parts that are there of a segment that is not whole.
    pub fn parts_of(&self, number: SegmentNumber) -> &[u8] {
        self.parts.get(&number).map_or(&[], Vec::as_slice)
    }

    /// All pieces of a segment that is not whole: tails, and parts of one over 16 MiB.
    pub fn pieces_of(&self, number: SegmentNumber) -> Vec<LsnRange> {
        let part = |part: &u8| part_range(number, *part, self.segment_size);
        self.tails_of(number).iter().copied().chain(self.parts_of(number).iter().map(part)).collect()
    }

    /// Where the WAL that begins at or before `from` and has no hole ends: whole segments, then the pieces of the next
    /// one. `from` itself, aligned down to its segment, when not even that is there. A `.partial` is counted as reaching to
    /// the end that its segment's tails or its own header say; see [`Repository::contiguous_end`].
    pub fn contiguous_end(&self, from: Lsn) -> Lsn {
        let start = self.segment_size.align_down(from);
        let end = self.runs.iter().find(|run| run.contains(start)).map_or(start, |run| run.end);
        Cover::of(end, &self.pieces_of(self.segment_size.number(end))).end
    }

    /// The last segment, `until` at most, whose first bytes are there, whole or in pieces.
    pub fn last_begun(&self, until: SegmentNumber) -> Option<SegmentNumber> {
        let size = self.segment_size;
        let begun =
            |number: &SegmentNumber| self.pieces_of(*number).iter().any(|piece| piece.start == number.start(size));
        let run = self.runs.iter().rev().find(|run| run.start <= until.start(size));
        let whole = run.map(|run| until.min(size.number(Lsn(run.end.0 - 1))));
        let tails = self.tails.range(..=until).rev().map(|(number, _)| *number).find(begun);
        let parts = self.parts.range(..=until).rev().map(|(number, _)| *number).find(begun);
        let partials = self.partials.iter().filter_map(|segment| segment.number(size)).filter(|n| *n <= until).max();
        [whole, tails, parts, partials].into_iter().flatten().max()
    }

    /// The first segment, `from` at least, whose first bytes are there, whole or in pieces.
    pub fn first_begun(&self, from: SegmentNumber) -> Option<SegmentNumber> {
        let size = self.segment_size;
        let begun =
            |number: &SegmentNumber| self.pieces_of(*number).iter().any(|piece| piece.start == number.start(size));
        let run = self.runs.iter().find(|run| run.end > from.start(size));
        let whole = run.map(|run| from.max(size.number(run.start)));
        let tails = self.tails.range(from..).map(|(number, _)| *number).find(begun);
        let parts = self.parts.range(from..).map(|(number, _)| *number).find(begun);
        let partials = self.partials.iter().filter_map(|segment| segment.number(size)).filter(|n| *n >= from).min();
        [whole, tails, parts, partials].into_iter().flatten().min()
    }

    /// The highest LSN that any name speaks of.
    pub fn highest(&self) -> Option<Lsn> {
        let runs = self.runs.last().map(|run| run.end);
        let tails = self.tails.values().flatten().map(|tail| tail.end).max();
        let parts =
            self.parts.last_key_value().and_then(|(number, _)| self.pieces_of(*number).last().map(|part| part.end));
        let partials = self
            .partials
            .iter()
            .filter_map(|segment| segment.number(self.segment_size))
            .map(|number| number.start(self.segment_size))
            .max();
        [runs, tails, parts, partials].into_iter().flatten().max()
    }

    /// All objects of a segment, whole or in pieces.
    pub fn objects_of(&self, number: SegmentNumber) -> Vec<ObjectName> {
        let (branch, size) = (self.branch, self.segment_size);
        let segment = SegmentName::new(branch.timeline, number, size);
        let part = |part: &u8| ObjectName::Wal(branch, segment, Some(*part));
        let mut names: Vec<ObjectName> = match self.has_segment(number) {
            true => whole_names(branch, number, size),
            false => self.parts_of(number).iter().map(part).collect(),
        };
        names.extend(self.partials.contains(&segment).then_some(ObjectName::Partial(branch, segment)));
        names.extend(self.tails_of(number).iter().map(|tail| ObjectName::Tail(branch, segment, *tail)));
        names
    }

    /// Forgets an object that cannot be used. Returns the bytes that it was there for (of a `.partial`, which only its header
    /// tells, the whole segment); `None` when this listing does not know it.
    pub fn leave_out(&mut self, name: &ObjectName) -> Option<LsnRange> {
        let size = self.segment_size;
        match name {
            ObjectName::Wal(branch, segment, part) if *branch == self.branch => {
                let (number, range) = (segment.number(size)?, range_of(name, size)?);
                if self.has_segment(number) {
                    self.cut_run(number.range(size));
                    if let Some(lost) = part {
                        // At most 64 parts: 1 GiB in 16 MiB.
                        let others = (0..parts(size) as u8).filter(|other| other != lost).collect();
                        self.parts.insert(number, others);
                    }
                    return Some(range);
                }
                let seen = self.parts.get_mut(&number)?;
                let before = seen.len();
                seen.retain(|other| Some(*other) != *part);
                (seen.len() < before).then_some(range)
            }
            ObjectName::Tail(branch, segment, range) if *branch == self.branch => {
                let tails = self.tails.get_mut(&segment.number(size)?)?;
                let before = tails.len();
                tails.retain(|tail| tail != range);
                (tails.len() < before).then_some(*range)
            }
            ObjectName::Partial(branch, segment) if *branch == self.branch => {
                let before = self.partials.len();
                self.partials.retain(|partial| partial != segment);
                (self.partials.len() < before).then_some(segment.number(size)?.range(size))
            }
            _ => None,
        }
    }

    fn cut_run(&mut self, out: LsnRange) {
        let runs = std::mem::take(&mut self.runs);
        self.runs = runs
            .into_iter()
            .flat_map(|run| {
                let before = LsnRange { start: run.start, end: run.end.min(out.start) };
                let after = LsnRange { start: run.start.max(out.end), end: run.end };
                [before, after].into_iter().filter(|rest| rest.start < rest.end)
            })
            .collect();
    }

    /// Whether the branch holds nothing.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.partials.is_empty() && self.tails.is_empty() && self.parts.is_empty()
    }
}

/// Names to be listed: those after a key and before another one, about so many.
struct Between {
    after: Option<String>,
    end: Option<String>,
    length: u64,
}

impl Default for Between {
    fn default() -> Self {
        Between { after: None, end: None, length: LARGEST_PAGE as u64 }
    }
}

/// Base backups that are looked for one after another before several walks begin.
const ALONE: usize = 8;

/// Walks over base backups at a time.
const WALKS: usize = 16;

/// Keys at which walks over the base backups after `first` begin, so that each has about as much time between.
fn stretches(first: Option<&BaseId>, now: Timestamp) -> Vec<String> {
    let time = first.map(ToString::to_string).and_then(|id| id.get(..16).map(str::to_owned));
    let time = time.and_then(|time| jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok());
    let Some(first) = time.and_then(|time| time.in_tz("UTC").ok()).map(|time| time.timestamp()) else {
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

/// How many parts a whole segment has: none of its own when it fits one object.
fn parts(size: SegmentSize) -> u64 {
    size.bytes().div_ceil(MAX_PLAINTEXT)
}

/// The objects of a whole segment, in order.
pub(super) fn whole_names(branch: Branch, number: SegmentNumber, size: SegmentSize) -> Vec<ObjectName> {
    let segment = SegmentName::new(branch.timeline, number, size);
    match parts(size) {
        1 => vec![ObjectName::Wal(branch, segment, None)],
        // At most 64 parts: 1 GiB in 16 MiB.
        parts => (0..parts as u8).map(|part| ObjectName::Wal(branch, segment, Some(part))).collect(),
    }
}

/// The bytes that the name of an object of WAL speaks of; `None` for a `.partial`, and for what is no WAL.
pub(super) fn range_of(name: &ObjectName, size: SegmentSize) -> Option<LsnRange> {
    match name {
        ObjectName::Wal(_, segment, None) => segment.number(size).map(|number| number.range(size)),
        ObjectName::Wal(_, segment, Some(part)) => segment.number(size).map(|number| part_range(number, *part, size)),
        ObjectName::Tail(_, _, range) => Some(*range),
        _ => None,
    }
}

/// The bytes of a part of a segment over 16 MiB.
fn part_range(number: SegmentNumber, part: u8, size: SegmentSize) -> LsnRange {
    let start = number.start(size).advance(u64::from(part) * MAX_PLAINTEXT);
    LsnRange { start, end: start.advance(MAX_PLAINTEXT) }
}

/// Folds names, in order, into runs.
#[derive(Default)]
struct Runs {
    runs: Vec<LsnRange>,
    /// Parts of segments that are not whole.
    parts: BTreeMap<SegmentNumber, Vec<u8>>,
}

impl Runs {
    fn whole(&mut self, number: SegmentNumber, size: SegmentSize) {
        let range = number.range(size);
        match self.runs.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.runs.push(range),
        }
    }

    fn part(&mut self, number: SegmentNumber, part: u8, size: SegmentSize) {
        let seen = self.parts.entry(number).or_default();
        seen.push(part);
        if seen.len() as u64 == parts(size) {
            self.parts.remove(&number);
            self.whole(number, size);
        }
    }
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
        let mut runs = Runs::default();
        let mut partials = Vec::new();
        let mut tails: BTreeMap<SegmentNumber, Vec<LsnRange>> = BTreeMap::new();
        let between = |prefix: &str, (first, last): (SegmentNumber, SegmentNumber)| {
            let end = (last.0 < u64::MAX / segment_size.bytes())
                .then(|| format!("{prefix}{}~", SegmentName::new(branch.timeline, last, segment_size)));
            let length = last.0.saturating_sub(first.0).saturating_add(1).saturating_mul(parts(segment_size));
            Between { after: before(prefix, branch, segment_size, Some(first)), end, length }
        };
        // Tails first: were `wal/` read first, a segment that becomes whole in between would look like a hole before
        // the tails of the next one.
        let prefix = ObjectName::tail_prefix(branch);
        for range in ranges {
            self.for_each_name(&prefix, between(&prefix, *range), |name| {
                if let ObjectName::Tail(_, segment, range) = name
                    && let Some(number) = segment.number(segment_size)
                {
                    tails.entry(number).or_default().push(range);
                }
            })
            .await?;
        }
        let prefix = ObjectName::wal_prefix(branch);
        for range in ranges {
            self.for_each_name(&prefix, between(&prefix, *range), |name| match name {
                ObjectName::Wal(_, segment, part) => {
                    let Some(number) = segment.number(segment_size) else { return };
                    match part {
                        None if parts(segment_size) == 1 => runs.whole(number, segment_size),
                        Some(part) if u64::from(part) < parts(segment_size) && parts(segment_size) > 1 => {
                            runs.part(number, part, segment_size)
                        }
                        _ => {}
                    }
                }
                ObjectName::Partial(_, segment) => partials.push(segment),
                _ => {}
            })
            .await?;
        }
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
        let mut after = before(&prefix, branch, segment_size, from);
        loop {
            let page = self.list_page(&prefix, after.as_deref(), 10).await?;
            let Some(last) = page.last() else { return Ok(None) };
            after = Some(last.key.clone());
            let number = page.iter().find_map(|meta| match meta.key.parse() {
                Ok(ObjectName::Wal(_, segment, _) | ObjectName::Partial(_, segment)) => segment.number(segment_size),
                _ => None,
            });
            if number.is_some() {
                return Ok(number);
            }
        }
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
        let mut after = before(&prefix, branch, segment_size, Some(first));
        let mut due = (first.0..=last.0).flat_map(|number| whole_names(branch, SegmentNumber(number), segment_size));
        let mut next = due.next();
        while next.is_some() {
            let page = self.list_page(&prefix, after.as_deref(), LARGEST_PAGE).await?;
            let Some(end) = page.last() else { return Ok(false) };
            after = Some(end.key.clone());
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
        let found: std::collections::BTreeSet<Branch> = try_join_all(kinds).await?.into_iter().flatten().collect();
        Ok(found.into_iter().collect())
    }

    /// The branches of which anything lies below `kind`, in one call each.
    async fn branches_below(&self, kind: &str, start: &str) -> Result<Vec<Branch>, RepositoryError> {
        let (prefix, mut after) = (format!("{kind}{start}"), None);
        let mut branches = Vec::new();
        loop {
            let page = self.list_page(&prefix, after.as_deref(), 1).await?;
            let Some(first) = page.first() else { return Ok(branches) };
            let folder = first.key.get(kind.len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            branches.extend(folder.parse::<Branch>().ok());
            after = Some(format!("{kind}{folder}0"));
        }
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
            let found = self.list_page(&label, None, 1).await?;
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
        mut after: Option<String>,
        end: Option<String>,
        most: usize,
    ) -> Result<(Vec<BaseId>, Option<String>), RepositoryError> {
        let mut ids = Vec::new();
        while ids.len() < most {
            let page = self.list_page("base/", after.as_deref(), 1).await?;
            let Some(first) = page.first() else { return Ok((ids, None)) };
            if end.as_deref().is_some_and(|end| first.key.as_str() >= end) {
                return Ok((ids, None));
            }
            let folder = first.key.get("base/".len()..).unwrap_or_default().split('/').next().unwrap_or_default();
            ids.extend(folder.parse::<BaseId>());
            // '0' is the byte after '/': everything of this backup sorts before it.
            after = Some(format!("base/{folder}0"));
        }
        Ok((ids, after))
    }

    /// How many resume pages a base backup has without one missing, from page 0 on.
    pub async fn resume_pages(&self, id: &BaseId) -> Result<u32, RepositoryError> {
        let prefix = format!("base/{id}/resume/");
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.list_page(&prefix, after.as_deref(), LARGEST_PAGE).await?;
            let Some(last) = page.last() else { return Ok(count) };
            for meta in &page {
                if meta.key != ObjectName::Resume(id.clone(), count).to_string() {
                    return Ok(count);
                }
                count += 1;
            }
            after = Some(last.key.clone());
        }
    }

    /// Calls `each` with the name and size of every data object of a base backup that is there, in order.
    pub async fn for_each_data_object(
        &self,
        id: &BaseId,
        mut each: impl FnMut(&str, u64) + Send,
    ) -> Result<(), RepositoryError> {
        let prefix = format!("base/{id}/data/");
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page(&prefix, after.as_deref(), LARGEST_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            page.iter().for_each(|meta| each(&meta.key, meta.size));
            after = Some(last.key.clone());
        }
    }

    /// Calls `each` for every name below `prefix` that this format knows, in order.
    async fn for_each_name(
        &self,
        prefix: &str,
        between: Between,
        mut each: impl FnMut(ObjectName) + Send,
    ) -> Result<(), RepositoryError> {
        let Between { mut after, end, length } = between;
        // A few more, so that the page also shows that the range is over.
        let limit = usize::try_from(length.saturating_add(BEYOND)).unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE);
        loop {
            let page = self.list_page(prefix, after.as_deref(), limit).await?;
            let Some(last) = page.last() else { return Ok(()) };
            let inside = |key: &str| end.as_deref().is_none_or(|end| key < end);
            page.iter().filter(|meta| inside(&meta.key)).filter_map(|meta| meta.key.parse().ok()).for_each(&mut each);
            if !inside(&last.key) {
                return Ok(());
            }
            after = Some(last.key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{SystemIdentifier, TimelineHistory};

    fn listing(mib: u64) -> WalListing {
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7));
        let segment_size = SegmentSize::new(mib << 20).expect("a legal size");
        let run = LsnRange { start: SegmentNumber(3).start(segment_size), end: SegmentNumber(6).end(segment_size) };
        let (partials, tails, parts) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        WalListing { branch, segment_size, runs: vec![run], partials, tails, parts }
    }

    fn whole(listing: &WalListing, number: u64, part: Option<u8>) -> ObjectName {
        let segment = SegmentName::new(TimelineId::FIRST, SegmentNumber(number), listing.segment_size);
        ObjectName::Wal(listing.branch, segment, part)
    }

    #[test]
    fn many_base_backups_are_walked_over_in_stretches_of_time() {
        let first: BaseId = "20251001T000000Z-00000001".parse().expect("an id");
        let now: Timestamp = "2026-11-04T00:00:00Z".parse().expect("a time");
        let starts = stretches(Some(&first), now);
        assert_eq!(starts.len(), WALKS - 1);
        assert_eq!((starts[0].as_str(), starts[14].as_str()), ("base/20251025T223000Z", "base/20261010T013000Z"));
        assert!(starts.is_sorted());
        // A clock that was set back.
        assert_eq!(stretches(Some(&first), "2025-01-01T00:00:00Z".parse().expect("a time")), Vec::<String>::new());
        assert_eq!(stretches(None, now), Vec::<String>::new());
    }

    #[test]
    fn i2_a_segment_that_is_left_out_is_a_hole() {
        let mut listing = listing(1);
        let five = whole(&listing, 5, None);
        assert_eq!(listing.leave_out(&five), Some(SegmentNumber(5).range(listing.segment_size)));
        assert_eq!(listing.leave_out(&five), None, "it is not known any more");
        assert_eq!(listing.contiguous_end(Lsn(0x30_0000)), Lsn(0x50_0000));
        assert_eq!(listing.highest(), Some(Lsn(0x70_0000)));
        assert!(listing.has_segment(SegmentNumber(6)) && !listing.has_segment(SegmentNumber(5)));
    }

    #[test]
    fn case_18_the_other_parts_of_a_large_segment_stay() {
        let mut listing = listing(64);
        let lost = whole(&listing, 4, Some(2));
        let start = SegmentNumber(4).start(listing.segment_size);
        let range = LsnRange { start: start.advance(2 * MAX_PLAINTEXT), end: start.advance(3 * MAX_PLAINTEXT) };
        assert_eq!(listing.leave_out(&lost), Some(range));
        assert_eq!(listing.contiguous_end(SegmentNumber(3).start(listing.segment_size)), range.start);
        assert_eq!(listing.parts_of(SegmentNumber(4)), [0, 1, 3]);
        assert_eq!(listing.objects_of(SegmentNumber(4)).len(), 3);
        assert_eq!(listing.objects_of(SegmentNumber(5)).len(), 4);
    }
}
