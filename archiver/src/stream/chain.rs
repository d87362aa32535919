//! What a branch holds without a hole, proven by headers: names are only hints.

use std::collections::BTreeMap;

use tokio::task::JoinSet;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{ObjectName, Repository, RepositoryError, WalListing};
use walseal_common::seal::{CompareKeyId, Header, MAX_PLAINTEXT, SealError, WalSection};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};

use super::StreamError;
use super::start::{Durable, StartPoint};
use crate::index::Index;

/// How many headers are read at the same time.
const READS_AT_ONCE: usize = 8;

/// The frontier of a branch: where the WAL ends that lies in the repository without a hole from the slot's position on, or
/// from the last before it that is there. Beyond what the slot had confirmed, every object on the way is verified (I1).
/// `seen` is up to where this process has itself shipped what this server sent.
///
/// Errors: an object that no trusted writer signed, or that was made with another compare key.
pub(super) async fn frontier_of(
    repository: &Repository,
    listing: &WalListing,
    key: CompareKeyId,
    slot: Option<Lsn>,
    seen: Option<Lsn>,
    index: &dyn Index,
) -> Result<StartPoint, StreamError> {
    let (branch, size) = (listing.branch, listing.segment_size);
    let anchor = size.number(slot.or(listing.highest()).unwrap_or_default());
    let first = listing.last_begun(anchor).unwrap_or(anchor);
    let begin = first.start(size);
    let whole = listing.runs.iter().find(|run| run.contains(begin)).map_or(begin, |run| run.end);
    let run = LsnRange { start: begin, end: whole };
    let last = headers(repository, unverified_names(listing, run, index)).await?.pop();
    if !run.is_empty() {
        index.record(branch, run);
    }
    let tail = pieces(repository, listing, size.number(whole), key).await?;
    // What the slot has not seen confirmed may be another server's: whole segments are compared as they come again. Those
    // that this process has shipped are ours; of them the last one tells whether this is still the same server.
    let unseen =
        slot.filter(|slot| begin <= *slot && *slot < whole).map(|slot| seen.map_or(slot, |seen| seen.max(slot)));
    let unseen = match unseen {
        Some(from) if from < whole => Some(size.align_down(from)),
        Some(_) if tail.is_none() => Some(size.align_down(Lsn(whole.0 - 1))),
        _ => None,
    };
    let (frontier, durable) = match (tail, last) {
        (Some((end, durable)), _) => (end, Some(durable)),
        (None, Some((name, header))) if unseen.is_some() => {
            let digest = section(&name, &header, key)?.digest_end;
            (whole, Some(Durable { digest, name: name.to_string(), writer: header.writer, pieces: 0 }))
        }
        (None, _) => (whole, None),
    };
    Ok(StartPoint { branch, start: whole, frontier, durable, unseen, followed: None })
}

/// The same point, begun early enough that the last bytes before its frontier are compared with what comes: nobody knows whether
/// this server's WAL is that of a branch that was adopted (case 17).
pub(super) async fn compared(
    repository: &Repository,
    listing: &WalListing,
    key: CompareKeyId,
    point: StartPoint,
) -> Result<StartPoint, StreamError> {
    let size = listing.segment_size;
    if point.unseen.is_some() || point.durable.is_some() || !listing.has_segment(last_of(point.frontier, size)) {
        return Ok(point);
    }
    let last = last_of(point.frontier, size);
    let names = whole_names(listing, last.range(size));
    let Some((name, header)) = headers(repository, names).await?.pop() else { return Ok(point) };
    let (digest, name) = (section(&name, &header, key)?.digest_end, name.to_string());
    let durable = Some(Durable { digest, name, writer: header.writer, pieces: 0 });
    Ok(StartPoint { durable, unseen: Some(last.start(size)), ..point })
}

/// The segment that holds the byte before `end`.
fn last_of(end: Lsn, size: SegmentSize) -> SegmentNumber {
    size.number(Lsn(end.0.saturating_sub(1)))
}

/// The objects of whole segments that the index does not know as verified, and always those of the last segment.
fn unverified_names(listing: &WalListing, run: LsnRange, index: &dyn Index) -> Vec<ObjectName> {
    let known = index.verified(listing.branch);
    let mut names = Vec::new();
    let mut number = listing.segment_size.number(run.start);
    while number.start(listing.segment_size) < run.end {
        let range = number.range(listing.segment_size);
        let verified = known.iter().any(|known| known.start <= range.start && range.end <= known.end);
        if !verified || range.end == run.end {
            names.extend(whole_names(listing, range));
        }
        number = number.next();
    }
    names
}

/// The objects of whole segments.
fn whole_names(listing: &WalListing, range: LsnRange) -> Vec<ObjectName> {
    let (branch, size) = (listing.branch, listing.segment_size);
    let parts = size.bytes() / MAX_PLAINTEXT;
    let mut names = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let segment = SegmentName::new(branch.timeline, size.number(at), size);
        match parts {
            0 | 1 => names.push(ObjectName::Wal(branch, segment, None)),
            // At most 64 parts: 1 GiB in 16 MiB.
            parts => names.extend((0..parts as u8).map(|part| ObjectName::Wal(branch, segment, Some(part)))),
        }
        at = at.advance(size.bytes());
    }
    names
}

/// Verified headers, in order.
async fn headers(repository: &Repository, names: Vec<ObjectName>) -> Result<Vec<(ObjectName, Header)>, StreamError> {
    let mut reads = JoinSet::new();
    let mut read: Vec<Option<(ObjectName, Header)>> = names.iter().map(|_| None).collect();
    let mut waiting = names.into_iter().enumerate();
    loop {
        while reads.len() < READS_AT_ONCE
            && let Some((at, name)) = waiting.next()
        {
            let repository = repository.clone();
            reads.spawn(async move {
                let header = repository.read_header(&name).await?.0.header;
                Ok::<_, RepositoryError>((at, name, header))
            });
        }
        let Some(done) = reads.join_next().await else { return Ok(read.into_iter().flatten().collect()) };
        let (at, name, header) = done.map_err(|error| StreamError::Task(error.to_string()))??;
        if let Some(place) = read.get_mut(at) {
            *place = Some((name, header));
        }
    }
}

/// The part of a header that says which WAL it is, if its digests can be compared with ours.
fn section(name: &ObjectName, header: &Header, key: CompareKeyId) -> Result<WalSection, RepositoryError> {
    let name = name.to_string();
    let Some(section) = header.wal.clone() else {
        let source = SealError::Structure("its header does not say which WAL it holds".to_owned());
        return Err(RepositoryError::Object { name, source });
    };
    if section.compare_key == key {
        Ok(section)
    } else {
        Err(RepositoryError::OtherCompareKey { name, writer: header.writer.clone() })
    }
}

/// How far the pieces of a segment that is not whole follow each other from its start on: each begins where the one
/// before ends, and with the digest with which that one ends. So pieces of two servers never make one chain (case 17).
async fn pieces(
    repository: &Repository,
    listing: &WalListing,
    number: SegmentNumber,
    key: CompareKeyId,
) -> Result<Option<(Lsn, Durable)>, StreamError> {
    let (branch, size) = (listing.branch, listing.segment_size);
    let (segment, start) = (SegmentName::new(branch.timeline, number, size), number.start(size));
    let mut available: Vec<(LsnRange, ObjectName)> =
        listing.tails_of(number).iter().map(|tail| (*tail, ObjectName::Tail(branch, segment, *tail))).collect();
    for part in listing.parts_of(number) {
        let start = start.advance(u64::from(*part) * MAX_PLAINTEXT);
        let range = LsnRange { start, end: start.advance(MAX_PLAINTEXT) };
        available.push((range, ObjectName::Wal(branch, segment, Some(*part))));
    }
    if listing.partials.contains(&segment) {
        let name = ObjectName::Partial(branch, segment);
        let (signed, _) = repository.read_header(&name).await?;
        let section = section(&name, &signed.header, key)?;
        available.push((LsnRange { start: section.start, end: section.end }, name));
    }
    available.sort();
    loop {
        let path = longest(start, &available);
        let names = path.iter().filter_map(|at| available.get(*at)).map(|(_, name)| name.clone()).collect();
        let mut end: Option<(Lsn, Durable)> = None;
        let mut stray = None;
        for (at, (name, header)) in path.iter().zip(headers(repository, names).await?) {
            let section = section(&name, &header, key)?;
            if end.as_ref().is_some_and(|(_, before)| before.digest != section.digest_start) {
                tracing::warn!(%name, writer = header.writer, "this does not go on with the WAL before it, and does not count");
                stray = Some(*at);
                break;
            }
            // Pieces of earlier parts are no pieces of the last one.
            let part = size.offset(section.start) / MAX_PLAINTEXT;
            let before =
                end.filter(|(end, _)| size.offset(*end) / MAX_PLAINTEXT == part).map_or(0, |(_, end)| end.pieces);
            let (name, writer) = (name.to_string(), header.writer);
            end = Some((section.end, Durable { digest: section.digest_end, name, writer, pieces: before + 1 }));
        }
        match stray {
            Some(at) => drop(available.remove(at)),
            None => return Ok(end),
        }
    }
}

/// The way from `start` to the furthest place that pieces reach of which each begins where the one before ends; of several
/// ways the one with the fewest pieces. `available` is sorted by start; so is the answer, which tells places in it.
fn longest(start: Lsn, available: &[(LsnRange, ObjectName)]) -> Vec<usize> {
    // By end: how many pieces lead there, and the last of them.
    let mut reached: BTreeMap<Lsn, (u32, Option<usize>)> = BTreeMap::from([(start, (0, None))]);
    for (at, (piece, _)) in available.iter().enumerate() {
        // Every piece that ends where this one begins stands before it, so the count at its start is final.
        let Some((count, _)) = reached.get(&piece.start).copied() else { continue };
        if reached.get(&piece.end).is_none_or(|(best, _)| *best > count + 1) {
            reached.insert(piece.end, (count + 1, Some(at)));
        }
    }
    let mut path = Vec::new();
    let mut last = reached.last_key_value().and_then(|(_, (_, last))| *last);
    while let Some(at) = last {
        path.push(at);
        let begins = available.get(at).map(|(piece, _)| piece.start);
        last = begins.and_then(|begins| reached.get(&begins)).and_then(|(_, before)| *before);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use walseal_common::repository::Cover;

    use super::*;

    proptest! {
        #[test]
        fn i2_a_way_has_no_hole_and_no_shorter_one_reaches_as_far(raw in prop::collection::vec((0u64..30, 1u64..12), 0..14)) {
            let mut available: Vec<(LsnRange, ObjectName)> = raw
                .iter()
                .map(|(start, length)| (LsnRange { start: Lsn(*start), end: Lsn(start + length) }, ObjectName::Identity))
                .collect();
            available.sort();
            let path = longest(Lsn(0), &available);
            let mut end = Lsn(0);
            for at in &path {
                prop_assert_eq!(available[*at].0.start, end);
                end = available[*at].0.end;
            }
            // By brute force: where exact ways lead, and in how many steps at least.
            let mut steps = vec![None; 64];
            steps[0] = Some(0);
            for from in 0..64 {
                let Some(count) = steps[from] else { continue };
                for (piece, _) in available.iter().filter(|(piece, _)| piece.start.0 == from as u64) {
                    let there: &mut Option<usize> = &mut steps[piece.end.0 as usize];
                    *there = Some(there.map_or(count + 1, |before: usize| before.min(count + 1)));
                }
            }
            let furthest = steps.iter().rposition(Option::is_some).unwrap_or_default();
            prop_assert_eq!((end.0 as usize, Some(path.len())), (furthest, steps[furthest]));
            let ranges: Vec<LsnRange> = available.iter().map(|(range, _)| *range).collect();
            prop_assert!(Cover::of(Lsn(0), &ranges).end >= end);
        }
    }
}
