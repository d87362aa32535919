//! Where a timeline comes from: its branch, by the histories beside the file, else by the repository's names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Adoptions, Repository};
use walseal_common::segment::{SegmentName, SegmentSize, WalFileName};
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

use super::PushError;

/// Most bytes of a history file; real ones have some hundred.
const LARGEST_HISTORY: u64 = 1 << 20;

/// A timeline's branch, and its history where that is known.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    /// On which a segment of it lies.
    pub(super) branch: Branch,
    /// The branch by the history alone; another one where WAL was adopted.
    pub(super) origin: Branch,
    /// `None` when only the repository's names tell the branch: the archiver cannot open histories (I9).
    pub(super) history: Option<TimelineHistory>,
}

impl Lineage {
    /// Of the timeline of `segment`, whose file lies in `folder`.
    pub(super) async fn of(
        folder: &Path,
        segment: SegmentName,
        size: SegmentSize,
        repository: &Repository,
        adoptions: &Adoptions,
    ) -> Result<Lineage, PushError> {
        let timeline = segment.timeline;
        let start = segment.number(size).map_or(Lsn::INVALID, |number| number.start(size));
        let at = |origin: Branch, history| Lineage { branch: adoptions.at(origin, start), origin, history };
        let known = |history: TimelineHistory| at(history.branch(repository.cluster()), Some(history));
        if timeline == TimelineId::FIRST {
            return Ok(known(TimelineHistory::root(timeline)));
        }
        if let Some(history) = read_history(folder, timeline)? {
            return Ok(known(history));
        }
        let history = WalFileName::History(timeline);
        let named = repository.branches().await?.into_iter().filter(|branch| branch.timeline == timeline);
        let branches: BTreeSet<Branch> = named.map(|branch| adoptions.origin(branch)).collect();
        match branches.into_iter().collect::<Vec<_>>().as_slice() {
            [] => Err(PushError::NoHistory { segment, timeline: timeline.number(), history }),
            [one] => Ok(at(*one, None)),
            several => {
                let branches = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(PushError::WhichBranch { segment, history, branches })
            }
        }
    }

    /// Where the timeline began, when that is known.
    pub(super) fn begin(&self) -> Option<Lsn> {
        self.history.as_ref().map(TimelineHistory::begin)
    }
}

/// The history file of `timeline` in `folder`; `None` when it is not there.
pub(super) fn read_history(folder: &Path, timeline: TimelineId) -> Result<Option<TimelineHistory>, PushError> {
    let path = folder.join(WalFileName::History(timeline).to_string());
    let read = || {
        let mut content = Vec::new();
        File::open(&path)?.take(LARGEST_HISTORY + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LARGEST_HISTORY {
            return Err(io::Error::other(format!("it has more than {LARGEST_HISTORY} bytes, so it is no history")));
        }
        Ok(content)
    };
    match read() {
        Ok(content) => Ok(Some(TimelineHistory::parse(timeline, &content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PushError::Read { path, source }),
    }
}

/// Where `branch`, which its history alone names, was left for a newer timeline within `segment`, by the histories in `folder`: the furthest such fork, so
/// that nothing is left out that a child counts on.
pub(super) fn fork_within(
    folder: &Path,
    branch: Branch,
    segment: LsnRange,
    system: SystemIdentifier,
) -> Result<Option<Lsn>, PushError> {
    let failed = |source| PushError::Read { path: folder.to_owned(), source };
    let mut fork = None;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(Ok(WalFileName::History(timeline))) = name.to_str().map(str::parse) else { continue };
        if timeline <= branch.timeline {
            continue;
        }
        let history = match read_history(folder, timeline) {
            Ok(Some(history)) => history,
            Ok(None) => continue,
            // Its own push says so; here it is one that tells nothing.
            Err(PushError::History(error)) => {
                tracing::warn!(%error, "passing over a history file");
                continue;
            }
            Err(error) => return Err(error),
        };
        let ours = history.ancestor(branch.timeline).is_some_and(|own| own.branch(system) == branch);
        let end = history.end_of(branch.timeline).filter(|end| segment.start < *end && *end <= segment.end);
        if ours {
            fork = fork.max(end);
        }
    }
    Ok(fork)
}
