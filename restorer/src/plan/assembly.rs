//! From a decision to the plan: neighbours of the stopping point, the path, the cost, the warnings.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::timeline::{Branch, TimelineId};

use super::hole::Hole;
use super::inventory::InventoryError;
use super::path::{Path, Step};
use super::planner::{Decision, Planner};
use super::reader::PathReader;
use super::refusal::PlanError;
use super::{
    Action, Cost, PLAN_SCHEMA, PassedOver, PathStep, Plan, PlannedBase, Target, TransactionPoint, recovery_settings,
    surplus,
};

impl Planner<'_> {
    pub(super) async fn assemble(&self, reader: &PathReader<'_>, decision: Decision<'_>) -> Result<Plan, PlanError> {
        let path = reader.path();
        // The inventory has it without its objects.
        let label = self.repository.label(&decision.base.id).await.map_err(InventoryError::from)?;
        let (base, stop) = (&label, decision.stop);
        let end = path.contiguous_end(base.start);
        let size = path.size();
        // Names are hints; the headers at both ends are read and verified.
        let (first, last) = (size.number(base.start), size.number(Lsn(stop.0.saturating_sub(1))));
        reader.verify(&[first, last]).await?;
        let last_before = reader.last_transaction(LsnRange { start: base.start, end: stop }).await?;
        let after = LsnRange { start: stop, end: end.max(stop) };
        let first_after = match self.request.target {
            // What comes after the latest moment is not there yet.
            Target::Latest => None,
            _ => reader.first_transaction(after, |_| true, |hint| hint.count == 0).await?,
        };
        let proven = first_after.map_or(end, |first| first.end.max(stop));
        let steps = steps(path, base.branch, base.start, proven);
        let segments = (last.0 + 1).saturating_sub(first.0);
        let objects = base.objects.iter().chain(&base.manifest);
        let base_objects = (base.objects.len() + base.manifest.len()) as u64;
        let cost = Cost {
            base_objects,
            requests: base_objects + segments,
            base_bytes: objects.map(|object| object.size).sum(),
            wal_segments: segments,
            wal_bytes: stop.bytes_since(base.start),
            disk_bytes: base.cluster_size.saturating_add(segments.saturating_mul(size.bytes())),
        };
        let newer = self.inventory.unusable.iter().rev().filter(|unusable| unusable.id > base.id);
        let mut passed_over: Vec<PassedOver> =
            newer.map(|unusable| PassedOver { id: unusable.id.clone(), why: unusable.why.clone() }).collect();
        passed_over.extend(self.elsewhere(path, &decision));
        passed_over.extend(decision.passed_over);
        let mut plan = Plan {
            version: PLAN_SCHEMA.version,
            cluster: self.inventory.identity.cluster,
            repository: self.inventory.store.clone(),
            segment_size: size,
            request: self.request.clone(),
            base: PlannedBase {
                id: base.id.clone(),
                kind: base.kind,
                parent: base.parent.clone(),
                stored_size: base.stored_size,
                referenced_size: base.referenced_size(),
                branch: base.branch,
                start: base.start,
                stop: base.stop,
                start_time: base.start_time,
                stop_time: base.stop_time,
                postgres_version: base.postgres_version,
                tablespaces: base.tablespaces,
                suspect: base.suspect,
            },
            passed_over,
            histories: histories(path),
            path: steps,
            stop,
            recovery: Vec::new(),
            last_before,
            first_after,
            gaps: self.holes(path),
            cost,
            warnings: self.warnings(path, &decision.base.id, base.suspect, stop, last_before),
        };
        // PostgreSQL takes its target timeline for the parent of the one that it makes, whether that had begun by then or not: the
        // timeline that holds what is read last, as it looks for it.
        let last_read = plan.read_through().map(|through| size.number(Lsn(through.0.saturating_sub(1))));
        let step = last_read.and_then(|number| path.branch_of(number));
        let timeline = step.map_or(path.branch(), |step| step.branch).timeline;
        plan.recovery = recovery_settings(self.request, timeline);
        Ok(plan)
    }

    /// Newer base backups that do not lie on the path, newest first.
    fn elsewhere(&self, path: &Path<'_>, decision: &Decision<'_>) -> Vec<PassedOver> {
        let newer = self.inventory.bases.iter().rev().filter(|other| other.id > decision.base.id);
        newer.filter_map(|other| path.excludes(other).map(|why| PassedOver { id: other.id.clone(), why })).collect()
    }

    /// What is missing on the path, as far as it was listed; records of gaps in any case.
    fn holes(&self, path: &Path<'_>) -> Vec<Hole> {
        let mut holes = path.holes();
        if let Some(scope) = &self.inventory.scope {
            holes.retain(|hole| hole.record.is_some() || scope.covers(hole.branch, hole.range, path.size()));
        }
        holes
    }

    fn warnings(
        &self,
        path: &Path<'_>,
        base: &walseal_common::repository::BaseId,
        suspect: u64,
        stop: Lsn,
        last_before: Option<TransactionPoint>,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        if suspect > 0 {
            let older = self.inventory.bases.iter().rev().find(|other| other.suspect == 0 && other.id < *base);
            let instead = older.map_or_else(String::new, |older| format!("; a sound one: --base {}", older.id));
            warnings.push(format!(
                "The server reported {suspect} page checksum failure(s) while base backup {base} was made{instead}."
            ));
        }
        for unusable in self.inventory.unusable.iter().filter(|unusable| unusable.id > *base) {
            warnings.push(format!("The newer base backup {} cannot be used: {}.", unusable.id, unusable.why));
        }
        let facts = path.steps.iter().filter_map(|step| path.facts(step));
        for (held, damage) in facts.flat_map(|facts| &facts.damaged) {
            warnings.push(format!(
                "The WAL from {} to {} cannot be used ({damage}); this restore does not need it.",
                held.start, held.end
            ));
        }
        for step in path.steps.iter().filter(|step| step.branch != path.branch()) {
            let missing = path.facts(step).and_then(|facts| facts.history.as_ref().err());
            if let Some(why) = missing {
                warnings.push(format!(
                    "The history of the ancestor {} cannot be read ({why}); it is derived from its child's.",
                    step.branch
                ));
            }
        }
        for other in self.other_branches(path) {
            let left = self.inventory.branches.get(&other).filter(|facts| facts.known_end > stop);
            if let (Some(facts), Target::Lsn(_)) = (left, &self.request.target) {
                warnings.push(format!(
                    "Branch {other} reaches that position too (to {}); it can be chosen with --timeline {other}.",
                    facts.known_end
                ));
            }
        }
        if self.request.target == Target::Latest
            && let Some(surplus) = path.surplus()
        {
            warnings.push(format!("{}.", surplus::words(&surplus, path.known_end())));
        }
        if self.request.target == Target::Latest && self.request.action != Action::Promote {
            warnings.push(format!(
                "Recovery to the latest moment has no target to {} at: PostgreSQL promotes when the WAL ends.",
                self.request.action
            ));
        }
        if last_before.is_none() && self.request.target != Target::Immediate {
            warnings.push("No transaction ended between the base backup's start and the target.".to_owned());
        }
        warnings
    }
}

/// The branches of the path whose history file was read.
fn histories(path: &Path<'_>) -> Vec<Branch> {
    let read = |step: &&Step| path.facts(step).is_some_and(|facts| facts.history.is_ok());
    let made = path.steps.iter().filter(|step| step.branch.timeline != TimelineId::FIRST);
    made.filter(read).map(|step| step.branch).collect()
}

/// The path as the plan keeps it.
fn steps(path: &Path<'_>, base_branch: walseal_common::timeline::Branch, start: Lsn, end: Lsn) -> Vec<PathStep> {
    let at_base = path.steps.iter().position(|step| step.branch == base_branch).unwrap_or(0);
    path.steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let to = step.switch.unwrap_or(end.max(step.begin));
            let from = match index.cmp(&at_base) {
                std::cmp::Ordering::Less => to,
                std::cmp::Ordering::Equal => start,
                std::cmp::Ordering::Greater => step.begin,
            };
            let known_end = path.facts(step).map_or(step.begin, |facts| facts.known_end.max(step.begin));
            PathStep { branch: step.branch, timeline: step.branch.timeline, from, to, known_end }
        })
        .collect()
}
