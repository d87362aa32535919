//! Histories of timelines, and what a timeline's number means by them.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{join, try_join};
use walseal_common::repository::Adoptions;
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

use super::{FetchError, Fetcher, Found};

/// Histories that are read ahead.
const MOST_AT_ONCE: usize = 64;

impl Fetcher {
    /// A timeline's history, byte for byte as it is stored (case 2). PostgreSQL also probes for histories to learn which
    /// numbers are taken; a number that anybody took must not look free.
    ///
    /// A probe that finds nothing takes the time of one call.
    pub(super) async fn history(&self, timeline: TimelineId) -> Result<Found, FetchError> {
        if timeline == TimelineId::FIRST {
            return Ok(Found::NotThere("timeline 1 has no history".to_owned()));
        }
        let branch = match self.route.origin(timeline) {
            Some(branch) => branch,
            None => {
                let repository = &self.repository;
                let (proof, adoptions, named) =
                    join!(self.prove_repository(), repository.adoptions(), repository.branches_of(timeline));
                match self.decide(timeline, &adoptions?, &named?).await {
                    Ok(Some(branch)) => branch,
                    Ok(None) => {
                        proof?;
                        return Ok(Found::NotThere(format!("nobody made timeline {}", timeline.number())));
                    }
                    // A plan names every timeline whose content matters; of another one only that it exists does.
                    Err(FetchError::AmbiguousTimeline { timeline, branches }) if self.route.is_planned() => {
                        let last = branches.last().copied();
                        last.ok_or(FetchError::AmbiguousTimeline { timeline, branches })?
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Found::File { bytes: self.history_content(branch).await?, is_final: true })
    }

    /// The histories of timelines after `timeline` that are in the repository, where a number means one thing: what PostgreSQL
    /// is about to probe for. One listing, one get for each.
    ///
    /// Errors: the store; an object that is not what it should be. What cannot be told is left out.
    pub(super) async fn later_histories(
        &self,
        timeline: TimelineId,
    ) -> Result<BTreeMap<TimelineId, Vec<u8>>, FetchError> {
        let (adoptions, named) = try_join!(self.repository.adoptions(), self.repository.branches_with_history())?;
        let later: BTreeSet<TimelineId> =
            named.iter().map(|branch| branch.timeline).filter(|one| *one > timeline).take(MOST_AT_ONCE).collect();
        let mut found = BTreeMap::new();
        for timeline in later {
            let branch = match self.route.origin(timeline) {
                Some(branch) => Ok(Some(branch)),
                None => self.decide(timeline, &adoptions, &named).await,
            };
            if let Ok(Some(branch)) = branch {
                found.insert(timeline, self.history_content(branch).await?);
            }
        }
        Ok(found)
    }

    /// The branch of `timeline` by its history alone; `None` where nobody made it.
    ///
    /// Errors: several, and no plan that chose one.
    pub(super) async fn origin(
        &self,
        timeline: TimelineId,
        adoptions: &Adoptions,
    ) -> Result<Option<Branch>, FetchError> {
        if timeline == TimelineId::FIRST {
            return Ok(Some(TimelineHistory::root(timeline).branch(self.repository.cluster())));
        }
        self.decide(timeline, adoptions, &self.repository.branches_of(timeline).await?).await
    }

    /// Which of `named` is the branch of `timeline` by its history: of several, the one that comes from where a plan ends.
    ///
    /// Errors: several; the store.
    async fn decide(
        &self,
        timeline: TimelineId,
        adoptions: &Adoptions,
        named: &[Branch],
    ) -> Result<Option<Branch>, FetchError> {
        let named = named.iter().filter(|branch| branch.timeline == timeline);
        let found: BTreeSet<Branch> = named.map(|branch| adoptions.origin(*branch)).collect();
        let branches: Vec<Branch> = found.into_iter().collect();
        if branches.len() < 2 {
            return Ok(branches.into_iter().next());
        }
        let mut descendants = Vec::new();
        if let Some(end) = self.planned_end() {
            for branch in &branches {
                match self.repository.history(*branch, &self.identities).await {
                    Ok(history) if self.comes_from(&history, end) => descendants.push(*branch),
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        match descendants.as_slice() {
            [one] => Ok(Some(*one)),
            _ => Err(FetchError::AmbiguousTimeline { timeline, branches }),
        }
    }

    /// The branch, by its history, of the timeline that a plan ends on.
    fn planned_end(&self) -> Option<Branch> {
        self.route.end().and_then(|end| self.route.origin(end.timeline))
    }

    fn comes_from(&self, history: &TimelineHistory, end: Branch) -> bool {
        let ancestor = history.ancestor(end.timeline);
        ancestor.is_some_and(|ancestor| ancestor.branch(self.repository.cluster()) == end)
    }

    async fn history_content(&self, branch: Branch) -> Result<Vec<u8>, FetchError> {
        let missing = match self.repository.history_file(branch, &self.identities).await {
            Ok((_, content)) => return Ok(content),
            Err(error) if error.is_not_found() => error,
            Err(error) => return Err(error.into()),
        };
        // An ancestor's stands in its child's.
        let Some(end) = self.planned_end().filter(|end| *end != branch) else {
            return Err(FetchError::HistoryMissing { branch, source: missing });
        };
        let derived = match self.repository.history(end, &self.identities).await {
            Ok(child) => child.ancestor(branch.timeline),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        match derived.filter(|history| history.branch(self.repository.cluster()) == branch) {
            Some(history) => Ok(history.render()),
            None => Err(FetchError::HistoryMissing { branch, source: missing }),
        }
    }
}
