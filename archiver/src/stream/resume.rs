//! Where a stream begins: the server's timeline and history, and the repository's frontier.

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::postgres::ReplicationClient;
use walseal_common::postgres::conninfo::TargetSessionAttrs;
use walseal_common::repository::{ObjectName, Repository, RepositoryIdentity, WalListing};
use walseal_common::seal::{CompareDigest, Draft, Kind, MAX_PLAINTEXT, WalSection};
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

use super::StreamError;
use crate::keys::ArchiveKeys;

/// Where a stream begins.
#[derive(Clone, Debug)]
pub struct StartPoint {
    /// The branch to stream.
    pub branch: Branch,
    /// START_REPLICATION begins here: the start of a segment.
    pub start: Lsn,
    /// End of the contiguous durable WAL; not below `start`.
    pub frontier: Lsn,
    /// Digest of the segment up to the frontier, when that lies within a segment.
    pub digest: Option<CompareDigest>,
}

/// What the server is, checked against the repository (I4).
#[derive(Clone, Debug)]
pub struct ServerPosition {
    /// Its current timeline's ancestry.
    pub history: TimelineHistory,
    /// End of its WAL.
    pub position: Lsn,
    /// Size of its segments.
    pub segment_size: SegmentSize,
}

/// Asks the server who it is, and refuses any but the repository's cluster.
pub async fn identify(
    client: &mut ReplicationClient,
    repository: &Repository,
    identity: &RepositoryIdentity,
    wanted: TargetSessionAttrs,
) -> Result<ServerPosition, StreamError> {
    let system = client.identify_system().await?;
    if system.system_identifier != repository.cluster() {
        return Err(StreamError::OtherCluster {
            server: system.system_identifier,
            expected: repository.cluster(),
            repository: repository.describe(),
        });
    }
    let by_choice = matches!(wanted, TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby);
    if client.parameter("in_hot_standby") == Some("on") && !by_choice {
        return Err(StreamError::Standby { host: client.host().to_string() });
    }
    let segment_size = client.segment_size().await?;
    if segment_size != identity.segment_size {
        return Err(StreamError::OtherSegmentSize {
            server: segment_size.bytes(),
            expected: identity.segment_size.bytes(),
        });
    }
    let history = match client.timeline_history(system.timeline).await? {
        Some(content) => TimelineHistory::parse(system.timeline, &content)?,
        None if system.timeline == TimelineId::FIRST => TimelineHistory::root(system.timeline),
        None => return Err(StreamError::NoHistory(system.timeline.number())),
    };
    Ok(ServerPosition { history, position: system.position, segment_size })
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
            sealer.finish()
        };
        let object = seal()
            .map_err(|source| walseal_common::repository::RepositoryError::Object { name: name.to_string(), source })?;
        repository.put(&object).await?;
    }
    Ok(())
}

/// The timelines of a history, oldest first, its own last.
fn path(history: &TimelineHistory) -> Vec<TimelineId> {
    history.entries.iter().map(|entry| entry.timeline).chain([history.timeline]).collect()
}

/// Finds where to begin on the server's path: at the frontier of the newest branch of it that the repository knows.
///
/// `slot` is the oldest WAL that the slot keeps. Where the repository holds nothing of the path, the stream begins there.
pub async fn start_point(
    repository: &Repository,
    server: &ServerPosition,
    slot: Option<Lsn>,
) -> Result<StartPoint, StreamError> {
    let size = server.segment_size;
    let history = &server.history;
    let mut timelines = path(history);
    timelines.reverse();
    for (at, timeline) in timelines.iter().enumerate() {
        let Some(own) = history.ancestor(*timeline) else { continue };
        let branch = own.branch(repository.cluster());
        let listing = repository.wal_listing(branch, size, None).await?;
        if listing.is_empty() {
            continue;
        }
        let end = history.end_of(*timeline);
        let point = frontier_on(repository, &listing, slot).await?;
        let Some(end) = end else { return Ok(point) };
        if point.frontier < end {
            return Ok(point);
        }
        if point.frontier > end {
            // Case 11: the old primary had shipped more than the new one has.
            tracing::warn!(
                %branch,
                fork = %end,
                frontier = %point.frontier,
                bytes = point.frontier.bytes_since(end),
                "the server's history leaves this branch before the end of what is in the repository; the surplus is kept as the branch's end"
            );
        }
        let segment = SegmentName::new(*timeline, size.number(end), size);
        let kept =
            size.offset(end) == 0 || listing.partials.contains(&segment) || listing.has_segment(size.number(end));
        if !kept && point.frontier == end {
            // Its last segment lies there as tails only: stream it once more, to keep it as `.partial`.
            return Ok(point);
        }
        // The ancestor is complete: go on with its child, which `timelines` names just before it.
        let child = at.checked_sub(1).and_then(|before| timelines.get(before)).copied().unwrap_or(history.timeline);
        return Ok(fresh(repository, history, child, size.align_down(end)));
    }
    let start = slot.unwrap_or(server.position);
    let timeline = history.timeline_at(start);
    Ok(fresh(repository, history, timeline, size.align_down(start)))
}

fn fresh(repository: &Repository, history: &TimelineHistory, timeline: TimelineId, start: Lsn) -> StartPoint {
    let own = history.ancestor(timeline).unwrap_or_else(|| TimelineHistory::root(timeline));
    StartPoint { branch: own.branch(repository.cluster()), start, frontier: start, digest: None }
}

/// The frontier of a branch: the end of the contiguous durable WAL that reaches furthest without being beyond what the
/// slot still keeps. With nothing to anchor it, the last run's.
async fn frontier_on(
    repository: &Repository,
    listing: &WalListing,
    slot: Option<Lsn>,
) -> Result<StartPoint, StreamError> {
    let size = listing.segment_size;
    let highest = listing.highest().unwrap_or_default();
    let anchor = slot.map_or(highest, |slot| slot.min(highest));
    let begins = |lsn: Lsn| {
        let segment = size.align_down(lsn);
        listing.has_segment(size.number(segment))
            || listing.tails_of(size.number(segment)).iter().any(|t| t.start == segment)
    };
    // A position at the very end of a run lies in a segment that may not exist yet; the run before it counts.
    let run_before = listing.runs.iter().rev().find(|run| run.start <= anchor).map(|run| run.start);
    let first_tail = || listing.tails.keys().next().map(|number| number.start(size));
    let from = if begins(anchor) { anchor } else { run_before.or_else(first_tail).unwrap_or(anchor) };
    let frontier = repository.contiguous_end(listing, from).await?;
    let start = size.align_down(frontier);
    let digest = if frontier == start { None } else { Some(digest_at(repository, listing, frontier).await?) };
    if frontier == start && start != size.align_down(from) {
        // The frontier stands on a whole segment: what it says is trusted only as far as its signature.
        let last = size.number(Lsn(start.0 - 1));
        verify_segment(repository, listing, last).await?;
    }
    Ok(StartPoint { branch: listing.branch, start, frontier, digest })
}

async fn verify_segment(
    repository: &Repository,
    listing: &WalListing,
    number: walseal_common::segment::SegmentNumber,
) -> Result<(), StreamError> {
    let size = listing.segment_size;
    let segment = SegmentName::new(listing.branch.timeline, number, size);
    let last_part = (size.bytes() > MAX_PLAINTEXT).then(|| (size.bytes() / MAX_PLAINTEXT - 1) as u8);
    repository.read_header(&ObjectName::Wal(listing.branch, segment, last_part)).await?;
    Ok(())
}

/// The digest of the segment up to `end`, from the verified header of the object that ends there.
async fn digest_at(repository: &Repository, listing: &WalListing, end: Lsn) -> Result<CompareDigest, StreamError> {
    let size = listing.segment_size;
    let number = size.number(Lsn(end.0.saturating_sub(1)));
    let segment = SegmentName::new(listing.branch.timeline, number, size);
    let tails = listing.tails_of(number).iter().filter(|tail| tail.end == end);
    let mut names: Vec<ObjectName> = tails.map(|tail| ObjectName::Tail(listing.branch, segment, *tail)).collect();
    if let Some(part) = listing.parts_of(number).iter().find(|part| part_range(number.start(size), **part).end == end) {
        names.push(ObjectName::Wal(listing.branch, segment, Some(*part)));
    }
    names.push(ObjectName::Partial(listing.branch, segment));
    let mut last = None;
    for name in names {
        match repository.read_header(&name).await {
            Ok((signed, _)) => {
                let section: Option<WalSection> = signed.header.wal;
                if let Some(section) = section.filter(|section| section.end == end) {
                    return Ok(section.digest_end);
                }
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| StreamError::Task(format!("no object ends at the frontier {end}")), StreamError::from))
}

fn part_range(segment_start: Lsn, part: u8) -> LsnRange {
    let start = segment_start.advance(u64::from(part) * MAX_PLAINTEXT);
    LsnRange { start, end: start.advance(MAX_PLAINTEXT) }
}
