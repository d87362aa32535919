//! Choosing: the timeline, the base backup, where recovery stops; and proving that the WAL in between is there.

use std::time::Duration;

use walseal_common::lsn::Lsn;
use walseal_common::repository::{Label, Repository};
use walseal_common::seal::Identity;
use walseal_common::terminal::Progress;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::Branch;

use super::branches::End;
use super::holding::Holding;
use super::inventory::Inventory;
use super::path::{Path, Step};
use super::reader::{PathReader, ReadError};
use super::refusal::PlanError;
use super::target::TargetError;
use super::{PassedOver, Plan, Request, Target, TransactionPoint, branches};

/// Segments that are read to tell which of two branches lived longer.
const RECENT: u64 = 4;

/// How often a repository with a gap is looked at again, and how long is waited before: an archiver that is at work puts
/// several objects at once, so that for a moment a later one can be there without an earlier one.
const MORE_LOOKS: usize = 2;
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

/// Plans a restore: reads the repository, decides, proves. Writes nothing.
///
/// Errors: every refusal says what to do instead; see [`PlanError`].
pub async fn plan(
    repository: &Repository,
    identities: &[Identity],
    request: &Request,
    progress: Option<&Progress>,
) -> Result<Plan, PlanError> {
    plan_patiently(repository, identities, request, progress, BETWEEN_LOOKS).await
}

/// As [`plan`], waiting `between` looks at a repository that has a gap.
pub(super) async fn plan_patiently(
    repository: &Repository,
    identities: &[Identity],
    request: &Request,
    progress: Option<&Progress>,
    between: Duration,
) -> Result<Plan, PlanError> {
    if request.exclusive && !request.target.can_be_exclusive() {
        return Err(TargetError::NotExclusive(request.target.to_string()).into());
    }
    let narrow = Inventory::about(repository, identities, Some(request)).await?;
    if let Some(scope) = &narrow.scope {
        let planned = Planner { repository, identities, inventory: &narrow, request, progress }.plan().await;
        match planned {
            Ok(plan) if scope.suffices(&plan) && !is_unsettled(&Ok(plan.clone()), &narrow) => return Ok(plan),
            Err(error) if !error.is_permanent() => return Err(error),
            // More than was thought is needed, or something is wrong: then everything is looked at.
            _ => {}
        }
    }
    let mut whole = if narrow.scope.is_none() { Some(narrow) } else { None };
    let mut looks = 0;
    loop {
        let mut inventory = match whole.take() {
            Some(inventory) => inventory,
            None => Inventory::read(repository, identities).await?,
        };
        let planned = loop {
            let planned = Planner { repository, identities, inventory: &inventory, request, progress }.plan().await;
            // An object that is of no use is a hole: perhaps there is a way that does not need it.
            match &planned {
                Err(PlanError::Read(ReadError::Damaged(found))) if inventory.leave_out(repository, found).await? => {}
                Err(PlanError::Read(ReadError::Contradicted { branch, .. })) if inventory.leave_out_pages(*branch) => {}
                _ => break planned,
            }
        };
        if looks == MORE_LOOKS || !is_unsettled(&planned, &inventory) {
            return planned;
        }
        looks += 1;
        if let Some(progress) = progress {
            progress.message("WAL is not all there; looking again, in case it is being stored right now");
        }
        tokio::time::sleep(between).await;
    }
}

/// Whether a moment later there may be more, if an archiver is at work.
fn is_unsettled(planned: &Result<Plan, PlanError>, inventory: &Inventory) -> bool {
    let has_surplus = || inventory.branches.values().any(|facts| facts.surplus.is_some());
    match planned {
        // What is on record as lost does not arrive by waiting.
        Err(PlanError::Gap(gap)) => gap.holes.is_empty() || gap.holes.iter().any(|hole| hole.record.is_none()),
        Err(PlanError::TimeAfterEnd { .. } | PlanError::LsnAfterEnd { .. }) => has_surplus(),
        Ok(plan) => plan.request.target == Target::Latest && has_surplus(),
        Err(_) => false,
    }
}

/// Everything that decisions are made from.
pub struct Planner<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// What opens its objects.
    pub identities: &'a [Identity],
    /// What it holds.
    pub inventory: &'a Inventory,
    /// What is asked.
    pub request: &'a Request,
    /// Told of WAL that is read.
    pub progress: Option<&'a Progress>,
}

/// A base backup and the point to which recovery goes from it.
pub(super) struct Decision<'a> {
    pub(super) base: &'a Label,
    pub(super) stop: Lsn,
    pub(super) passed_over: Vec<PassedOver>,
}

impl<'a> Planner<'a> {
    /// Makes the plan.
    ///
    /// Errors: see [`PlanError`].
    pub async fn plan(&self) -> Result<Plan, PlanError> {
        if self.inventory.bases.is_empty() {
            let unusable = self.unusable();
            return Err(PlanError::NoBase { store: self.inventory.store.clone(), unusable });
        }
        if let Some(wanted) = &self.request.base
            && !self.inventory.bases.iter().any(|base| base.id == *wanted)
        {
            let known = self.inventory.bases.iter().map(|base| base.id.clone()).collect();
            return Err(PlanError::NoSuchBase { wanted: wanted.clone(), known });
        }
        if let Some(choice) = self.request.timeline {
            return self.plan_on(&branches::chosen(self.inventory, choice)?).await;
        }
        let found = branches::ends(self.inventory);
        if let Some(error) = found.unreadable.into_iter().next() {
            return Err(error);
        }
        let (abandoned, mut ends): (Vec<End>, Vec<End>) =
            found.ends.into_iter().partition(|end| end.is_abandoned(self.inventory));
        if ends.len() > 1 {
            ends = self.newest_first(ends).await?;
        }
        if matches!(self.request.target, Target::Time(_)) && ends.len() + abandoned.len() > 1 {
            let plan = self.plan_time_on_all(&ends).await?;
            return self.unless_abandoned_too(plan, &abandoned).await;
        }
        match ends.split_first() {
            Some((newest, others)) => {
                let mut plan = self.plan_on(newest).await?;
                plan.warnings.extend(self.left(newest, others));
                Ok(plan)
            }
            None => Err(PlanError::NoBase { store: self.inventory.store.clone(), unusable: self.unusable() }),
        }
    }

    /// The timeline that a request without a target of its own goes to: the one that it names, or the newest of the living ones.
    ///
    /// Errors: none such; its history is not readable.
    pub async fn end(&self) -> Result<End, PlanError> {
        if let Some(choice) = self.request.timeline {
            return branches::chosen(self.inventory, choice);
        }
        let found = branches::ends(self.inventory);
        if let Some(error) = found.unreadable.into_iter().next() {
            return Err(error);
        }
        let mut ends: Vec<End> = found.ends.into_iter().filter(|end| !end.is_abandoned(self.inventory)).collect();
        if ends.len() > 1 {
            ends = self.newest_first(ends).await?;
        }
        let none = || PlanError::NoBase { store: self.inventory.store.clone(), unusable: self.unusable() };
        ends.into_iter().next().ok_or_else(none)
    }

    fn unusable(&self) -> Vec<PassedOver> {
        let unusable = self.inventory.unusable.iter().rev();
        unusable.map(|base| PassedOver { id: base.id.clone(), why: base.why.clone() }).collect()
    }

    /// Sorts by the highest time that the last WAL of each branch tells: times of WAL come from its records (case 44).
    async fn newest_first(&self, ends: Vec<End>) -> Result<Vec<End>, PlanError> {
        let mut timed: Vec<(Option<PgTimestamp>, End)> = Vec::new();
        for end in ends {
            let path = Path::new(&end, self.inventory);
            let reader = PathReader::new(self.repository, self.identities, &path, self.progress);
            let time = match path.extents.last() {
                Some(extent) => reader.latest_time(*extent, RECENT).await?,
                None => None,
            };
            timed.push((time, end));
        }
        timed.sort_by_key(|(time, end)| std::cmp::Reverse((*time, end.branch.timeline)));
        Ok(timed.into_iter().map(|(_, end)| end).collect())
    }

    /// A warning for each of `others` that left `chosen`, or went back to before that had begun: by PostgreSQL's own rule it would be the
    /// one to follow, but until the new primary has committed something the newest commit is the old one's.
    fn left(&self, chosen: &End, others: &[End]) -> impl Iterator<Item = String> {
        let (branch, chosen) = (chosen.branch, chosen.way(self.inventory));
        others.iter().filter_map(move |other| {
            let way = other.way(self.inventory);
            let (old, new) = (branch.timeline.number(), other.branch);
            let how = match way.iter().find(|step| step.branch == branch) {
                Some(left) => format!("left timeline {old} at {}, as in a failover", left.switch?),
                None if new.timeline > branch.timeline => {
                    let shared = way.iter().zip(&chosen).take_while(|(one, other)| one.branch == other.branch);
                    let (last, _) = shared.last()?;
                    format!("went back to {}, before timeline {old} began", last.switch?)
                }
                None => return None,
            };
            Some(format!(
                "timeline {} {how}, but its last commit is older than that of timeline {old}, which is taken; to follow it: \
                 --timeline {new}",
                new.timeline.number()
            ))
        })
    }

    /// A time may lie on several branches: refused unless only one reaches it, or all reach the same point of the WAL that
    /// they share.
    async fn plan_time_on_all(&self, ends: &[End]) -> Result<Plan, PlanError> {
        let mut plans: Vec<Plan> = Vec::new();
        let mut refusal = None;
        for end in ends {
            match self.plan_on(end).await {
                Ok(plan) => plans.push(plan),
                Err(error) if !error.is_permanent() => return Err(error),
                // Without the object there may be another way.
                Err(error @ PlanError::Read(ReadError::Damaged(_))) => return Err(error),
                // On the newest branch the time may well lie in what is missing: no reason to land on an older one unasked.
                Err(error @ PlanError::Gap(_)) if plans.is_empty() && refusal.is_none() => return Err(error),
                // The newest branch's refusal is the one that is shown.
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        let outcome = |plan: &Plan| (branch_at(plan, plan.stop), plan.stop);
        if plans.iter().any(|plan| plans.first().map(outcome) != Some(outcome(plan))) {
            let outcomes = plans.iter().filter_map(landing).collect();
            return Err(PlanError::TwoBranches { target: self.request.target.clone(), outcomes });
        }
        match (plans.into_iter().next(), refusal) {
            (Some(plan), _) => Ok(plan),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(PlanError::NoBase { store: self.inventory.store.clone(), unusable: self.unusable() }),
        }
    }

    /// The plan, unless the time lies on a branch of another server than the living one, too, and leads elsewhere there (case 17).
    async fn unless_abandoned_too(&self, plan: Plan, abandoned: &[End]) -> Result<Plan, PlanError> {
        let mut outcomes: Vec<(Branch, String)> = landing(&plan).into_iter().collect();
        for end in abandoned {
            match self.plan_on(end).await {
                // Before the split both hold the same.
                Ok(other) if (other.stop, other.last_before) == (plan.stop, plan.last_before) => {}
                Ok(other) => outcomes.extend(landing(&other)),
                Err(error) if !error.is_permanent() => return Err(error),
                // It does not lie there, or cannot be had.
                Err(_) => {}
            }
        }
        match outcomes.len() {
            0 | 1 => Ok(plan),
            _ => Err(PlanError::TwoBranches { target: self.request.target.clone(), outcomes }),
        }
    }

    async fn plan_on(&self, end: &End) -> Result<Plan, PlanError> {
        let path = Path::new(end, self.inventory);
        let reader = PathReader::new(self.repository, self.identities, &path, self.progress);
        let bases = self.bases_on(&path)?;
        let decision = match &self.request.target {
            Target::Latest => self.to_latest(&reader, bases).await?,
            Target::Immediate => self.to_immediate(&reader, bases).await?,
            Target::Time(time) => self.to_time(&reader, bases, *time).await?,
            Target::Lsn(lsn) => self.to_lsn(&reader, bases, *lsn).await?,
            Target::Xid(xid) => {
                let stop = self.transaction(&reader, &bases, *xid).await?;
                self.to_position(&reader, bases, stop).await?
            }
            Target::Name(name) => {
                let stop = self.restore_point(&reader, &bases, name).await?;
                self.to_position(&reader, bases, stop).await?
            }
        };
        self.assemble(&reader, decision).await
    }

    /// The base backups on the path, newest first; or just the one that was asked for.
    fn bases_on(&self, path: &Path<'a>) -> Result<Vec<&'a Label>, PlanError> {
        let mut bases: Vec<&'a Label> = Vec::new();
        let mut off_path = Vec::new();
        for base in self.inventory.bases.iter().rev() {
            let wanted = self.request.base.as_ref().is_none_or(|wanted| *wanted == base.id);
            match path.excludes(base) {
                Some(why) if wanted && self.request.base.is_some() => return Err(self.unfit(base, why)),
                Some(why) => off_path.push(PassedOver { id: base.id.clone(), why }),
                None if wanted => bases.push(base),
                None => {}
            }
        }
        if bases.is_empty() {
            return Err(PlanError::NoBaseFits {
                target: self.request.target.clone(),
                branch: path.branch(),
                passed_over: off_path,
                earliest:
                    "Choose another timeline with --timeline, or make a base backup with: walseal-archiver backup"
                        .to_owned(),
            });
        }
        // Positions order the backups of one path; clocks do not (case 44).
        bases.sort_by_key(|base| std::cmp::Reverse((base.stop, base.id.clone())));
        Ok(bases)
    }

    pub(super) fn unfit(&self, base: &Label, why: String) -> PlanError {
        PlanError::BaseUnfit { id: base.id.clone(), target: self.request.target.clone(), why }
    }

    /// No base backup of the path fits.
    pub(super) async fn none_fits(
        &self,
        reader: &PathReader<'_>,
        bases: &[&Label],
        passed_over: Vec<PassedOver>,
    ) -> PlanError {
        if let ([only], [reason], Some(_)) = (bases, passed_over.as_slice(), &self.request.base) {
            return self.unfit(only, reason.why.clone());
        }
        let path = reader.path();
        let reachable = |base: &&&Label| path.contiguous_end(base.start) >= base.stop;
        let earliest = match bases.iter().rev().find(reachable) {
            Some(first) => {
                let time = match reader.holding(first, |_| false).await {
                    Ok(Holding::Transaction(time)) => format!(" (the last transaction there is of {time})"),
                    Ok(Holding::Checkpoint(time)) => format!(" (all there ended by {time})"),
                    Ok(Holding::Unknown) => String::new(),
                    Err(error) => return error.into(),
                };
                format!(
                    "The earliest point that can be reached is {}{time}: --to immediate --base {}{}",
                    first.stop,
                    first.id,
                    self.request.timeline_flag()
                )
            }
            None => "None of them has its own WAL, so that nothing on this timeline can be reached".to_owned(),
        };
        let target = self.request.target.clone();
        let mut passed_over = passed_over;
        passed_over.extend(self.unusable().into_iter().map(|base| {
            let why = format!("nobody knows where it is complete: {}", base.why);
            PassedOver { id: base.id, why }
        }));
        PlanError::NoBaseFits { target, branch: path.branch(), passed_over, earliest }
    }

    /// Other branches than the path's, for messages.
    pub(super) fn other_branches(&self, path: &Path<'_>) -> Vec<Branch> {
        let mut others = branches::known(self.inventory);
        // Beyond the place where the way leaves it for the living server's, a branch on the way holds another server's WAL.
        let left = |step: &Step| {
            let adopted = self.inventory.adoptions.iter().find(|(_, adoption)| adoption.branch == step.branch);
            let beyond = |from: Lsn| path.facts(step).is_some_and(|facts| facts.known_end > from);
            adopted.is_some_and(|(_, adoption)| step.switch == Some(adoption.from) && beyond(adoption.from))
        };
        others.retain(|branch| path.step(*branch).is_none_or(left));
        others
    }
}

/// The branch that a plan ends on, and where it lands there.
fn landing(plan: &Plan) -> Option<(Branch, String)> {
    let words = match &plan.last_before {
        Some(last) => format!("the last transaction would be {} of {}", last.xid, last.time),
        None => "with no transaction since its base backup".to_owned(),
    };
    Some((plan.path.last()?.branch, words))
}

/// The branch on a plan's path that the byte at `lsn` lies on.
fn branch_at(plan: &Plan, lsn: Lsn) -> Option<Branch> {
    let last = plan.path.len().checked_sub(1)?;
    let step = plan.path.iter().enumerate().find(|(at, step)| *at == last || lsn <= step.to);
    step.map(|(_, step)| step.branch)
}

/// Why a base backup is passed over for a target at `stop`.
pub(super) fn stops_late(base: &Label) -> PassedOver {
    PassedOver { id: base.id.clone(), why: format!("it is complete only at {}, after the target", base.stop) }
}

/// Why a base backup is passed over for a target time.
pub(super) fn holds_later(base: &Label, later: &TransactionPoint) -> PassedOver {
    let why = format!(
        "it is complete only at {}, and holds transaction {} of {}, later than the target",
        base.stop, later.xid, later.time
    );
    PassedOver { id: base.id.clone(), why }
}

/// Why a base backup is passed over for a target time although no later transaction is known in its own WAL.
pub(super) fn may_hold_later(base: &Label, holding: Holding) -> PassedOver {
    let held = match holding {
        Holding::Transaction(time) => format!("holds a transaction of {time}, later than the target"),
        Holding::Checkpoint(time) => {
            format!("may hold later transactions than the target: all that is known is that they ended by {time}")
        }
        Holding::Unknown => "may hold later transactions than the target: nothing tells when they ended".to_owned(),
    };
    PassedOver { id: base.id.clone(), why: format!("it is complete only at {}, and {held}", base.stop) }
}
