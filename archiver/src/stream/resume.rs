//! Finds where a stream begins: by the server's timeline and history, and the repository's frontier.

use walseal_common::lsn::Lsn;
use walseal_common::postgres::ReplicationClient;
use walseal_common::postgres::conninfo::TargetSessionAttrs;
use walseal_common::postgres::replication::SystemInfo;
use walseal_common::repository::{Adoptions, Ancestry, ObjectName, Repository, RepositoryIdentity, Step, WalListing};
use walseal_common::seal::{CompareKeyId, Draft, Kind, MAX_PLAINTEXT};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::timeline::{Branch, SystemIdentifier, TimelineHistory, TimelineId};

use super::start::{Followed, StartPoint};
use super::{StreamError, chain};
use crate::index::Index;
use crate::keys::ArchiveKeys;

/// What the streams before have shown.
#[derive(Clone, Copy, Default, Debug)]
pub struct Past {
    /// The server has no WAL any more from there on: begin at what the slot still keeps.
    pub lost: Option<Lsn>,
    /// A branch that was streamed to its end.
    pub done: Option<Branch>,
    /// Up to where this process has shipped what the server sent of a branch.
    pub seen: Option<(Branch, Lsn)>,
}

impl Past {
    pub(super) fn seen_of(&self, branch: Branch) -> Option<Lsn> {
        self.seen.filter(|(seen, _)| *seen == branch).map(|(_, end)| end)
    }
}

/// What the server is, checked against the repository (I4).
#[derive(Clone, Debug)]
pub struct ServerPosition {
    /// Its current timeline's ancestry.
    pub history: TimelineHistory,
    /// Where two servers wrote the same timeline, which one is alive.
    pub adoptions: Adoptions,
    /// End of its WAL.
    pub position: Lsn,
    /// Size of its segments.
    pub segment_size: SegmentSize,
}

impl ServerPosition {
    /// The branches on which its WAL lies, oldest first.
    pub fn way(&self) -> Vec<Step> {
        self.adoptions.way(&self.history)
    }

    /// The branch on which its WAL goes on.
    pub fn branch(&self) -> Branch {
        self.adoptions.branch_of(&self.history)
    }
}

/// Asks the server who it is, and refuses any but the repository's cluster; reads on which branch its WAL lies.
pub async fn identify(
    client: &mut ReplicationClient,
    repository: &Repository,
    identity: &RepositoryIdentity,
    wanted: TargetSessionAttrs,
) -> Result<ServerPosition, StreamError> {
    let (history, position) = recognise(client, repository, identity, wanted).await?;
    let adoptions = repository.adoptions().await?;
    Ok(ServerPosition { history, adoptions, position, segment_size: identity.segment_size })
}

/// Asks the server who it is, and refuses any but the repository's cluster (I4). Nothing is asked of the store, which may be
/// away. Returns the server's history and position.
pub(super) async fn recognise(
    client: &mut ReplicationClient,
    repository: &Repository,
    identity: &RepositoryIdentity,
    wanted: TargetSessionAttrs,
) -> Result<(TimelineHistory, Lsn), StreamError> {
    let system = admit(client, repository.cluster(), &repository.describe(), wanted).await?;
    let segment_size = client.segment_size().await?;
    if segment_size != identity.segment_size {
        return Err(StreamError::OtherSegmentSize {
            server: segment_size.bytes(),
            expected: identity.segment_size.bytes(),
        });
    }
    // Timeline 1 has no history; to ask for it would leave an error in the server's log.
    let history = if system.timeline == TimelineId::FIRST {
        TimelineHistory::root(system.timeline)
    } else {
        let content = client.timeline_history(system.timeline).await?;
        let content = content.ok_or(StreamError::NoHistory(system.timeline.number()))?;
        TimelineHistory::parse(system.timeline, &content)?
    };
    Ok((history, system.position))
}

/// Asks the server who it is, and refuses any but that of `cluster`, whose repository is in `place` (I4), and a standby that nobody
/// chose (case 16).
pub(crate) async fn admit(
    client: &mut ReplicationClient,
    cluster: SystemIdentifier,
    place: &str,
    wanted: TargetSessionAttrs,
) -> Result<SystemInfo, StreamError> {
    let system = client.identify_system().await?;
    if system.system_identifier != cluster {
        let (server, repository) = (system.system_identifier, place.to_owned());
        return Err(StreamError::OtherCluster { server, expected: cluster, repository });
    }
    let by_choice = matches!(wanted, TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby);
    if client.parameter("in_hot_standby") == Some("on") && !by_choice {
        return Err(StreamError::Standby { host: client.host().to_string() });
    }
    Ok(system)
}

/// Stores the history of the server's timeline and of all its ancestors (case 2). Names follow from content, so what is
/// there already is the same.
pub async fn store_histories(
    repository: &Repository,
    keys: &ArchiveKeys,
    history: &TimelineHistory,
) -> Result<(), StreamError> {
    for timeline in path(history).into_iter().filter(|timeline| *timeline != TimelineId::FIRST) {
        let Some(own) = history.ancestor(timeline) else { continue };
        let branch = own.branch(repository.cluster());
        let name = ObjectName::History(branch);
        match repository.read_header(&name).await {
            Ok(_) => continue,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let draft = Draft {
            kind: Kind::History,
            cluster: repository.cluster(),
            name: name.to_string(),
            wal: None,
            frame_size: 64 << 10,
            level: 1,
        };
        let seal = || {
            let mut sealer = draft.seal(&keys.recipients, &keys.writer)?;
            sealer.frames_of(&own.render())?;
            // Which branches it comes from is no secret, and who prunes has to know it.
            sealer.finish_with(Some(&Ancestry::of(&own, repository.cluster())))
        };
        let object = seal()
            .map_err(|source| walseal_common::repository::RepositoryError::Object { name: name.to_string(), source })?;
        repository.put(&object).await?;
    }
    Ok(())
}

/// The timelines of a history, oldest first, its own last.
fn path(history: &TimelineHistory) -> Vec<TimelineId> {
    history.way().into_iter().map(|(timeline, _)| timeline).chain([history.timeline]).collect()
}

/// Finds where to begin on the server's path: at the frontier of the newest branch of it that the repository knows.
///
/// `slot` is the oldest WAL that the slot keeps. Where the repository holds nothing of the path, the stream begins there.
/// `key` is the compare key of this archiver.
pub async fn start_point(
    repository: &Repository,
    key: CompareKeyId,
    server: &ServerPosition,
    slot: Option<Lsn>,
    index: &dyn Index,
    past: Past,
) -> Result<StartPoint, StreamError> {
    let size = server.segment_size;
    let way = server.way();
    let mut child = None;
    for (at, step) in way.iter().enumerate().rev() {
        let branch = step.branch;
        // WAL from before the split was compared when the branch was adopted.
        let adopted = server.adoptions.leading_to(branch).is_some();
        let slot = slot.map(|slot| if adopted { slot.max(size.align_down(step.begin)) } else { slot });
        let listing = listing_about(repository, branch, size, slot).await?;
        if listing.is_empty() {
            child = Some(branch);
            continue;
        }
        // What it has shipped beyond the end on this way is none of it.
        let seen = past.seen_of(branch).map(|seen| step.switch.map_or(seen, |end| seen.min(end)));
        let mut point = chain::frontier_of(repository, &listing, key, slot, seen, index).await?;
        // What this process has shipped itself up to there needs no proof.
        if adopted && seen.is_none_or(|seen| seen < point.frontier) {
            point = chain::compared(repository, &listing, key, point).await?;
        }
        let Some(end) = step.switch.filter(|end| *end <= point.frontier) else { return Ok(point) };
        let left_within = way.get(at + 1).is_some_and(|next| next.branch.timeline == branch.timeline);
        // Where the history goes back, the server streams an ancestor beyond the fork, and its slot would be moved beyond it.
        let ends_it = server.history.streamed_to(branch.timeline) == Some(end);
        if !left_within && ends_it && past.done != Some(branch) && slot.is_some_and(|slot| slot < end) {
            // It lies there to its end, and this server's slot has not seen that confirmed.
            return Ok(point);
        }
        if point.frontier > end && !left_within {
            // Case 11: the old primary had shipped more than the new one has.
            tracing::warn!(
                %branch,
                fork = %end,
                frontier = %point.frontier,
                bytes = point.frontier.bytes_since(end),
                "the server's history leaves this branch before the end of what is in the repository; the surplus is kept as the branch's end"
            );
        }
        let segment = SegmentName::new(branch.timeline, size.number(end), size);
        let ends_with_an_object = size.offset(end).is_multiple_of(MAX_PLAINTEXT);
        let kept = ends_with_an_object || listing.partials.contains(&segment) || listing.has_segment(size.number(end));
        if !kept && point.frontier == end && (left_within || ends_it) {
            // Its last segment lies there as tails only: stream it once more, to keep it as `.partial`.
            return Ok(point);
        }
        // The ancestor is complete: go on with its child.
        let followed = Some(Followed { branch, fork: end, surplus: point.frontier.bytes_since(end) });
        let next = child.unwrap_or_else(|| server.branch());
        return Ok(StartPoint { followed, ..StartPoint::fresh(next, size.align_down(end)) });
    }
    Ok(after_loss(server, slot))
}

/// Where to begin when nothing that the repository holds can be continued: with what the slot keeps, on the timeline that
/// holds it.
pub fn after_loss(server: &ServerPosition, slot: Option<Lsn>) -> StartPoint {
    let start = slot.unwrap_or(server.position);
    let way = server.way();
    let holder = way.iter().rev().find(|step| step.begin <= start).or(way.first());
    let branch = holder.map_or_else(|| server.branch(), |step| step.branch);
    StartPoint::fresh(branch, server.segment_size.align_down(start))
}

/// The branch's WAL by name: from just before the slot's position on where that is enough, since tails stay for months; else from
/// the last catalog page on.
async fn listing_about(
    repository: &Repository,
    branch: Branch,
    size: SegmentSize,
    slot: Option<Lsn>,
) -> Result<WalListing, StreamError> {
    let number = size.number(slot.unwrap_or(Lsn(u64::MAX)));
    if slot.is_some() {
        let from = SegmentNumber(number.0.saturating_sub(1));
        let near = repository.wal_listing(branch, size, Some(from)).await?;
        if near.last_begun(number).is_some() {
            return Ok(near);
        }
    }
    // A slot beyond all that is there, or none: the last catalog page lies shortly before the end.
    if let Some(page) = repository.catalog_pages(branch, size, None).await?.into_iter().rfind(|page| *page <= number) {
        let near = repository.wal_listing(branch, size, Some(page)).await?;
        if near.last_begun(number).is_some() {
            return Ok(near);
        }
    }
    Ok(repository.wal_listing(branch, size, None).await?)
}
