//! What is known of one branch.

use std::collections::BTreeSet;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{
    Beyond, GapRecord, Label, ObjectName, Repository, RepositoryError, Surplus, WalListing,
};
use walseal_common::seal::Identity;
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::{Branch, TimelineHistory};

use super::hole;
use crate::damage::Damage;

/// What is known of one branch.
#[derive(Clone, Debug)]
pub struct BranchFacts {
    /// The branch.
    pub branch: Branch,
    /// Its history, or why there is none to read.
    pub history: Result<TimelineHistory, String>,
    /// Its WAL, by name, without what turned out to be of no use.
    pub listing: WalListing,
    /// First segments of its catalog pages, by name.
    pub pages: BTreeSet<SegmentNumber>,
    /// Ranges of WAL without a hole, in order, by name (and by the headers of `.partial` objects).
    pub extents: Vec<LsnRange>,
    /// The highest position on this branch that anything speaks of: objects by name, stop points of base backups, gaps.
    pub known_end: Lsn,
    /// What arrived beyond the end of its WAL without what lies before it, and was never confirmed as far as anything tells. It
    /// counts for nothing: neither the listing nor the extents nor the known end have it.
    pub surplus: Option<Surplus>,
    /// Where the last hole begins that is no end, and why not: what of the objects beyond it shows that, or does not tell.
    pub confirmed: Option<(Lsn, String)>,
    /// Objects of its WAL that were found to be of no use, with the bytes that they are there for.
    pub damaged: Vec<(LsnRange, Damage)>,
}

/// What a repository tells of all branches, beside their WAL.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// The labels that verify.
    pub labels: &'a [Label],
    /// Whether those are all.
    pub all_labels: bool,
    /// Every record of a gap.
    pub gaps: &'a [GapRecord],
    /// Up to where a writer said that WAL of the branch was durable, and the object in which it did.
    pub recorded: Option<(Lsn, ObjectName)>,
}

impl BranchFacts {
    /// Reads what `repository` holds of `branch` in the segments of `ranges`: the history (opened with `identities`), which is that of
    /// `origin`, and the names of its WAL.
    ///
    /// Errors: the store; a `.partial` of a writer that is not trusted.
    pub async fn read(
        repository: &Repository,
        identities: &[Identity],
        (branch, origin): (Branch, Branch),
        size: SegmentSize,
        ranges: &[(SegmentNumber, SegmentNumber)],
        told: Told<'_>,
    ) -> Result<BranchFacts, RepositoryError> {
        let Told { labels, all_labels, gaps, recorded } = told;
        let history = match repository.history(origin, identities).await {
            Ok(history) => Ok(history),
            Err(RepositoryError::Object { source, .. }) => Err(source.to_string()),
            Err(error) if error.is_not_found() => Err("it is not in the repository".to_owned()),
            Err(error) => match Damage::of(&error, repository.cluster()) {
                Some(damage) => Err(damage.why),
                None => return Err(error),
            },
        };
        let listing = repository.wal_outline(branch, size, ranges).await?;
        let (extents, damaged) = (Vec::new(), Vec::new());
        let (surplus, confirmed) = (None, None);
        let known_end = Lsn::INVALID;
        let pages = repository.catalog_pages(branch, size, ranges.first().map(|(first, _)| *first)).await?;
        let kept = pages.iter().copied().collect();
        let mut facts =
            BranchFacts { branch, history, listing, pages: kept, extents, known_end, surplus, confirmed, damaged };
        facts.find_extents(repository).await?;
        let whole = facts.extents.first().map_or(Lsn::INVALID, |extent| extent.end);
        let recorded = recorded.max(repository.cataloged_beyond(branch, &pages, size, whole).await?);
        let stop = labels.iter().filter(|label| label.branch == branch).map(|label| label.stop).max();
        let stop = stop.max(hole::known_on(gaps, branch));
        if all_labels && facts.damaged.is_empty() {
            facts.set_surplus_aside(repository, stop, recorded.as_ref()).await?;
        }
        let told = stop.into_iter().chain(recorded.map(|(lsn, _)| lsn)).max().unwrap_or(Lsn::INVALID);
        facts.known_end = facts.known_end.max(facts.listing.highest().unwrap_or(Lsn::INVALID)).max(told);
        Ok(facts)
    }

    /// Takes the WAL beyond holes that was never confirmed (I1) out of the account, so that the WAL ends before them. `stop`:
    /// the highest stop point of any base backup, or the end of a gap; up to there, and up to what was `recorded`, WAL was there once.
    async fn set_surplus_aside(
        &mut self,
        repository: &Repository,
        stop: Option<Lsn>,
        recorded: Option<&(Lsn, ObjectName)>,
    ) -> Result<(), RepositoryError> {
        let mut ends: Vec<Lsn> = self.extents.iter().rev().map(|extent| extent.end).collect();
        if ends.is_empty() {
            // Nothing of its own: the branch ends where it began.
            ends.extend(
                self.history.as_ref().ok().and_then(|history| history.entries.last()).map(|entry| entry.switch),
            );
        }
        let mut proven = None;
        for end in ends {
            if stop.is_some_and(|stop| stop > end) {
                break;
            }
            if let Some((recorded, name)) = recorded.filter(|(recorded, _)| *recorded > end) {
                let why = || (end, format!("{name} says that WAL was durable up to {recorded}"));
                self.confirmed = proven.is_none().then(why);
                break;
            }
            match repository.beyond(&self.listing, end).await? {
                Beyond::Nothing => {}
                Beyond::Unconfirmed(surplus) => proven = Some((end, surplus)),
                Beyond::Known { name, why, error } => {
                    // What an earlier hole is worth matters only where no later one is the end.
                    self.confirmed = proven.is_none().then(|| (end, format!("{name} {why}")));
                    let damage = error.as_ref().and_then(|error| Damage::of(error, repository.cluster()));
                    if let Some(damage) = damage
                        && self.note(repository, damage).await?
                    {
                        self.find_extents(repository).await?;
                    }
                    break;
                }
            }
        }
        if let Some((end, surplus)) = proven {
            self.listing.cut_at(end);
            self.extents.retain(|extent| extent.end <= end);
            (self.surplus, self.known_end) = (Some(surplus), end);
        }
        Ok(())
    }

    /// Goes on without an object that is of no use. Whether that makes a difference: false when it is not known here.
    pub async fn leave_out(&mut self, repository: &Repository, damage: &Damage) -> Result<bool, RepositoryError> {
        let known = self.note(repository, damage.clone()).await?;
        if known {
            self.find_extents(repository).await?;
        }
        Ok(known)
    }

    /// Objects of no use that are there for bytes of `range`.
    pub fn damaged_in(&self, range: LsnRange) -> impl Iterator<Item = &Damage> {
        let overlaps = move |held: &LsnRange| held.start < range.end && range.start < held.end;
        self.damaged.iter().filter(move |(held, _)| overlaps(held)).map(|(_, damage)| damage)
    }

    async fn note(&mut self, repository: &Repository, damage: Damage) -> Result<bool, RepositoryError> {
        let Some(range) = repository.leave_out(&mut self.listing, &damage.name).await? else { return Ok(false) };
        // What a `.partial` holds only its header tells: it may have been anything of its segment.
        self.known_end = self.known_end.max(range.end);
        self.damaged.push((range, damage));
        Ok(true)
    }

    /// The ranges without a hole: each begins with a whole segment, a tail or a partial.
    async fn find_extents(&mut self, repository: &Repository) -> Result<(), RepositoryError> {
        'looks: loop {
            let listing = &self.listing;
            let mut extents: Vec<LsnRange> = Vec::new();
            for start in listing.begins() {
                if extents.last().is_some_and(|last| start < last.end) {
                    continue;
                }
                let end = match repository.contiguous_end(listing, start).await {
                    Ok(end) => end,
                    Err(error) => match Damage::of(&error, repository.cluster()) {
                        // Only a `.partial` is read for this.
                        Some(damage @ Damage { name: ObjectName::Partial(..), .. })
                            if self.note(repository, damage.clone()).await? =>
                        {
                            continue 'looks;
                        }
                        _ => return Err(error),
                    },
                };
                match extents.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ if end > start => extents.push(LsnRange { start, end }),
                    _ => {}
                }
            }
            self.known_end = extents.last().map_or(self.known_end, |extent| extent.end.max(self.known_end));
            self.extents = extents;
            return Ok(());
        }
    }
}
