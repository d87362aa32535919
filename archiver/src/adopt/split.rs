//! Where the WAL of this server and that of the repository part.
//!
//! It is compared as the stream compares it: what the slot has not seen confirmed, by the digests in verified headers. From where the
//! first difference is found one looks back, because a slot may have been made after the two had parted.

use walseal_common::lsn::Lsn;
use walseal_common::repository::{ObjectName, Repository, RepositoryError, RepositoryIdentity};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use super::AdoptError;
use crate::heal::{Brought, Reading, ServerSource, Source};
use crate::index::MemoryIndex;
use crate::keys::ArchiveKeys;
use crate::stream::{Cutter, Past, ServerPosition, StartPoint, start_point};

/// What the comparison has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    /// The repository holds this server's WAL up to here, and nothing else.
    Same {
        /// On this branch.
        branch: Branch,
        /// Up to here.
        through: Lsn,
    },
    /// It holds another server's.
    Differs(Split),
    /// This server has no WAL any more that could be compared.
    Gone {
        /// The branch that the repository holds.
        branch: Branch,
        /// What would have to be compared first.
        from: Lsn,
    },
}

/// Two servers' WAL under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Split {
    /// The branch whose names the other server's WAL has.
    pub(super) branch: Branch,
    /// The first segment known to differ.
    pub(super) segment: SegmentNumber,
    /// The object that shows it.
    pub(super) name: String,
    /// Who wrote that.
    pub(super) holder: String,
    /// Whether all before it is known to be the same.
    pub(super) is_first: bool,
    /// Whether bytes were seen to differ there: else all that is known is that the other server's go on where this one's end.
    pub(super) is_seen: bool,
}

/// What comparing forward has shown.
enum Forward {
    Same,
    Gone,
    Differs(Segment),
}

/// A segment that was compared, as far as both go.
struct Segment {
    segment: SegmentNumber,
    name: String,
    holder: String,
    same: bool,
}

/// A server and a repository that are compared.
pub(super) struct Compared<'a> {
    pub(super) repository: &'a Repository,
    pub(super) identity: &'a RepositoryIdentity,
    pub(super) keys: &'a ArchiveKeys,
    pub(super) server: &'a ServerPosition,
    pub(super) source: &'a ServerSource,
    /// Up to where this server's slot was told that WAL is durable.
    pub(super) slot: Option<Lsn>,
}

impl Compared<'_> {
    fn size(&self) -> SegmentSize {
        self.identity.segment_size
    }

    /// Compares.
    ///
    /// Errors: the server's, the repository's.
    pub(super) async fn compare(&self) -> Result<Comparison, AdoptError> {
        let key = self.keys.writer.compare().id();
        let index = MemoryIndex::default();
        let point = start_point(self.repository, key, self.server, self.slot, &index, Past::default()).await;
        let point = point.map_err(Box::new)?.comparing(None);
        let branch = point.branch;
        let found = match self.forward(&point).await? {
            Forward::Differs(found) => Some(found),
            Forward::Gone => return Ok(Comparison::Gone { branch, from: point.start }),
            Forward::Same => {
                let before = self.before(branch, self.size().number(point.start)).await?;
                match before.filter(|before| !before.same) {
                    Some(before) => Some(before),
                    None => self.beyond(&point).await?,
                }
            }
        };
        match found {
            Some(found) => Ok(Comparison::Differs(self.look_back(branch, found).await?)),
            None => Ok(Comparison::Same { branch, through: self.server.position.min(point.frontier) }),
        }
    }

    /// Compares from the point on.
    async fn forward(&self, point: &StartPoint) -> Result<Forward, AdoptError> {
        let (size, branch) = (self.size(), point.branch);
        let listing = self.repository.wal_listing(branch, size, Some(size.number(point.start))).await?;
        let highest = listing.highest().unwrap_or(point.start).max(point.frontier);
        let until = size.number(highest).end(size);
        let Some(mut reading) = self.read(branch, point.start, until).await? else {
            let nothing_to_compare = point.frontier <= point.start || self.server.position <= point.start;
            return Ok(if nothing_to_compare { Forward::Same } else { Forward::Gone });
        };
        let durable = point.durable.clone().map(|durable| (point.frontier, durable));
        let mut cutter = Cutter::new(branch, size, self.keys.writer.compare(), point.start, durable);
        let mut pieces = Vec::new();
        while let Some(bytes) = wal(&mut reading).await? {
            if let Err(differs) = cutter.push(&bytes, &mut pieces) {
                let segment = size.number(Lsn(differs.at.0.saturating_sub(1)));
                let (name, holder) = (differs.name, differs.writer);
                return Ok(Forward::Differs(Segment { segment, name, holder, same: false }));
            }
            for piece in pieces.drain(..) {
                match piece.compare(self.repository, self.keys).await {
                    Ok(()) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(RepositoryError::Conflict { name, writer: holder }) => {
                        let segment = size.number(piece.start);
                        return Ok(Forward::Differs(Segment { segment, name, holder, same: false }));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(Forward::Same)
    }

    /// The segment in which this server's WAL ends, where the repository holds more: no server's archiver stores what the server has not
    /// got, so that it is another's.
    async fn beyond(&self, point: &StartPoint) -> Result<Option<Segment>, AdoptError> {
        let (size, branch, end) = (self.size(), point.branch, self.server.position);
        let is_own = self.server.way().last().is_some_and(|last| last.branch == branch);
        if !is_own || point.frontier <= end {
            return Ok(None);
        }
        let segment = size.number(end);
        let listing = self.repository.wal_listing_of(branch, size, &[(segment, size.number(point.frontier))]).await?;
        let last = size.number(Lsn(point.frontier.0 - 1));
        let Some(name) = listing.objects_of(last).pop() else { return Ok(None) };
        let holder = self.repository.read_header(&name).await?.0.header.writer;
        Ok(Some(Segment { segment, name: name.to_string(), holder, same: true }))
    }

    /// The segment before `number`, compared; `None` where the branch has no whole one there, or this server.
    async fn before(&self, branch: Branch, number: SegmentNumber) -> Result<Option<Segment>, AdoptError> {
        let size = self.size();
        let way = self.server.way();
        let begin = way.iter().find(|step| step.branch == branch).map_or(Lsn::INVALID, |step| step.begin);
        let before = number.0.checked_sub(1).map(SegmentNumber).filter(|before| before.end(size) > begin);
        let Some(segment) = before else { return Ok(None) };
        let listing = self.repository.wal_listing_of(branch, size, &[(segment, segment)]).await?;
        let mut objects = listing.objects_of(segment).into_iter();
        let last = objects.rfind(|name| matches!(name, ObjectName::Wal(..)));
        let Some(name) = last.filter(|_| listing.has_segment(segment)) else { return Ok(None) };
        let header = self.repository.read_header(&name).await?.0.header;
        let there = header.wal.filter(|wal| wal.compare_key == self.keys.writer.compare().id());
        let (Some(there), Some(own)) = (there, self.digest(branch, segment).await?) else { return Ok(None) };
        let (name, holder, same) = (name.to_string(), header.writer, own == there.digest_end);
        Ok(Some(Segment { segment, name, holder, same }))
    }

    /// The first segment that differs, where a later one does.
    async fn look_back(&self, branch: Branch, found: Segment) -> Result<Split, AdoptError> {
        let size = self.size();
        let mut first = found;
        let is_seen = !first.same;
        let is_first = loop {
            match self.before(branch, first.segment).await? {
                Some(before) if !before.same => first = before,
                Some(_) => break true,
                // What this server's slot saw confirmed was its own.
                None => {
                    break self.slot.is_some_and(|slot| slot >= first.segment.start(size))
                        || self.begins_in(branch, first.segment);
                }
            }
        };
        let Segment { segment, name, holder, same } = first;
        let is_seen = is_seen || !same;
        Ok(Split { branch, segment, name, holder, is_first, is_seen })
    }

    /// Whether nothing of the branch lies before the segment on this server's way.
    fn begins_in(&self, branch: Branch, segment: SegmentNumber) -> bool {
        let way = self.server.way();
        way.iter().any(|step| step.branch == branch && segment.start(self.size()) <= step.begin)
    }

    /// Digest of a whole segment of the server; `None` where it has it no more.
    async fn digest(
        &self,
        branch: Branch,
        number: SegmentNumber,
    ) -> Result<Option<walseal_common::seal::CompareDigest>, AdoptError> {
        let range = number.range(self.size());
        let Some(mut reading) = self.read(branch, range.start, range.end).await? else { return Ok(None) };
        let mut hasher = self.keys.writer.compare().hasher();
        let mut at = range.start;
        while let Some(bytes) = wal(&mut reading).await? {
            at = at.advance(bytes.len() as u64);
            hasher.update(&bytes);
        }
        Ok((at == range.end).then(|| hasher.digest()))
    }

    /// The server's WAL from `from` on; `None` where it has none there.
    async fn read(&self, branch: Branch, from: Lsn, until: Lsn) -> Result<Option<Reading>, AdoptError> {
        let reading = self.source.read(branch.timeline, from, until).await?;
        Ok(reading.filter(|reading| reading.start == from))
    }
}

/// The WAL that follows; `None` at its end.
pub(super) async fn wal(reading: &mut Reading) -> Result<Option<bytes::Bytes>, AdoptError> {
    while let Some(brought) = reading.brought.recv().await {
        match brought? {
            Brought::Wal(bytes) => return Ok(Some(bytes)),
            Brought::Finished(_) => {}
            Brought::End(_) => break,
        }
    }
    Ok(None)
}
