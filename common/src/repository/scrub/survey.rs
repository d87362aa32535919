//! What a repository holds, by name, and what its small signed objects say of the rest: whether all of that is there. Reads labels,
//! records and the ledger, and lists everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;

use super::cure;
use super::flaw::{Flaw, FlawKind};
use super::heads::{Heads, Witness};
use super::holding::{Holding, Voucher};
use super::leftover::Leftover;
use super::references::References;
use super::snapshots::Snapshots;
use super::stake::{Stake, Stakes};
use crate::lsn::{Lsn, LsnRange};
use crate::repository::{
    Adoptions, BaseId, GapRecord, Head, LedgerEntry, LedgerReading, ObjectName, Pruned, Repository, RepositoryError,
    WalListing, WrittenFrontier, furthest,
};
use crate::seal::ObjectDigest;
use crate::segment::{SegmentNumber, SegmentSize};
use crate::store::LONGEST_PAGE;
use crate::timeline::{Branch, SystemIdentifier, TimelineId};

/// What a repository should hold, and what of that is not there.
#[derive(Debug)]
pub struct Survey {
    /// Size of the cluster's segments; `None` where neither `identity` nor any label tells.
    pub segment_size: Option<SegmentSize>,
    /// What is wrong, in order.
    pub flaws: Vec<Flaw>,
    /// The newest of it, as it is now: what a later survey may compare with.
    pub heads: Heads,
    /// What is on record as removed, and was still there.
    pub leftover: Leftover,
    /// How many snapshots have a label that verifies.
    pub snapshots: usize,
    pub(super) references: References,
    pub(super) stakes: Stakes,
}

/// What the survey has found so far.
struct Surveyor<'a> {
    repository: &'a Repository,
    witnesses: &'a [Witness],
    flaws: Vec<Flaw>,
    references: References,
    stakes: Vec<Stake>,
    heads: Heads,
}

impl Survey {
    /// Surveys `repository`, which may be written to meanwhile. `witnesses` saw it before this began.
    ///
    /// Errors: the store's, where it does not answer. What is wrong with an object is a flaw.
    pub async fn take(repository: &Repository, witnesses: &[Witness]) -> Result<Survey, RepositoryError> {
        let heads = Heads::none(repository.cluster(), Timestamp::now());
        let (flaws, references, stakes) = (Vec::new(), References::default(), Vec::new());
        Surveyor { repository, witnesses, flaws, references, stakes, heads }.survey().await
    }
}

impl Surveyor<'_> {
    /// In this order nothing that is written meanwhile is missed: what speaks of others is read before those are listed, and what
    /// retention removes is written down before it goes, so that this is read afterwards.
    async fn survey(mut self) -> Result<Survey, RepositoryError> {
        let identity = match self.repository.identity().await {
            Ok(identity) => Some(identity),
            Err(error) => {
                self.note(&ObjectName::Identity, error)?;
                None
            }
        };
        let reading = self.repository.ledger().await?;
        self.judge_ledger(&reading);
        let frontiers = self.repository.frontiers().await?;
        let adoptions = match self.repository.adoptions().await {
            Ok(adoptions) => adoptions,
            Err(RepositoryError::Adoption { name, why }) => {
                let flaw = Flaw::new(FlawKind::Damaged, &name, why);
                self.flaws.push(flaw.cured_by(cure::of_small_object(&name)));
                Adoptions::none(self.repository.cluster())
            }
            Err(error) => return Err(error),
        };
        let gaps = self.repository.gap_records().await?;
        for record in &gaps {
            if let Err(error) = &record.content {
                self.note(&record.name(), error.clone())?;
            }
        }
        let mut labelled = self.read_labels().await?;
        let snapshots = Snapshots::read(self.repository, &reading, &mut self.references, &mut self.flaws).await?;
        self.heads.snapshot = snapshots.sound.last().cloned();
        let size = identity.map(|identity| identity.segment_size);
        let size = size.or_else(|| self.stakes.first().map(|stake| stake.segment_size));
        let mut holdings = BTreeMap::new();
        if let Some(size) = size {
            for branch in self.branches(&frontiers, &gaps, &adoptions).await? {
                let mut holding = self.holding(branch, size, &frontiers, &gaps).await?;
                let holes = holding.holes(self.repository).await?;
                holdings.insert(branch, (holding, holes));
            }
            self.want_histories(&adoptions, &holdings.keys().copied().collect::<Vec<_>>()).await?;
        }
        let mut pruned = self.repository.pruned().await?;
        let recorded = pruned.clone();
        let mut leftover = self.leftover(&mut labelled, &mut pruned).await?;
        let mut finished: BTreeSet<BaseId> = ids(&reading.entries, "base-finished");
        finished.retain(|id| !pruned.has_base(id));
        self.miss_labels(&labelled, &finished, &pruned);
        let ends = holdings.iter().map(|(branch, (holding, _))| (*branch, holding.listing.clone())).collect();
        let stakes = Stakes { bases: std::mem::take(&mut self.stakes), listings: ends };
        leftover.note_wal(&extents(&stakes.listings), &recorded);
        for (branch, (holding, holes)) in holdings {
            if let Some(end) = self.attested_end(&holding).await? {
                self.heads.note(branch, end);
            }
            // Nothing is left, and what speaks of it speaks of what lies before all that retention removed: of where the branch began.
            let began = pruned.on(branch).first().filter(|_| holding.listing.is_empty()).map(|range| range.start);
            for hole in holes.into_iter().filter(|hole| began.is_none_or(|began| hole.range.end > began)) {
                for range in hole.range.without(pruned.on(branch)) {
                    let LsnRange { start, end } = range;
                    let what = format!("WAL from {start} to {end} is not there; {}", hole.why);
                    let flaw = Flaw::new(hole.kind, format!("wal/{branch}"), what);
                    self.flaws.push(stakes.of_wal(branch, range, flaw).cured_by(cure::of_hole(hole.kind, start)));
                }
            }
        }
        self.list_bases(&stakes).await?;
        snapshots.list(self.repository, &mut self.references, &mut self.flaws).await?;
        snapshots.miss(self.repository, self.witnesses, &mut self.flaws).await?;
        self.list_evidence().await?;
        self.flaws.sort();
        let Surveyor { flaws, references, heads, .. } = self;
        let snapshots = snapshots.sound.len();
        Ok(Survey { segment_size: size, flaws, heads, leftover, snapshots, references, stakes })
    }

    /// Base backups that are on record as removed and are there all the same: a prune was not let, or broke off before it came to them.
    /// Leaves out of `labelled` those that went meanwhile, and of `pruned` the WAL that the others need: labels go first, so that it
    /// should be there as long as they are.
    async fn leftover(
        &mut self,
        labelled: &mut BTreeSet<BaseId>,
        pruned: &mut Pruned,
    ) -> Result<Leftover, RepositoryError> {
        let mut leftover = Leftover::default();
        let recorded: Vec<BaseId> = labelled.iter().filter(|id| pruned.has_base(id)).cloned().collect();
        for id in recorded {
            if self.repository.is_labelled(&id).await? {
                leftover.bases.push(id);
            } else {
                self.stakes.retain(|stake| stake.id != id);
                labelled.remove(&id);
            }
        }
        for stake in &self.stakes {
            pruned.leave_out_wal(stake.branch, &[stake.segments()]);
        }
        Ok(leftover)
    }

    /// Takes what is wrong with one object.
    ///
    /// Errors: it is the store that does not answer.
    fn note(&mut self, name: &ObjectName, error: RepositoryError) -> Result<(), RepositoryError> {
        let flaw = Flaw::of(name, &error).ok_or(error)?;
        self.flaws.push(flaw.cured_by(cure::of_small_object(&name.to_string())));
        Ok(())
    }

    fn judge_ledger(&mut self, reading: &LedgerReading) {
        for finding in &reading.findings {
            let refused = finding.refused_name().and_then(|name| name.parse().ok());
            if refused.is_some_and(|name| is_strangers(self.repository, &name)) {
                continue;
            }
            let flaw = Flaw::new(FlawKind::Ledger, finding.place(), finding.to_string());
            self.flaws.push(flaw.cured_by(cure::of_ledger()));
        }
        let mut last: BTreeMap<_, Head> = BTreeMap::new();
        let mut there: BTreeMap<_, ObjectDigest> = BTreeMap::new();
        for entry in &reading.entries {
            let (writer, run, sequence, digest) = (entry.writer, entry.body.run, entry.body.sequence, entry.digest);
            there.insert((writer, run, sequence), digest);
            let head = Head { writer, run, sequence, digest };
            let newest = last.entry((writer, run)).or_insert_with(|| head.clone());
            if newest.sequence < sequence {
                *newest = head;
            }
            let evidence = entry.body.facts.get("evidence").and_then(|fact| {
                let name = fact.get("name")?.as_str()?.to_owned();
                Some((name, fact.get("digest")?.as_str()?.parse().ok()?))
            });
            if let Some((name, digest)) = evidence {
                self.references.add_evidence(name, digest);
            }
        }
        let witnesses = self.witnesses;
        for witness in witnesses {
            for head in &witness.heads.runs {
                let (object, sequence) = (format!("ledger/{}/{}", head.writer, head.run), head.sequence);
                let flaw = match there.get(&(head.writer, head.run, sequence)) {
                    Some(digest) if *digest == head.digest => continue,
                    Some(_) => {
                        let what = format!("{} another entry {sequence} than is there: it was replaced", witness.who);
                        Flaw::new(FlawKind::Ledger, object, what)
                    }
                    None => {
                        let what = format!("{} entry {sequence}, which is not there: its end was cut off", witness.who);
                        Flaw::new(FlawKind::CutOff, object, what)
                    }
                };
                self.flaws.push(flaw.cured_by(cure::of_ledger()));
            }
        }
        self.heads.runs = last.into_values().collect();
    }

    /// Reads every label. Returns the ids of those that are there, whether they verify or not.
    async fn read_labels(&mut self) -> Result<BTreeSet<BaseId>, RepositoryError> {
        let mut labelled = BTreeSet::new();
        for id in self.repository.begun_bases().await? {
            match self.repository.label(&id).await {
                Ok(label) => {
                    for (object, what) in self.references.add(&label) {
                        let what = format!("the label of base backup {id} refers to it, and {what}");
                        let flaw = Flaw::new(FlawKind::Replaced, object, what);
                        self.flaws.push(flaw.cured_by(cure::of_base_object()));
                    }
                    self.stakes.push(Stake::of(&label));
                    labelled.insert(id);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    let name = ObjectName::Label(id.clone());
                    let mut flaw = Flaw::of(&name, &error).ok_or(error)?.cured_by(cure::of_base_object());
                    flaw.bases.push(id.clone());
                    self.flaws.push(flaw);
                    labelled.insert(id);
                }
            }
        }
        self.heads.base = self.stakes.last().map(|stake| stake.id.clone());
        Ok(labelled)
    }

    /// Labels that somebody has seen, and that are not there.
    fn miss_labels(&mut self, labelled: &BTreeSet<BaseId>, finished: &BTreeSet<BaseId>, pruned: &Pruned) {
        for id in finished.difference(labelled) {
            let what = "the ledger says that this base backup was finished, and its label is not there";
            let mut flaw = Flaw::new(FlawKind::Missing, ObjectName::Label(id.clone()), what);
            flaw.bases.push(id.clone());
            self.flaws.push(flaw.cured_by(cure::of_base_object()));
        }
        let newest = labelled.last();
        let witnesses = self.witnesses;
        for witness in witnesses {
            let kept = witness.heads.base.as_ref().filter(|id| !pruned.has_base(id));
            let Some(id) = kept.filter(|id| newest.is_none_or(|newest| newest < *id)) else {
                continue;
            };
            if !finished.contains(id) {
                let what = format!("{} this base backup, and neither it nor a newer one is there", witness.who);
                let mut flaw = Flaw::new(FlawKind::CutOff, ObjectName::Label(id.clone()), what);
                flaw.bases.push(id.clone());
                self.flaws.push(flaw.cured_by(cure::of_base_object()));
            }
        }
    }

    /// Every branch of which anything speaks.
    async fn branches(
        &self,
        frontiers: &[WrittenFrontier],
        gaps: &[GapRecord],
        adoptions: &Adoptions,
    ) -> Result<BTreeSet<Branch>, RepositoryError> {
        let mut branches: BTreeSet<Branch> = self.repository.branches().await?.into_iter().collect();
        branches.extend(self.stakes.iter().map(|stake| stake.branch));
        branches.extend(frontiers.iter().flat_map(|written| written.record.branches()).map(|told| told.branch));
        branches.extend(gaps.iter().map(|record| record.branch));
        branches.extend(gaps.iter().filter_map(|record| record.content.as_ref().ok()).map(|gap| gap.next));
        branches.extend(adoptions.branches());
        let heads = self.witnesses.iter().map(|witness| &witness.heads);
        branches.extend(heads.flat_map(|heads| heads.branches.iter().map(|one| one.branch)));
        Ok(branches)
    }

    async fn holding(
        &self,
        branch: Branch,
        size: SegmentSize,
        frontiers: &[WrittenFrontier],
        gaps: &[GapRecord],
    ) -> Result<Holding, RepositoryError> {
        let listing = self.repository.wal_listing(branch, size, None).await?;
        let inside = |end: Lsn, who: String| Voucher { end, outside: false, who };
        let mut vouchers: Vec<Voucher> =
            furthest(frontiers, branch).map(|(end, name)| inside(end, format!("{name} says"))).into_iter().collect();
        let of_branch = self.stakes.iter().filter(|stake| stake.branch == branch);
        vouchers
            .extend(of_branch.clone().map(|one| inside(one.stop, format!("the label of base backup {} says", one.id))));
        let known =
            |record: &GapRecord| record.known_on(branch).map(|end| inside(end, format!("{} says", record.name())));
        vouchers.extend(gaps.iter().filter_map(known));
        for witness in self.witnesses {
            let end = witness.heads.end_of(branch);
            vouchers.extend(end.map(|end| Voucher { end, outside: true, who: witness.who.clone() }));
        }
        let first = listing.first_begun(SegmentNumber(0)).map(|number| number.start(size));
        let start = of_branch.map(|stake| size.align_down(stake.start)).min();
        // What lies before the oldest base backup of all is of no use to anybody; on a later timeline it is, to those of earlier ones.
        let oldest: Option<TimelineId> = self.stakes.iter().map(|stake| stake.branch.timeline).min();
        let begin = match start {
            Some(start) if oldest == Some(branch.timeline) => start,
            start => start.into_iter().chain(first).min().unwrap_or(Lsn::INVALID),
        };
        let whole = listing.contiguous_end(begin);
        let pages = self.repository.catalog_pages(branch, size, None).await?;
        let cataloged = self.repository.cataloged_beyond(branch, &pages, size, whole).await?;
        vouchers.extend(cataloged.map(|(end, name)| inside(end, format!("{name} says"))));
        let mut recorded = Vec::new();
        for gap in gaps.iter().filter_map(|record| record.content.as_ref().ok()) {
            match gap.stretches(size) {
                Some(stretches) => {
                    recorded.extend(stretches.iter().filter(|one| one.branch == branch).map(|one| one.range));
                }
                None if gap.branch == branch || gap.next == branch => recorded.push(gap.range()),
                None => {}
            }
        }
        // Nothing is there, and what speaks of it tells its end only.
        if listing.is_empty() && start.is_none() {
            let end = vouchers.iter().map(|voucher| voucher.end).max().unwrap_or(Lsn::INVALID);
            let begin = size.align_down(Lsn(end.0.saturating_sub(1)));
            return Ok(Holding { listing, begin, vouchers, recorded, end });
        }
        Ok(Holding { listing, begin, vouchers, recorded, end: Lsn::INVALID })
    }

    /// Up to where the WAL is there, as far as anything signed says so: a name alone is anybody's word, and must not be remembered.
    async fn attested_end(&self, holding: &Holding) -> Result<Option<Lsn>, RepositoryError> {
        let size = holding.listing.segment_size;
        let inside = holding.vouchers.iter().filter(|one| !one.outside && one.end <= holding.end).map(|one| one.end);
        let mut end = inside.max();
        let last = size.number(Lsn(holding.end.0.saturating_sub(1)));
        for name in holding.listing.objects_of(last) {
            match self.repository.read_header(&name).await {
                Ok((signed, _)) => {
                    let told = signed.header.wal.map(|wal| wal.end).filter(|told| *told <= holding.end);
                    end = end.max(told);
                }
                Err(error) if error.is_not_found() => {}
                // A flaw, once it is read.
                Err(error) => drop(Flaw::of(&name, &error).ok_or(error)?),
            }
        }
        Ok(end.filter(|_| !holding.listing.is_empty()))
    }

    /// Whoever restores needs the history of each timeline but the first (case 2).
    async fn want_histories(&mut self, adoptions: &Adoptions, branches: &[Branch]) -> Result<(), RepositoryError> {
        let there: BTreeSet<Branch> = self.repository.branches_with_history().await?.into_iter().collect();
        let origins: BTreeSet<Branch> = branches.iter().map(|branch| adoptions.origin(*branch)).collect();
        for branch in origins.into_iter().filter(|one| one.timeline != TimelineId::FIRST && !there.contains(one)) {
            let what = "the history of a timeline of which WAL is there is not there";
            let flaw = Flaw::new(FlawKind::Missing, ObjectName::History(branch), what);
            self.flaws.push(flaw.cured_by(cure::of_history()));
        }
        Ok(())
    }

    /// Lists everything below `base/`, and compares it with what labels refer to.
    async fn list_bases(&mut self, stakes: &Stakes) -> Result<(), RepositoryError> {
        let mut wrong = Vec::new();
        let folders: Vec<BaseId> = self.references.bases().cloned().collect();
        for id in folders {
            wrong.append(&mut self.references.see_below(self.repository, &format!("base/{id}/")).await?);
        }
        wrong.extend(self.references.unseen().map(References::missing));
        if wrong.is_empty() {
            return Ok(());
        }
        let mut flaws: Vec<Flaw> = wrong.into_iter().map(|flaw| flaw.cured_by(cure::of_base_object())).collect();
        let spoken_of = stakes.attribute(self.repository, &mut flaws).await?;
        // What went with its label while this looked is not missing.
        flaws.retain(|flaw| spoken_of.contains(&flaw.object));
        self.flaws.append(&mut flaws);
        Ok(())
    }

    async fn list_evidence(&mut self) -> Result<(), RepositoryError> {
        let mut missing: BTreeSet<String> = self.references.all_evidence().cloned().collect();
        let mut pages = self.repository.pages("evidence/", None, LONGEST_PAGE);
        while !missing.is_empty()
            && let Some(page) = pages.next().await?
        {
            for meta in &page {
                missing.remove(&meta.key);
            }
        }
        for name in missing {
            let what = "an entry of the ledger names it, and it is not there";
            self.flaws.push(Flaw::new(FlawKind::Missing, &name, what).cured_by(cure::of_small_object(&name)));
        }
        Ok(())
    }
}

/// Whether an object lies in the folder of a writer that nobody here trusts: another host's, which keeps its own record. It counts for
/// nothing, and proves nothing to be wrong.
pub(super) fn is_strangers(repository: &Repository, name: &ObjectName) -> bool {
    name.owner().is_some_and(|owner| !repository.trust().iter().any(|trusted| trusted.key == *owner))
}

/// What entries of an act are about, by its id.
pub(super) fn ids<'a, I>(entries: impl IntoIterator<Item = &'a LedgerEntry>, act: &str) -> BTreeSet<I>
where
    I: FromStr + Ord,
{
    let entries = entries.into_iter().filter(|entry| entry.body.act == act);
    entries.filter_map(|entry| entry.body.facts.get("id")?.as_str()?.parse().ok()).collect()
}

fn extents(listings: &BTreeMap<Branch, WalListing>) -> Vec<(Branch, LsnRange)> {
    let mut extents = Vec::new();
    for (branch, listing) in listings {
        let size = listing.segment_size;
        let mut next = listing.first_begun(SegmentNumber(0));
        while let Some(begin) = next.map(|number| number.start(size)) {
            let end = listing.contiguous_end(begin);
            let more = size.number(end.max(begin)).next();
            extents.extend(LsnRange::new(begin, end).filter(|range| !range.is_empty()).map(|range| (*branch, range)));
            next = listing.first_begun(more);
        }
    }
    extents
}

impl Survey {
    /// The cluster.
    pub fn cluster(&self) -> SystemIdentifier {
        self.heads.cluster
    }

    /// The WAL that is there without a hole, by name: each range from the start of a segment to where it ends, by branch.
    pub fn extents(&self) -> Vec<(Branch, LsnRange)> {
        extents(&self.stakes.listings)
    }

    /// The base backups with a label that verifies, oldest first.
    pub fn base_ids(&self) -> impl Iterator<Item = &BaseId> {
        self.stakes.bases.iter().map(|stake| &stake.id)
    }

    /// How many base backups have a label that verifies.
    pub fn bases(&self) -> usize {
        self.stakes.bases.len()
    }
}
