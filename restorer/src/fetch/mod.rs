//! `restore_command`: one file of WAL, whole, or the proof that there is none (case 1).
//!
//! PostgreSQL takes "there is no such file" for the end of WAL, after which it may promote. So [`Outcome::NotThere`] is a
//! statement about the whole branch, made by [`proof`] alone (I6); everything that is merely not known is a
//! [`FetchError`], and ends recovery.
//!
//! | module | holds |
//! | --- | --- |
//! | [`route`] | which branch a file name means |
//! | [`proof`] | that nothing is known there |
//! | [`delivery`] | the file, whole and durable |
//! | [`patience`] | how long is tried, and what a standby is told |
//! | [`place`] | the data directory that PostgreSQL runs us in |

mod delivery;
mod error;
mod patience;
mod place;
mod proof;
mod route;

use std::collections::BTreeSet;
use std::path::Path;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Adoptions, ObjectName, Repository, RepositoryError};
use walseal_common::seal::Identity;
use walseal_common::segment::{SegmentName, SegmentSize, WalFileName};
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};
use walseal_common::wal::{ExpectedHeader, check_segment_header};

pub use error::FetchError;
pub use patience::{Ending, Patience, patiently};
pub use place::WorkingDirectory;
pub use route::Route;

use crate::segment_source::{SegmentBytes, read_segment};

/// Bytes of a segment that [`check_segment_header`] reads.
const LONG_HEADER: u64 = 40;

/// Why a request is answered without a proof about the branch.
const READ_AHEAD: &str = "recovery stops by itself before this segment, and only reads ahead";

/// How a request ended, other than in an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The file is there, whole.
    Delivered,
    /// It is proven that nothing is known there: the reason.
    NotThere(String),
}

/// Answers requests for files of WAL.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// The cluster's folder.
    pub repository: Repository,
    /// What opens its objects.
    pub identities: Vec<Identity>,
    /// Which branch a timeline means.
    pub route: Route,
    /// Up to where recovery has to read WAL on the route's last branch before it stops by itself. It reads ahead, and what it
    /// finds or does not find beyond is of no consequence: without its target reached, PostgreSQL refuses to end recovery.
    pub read_through: Option<Lsn>,
}

impl Fetcher {
    /// Delivers `file` to `target`, or proves that there is none. Idempotent: a later answer is equal or longer.
    ///
    /// One get where the whole segment is one object. Memory: one segment, and what [`read_segment`] needs.
    ///
    /// Errors: anything that is neither; `target` is then as before.
    pub async fn fetch(&self, file: WalFileName, target: &Path) -> Result<Outcome, FetchError> {
        match file {
            WalFileName::Segment(segment) => self.segment(segment, target).await,
            WalFileName::Partial(segment) => self.partial(segment, target).await,
            WalFileName::History(timeline) => self.history(timeline, target).await,
            // Never stored: all that it says stands in the base backup's label.
            WalFileName::BackupHistory(..) => {
                Ok(Outcome::NotThere(format!("{file} is a record of a base backup, which is not kept as a file")))
            }
        }
    }

    async fn segment(&self, name: SegmentName, target: &Path) -> Result<Outcome, FetchError> {
        let size = self.segment_size().await?;
        let Some(number) = name.number(size) else {
            return Err(FetchError::ImpossibleName { name, size });
        };
        let range = number.range(size);
        if let Some(why) = self.route.is_outside(name.timeline, range) {
            return Ok(Outcome::NotThere(why));
        }
        let Some(branch) = self.branch(name.timeline, range).await? else {
            self.prove_repository().await?;
            return Ok(Outcome::NotThere(format!("nothing of timeline {} is known", name.timeline.number())));
        };
        let beyond = self.is_read_through(branch, range.start);
        match read_segment(&self.repository, branch, number, size, &self.identities).await {
            Ok(segment) if beyond && !segment.whole => Ok(Outcome::NotThere(READ_AHEAD.to_owned())),
            Ok(segment) => {
                if !segment.whole {
                    self.prove_end(branch, number, size, &segment).await?;
                }
                // PostgreSQL takes what lies before from the parent's segment.
                let own = self.own_start(branch, range.start);
                if !segment.whole && segment.valid_end <= own {
                    return Ok(Outcome::NotThere(format!("branch {branch} has nothing of its own at {own} or later")));
                }
                self.check_header(branch, name, size, &segment)?;
                delivery::deliver(target, &segment.bytes)?;
                Ok(Outcome::Delivered)
            }
            Err(error) if beyond && error.is_permanent() => {
                Ok(Outcome::NotThere(format!("{READ_AHEAD}; and it cannot be had: {error}")))
            }
            Err(error) if error.is_missing() => {
                self.prove_absent(branch, number, size).await?;
                Ok(Outcome::NotThere(format!("branch {branch} has nothing at {} or later", range.start)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether recovery stops by itself before it needs anything of `branch` at or beyond `position`.
    fn is_read_through(&self, branch: Branch, position: Lsn) -> bool {
        self.route.end() == Some(branch) && self.read_through.is_some_and(|end| end <= position)
    }

    /// The segment size: the plan's, else the repository's own.
    async fn segment_size(&self) -> Result<SegmentSize, FetchError> {
        match self.route.segment_size() {
            Some(size) => Ok(size),
            None => Ok(self.repository.identity().await?.segment_size),
        }
    }

    /// The branch that `timeline` means for a segment with the bytes `range`; `None` when there is none.
    ///
    /// Errors: several, and no plan that chose one.
    async fn branch(&self, timeline: TimelineId, range: LsnRange) -> Result<Option<Branch>, FetchError> {
        if let Some(branch) = self.route.branch(timeline, range) {
            return Ok(Some(branch));
        }
        let adoptions = self.repository.adoptions().await?;
        let origin = self.origin(timeline, &adoptions).await?;
        Ok(origin.map(|origin| adoptions.at(origin, range.start)))
    }

    /// The branch of `timeline` by its history.
    async fn origin(&self, timeline: TimelineId, adoptions: &Adoptions) -> Result<Option<Branch>, FetchError> {
        if timeline == TimelineId::FIRST {
            return Ok(Some(TimelineHistory::root(timeline).branch(self.repository.cluster())));
        }
        let named = self.branches_of(timeline).await?;
        let found: BTreeSet<Branch> = named.into_iter().map(|branch| adoptions.origin(branch)).collect();
        let mut found: Vec<Branch> = found.into_iter().collect();
        match (found.pop(), found.is_empty()) {
            (last, true) => Ok(last),
            (last, false) => {
                found.extend(last);
                Err(FetchError::AmbiguousTimeline { timeline, branches: found })
            }
        }
    }

    async fn branches_of(&self, timeline: TimelineId) -> Result<Vec<Branch>, FetchError> {
        let mut found = self.repository.branches().await?;
        found.retain(|branch| branch.timeline == timeline);
        Ok(found)
    }

    /// The bytes themselves must be those of the file that PostgreSQL asked for (I4).
    fn check_header(
        &self,
        branch: Branch,
        name: SegmentName,
        size: SegmentSize,
        segment: &SegmentBytes,
    ) -> Result<(), FetchError> {
        let Some(number) = name.number(size) else { return Err(FetchError::ImpossibleName { name, size }) };
        if segment.valid_end.bytes_since(number.start(size)) < LONG_HEADER {
            return Ok(());
        }
        let system = self.repository.cluster();
        let begin = self.route.began(branch.timeline);
        let expected = ExpectedHeader { system, timeline: name.timeline, segment: number, size, begin };
        check_segment_header(&segment.bytes, &expected).map_err(|source| FetchError::Content { branch, name, source })
    }

    /// `….partial` files are asked for by people, not by recovery.
    async fn partial(&self, name: SegmentName, target: &Path) -> Result<Outcome, FetchError> {
        let size = self.segment_size().await?;
        let Some(number) = name.number(size) else { return Err(FetchError::ImpossibleName { name, size }) };
        let unknown = || Ok(Outcome::NotThere(format!("no {name}.partial is known")));
        let Some(branch) = self.branch(name.timeline, number.range(size)).await? else {
            self.prove_repository().await?;
            return unknown();
        };
        match self.repository.read_header(&ObjectName::Partial(branch, name)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                self.prove_repository().await?;
                return unknown();
            }
            Err(error) => return Err(error.into()),
        }
        let segment = read_segment(&self.repository, branch, number, size, &self.identities).await?;
        if !segment.lost.is_empty() {
            return Err(FetchError::Damaged { branch, from: segment.valid_end, objects: segment.lost });
        }
        delivery::deliver(target, &segment.bytes)?;
        Ok(Outcome::Delivered)
    }

    /// A timeline's history, byte for byte as it is stored (case 2). PostgreSQL also probes for histories to learn which
    /// numbers are taken; a number that anybody took must not look free.
    async fn history(&self, timeline: TimelineId, target: &Path) -> Result<Outcome, FetchError> {
        if timeline == TimelineId::FIRST {
            return Ok(Outcome::NotThere("timeline 1 has no history".to_owned()));
        }
        let branch = match self.route.origin(timeline) {
            Some(branch) => Some(branch),
            // A plan names every timeline whose content matters; of another one only that it exists does.
            None if self.route.is_planned() => {
                let adoptions = self.repository.adoptions().await?;
                self.branches_of(timeline).await?.pop().map(|branch| adoptions.origin(branch))
            }
            None => self.origin(timeline, &self.repository.adoptions().await?).await?,
        };
        let Some(branch) = branch else {
            self.prove_repository().await?;
            return Ok(Outcome::NotThere(format!("nobody made timeline {}", timeline.number())));
        };
        let content = self.history_content(branch).await?;
        delivery::deliver(target, &content)?;
        Ok(Outcome::Delivered)
    }

    async fn history_content(&self, branch: Branch) -> Result<Vec<u8>, FetchError> {
        // Read twice where it is there: verified as a history of this branch, then as it is stored.
        let missing = match self.repository.history(branch, &self.identities).await {
            Ok(_) => return Ok(self.repository.open(&ObjectName::History(branch), &self.identities).await?),
            Err(error) if error.is_not_found() => error,
            Err(error) => return Err(error.into()),
        };
        // An ancestor's stands in its child's.
        let end = self.route.end().and_then(|end| self.route.origin(end.timeline));
        let Some(end) = end.filter(|end| *end != branch) else {
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

    /// There is a repository of this cluster to speak of: an empty folder, where a file system is not mounted, proves nothing.
    async fn prove_repository(&self) -> Result<(), RepositoryError> {
        self.repository.identity().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
