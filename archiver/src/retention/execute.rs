//! Removes what a plan says, in two phases (case 40): what goes is written down first, signed, and goes once that is as old as the grace
//! by the store's own clock, and a new plan says so again.
//!
//! Of a backup that begins meanwhile one of two things is true: its lease was there before the leases were read, and nothing that it
//! names goes; or the intent was there before it began, and it relies on nothing that the intent names.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use walseal_common::clock;
use walseal_common::repository::{
    Act, BaseId, IntentPage, IntentRecord, Ledger, ObjectName, Pruned as Gone, Repository, RepositoryError,
    RepositoryIdentity, RunId,
};
use walseal_common::seal::{SealError, WriterKey};
use walseal_common::segment::SegmentSize;
use walseal_common::store::{StoreError, StoreErrorKind};

use super::holdings::{Holdings, Sum};
use super::locks;
use super::plan::{Broken, Cause, Plan, Removal, stage};
use super::policy::Policy;
use super::veto::{Moving, WindowCommand};
use crate::archive::Archive;

/// Objects that are removed at the same time.
const AT_ONCE: usize = 8;

/// Removes what retention does not keep.
#[derive(Clone, Debug)]
pub struct Pruner {
    /// The repository, by credentials that may delete.
    pub repository: Repository,
    /// What it is.
    pub identity: RepositoryIdentity,
    /// Signs intents.
    pub writer: WriterKey,
    /// What is promised.
    pub policy: Policy,
    /// How old an announcement has to be.
    pub grace: Duration,
    /// Who hears that the window's start is about to move, and may say no.
    pub command: Option<WindowCommand>,
    /// Where it is recorded.
    pub ledger: Ledger,
}

/// What became of it.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// The newest plan.
    pub plan: Plan,
    /// What this run announced.
    pub announced: Sum,
    /// What it removed.
    pub removed: Sum,
    /// What goes, and was announced too short a time ago.
    pub waiting: Sum,
    /// When the next of that may go, in seconds since 1970 by the store's clock.
    pub next: Option<i64>,
    /// Objects that the store does not let go.
    pub refused: Vec<Refused>,
    /// Why nothing was removed, where the command of the configuration said no.
    pub vetoed: Option<String>,
}

/// An object that the store does not let go. It is passed over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refused {
    /// Which.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Until when, where the store tells.
    pub until: Option<Timestamp>,
    /// What it said.
    pub why: String,
}

/// It could not be planned, or not be done.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An object did not go. What went is gone; the same again goes on.
    #[error("{0}; what goes before it is gone, and the same again goes on from there")]
    Delete(StoreError),
    /// Nobody can tell what is locked. Nothing was removed.
    #[error("{0}; nothing was removed")]
    Lock(StoreError),
    /// I10.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The machine gives no random bytes.
    #[error(transparent)]
    Random(#[from] SealError),
}

impl PruneError {
    /// Whether the same may work later without anybody's doing.
    pub fn may_pass(&self) -> bool {
        match self {
            PruneError::Repository(error) => !error.is_permanent(),
            PruneError::Delete(error) | PruneError::Lock(error) => !error.is_permanent(),
            PruneError::Broken(_) => false,
            PruneError::Random(_) => true,
        }
    }
}

/// What came of removing one object.
enum Removed {
    Gone,
    Refused(Refused),
}

impl Pruner {
    /// By a configuration.
    pub fn of(
        archive: &Archive,
        repository: Repository,
        identity: RepositoryIdentity,
        grace: Duration,
        ledger: Ledger,
    ) -> Pruner {
        let retention = &archive.config.retention;
        let command = retention.before_window_moves.as_ref();
        let limit = retention.command_limit.value;
        Pruner {
            repository,
            identity,
            writer: archive.keys.writer.clone(),
            policy: Policy::of(retention),
            grace,
            command: command.map(|command| WindowCommand { command: command.value.clone(), limit }),
            ledger,
        }
    }

    /// Plans, and changes nothing.
    ///
    /// Errors: the repository; [`PruneError::Broken`].
    pub async fn plan(&self) -> Result<Plan, PruneError> {
        let mut holdings = Holdings::survey(&self.repository, &self.identity).await?;
        // Nothing is stored that would show the store's own time, and a file may be dated in the future.
        let store_now = holdings.newest.map(|newest| newest.min(Timestamp::now().as_second()));
        self.planned(&mut holdings, store_now).await
    }

    /// What goes, but for what the store does not let go yet.
    async fn planned(&self, holdings: &mut Holdings, store_now: Option<i64>) -> Result<Plan, PruneError> {
        let plan = self.plan_for(holdings, store_now)?;
        holdings.locked = locks::ask(&self.repository, &plan.removals, store_now).await.map_err(PruneError::Lock)?;
        Ok(if holdings.locked.is_empty() { plan } else { self.plan_for(holdings, store_now)? })
    }

    /// The lower of two clocks: one that is fast must not age anything (case 44).
    fn plan_for(&self, holdings: &Holdings, store_now: Option<i64>) -> Result<Plan, Broken> {
        let here = Timestamp::now();
        let there = store_now.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Plan::make(holdings, &self.policy, there.map_or(here, |there| there.min(here)), store_now)
    }

    /// Announces what goes, and removes what was announced long enough ago.
    ///
    /// Errors: the repository; [`PruneError::Broken`], before anything is removed.
    pub async fn prune(&self) -> Result<Pruned, PruneError> {
        let run = RunId::random()?;
        // An empty page shows the store's own time, where the store tells it.
        let empty = IntentRecord { names: Vec::new(), written: Timestamp::now() };
        let clock = self.repository.put_intent(run, 0, &empty, &self.writer).await?;
        let pages = self.repository.intents().await?;
        let mut holdings = Holdings::survey(&self.repository, &self.identity).await?;
        // It was stored just now; what else is there may have come from a clock that was wrong, and ages nothing.
        let store_now = clock.stored.or(holdings.newest);
        // A page that a clock dated which was ahead would not come of age before that time: it is announced anew (case 44).
        let (ahead, mut pages): (Vec<IntentPage>, Vec<IntentPage>) =
            pages.into_iter().partition(|page| is_ahead(page, store_now));
        for page in &ahead {
            if let Err(error) = self.repository.remove(&page.name).await {
                tracing::debug!(%error, "an intent of a clock that was ahead stays");
            }
        }
        let mut pruned = Pruned::of(self.planned(&mut holdings, store_now).await?);
        let fresh = self.announce(run, &pages, &mut pruned).await?;
        // Of what was announced before the leases were read, all is known. Of what was only announced now, a backup that began in
        // between knows nothing, and its lease is not among those: what goes at once is looked for once more.
        let again = !fresh.is_empty() && self.grace.is_zero();
        pages.extend(fresh);
        let (ripe_pages, young): (Vec<IntentPage>, Vec<IntentPage>) =
            pages.into_iter().partition(|page| self.is_ripe(page, store_now));
        let ripe: HashSet<String> = ripe_pages.iter().flat_map(|page| page.record.names.iter().cloned()).collect();
        let mut going = goes(&pruned.plan, &ripe);
        if again && !going.is_empty() {
            holdings = Holdings::survey(&self.repository, &self.identity).await?;
            pruned.plan = self.planned(&mut holdings, store_now).await?;
            going = goes(&pruned.plan, &ripe);
        }
        pruned.vetoed = self.veto(&holdings, &pruned.plan, &going).await?;
        if pruned.vetoed.is_some() {
            going.clear();
        }
        self.write_down(&holdings, &pruned.plan, &going).await?;
        // Whoever holds a backup looks for it in what was written down, after that: of the two, one sees the other.
        let held = if going.is_empty() { BTreeMap::new() } else { Holdings::held(&self.repository).await? };
        if held.iter().any(|(base, until)| holdings.holds.get(base) != Some(until)) {
            // One that was let go meanwhile is held until the next time.
            holdings.holds.extend(held);
            pruned.plan = self.planned(&mut holdings, store_now).await?;
            going = goes(&pruned.plan, &ripe);
            self.write_down(&holdings, &pruned.plan, &going).await?;
        }
        if !going.is_empty() {
            self.remove_ripe(holdings, &going, &ripe, store_now, &mut pruned).await?;
        }
        let left: HashSet<String> = pruned.plan.removals.iter().map(|one| one.name.to_string()).collect();
        for removal in &pruned.plan.removals {
            pruned.waiting.add(removal.size);
        }
        // What a lease keeps out of this plan may be in the next one: it stays announced, since when it was.
        let leased = pruned.plan.leased;
        let is_kept = |name: &String| left.contains(name) || (leased && name.starts_with("base/"));
        let is_left = |page: &&IntentPage| page.record.names.iter().any(is_kept);
        let stored = young.iter().filter(is_left).filter_map(|page| page.stored).min();
        let grace = i64::try_from(self.grace.as_secs()).unwrap_or(i64::MAX);
        pruned.next = stored.map(|stored| stored.saturating_add(grace));
        let all = ripe_pages.iter().chain(&young);
        let done: Vec<ObjectName> = all.filter(|page| !is_left(page)).map(|page| page.name.clone()).collect();
        for name in done {
            if let Err(error) = self.repository.remove(&name).await {
                tracing::debug!(%error, "an intent that is done with stays");
            }
        }
        Ok(pruned)
    }

    /// Writes down what goes, before the first of it does, so that at no moment anybody takes it for lost. What an earlier prune was
    /// about to remove, and did not, and what stays by this plan, is missed again from now on.
    async fn write_down(
        &self,
        holdings: &Holdings,
        plan: &Plan,
        going: &BTreeSet<ObjectName>,
    ) -> Result<(), PruneError> {
        let (missed, staying) = (missed(plan, going, holdings.size), staying(holdings, plan));
        self.repository.put_pruned(RunId::random()?, missed, &staying, &self.writer).await?;
        Ok(())
    }

    /// Why the command of the configuration keeps what is going, where it does. It may look at the repository: what stays is missed
    /// again before it is asked.
    async fn veto(
        &self,
        holdings: &Holdings,
        plan: &Plan,
        going: &BTreeSet<ObjectName>,
    ) -> Result<Option<String>, PruneError> {
        let Some(command) = self.command.as_ref().filter(|_| !going.is_empty()) else { return Ok(None) };
        let moving = Moving::of(&self.repository, holdings, &holdings.without(going));
        if !moving.moves() {
            return Ok(None);
        }
        self.write_down(holdings, plan, &BTreeSet::new()).await?;
        Ok(command.ask(&moving).await.err())
    }

    /// Whether what the page names was announced long enough ago.
    fn is_ripe(&self, page: &IntentPage, store_now: Option<i64>) -> bool {
        let age = page.stored.zip(store_now).map(|(stored, now)| now.saturating_sub(stored));
        let age = age.and_then(|age| u64::try_from(age).ok()).map(Duration::from_secs);
        self.grace.is_zero() || age.is_some_and(|age| age >= self.grace)
    }

    /// Writes down what goes and was not written down before.
    async fn announce(
        &self,
        run: RunId,
        pages: &[IntentPage],
        pruned: &mut Pruned,
    ) -> Result<Vec<IntentPage>, RepositoryError> {
        let known: HashSet<&str> = pages.iter().flat_map(|page| &page.record.names).map(String::as_str).collect();
        let mut fresh = Vec::new();
        for removal in pruned.plan.removals.iter().filter(|one| one.cause.is_announced()) {
            let name = removal.name.to_string();
            if !known.contains(name.as_str()) {
                pruned.announced.add(removal.size);
                fresh.push(name);
            }
        }
        let mut put = Vec::new();
        for (number, names) in (1..).zip(fresh.chunks(IntentRecord::MOST_NAMES)) {
            let record = IntentRecord { names: names.to_vec(), written: Timestamp::now() };
            put.push(self.repository.put_intent(run, number, &record, &self.writer).await?);
        }
        Ok(put)
    }

    /// Removes what is going, as it was written down. What is left of the plan is that of `pruned` afterwards.
    async fn remove_ripe(
        &self,
        mut holdings: Holdings,
        going: &BTreeSet<ObjectName>,
        ripe: &HashSet<String>,
        store_now: Option<i64>,
        pruned: &mut Pruned,
    ) -> Result<(), PruneError> {
        let mut plan = pruned.plan.clone();
        self.ledger.record(Act::PruneStarted {
            bases: plan.go.iter().filter(|id| going.contains(&ObjectName::Label((*id).clone()))).cloned().collect(),
            objects: going.len() as u64,
        });
        let started = self.remove_stages(&mut holdings, &mut plan, store_now, ripe, pruned).await;
        let Sum { objects, bytes } = pruned.removed;
        self.ledger.record(Act::PruneFinished { objects, bytes, refused: pruned.refused.len() as u64 });
        pruned.plan = plan;
        started
    }

    async fn remove_stages(
        &self,
        holdings: &mut Holdings,
        plan: &mut Plan,
        store_now: Option<i64>,
        ripe: &HashSet<String>,
        pruned: &mut Pruned,
    ) -> Result<(), PruneError> {
        let mut gone: BTreeSet<ObjectName> = BTreeSet::new();
        let first = of_stage(plan, 0, ripe);
        let refused = self.remove(&first, &mut gone, pruned).await?;
        if pruned.is_forbidden() {
            return Ok(());
        }
        if !refused.is_empty() {
            // Their backups stay, and all that they need: what goes is found anew.
            let stay = refused
                .iter()
                .filter_map(|name| if let ObjectName::Label(id) = name { Some(id.clone()) } else { None });
            holdings.holds.extend(stay.map(|id: BaseId| (id, Timestamp::MAX)));
            *holdings = holdings.without(&gone);
            *plan = self.plan_for(holdings, store_now)?;
            self.write_down(holdings, plan, &BTreeSet::new()).await?;
        }
        for later in 1..=3 {
            let now = of_stage(plan, later, ripe);
            self.remove(&now, &mut gone, pruned).await?;
        }
        plan.removals.retain(|one| !gone.contains(&one.name));
        Ok(())
    }

    /// Removes objects, those before others a little earlier. Returns those that the store does not let go; where it lets none go, no
    /// more than a few are tried.
    async fn remove(
        &self,
        removals: &[Removal],
        gone: &mut BTreeSet<ObjectName>,
        pruned: &mut Pruned,
    ) -> Result<Vec<ObjectName>, PruneError> {
        let mut refused = Vec::new();
        for batch in removals.chunks(AT_ONCE * 8) {
            if pruned.removed.objects == 0 && !pruned.refused.is_empty() {
                refused.extend(batch.iter().map(|one| one.name.clone()));
                continue;
            }
            let calls = batch.iter().cloned().map(|one| (self.repository.clone(), one));
            let calls =
                stream::iter(calls).map(|(repository, one)| async move { (remove_one(&repository, &one).await, one) });
            let mut calls = std::pin::pin!(calls.buffered(AT_ONCE));
            let mut failed = None;
            while let Some((removed, one)) = calls.next().await {
                match removed {
                    Ok(Removed::Gone) => {
                        pruned.removed.add(one.size);
                        gone.insert(one.name.clone());
                    }
                    Ok(Removed::Refused(why)) => {
                        pruned.refused.push(why);
                        refused.push(one.name.clone());
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                return Err(PruneError::Delete(error));
            }
        }
        Ok(refused)
    }
}

/// What of `going` would be missed: base backups and WAL. Of a segment all, whatever of it goes.
fn missed(plan: &Plan, going: &BTreeSet<ObjectName>, size: SegmentSize) -> Gone {
    let mut missed = Gone::default();
    for Removal { cause, name, .. } in plan.removals.iter().filter(|one| going.contains(&one.name)) {
        match name {
            ObjectName::Label(id) => missed.add_base(id.clone()),
            ObjectName::Wal(branch, segment, _)
            | ObjectName::Partial(branch, segment)
            | ObjectName::Tail(branch, segment, _)
                if *cause == Cause::Wal =>
            {
                if let Some(number) = segment.number(size) {
                    missed.add_wal(*branch, number.range(size));
                }
            }
            _ => {}
        }
    }
    missed
}

/// What is there and stays: base backups, and WAL, but for segments of which anything goes.
fn staying(holdings: &Holdings, plan: &Plan) -> Gone {
    let all: BTreeSet<ObjectName> = plan.removals.iter().map(|one| one.name.clone()).collect();
    let left = holdings.without(&all);
    let mut staying = Gone::default();
    left.bases.iter().for_each(|base| staying.add_base(base.id.clone()));
    for (branch, held) in &left.branches {
        let whole = held.extents.iter().filter(|extent| !extent.is_empty());
        whole.for_each(|extent| staying.add_wal(*branch, holdings.size.around(extent.start, extent.end)));
    }
    staying.leave_out(&missed(plan, &all, holdings.size));
    staying
}

/// Errors: the store does not answer. That it does not let the object go is an answer.
async fn remove_one(repository: &Repository, one: &Removal) -> Result<Removed, StoreError> {
    match repository.remove(&one.name).await {
        Ok(()) => Ok(Removed::Gone),
        Err(error) if error.kind == StoreErrorKind::Denied => {
            // A store that says of no object that it is locked may do so of this one; one that says nothing is no reason to give up.
            let lock = repository.lock(&one.name).await.unwrap_or_default();
            let until = lock.until.and_then(|until| Timestamp::from_second(until).ok());
            Ok(Removed::Refused(Refused { name: one.name.to_string(), bytes: one.size, until, why: error.reason }))
        }
        Err(error) => Err(error),
    }
}

/// Whether the store dates the page later than now.
fn is_ahead(page: &IntentPage, store_now: Option<i64>) -> bool {
    let ahead = page.stored.zip(store_now).map(|(stored, now)| stored.saturating_sub(now));
    ahead.is_some_and(|ahead| ahead > clock::APART.as_secs())
}

/// What of a plan may go.
fn goes(plan: &Plan, ripe: &HashSet<String>) -> BTreeSet<ObjectName> {
    plan.removals.iter().filter(|one| may_go(ripe, one)).map(|one| one.name.clone()).collect()
}

/// What of a plan may go in a stage.
fn of_stage(plan: &Plan, which: u8, ripe: &HashSet<String>) -> Vec<Removal> {
    plan.removals.iter().filter(|one| stage(&one.name) == which && may_go(ripe, one)).cloned().collect()
}

/// Whether it was announced long enough ago, where it has to be.
fn may_go(ripe: &HashSet<String>, removal: &Removal) -> bool {
    !removal.cause.is_announced() || ripe.contains(&removal.name.to_string())
}

impl Pruned {
    fn of(plan: Plan) -> Pruned {
        let (announced, removed, waiting) = (Sum::default(), Sum::default(), Sum::default());
        Pruned { plan, announced, removed, waiting, next: None, refused: Vec::new(), vetoed: None }
    }

    /// Whether the store lets nothing go at all.
    pub fn is_forbidden(&self) -> bool {
        self.removed.objects == 0 && !self.refused.is_empty()
    }
}
