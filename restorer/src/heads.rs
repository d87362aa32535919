//! What this host remembers of the newest end of a repository (`verify` does), and whether that is still there: whoever controls the
//! bucket can cut it off, and what is left looks whole.

use std::path::PathBuf;

use serde::Serialize;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Heads, ObjectName, Repository, RepositoryError};
use walseal_common::segment::SegmentSize;
use walseal_common::state_file;
use walseal_common::timeline::Branch;

use crate::access::Access;

/// The file of it in `cluster.state_dir`.
const HEADS: &str = "restorer-heads.json";

/// Something that was seen, and is not there any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CutOff {
    /// The object, or the folder.
    pub object: String,
    /// What was seen of it, and what is there.
    pub what: String,
}

impl CutOff {
    /// As a sentence.
    pub fn words(&self) -> String {
        format!(
            "CUT OFF: {}: {}. Look with: walseal-restorer verify; where all is as it should be, --accept takes what is there",
            self.object, self.what
        )
    }
}

fn file(access: &Access) -> Option<PathBuf> {
    // Without a name or a folder there is no place that is this cluster's.
    access.config.need_state_dir().ok().map(|folder| folder.join(HEADS))
}

/// What this host has seen, where it remembers anything.
pub fn remembered(access: &Access) -> Option<Heads> {
    let heads: Heads = state_file::load(&file(access)?)?;
    Some(heads).filter(|heads| heads.cluster == access.repository.cluster())
}

/// Remembers what is there now beside what was. Where that is not possible, the next run has one witness less.
pub fn remember(access: &Access, now: &Heads, accept: bool) {
    let Some(path) = file(access) else { return };
    let known: Option<Heads> = state_file::load(&path);
    let mut heads = known.filter(|heads| !accept && heads.cluster == now.cluster).unwrap_or_else(|| now.clone());
    heads.merge(now);
    let saved = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| state_file::save(&path, &heads));
    if let Err(error) = saved {
        let path = path.display();
        tracing::warn!(%path, %error, "what was seen is not remembered; set cluster.state_dir to a folder of this user's");
    }
}

/// "this host remembers (since …)".
pub fn who(heads: &Heads) -> String {
    format!("this host remembers (since {})", heads.seen.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

/// What of `heads` is not there any more, but for what retention removed: the end of WAL, branch by branch, and the newest base backup.
/// The ledger is not read for it.
///
/// Cost: two short listings for each branch that is remembered, and a read.
///
/// Errors: the store's.
pub async fn cut_off(
    repository: &Repository,
    size: SegmentSize,
    heads: &Heads,
) -> Result<Vec<CutOff>, RepositoryError> {
    let mut missing: Vec<(LsnRange, CutOff, Branch)> = Vec::new();
    let who = who(heads);
    for told in heads.branches.iter().filter(|told| told.frontier > Lsn(0)) {
        let last = size.number(Lsn(told.frontier.0 - 1));
        let listing = repository.wal_listing(told.branch, size, Some(last)).await?;
        let start = last.start(size);
        let end = match repository.contiguous_end(&listing, start).await {
            Err(RepositoryError::Object { .. }) => listing.contiguous_end(start),
            other => other?,
        };
        if end.max(start) < told.frontier {
            let what = format!("{who} that WAL was there up to {}, and that is not there", told.frontier);
            let range = LsnRange { start: end.max(start), end: told.frontier };
            missing.push((range, CutOff { object: format!("wal/{}", told.branch), what }, told.branch));
        }
    }
    let mut base = None;
    if let Some(id) = &heads.base {
        match repository.label(id).await {
            Err(error) if error.is_not_found() => {
                let what = format!("{who} this base backup, and its label is not there");
                base = Some((id, CutOff { object: ObjectName::Label(id.clone()).to_string(), what }));
            }
            // One that does not verify is named by whoever lists.
            Err(error) if !matches!(error, RepositoryError::Object { .. }) => return Err(error),
            _ => {}
        }
    }
    if missing.is_empty() && base.is_none() {
        return Ok(Vec::new());
    }
    let pruned = repository.pruned().await?;
    missing.retain(|(range, _, branch)| !range.without(pruned.on(*branch)).is_empty());
    let base = base.filter(|(id, _)| !pruned.has_base(id)).map(|(_, cut)| cut);
    Ok(missing.into_iter().map(|(_, cut, _)| cut).chain(base).collect())
}

/// The same of what this host remembers; nothing where it remembers nothing.
///
/// Errors: the store's.
pub async fn missed(access: &Access, size: SegmentSize) -> Result<Vec<CutOff>, RepositoryError> {
    match remembered(access) {
        Some(heads) => cut_off(&access.repository, size, &heads).await,
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use jiff::Timestamp;
    use walseal_common::repository::{Pruned, RunId};
    use walseal_common::segment::SegmentNumber;

    use super::*;
    use crate::sample::{SampleRepository, SampleWal};

    #[tokio::test]
    async fn an_end_that_was_seen_and_is_gone_is_missed_unless_retention_removed_it() {
        let sample = SampleRepository::new().await;
        let (branch, size) = (sample.branch(), sample.size);
        let mut wal = SampleWal::from(SegmentNumber(3).start(size));
        let mut xid = 700;
        while wal.end() < SegmentNumber(4).start(size).advance(1000) {
            wal.commit(xid, "2026-11-21T02:30:00Z");
            xid += 1;
        }
        sample.put_wal(branch, &wal, wal.start).await;
        let mut heads = Heads::none(sample.repository.cluster(), Timestamp::UNIX_EPOCH);
        let missed = async |heads: &Heads| cut_off(&sample.repository, size, heads).await.expect("the store answers");
        assert_eq!(missed(&heads).await, []);
        heads.note(branch, wal.end());
        assert_eq!(missed(&heads).await, [], "it is there");
        let end = SegmentNumber(6).end(size);
        heads.note(branch, end);
        let base: walseal_common::repository::BaseId = "20261121T023000Z-0000002a".parse().expect("an id");
        heads.base = Some(base.clone());
        let found = missed(&heads).await;
        assert_eq!(found[0].object, format!("wal/{branch}"));
        assert!(found[0].words().contains(&format!("(since 1970-01-01T00:00:00Z) that WAL was there up to {end}")));
        assert_eq!(found[1].object, format!("base/{base}/label"));

        let mut going = Pruned::default();
        going.add_base(base);
        going.add_wal(branch, LsnRange { start: SegmentNumber(4).start(size), end });
        let run = RunId::random().expect("random bytes");
        sample.repository.put_pruned(run, going, &Pruned::default(), &sample.writer).await.expect("stored");
        assert_eq!(missed(&heads).await, []);
    }
}
