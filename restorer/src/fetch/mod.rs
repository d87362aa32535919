//! `restore_command`: one file of WAL, whole, or the proof that there is none (case 1).
//!
//! PostgreSQL takes "there is no such file" for the end of WAL, after which it may promote. So [`Outcome::NotThere`] is a
//! statement about the whole branch, made by [`proof`] alone (I6); everything that is merely not known is a
//! [`FetchError`], and ends recovery.
//!
//! | module | holds |
//! | --- | --- |
//! | [`route`] | which branch a file name means |
//! | [`history`] | histories of timelines |
//! | [`proof`] | that nothing is known there |
//! | [`delivery`] | the file, whole and durable |
//! | [`patience`], [`reply`] | how long is tried, and what a standby is told; exit codes |
//! | [`place`] | the data directory that PostgreSQL runs us in |
//! | [`opening`] | the plan, the keys, the store |
//! | [`prefetcher`] | one who holds all that open, and has the next segments ready |

mod delivery;
mod error;
mod history;
mod opening;
mod patience;
mod place;
pub mod prefetcher;
mod proof;
mod reply;
mod route;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::OnceCell;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{ObjectName, Repository, RepositoryError};
use walseal_common::seal::Identity;
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize, WalFileName};
use walseal_common::timeline::{Branch, TimelineId};
use walseal_common::wal::{ExpectedHeader, check_segment_header};

pub use error::FetchError;
pub use opening::Opening;
pub use patience::{Ending, Patience, patiently};
pub use place::WorkingDirectory;
pub use reply::Reply;
pub use route::Route;

use crate::segment_source::{SegmentBytes, read_segment, read_segment_into};

/// Bytes of a segment that [`check_segment_header`] reads.
const LONG_HEADER: u64 = 40;

/// Why a request is answered without a proof about the branch.
const READ_AHEAD: &str = "recovery stops by itself before this segment, and only reads ahead";

/// What there is of a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// Its bytes.
    File {
        /// All of them.
        bytes: Vec<u8>,
        /// Whether they never change again: not so of a segment that is filled with zeros.
        is_final: bool,
    },
    /// It is proven that nothing is known there: the reason.
    NotThere(String),
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::File { bytes, is_final } => write!(f, "File({} bytes, final: {is_final})", bytes.len()),
            Found::NotThere(why) => write!(f, "NotThere({why})"),
        }
    }
}

/// How a request ended, other than in an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The file is there, whole.
    Delivered,
    /// It is proven that nothing is known there: the reason.
    NotThere(String),
}

/// Where a segment would lie.
enum Seat {
    /// On this branch.
    On { branch: Branch, number: SegmentNumber, size: SegmentSize },
    /// Not on the way: why.
    Outside(String),
    /// On a timeline that nobody made.
    Nowhere,
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
    /// The cluster's segment size, once it was asked for: it never changes.
    pub size: Arc<OnceCell<SegmentSize>>,
}

impl Fetcher {
    /// Delivers `file` to `target`, or proves that there is none. Idempotent: a later answer is equal or longer.
    ///
    /// One get where the whole segment is one object. Memory: one segment, and what [`read_segment`] needs.
    ///
    /// Errors: anything that is neither; `target` is then as before.
    pub async fn fetch(&self, file: WalFileName, target: &Path) -> Result<Outcome, FetchError> {
        match self.find(file).await? {
            Found::File { bytes, .. } => delivery::deliver(target, &bytes).map(|()| Outcome::Delivered),
            Found::NotThere(why) => Ok(Outcome::NotThere(why)),
        }
    }

    /// The content of `file`, or the proof that there is none.
    ///
    /// Errors: anything that is neither.
    pub async fn find(&self, file: WalFileName) -> Result<Found, FetchError> {
        match file {
            WalFileName::Segment(segment) => self.segment(segment).await,
            WalFileName::Partial(segment) => self.partial(segment).await,
            WalFileName::History(timeline) => self.history(timeline).await,
            // Never stored: all that it says stands in the base backup's label.
            WalFileName::BackupHistory(..) => {
                Ok(Found::NotThere(format!("{file} is a record of a base backup, which is not kept as a file")))
            }
        }
    }

    /// The segment, where all of it is there, as [`Fetcher::find`] would give it; `None` where anything else is the case, which
    /// [`Fetcher::find`] then has to judge. `room` is an empty buffer for it.
    ///
    /// Errors: as there, but for those that are a proof.
    pub async fn whole(&self, name: SegmentName, room: Vec<u8>) -> Result<Option<Vec<u8>>, FetchError> {
        let Seat::On { branch, number, size } = self.locate(name).await? else { return Ok(None) };
        match read_segment_into(&self.repository, branch, number, size, &self.identities, room).await {
            Ok(segment) if segment.whole => {
                self.check_header(branch, name, size, &segment)?;
                Ok(Some(segment.bytes))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the segment would lie.
    async fn locate(&self, name: SegmentName) -> Result<Seat, FetchError> {
        let size = self.segment_size().await?;
        let Some(number) = name.number(size) else {
            return Err(FetchError::ImpossibleName { name, size });
        };
        let range = number.range(size);
        if let Some(why) = self.route.is_outside(name.timeline, range) {
            return Ok(Seat::Outside(why));
        }
        let branch = self.branch(name.timeline, range).await?;
        Ok(branch.map_or(Seat::Nowhere, |branch| Seat::On { branch, number, size }))
    }

    async fn segment(&self, name: SegmentName) -> Result<Found, FetchError> {
        let (branch, number, size) = match self.locate(name).await? {
            Seat::On { branch, number, size } => (branch, number, size),
            Seat::Outside(why) => return Ok(Found::NotThere(why)),
            Seat::Nowhere => {
                self.prove_repository().await?;
                return Ok(Found::NotThere(format!("nothing of timeline {} is known", name.timeline.number())));
            }
        };
        let start = number.start(size);
        let beyond = self.is_read_through(branch, start);
        match read_segment(&self.repository, branch, number, size, &self.identities).await {
            Ok(segment) if beyond && !segment.whole => Ok(Found::NotThere(READ_AHEAD.to_owned())),
            Ok(segment) => {
                if !segment.whole {
                    self.prove_end(branch, number, size, &segment).await?;
                }
                // PostgreSQL takes what lies before from the parent's segment.
                let own = self.own_start(branch, start);
                if !segment.whole && segment.valid_end <= own {
                    return Ok(Found::NotThere(format!("branch {branch} has nothing of its own at {own} or later")));
                }
                self.check_header(branch, name, size, &segment)?;
                Ok(Found::File { bytes: segment.bytes, is_final: segment.whole })
            }
            Err(error) if beyond && error.is_permanent() => {
                Ok(Found::NotThere(format!("{READ_AHEAD}; and it cannot be had: {error}")))
            }
            Err(error) if error.is_missing() => {
                self.prove_absent(branch, number, size).await?;
                Ok(Found::NotThere(format!("branch {branch} has nothing at {start} or later")))
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
        if let Some(size) = self.route.segment_size() {
            return Ok(size);
        }
        let read = async { Ok(self.repository.identity().await?.segment_size) };
        self.size.get_or_try_init(|| read).await.copied()
    }

    /// The segments that recovery asks for after `name`, up to `count` of them: along its way, and no further than it has to read.
    fn following(&self, name: SegmentName, size: SegmentSize, count: usize) -> Vec<SegmentName> {
        let Some(number) = name.number(size) else { return Vec::new() };
        let last = self.route.end().map(|end| end.timeline);
        let (mut names, mut number, mut timeline) = (Vec::new(), number, name.timeline);
        while names.len() < count {
            number = number.next();
            let range = number.range(size);
            timeline = self.route.timeline_at(timeline, range);
            if last == Some(timeline) && self.read_through.is_some_and(|through| through <= range.start) {
                break;
            }
            names.push(SegmentName::new(timeline, number, size));
        }
        names
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
    async fn partial(&self, name: SegmentName) -> Result<Found, FetchError> {
        let size = self.segment_size().await?;
        let Some(number) = name.number(size) else { return Err(FetchError::ImpossibleName { name, size }) };
        let unknown = || Ok(Found::NotThere(format!("no {name}.partial is known")));
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
        Ok(Found::File { bytes: segment.bytes, is_final: false })
    }

    /// There is a repository of this cluster to speak of: an empty folder, where a file system is not mounted, proves nothing.
    pub(super) async fn prove_repository(&self) -> Result<(), RepositoryError> {
        self.repository.identity().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
