//! What a stream that ended still held of the segment it was in.
//!
//! Where the server has lost the WAL that comes next, a window ends in the middle of a segment, and what is durable of that lies in
//! tails, which this side cannot open (I9). If the bytes are still here, they are kept as `.partial`, which is one object
//! instead of many, and may be more than was durable.

use std::sync::{Arc, Mutex, PoisonError};

use walseal_common::lsn::Lsn;
use walseal_common::seal::CompareKey;

use super::StreamError;
use super::start::StartPoint;
use super::streamer::Streamer;
use crate::shipment::{Piece, ShipError};

/// The last bytes of a stream that ended, at most one object's (I11): while there are any, no other stream holds some.
#[derive(Clone, Default, Debug)]
pub(super) struct Remains(Arc<Mutex<Option<Piece>>>);

impl Remains {
    /// A stream has ended with this.
    pub(super) fn leave(&self, piece: Option<Piece>) {
        if let Some(piece) = piece {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(piece);
        }
    }

    /// Another stream brings WAL.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn get(&self) -> Option<Piece> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Streamer {
    /// Keeps the last segment before a gap as `.partial`, where its bytes are still here. Returns where the WAL ends that is
    /// durable then: not below the point's frontier.
    pub(super) async fn keep_remains(&self, point: &StartPoint) -> Result<Lsn, StreamError> {
        let Some(piece) = self.remains.get().filter(|piece| goes_on(piece, point, self.keys.writer.compare())) else {
            return Ok(point.frontier);
        };
        let (end, name) = (piece.range().end, piece.name());
        let piece = Piece { durable: Some(point.frontier), ..piece };
        let room = self.memory.room(piece.footprint()).await;
        match piece.ship(&self.repository, &self.keys, &room).await {
            Ok(_) => {
                tracing::info!(%name, frontier = %point.frontier, %end, "kept the end of the WAL before the gap");
                Ok(end)
            }
            // One that ends elsewhere has the name; the tails stay.
            Err(ShipError::Repository(error)) if error.is_conflict() => {
                tracing::warn!(%error, "the end of the WAL before the gap stays in tails");
                Ok(point.frontier)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the piece holds the frontier, with the bytes before it that the repository has.
fn goes_on(piece: &Piece, point: &StartPoint, key: &CompareKey) -> bool {
    let (range, size) = (piece.range(), piece.segment_size);
    let holds = piece.branch == point.branch && range.start <= point.frontier && point.frontier <= range.end;
    if !holds || size.number(range.start) != size.number(point.frontier) {
        return false;
    }
    let Some(durable) = &point.durable else { return point.frontier == range.start };
    if range.end == point.frontier {
        return piece.digest_end == durable.digest;
    }
    // Of a later part of a large segment, the digest of what lies before it is not to be had.
    let Some(bytes) = piece.bytes.clone().take_first(usize::MAX).filter(|_| size.offset(range.start) == 0) else {
        return false;
    };
    let length = usize::try_from(point.frontier.bytes_since(range.start)).unwrap_or(usize::MAX);
    let mut hasher = key.hasher();
    hasher.update(bytes.get(..length).unwrap_or_default());
    hasher.digest() == durable.digest
}

#[cfg(test)]
mod tests {
    use walseal_common::seal::WriterKey;
    use walseal_common::segment::{SegmentNumber, SegmentSize};
    use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;
    use crate::stream::{Cutter, Durable};

    #[test]
    fn only_what_begins_with_the_durable_bytes_of_that_segment_is_kept() {
        let key = WriterKey::generate().expect("random bytes").compare().clone();
        let size = SegmentSize::new(1 << 20).expect("a legal size");
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7));
        let start = SegmentNumber(5).start(size);
        let bytes: Vec<u8> = (0..3000u32).map(|at| at as u8).collect();
        let mut cutter = Cutter::new(branch, size, &key, start, None);
        cutter.push(&bytes, &mut Vec::new()).expect("nothing to differ from");
        let piece = cutter.partial().expect("3000 bytes");
        let digest = |length: usize| {
            let mut hasher = key.hasher();
            hasher.update(&bytes[..length]);
            hasher.digest()
        };
        let point = |at: u64, length: usize| StartPoint {
            branch,
            start,
            frontier: start.advance(at),
            durable: Some(Durable { digest: digest(length), name: String::new(), writer: String::new(), pieces: 1 }),
            unseen: None,
            followed: None,
        };
        assert!(goes_on(&piece, &point(3000, 3000), &key), "all of it is durable");
        assert!(goes_on(&piece, &point(1000, 1000), &key), "there is more than is durable");
        assert!(!goes_on(&piece, &point(1000, 999), &key), "other bytes are");
        assert!(!goes_on(&piece, &point(3000, 2999), &key), "other bytes are");
        assert!(!goes_on(&piece, &point(3008, 3000), &key), "more is durable than this");
        assert!(!goes_on(&piece, &point(1000 + (1 << 20), 1000), &key), "another segment");
        assert!(
            goes_on(&piece, &StartPoint { durable: None, ..point(0, 0) }, &key),
            "nothing of the segment is durable"
        );
        assert!(!goes_on(&piece, &StartPoint { durable: None, ..point(8, 8) }, &key), "nobody can tell");
    }
}
