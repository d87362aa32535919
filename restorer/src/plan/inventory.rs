//! What a repository holds, read once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::repository::{
    Adoptions, BaseId, GapRecord, Label, ObjectName, Pruned, Repository, RepositoryError, RepositoryIdentity,
    WrittenFrontier, furthest,
};
use walseal_common::seal::{Identity, SIGNED_PREFIX_HINT, SignedHeader};
use walseal_common::segment::SegmentNumber;
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

use super::Request;
use super::facts::{BranchFacts, Told};
use super::scope::{self, Scope};
use crate::damage::Damage;

/// Small objects that are read at the same time.
const READS_AT_ONCE: usize = 8;

/// Labels that are read at the same time: there may be hundreds, and each waits for the store.
const LABELS_AT_ONCE: usize = 32;

/// What a repository holds: verified where it was read, by name elsewhere.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The repository's URL.
    pub store: String,
    /// What it is.
    pub identity: RepositoryIdentity,
    /// The base backups whose label verifies, oldest first; without the names of their objects, of which hundreds of backups have
    /// millions (I11).
    pub bases: Vec<Label>,
    /// Bytes of other backups' objects that each of them needs.
    pub referenced: BTreeMap<BaseId, u64>,
    /// Those whose label does not: reported, never used.
    pub unusable: Vec<UnusableBase>,
    /// Where two servers wrote the same timeline, on which branch the WAL of the living one lies.
    pub adoptions: Adoptions,
    /// Every record of a gap, by branch and position.
    pub gaps: Vec<GapRecord>,
    /// What retention removed, as its records say.
    pub pruned: Pruned,
    /// Up to where each writer last said that WAL was durable.
    pub frontiers: Vec<WrittenFrontier>,
    /// Where of one branch no more names were listed than a restore should need.
    pub scope: Option<Scope>,
    /// Every branch that anything names.
    pub branches: BTreeMap<Branch, BranchFacts>,
}

/// A base backup that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnusableBase {
    /// Which.
    pub id: BaseId,
    /// What is wrong with its label.
    pub why: String,
}

/// The inventory could not be taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InventoryError {
    /// No writer is trusted, so that nothing would count.
    #[error("no writer is trusted yet, and what nobody signed is never restored; {}", claims(.store, .found))]
    NobodyTrusted {
        /// The repository's URL.
        store: String,
        /// The writers that its objects claim, unverified.
        found: Vec<String>,
    },
    /// The repository did not give an object.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

fn claims(store: &str, found: &[String]) -> String {
    if found.is_empty() {
        return format!("the objects in {store} do not say who wrote them");
    }
    let quoted: Vec<String> = found.iter().map(|writer| format!("\"{writer}\"")).collect();
    format!(
        "the objects in {store} claim the writer{} below. If your archiver's key file says the same (\"# public half\"), \
         write this under [keys]:\n  trusted_writers = [{}]",
        if found.len() == 1 { "" } else { "s" },
        quoted.join(", ")
    )
}

impl InventoryError {
    /// Whether the same call could succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        match self {
            InventoryError::NobodyTrusted { .. } => true,
            InventoryError::Repository(error) => error.is_permanent(),
        }
    }
}

impl Inventory {
    /// Reads what `repository` holds: identity, labels, histories (opened with `identities`), and the names of its WAL from
    /// shortly before the oldest base backup on.
    ///
    /// Errors: [`InventoryError::NobodyTrusted`]; no repository there; the store. A single label, history, record of a gap or
    /// `.partial` that does not verify is no error but a finding.
    pub async fn read(repository: &Repository, identities: &[Identity]) -> Result<Inventory, InventoryError> {
        Inventory::about(repository, identities, None).await
    }

    /// As [`Inventory::read`], but where catalog pages tell what a plan for `request` should need, no more names of its branch are
    /// listed.
    pub async fn about(
        repository: &Repository,
        identities: &[Identity],
        request: Option<&Request>,
    ) -> Result<Inventory, InventoryError> {
        if repository.trust().is_empty() {
            let found = claimed_writers(repository).await?;
            return Err(InventoryError::NobodyTrusted { store: repository.describe(), found });
        }
        let identity = repository.identity().await?;
        let adoptions = repository.adoptions().await?;
        // Before the names of WAL, so that what is written meanwhile is no hole.
        let frontiers = repository.frontiers().await?;
        let Labels { bases, referenced, unusable } = read_labels(repository).await?;
        let size = identity.segment_size;
        // WAL from before the oldest base backup is of no use to anybody who restores; but what lies shortly before it tells
        // when the last transaction in it ended.
        let from = bases.iter().map(|label| size.number(label.start)).min();
        let from = from.map_or(SegmentNumber(0), |oldest| SegmentNumber(oldest.0.saturating_sub(scope::BEFORE)));
        let all = [(from, SegmentNumber(u64::MAX))];
        let mut branches: BTreeSet<Branch> = repository.branches().await?.into_iter().collect();
        branches.extend(bases.iter().map(|label| label.branch));
        branches.extend(frontiers.iter().flat_map(|written| written.record.branches()).map(|told| told.branch));
        // WAL before a gap was there once (I6), also where nothing behind it has arrived yet.
        let gaps = repository.gap_records().await?;
        branches.extend(gaps.iter().map(|record| record.branch));
        branches.extend(gaps.iter().filter_map(|record| record.content.as_ref().ok()).map(|gap| gap.next));
        branches.extend(adoptions.branches());
        // WAL of an adoption that never came to be written: nothing leads there.
        let root = TimelineHistory::root(TimelineId::FIRST).branch(identity.cluster);
        branches.retain(|branch| branch.timeline != TimelineId::FIRST || adoptions.origin(*branch) == root);
        let scope = match request.filter(|_| unusable.is_empty()) {
            Some(request) => Scope::of(repository, &bases, &gaps, size, request).await?,
            None => None,
        };
        let told = Told { labels: &bases, all_labels: unusable.is_empty(), gaps: &gaps, recorded: None };
        let (told, recorded) = (&told, frontiers.as_slice());
        let (all, narrow, known) = (all.as_slice(), scope.as_ref(), &adoptions);
        let branches = stream::iter(branches)
            .map(|branch| async move {
                let told = Told { recorded: furthest(recorded, branch), ..told.clone() };
                let ranges = narrow.filter(|scope| scope.branch == branch).map_or(all, |scope| scope.ranges.as_slice());
                let facts =
                    BranchFacts::read(repository, identities, (branch, known.origin(branch)), size, ranges, told)
                        .await?;
                Ok::<_, InventoryError>((branch, facts))
            })
            .buffered(READS_AT_ONCE)
            .try_collect::<BTreeMap<_, _>>()
            .await?;
        // After the names: what goes meanwhile was written down before.
        let mut pruned = repository.pruned().await?;
        let bases = still_there(repository, bases, &mut pruned).await?;
        let store = repository.describe();
        Ok(Inventory {
            store,
            identity,
            bases,
            referenced,
            unusable,
            adoptions,
            gaps,
            pruned,
            frontiers,
            scope,
            branches,
        })
    }

    /// Goes on without the catalog pages of a branch, of which one is not true. Whether that makes a difference.
    pub fn leave_out_pages(&mut self, branch: Branch) -> bool {
        let Some(facts) = self.branches.get_mut(&branch).filter(|facts| !facts.pages.is_empty()) else { return false };
        tracing::warn!("the catalog pages of branch {branch} do not say what its segments do; they are left out");
        facts.pages.clear();
        true
    }

    /// Goes on without objects of WAL that are of no use. Whether that makes a difference: false when none of them is known
    /// here.
    pub async fn leave_out(&mut self, repository: &Repository, found: &[Damage]) -> Result<bool, InventoryError> {
        let mut changed = false;
        for damage in found {
            let (ObjectName::Wal(branch, ..) | ObjectName::Partial(branch, _) | ObjectName::Tail(branch, ..)) =
                damage.name
            else {
                continue;
            };
            if let Some(facts) = self.branches.get_mut(&branch) {
                changed |= facts.leave_out(repository, damage).await?;
            }
        }
        Ok(changed)
    }
}

/// Those of `bases` that did not go while the rest was read. Labels go first, so that what one needs that is there was not removed,
/// whatever is on record: `pruned` is left without that.
async fn still_there(
    repository: &Repository,
    bases: Vec<Label>,
    pruned: &mut Pruned,
) -> Result<Vec<Label>, InventoryError> {
    let mut there = Vec::new();
    for label in bases {
        if !pruned.has_base(&label.id) || repository.is_labelled(&label.id).await? {
            pruned.leave_out_wal(label.branch, &[label.segment_size.around(label.start, label.stop)]);
            there.push(label);
        }
    }
    Ok(there)
}

/// The labels that verify, oldest first, and the others.
#[derive(Default)]
struct Labels {
    bases: Vec<Label>,
    referenced: BTreeMap<BaseId, u64>,
    unusable: Vec<UnusableBase>,
}

async fn read_labels(repository: &Repository) -> Result<Labels, InventoryError> {
    let ids = repository.begun_bases().await?;
    let mut read = stream::iter(ids)
        .map(|id| async move {
            let label = repository.label(&id).await;
            (id, label)
        })
        .buffered(LABELS_AT_ONCE);
    let mut labels = Labels::default();
    while let Some((id, label)) = read.next().await {
        match label {
            Ok(mut label) => {
                labels.referenced.insert(id, label.referenced_size());
                (label.objects, label.manifest) = (Vec::new(), Vec::new());
                (label.resume, label.names, label.config) = (None, Vec::new(), Vec::new());
                labels.bases.push(label);
            }
            // Only what the object itself says makes it unusable; a store that does not answer says nothing about it.
            Err(RepositoryError::Object { source, .. }) => {
                labels.unusable.push(UnusableBase { id, why: source.to_string() });
            }
            // An attempt that was interrupted, or is under way.
            Err(error) if error.is_not_found() => {}
            Err(error) => match Damage::of(&error, repository.cluster()) {
                Some(damage) => labels.unusable.push(UnusableBase { id, why: damage.why }),
                None => return Err(error.into()),
            },
        }
    }
    Ok(labels)
}

/// The writers that the objects of a repository claim, unverified: its identity, its newest base backup, and the first
/// object of each branch.
pub async fn claimed_writers(repository: &Repository) -> Result<Vec<String>, RepositoryError> {
    let mut names = vec![ObjectName::Identity];
    names.extend(repository.base_ids().await?.pop().map(ObjectName::Label));
    for branch in repository.branches().await? {
        for prefix in [ObjectName::wal_prefix(branch), ObjectName::tail_prefix(branch)] {
            let page = repository.first_objects(&prefix, 1).await?;
            names.extend(page.iter().filter_map(|meta| meta.key.parse::<ObjectName>().ok()));
        }
    }
    let mut writers = BTreeSet::new();
    for name in names {
        let key = name.key(repository.cluster());
        match repository.store().get_range(&key, 0..SIGNED_PREFIX_HINT).await {
            Ok(part) => writers.extend(SignedHeader::claimed_writer(&part.bytes)),
            Err(error) if error.kind == walseal_common::store::StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(writers.into_iter().collect())
}
