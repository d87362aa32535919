//! Where WAL comes from.

use bytes::Bytes;
use tokio::sync::mpsc;
use walseal_common::lsn::Lsn;
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

use super::SourceError;

/// Pieces of WAL that are read before somebody takes them (I11): at most 256 KiB each.
pub(super) const AHEAD: usize = 8;

/// What a source knows of a branch.
#[derive(Clone, Debug)]
pub enum Lineage {
    /// Its timeline has this history, which is the branch's.
    Known(TimelineHistory),
    /// It does not say where the timeline comes from.
    Silent,
    /// Its timeline of that number is another branch, or it has none: why its WAL does not count.
    Other(String),
}

impl Lineage {
    /// Of `branch` by `history`, its timeline's or a descendant's.
    pub(super) fn of(
        branch: Branch,
        history: &TimelineHistory,
        system: walseal_common::timeline::SystemIdentifier,
    ) -> Lineage {
        match history.ancestor(branch.timeline) {
            Some(own) if own.branch(system) == branch => Lineage::Known(own),
            Some(own) => Lineage::Other(format!(
                "its timeline {} is branch {}, and the missing WAL is that of {branch}",
                branch.timeline.number(),
                own.branch(system)
            )),
            None => Lineage::Other(format!(
                "it is on timeline {}, whose history does not have timeline {}",
                history.timeline.number(),
                branch.timeline.number()
            )),
        }
    }

    /// The history, where it is known.
    pub(super) fn history(&self) -> Option<&TimelineHistory> {
        match self {
            Lineage::Known(history) => Some(history),
            Lineage::Silent | Lineage::Other(_) => None,
        }
    }
}

/// What comes of a reading.
#[derive(Debug)]
pub enum Brought {
    /// The WAL that follows.
    Wal(Bytes),
    /// What came so far is finished up to here: nothing of it is still being written.
    Finished(Lsn),
    /// There is no more, and why.
    End(String),
}

/// WAL that is being read, in order and without a hole. Ends with [`Brought::End`], or an error.
#[derive(Debug)]
pub struct Reading {
    /// The first byte: the start of a segment.
    pub start: Lsn,
    /// What comes.
    pub brought: mpsc::Receiver<Result<Brought, SourceError>>,
}

/// Where WAL comes from.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// In words, as the end of "in …".
    fn describe(&self) -> String;

    /// What it knows of where `branch` comes from (I4).
    async fn lineage(&self, branch: Branch) -> Result<Lineage, SourceError>;

    /// Reads WAL of `timeline` from `from`, the start of a segment, or the first segment after it that there is, up to `until`
    /// or as far as it goes. `None`: there is nothing before `until`.
    async fn read(&self, timeline: TimelineId, from: Lsn, until: Lsn) -> Result<Option<Reading>, SourceError>;

    /// What else is there and is of no use, a sentence each.
    async fn notes(&self, timeline: TimelineId) -> Result<Vec<String>, SourceError>;
}
