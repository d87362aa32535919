//! Gaps that were recorded, and which of them count: for `status` and for metrics.

use serde::Serialize;
use walseal_common::lsn::LsnRange;
use walseal_common::repository::{Adoptions, Gap, Repository, RepositoryError, Step};
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::Branch;

/// WAL that was lost.
#[derive(Debug, Serialize)]
pub struct GapStatus {
    /// What was recorded.
    #[serde(flatten)]
    pub gap: Gap,
    /// What of it is still missing; `None` once it was filled.
    pub open: Option<LsnRange>,
    /// Whether the cluster went back to before it: the way to the branch that is streamed left its branch before it begins.
    pub given_up: bool,
}

impl GapStatus {
    /// What is missing on the way to the branch that is streamed: nothing where it was filled, or the cluster went back to before it.
    pub fn counts(&self) -> Option<LsnRange> {
        self.open.filter(|_| !self.given_up)
    }
}

/// Every gap on record. Where no way is known none is given up.
///
/// Errors: the repository's.
pub async fn gaps(
    repository: &Repository,
    size: SegmentSize,
    way: Option<&[Step]>,
) -> Result<Vec<GapStatus>, RepositoryError> {
    let mut found = Vec::new();
    for gap in repository.gaps().await? {
        let open = repository.open_part(&gap, size).await?;
        let given_up = way.is_some_and(|way| !gap.breaks(way));
        found.push(GapStatus { gap, open, given_up });
    }
    Ok(found)
}

/// The way to the branch that is `streamed`; where that is not known, to that of the newest timeline of `branches`. `None` where the
/// repository does not tell.
///
/// Errors: the repository's.
pub async fn way(
    repository: &Repository,
    adoptions: &Adoptions,
    streamed: Option<Branch>,
    branches: &[Branch],
) -> Result<Option<Vec<Step>>, RepositoryError> {
    match streamed.or_else(|| newest(branches, adoptions)) {
        Some(branch) => repository.way_to(adoptions, branch).await,
        None => Ok(None),
    }
}

/// The branch of the newest timeline; `None` where there are several, and nobody has said which of them is alive.
fn newest(branches: &[Branch], adoptions: &Adoptions) -> Option<Branch> {
    let left = |branch: Branch| adoptions.iter().any(|(_, adoption)| adoption.branch == branch);
    let ends = || branches.iter().copied().filter(|branch| !left(*branch));
    let timeline = ends().map(|branch| branch.timeline).max()?;
    let mut of_it = ends().filter(|branch| branch.timeline == timeline);
    of_it.next().filter(|_| of_it.next().is_none())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::stream::store_histories;
    use crate::stream::tests::toy::{SYSTEM, Toy, history, root};

    #[tokio::test]
    async fn a_gap_that_the_cluster_went_back_to_before_does_not_count() {
        let toy = Toy::new(1);
        let (first, size) = (root().branch(SYSTEM), toy.server.size);
        let gap = Gap {
            branch: first,
            from: toy.at(5, 0),
            to: toy.at(7, 0),
            next: first,
            found: Timestamp::UNIX_EPOCH,
            highest_time: None,
            why: "for a test".to_owned(),
            way: Vec::new(),
        };
        toy.repository.put_gap(&gap, &toy.keys.writer).await.expect("it is stored");
        let (before, beyond) = (history(2, &[(1, toy.at(4, 0))]), history(3, &[(1, toy.at(8, 0))]));
        for history in [&before, &beyond] {
            store_histories(&toy.repository, &toy.keys, history).await.expect("it is stored");
        }
        let adoptions = toy.repository.adoptions().await.expect("readable");
        let counted = async |streamed: Option<Branch>, branches: &[Branch]| {
            let way = way(&toy.repository, &adoptions, streamed, branches).await.expect("readable");
            let found = gaps(&toy.repository, size, way.as_deref()).await.expect("readable");
            found.iter().filter_map(GapStatus::counts).collect::<Vec<_>>()
        };
        assert_eq!(counted(Some(first), &[]).await, [gap.range()]);
        assert_eq!(counted(Some(before.branch(SYSTEM)), &[]).await, []);
        assert_eq!(counted(Some(beyond.branch(SYSTEM)), &[]).await, [gap.range()]);
        // Before anything is streamed, the newest timeline tells; where nothing does, it counts.
        assert_eq!(counted(None, &[first, before.branch(SYSTEM)]).await, []);
        assert_eq!(counted(None, &[]).await, [gap.range()]);
        for number in 5..7 {
            toy.whole(first, number).await;
        }
        assert_eq!(counted(Some(first), &[]).await, [], "it was filled");
    }
}
