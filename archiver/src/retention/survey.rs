//! Reads what a repository holds: names, sizes and the store's times of everything, labels, and the headers of segments that tails
//! still lie beside.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{
    Adoptions, BaseId, CatalogPage, Cover, ObjectName, Proof, Repository, RepositoryError, RepositoryIdentity,
};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use super::branch::{BranchHoldings, Summary, WalObject, WalPiece};
use super::holdings::{Base, Holdings, Small, UnreadableLabel};
use super::pieces::PieceKind;

/// Labels and headers that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// Unknown names that are told.
const NAMES_TOLD: usize = 10;

impl Holdings {
    /// Reads what `repository` holds. Leases come first: a backup that ends later than they are read is either named by one, or began
    /// after an intent that it can see (case 40).
    ///
    /// Cost: a listing of everything, a read for each label and each drill, and a small one for each whole segment that has tails.
    ///
    /// Errors: the store's. A label that does not verify is no error but a finding.
    pub async fn survey(repository: &Repository, identity: &RepositoryIdentity) -> Result<Holdings, RepositoryError> {
        let size = identity.segment_size;
        let mut holdings = Holdings::empty(size);
        holdings.leases = repository.leases().await?;
        let of = |name: &String| name.strip_prefix("base/")?.split('/').next()?.parse::<BaseId>().ok();
        holdings.announced = repository.announced().await?.iter().filter_map(of).collect();
        let adoptions = repository.adoptions().await?;
        // For an estimate, so that a clock that is wrong costs nothing.
        let yesterday = Timestamp::now().as_second() - 86_400;
        let mut pages = repository.all_objects();
        while let Some(page) = pages.next().await? {
            for meta in &page {
                holdings.newest = holdings.newest.max(meta.modified);
                holdings.fresh += u64::from(meta.modified.is_some_and(|taken| taken >= yesterday));
                holdings.take_in(&meta.key, meta.size, meta.modified);
            }
        }
        holdings.holds = Holdings::held(repository).await?;
        holdings.read_labels(repository).await?;
        for base in &holdings.bases {
            holdings.branches.entry(base.branch).or_default();
        }
        holdings.read_branches(repository, &adoptions).await?;
        Ok(holdings)
    }

    /// What somebody holds, and until when.
    pub async fn held(repository: &Repository) -> Result<BTreeMap<BaseId, Timestamp>, RepositoryError> {
        let holds = repository.holds().await?.into_iter();
        Ok(holds.filter_map(|hold| Some((hold.record.base, hold.record.until?))).collect())
    }

    fn take_in(&mut self, key: &str, bytes: u64, stored: Option<i64>) {
        let Ok(name) = key.parse::<ObjectName>() else {
            self.unknown.add(bytes);
            if self.unknown_names.len() < NAMES_TOLD {
                self.unknown_names.push(key.to_owned());
            }
            return;
        };
        let kind = key.split('/').next().unwrap_or_default();
        match self.kinds.get_mut(kind) {
            Some(sum) => sum.add(bytes),
            None => self.kinds.entry(kind.to_owned()).or_default().add(bytes),
        }
        let small = || Small { name: name.clone(), size: bytes, stored };
        if let Some((id, kind, number)) = PieceKind::of(&name) {
            let folder = self.folders.entry(id.clone()).or_default();
            folder.newest = folder.newest.max(stored);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            folder.pieces.entry(kind).or_default().push((number, bytes));
        } else if let Some((branch, object)) = WalObject::of(&name, self.size, bytes, stored) {
            self.branches.entry(branch).or_default().wal.push(object);
        } else {
            match &name {
                ObjectName::Label(id) => {
                    let folder = self.folders.entry(id.clone()).or_default();
                    (folder.label, folder.newest) = (Some(bytes), folder.newest.max(stored));
                }
                ObjectName::Catalog(branch, first, _) => {
                    let first = first.number(self.size);
                    let is_ours = |first: &SegmentNumber| CatalogPage::name(*branch, *first, self.size) == name;
                    if let Some(first) = first.filter(is_ours) {
                        self.branches.entry(*branch).or_default().pages.push((first, bytes));
                    }
                }
                ObjectName::Summary(branch, first, last) => {
                    let run = first.number(self.size).zip(last.number(self.size));
                    let summary = run.map(|(first, last)| Summary { first, last, size: bytes });
                    if let Some(summary) = summary.filter(|summary| summary.name(*branch, self.size) == name) {
                        self.branches.entry(*branch).or_default().summaries.push(summary);
                    }
                }
                ObjectName::Lease(run, _) => self.lease_objects.entry(*run).or_default().push(small()),
                ObjectName::Frontier(writer, _) => self.frontiers.entry(**writer).or_default().push(small()),
                _ => {}
            }
        }
    }

    async fn read_labels(&mut self, repository: &Repository) -> Result<(), RepositoryError> {
        // That it passed counts here, also by a clock that was ahead; when it did does not.
        let proof = Proof::of(&repository.drills().await?, Timestamp::MAX);
        let labelled = self.folders.iter().filter(|(_, folder)| folder.label.is_some());
        let ids: Vec<BaseId> = labelled.map(|(id, _)| id.clone()).collect();
        let mut read = stream::iter(ids)
            .map(|id| {
                let repository = repository.clone();
                async move {
                    let label = repository.label(&id).await;
                    (id, label)
                }
            })
            .buffered(READS_AT_ONCE);
        while let Some((id, label)) = read.next().await {
            let why = match label {
                Ok(label) => match Base::of(&label, proof.of_base(&id) == Some(true)) {
                    Ok(base) => {
                        self.bases.push(base);
                        continue;
                    }
                    Err(name) => format!("it needs \"{name}\", which this version does not know"),
                },
                Err(RepositoryError::Object { source, .. }) => source.to_string(),
                // It went while this looked.
                Err(error) if error.is_not_found() => {
                    if let Some(folder) = self.folders.get_mut(&id) {
                        folder.label = None;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.unreadable.push(UnreadableLabel { id, why });
        }
        Ok(())
    }

    async fn read_branches(&mut self, repository: &Repository, adoptions: &Adoptions) -> Result<(), RepositoryError> {
        let size = self.size;
        let names: Vec<Branch> = self.branches.keys().copied().collect();
        for branch in names {
            let Some(held) = self.branches.get_mut(&branch) else { continue };
            held.wal.sort_unstable();
            held.way = repository.way_to(adoptions, branch).await?;
            let listing = held.listing(branch, size);
            held.extents = repository.extents(&listing).await?;
            held.verified = verified(repository, branch, held, size).await?;
        }
        Ok(())
    }
}

/// What is verified of the segments that have tails beside something whole.
async fn verified(
    repository: &Repository,
    branch: Branch,
    held: &BranchHoldings,
    size: SegmentSize,
) -> Result<BTreeMap<SegmentNumber, LsnRange>, RepositoryError> {
    // Up to where the tails of a segment reach.
    let mut tails: BTreeMap<SegmentNumber, Lsn> = BTreeMap::new();
    for object in &held.wal {
        if let WalPiece::Tail(range) = object.piece {
            let end = tails.entry(object.number).or_insert(range.end);
            *end = range.end.max(*end);
        }
    }
    let mut whole: BTreeMap<SegmentNumber, Vec<ObjectName>> = BTreeMap::new();
    for object in held.wal.iter().filter(|object| tails.contains_key(&object.number)) {
        if !matches!(object.piece, WalPiece::Tail(_)) {
            whole.entry(object.number).or_default().push(object.name(branch, size));
        }
    }
    let beyond = |number| tails.get(&number).copied().unwrap_or(Lsn::INVALID);
    let reads = stream::iter(whole).map(|(number, names)| (repository.clone(), number, beyond(number), names));
    let reads = reads.map(move |(repository, number, beyond, names)| async move {
        let mut ranges = Vec::new();
        for name in &names {
            match repository.read_header(name).await {
                Ok((signed, _)) => ranges.extend(signed.header.wal.and_then(|wal| LsnRange::new(wal.start, wal.end))),
                // What does not verify covers nothing.
                Err(RepositoryError::Object { source, .. }) => {
                    tracing::warn!(%name, error = %source, "its tails stay, because it does not verify");
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let (start, end) = (number.start(size), Cover::of(number.start(size), &ranges).end);
        // Parts of a segment that is not whole yet supersede nothing; nor does a `.partial` beyond which tails go on, as where an old primary
        // had shipped more than the new one has (case 11): it is of the end that the new one knows.
        let partial = names.iter().any(|name| matches!(name, ObjectName::Partial(..))) && beyond <= end;
        let ended = end >= number.end(size) || partial;
        Ok((number, LsnRange { start, end: if ended { end } else { start } }))
    });
    let found: Vec<(SegmentNumber, LsnRange)> = reads.buffered(READS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().filter(|(_, range)| !range.is_empty()).collect())
}
