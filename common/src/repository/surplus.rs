//! WAL that arrived without what lies before it.
//!
//! Pieces of WAL are put several at a time, so that a later one can be durable before an earlier one. Where a server and its
//! archiver are lost at that moment, the earlier one never arrives, and what lies beyond leads nowhere. Such a hole must be
//! told apart from WAL that was durable, and confirmed to PostgreSQL, and is gone (I6). What tells them apart is
//! `durable` in the headers of the objects beyond: none of them was sealed after the hole's first byte had been confirmed (I1).
//!
//! That is a statement about the time at which those objects were sealed. Pieces that were under way together know nothing of
//! each other, so that the loss of one of the very last ones looks the same, as the loss of the last one always has: only a
//! witness outside the store tells that the newest end was cut off.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};

use crate::lsn::{Lsn, LsnRange};
use crate::segment::{SegmentName, SegmentNumber};
use crate::store::StoreErrorKind;

use super::wal_listing::range_of;
use super::{ObjectName, Repository, RepositoryError, WalListing};

/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 8;

/// What a branch holds beyond a position.
#[derive(Clone, Debug)]
pub enum Beyond {
    /// Nothing.
    Nothing,
    /// Only WAL that nothing shows to have been confirmed: each object's header says that when it was sealed, nothing beyond
    /// the position had been.
    Unconfirmed(Surplus),
    /// WAL that was confirmed, or that may have been.
    Known {
        /// The object that shows it, or that does not tell.
        name: ObjectName,
        /// What it shows, as the end of "the object …".
        why: String,
        /// Why its header could not be read, where that is so.
        error: Option<RepositoryError>,
    },
}

/// WAL beyond a hole, of which nothing shows that it was ever confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Surplus {
    /// From its first byte to its last; it may have holes of its own.
    #[serde(flatten)]
    pub span: LsnRange,
    /// Bytes that are there.
    pub bytes: u64,
}

impl WalListing {
    /// Every object that holds bytes at or after `lsn`, highest segment first; and each `.partial` that may.
    pub fn objects_beyond(&self, lsn: Lsn) -> Vec<ObjectName> {
        let size = self.segment_size;
        let from = size.number(lsn);
        let mut numbers: BTreeSet<SegmentNumber> = self.tails.range(from..).map(|(number, _)| *number).collect();
        numbers.extend(self.parts.range(from..).map(|(number, _)| *number));
        numbers.extend(self.partials.iter().filter_map(|name| name.number(size)).filter(|number| *number >= from));
        for run in &self.runs {
            let mut number = size.number(run.start.max(from.start(size)));
            while number.start(size) < run.end {
                numbers.insert(number);
                number = number.next();
            }
        }
        let beyond = |name: &ObjectName| range_of(name, size).is_none_or(|range| range.end > lsn);
        numbers.into_iter().rev().flat_map(|number| self.objects_of(number)).filter(beyond).collect()
    }

    /// Forgets everything that holds bytes at or after `end`. A `.partial` of the segment in which `end` lies stays.
    pub fn cut_at(&mut self, end: Lsn) {
        let size = self.segment_size;
        let within = |number: SegmentNumber| number.start(size) < end;
        self.runs.iter_mut().for_each(|run| run.end = run.end.min(size.align_down(end)));
        self.runs.retain(|run| run.start < run.end);
        self.partials.retain(|name| name.number(size).is_some_and(within));
        self.tails.values_mut().for_each(|tails| tails.retain(|tail| tail.end <= end));
        self.tails.retain(|_, tails| !tails.is_empty());
        for (number, parts) in &mut self.parts {
            let segment = SegmentName::new(self.branch.timeline, *number, size);
            let name = |part: &u8| ObjectName::Wal(self.branch, segment, Some(*part));
            parts.retain(|part| range_of(&name(part), size).is_some_and(|range| range.end <= end));
        }
        self.parts.retain(|_, parts| !parts.is_empty());
    }
}

impl Repository {
    /// What `listing` shows beyond `end`, where the WAL that has no hole ends. Reads the headers of the objects there, the
    /// newest first, and no more of them than are needed to see that something was confirmed.
    ///
    /// Errors: the store. A header that does not verify is no error: it cannot tell.
    pub async fn beyond(&self, listing: &WalListing, end: Lsn) -> Result<Beyond, RepositoryError> {
        let names = listing.objects_beyond(end);
        let mut reads = stream::iter(names)
            .map(|name| async move {
                let header = self.read_header(&name).await;
                (name, header)
            })
            .buffered(READS_AT_ONCE);
        let mut found = Vec::new();
        while let Some((name, header)) = reads.next().await {
            let section = match header {
                Ok((signed, _)) => signed.header.wal,
                Err(error) => {
                    let Some(reason) = about_one_object(&error) else { return Err(error) };
                    let why = format!(
                        "cannot be read ({reason}), so that nobody can tell whether the WAL before it was ever confirmed"
                    );
                    return Ok(Beyond::Known { name, why, error: Some(error) });
                }
            };
            let Some(section) = section else { continue };
            let range = LsnRange { start: section.start, end: section.end };
            if range.end <= end {
                continue; // A `.partial` that ends with the WAL.
            }
            let why = match section.durable {
                Some(durable) if durable <= end => {
                    found.push(range);
                    continue;
                }
                Some(durable) => format!("was made when the WAL up to {durable} was durable"),
                None => "does not tell whether the WAL before it was ever confirmed".to_owned(),
            };
            return Ok(Beyond::Known { name, why, error: None });
        }
        Ok(surplus(found).map_or(Beyond::Nothing, Beyond::Unconfirmed))
    }
}

/// What is wrong with one object, where others may well be readable. One that is not there any more went while this looked.
fn about_one_object(error: &RepositoryError) -> Option<String> {
    match error {
        RepositoryError::Object { source, .. } => Some(source.to_string()),
        RepositoryError::Store(error) => match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::Denied | StoreErrorKind::Protocol => Some(error.reason.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn surplus(mut ranges: Vec<LsnRange>) -> Option<Surplus> {
    ranges.sort();
    let start = ranges.first()?.start;
    let (mut end, mut bytes) = (start, 0);
    for range in ranges {
        bytes += range.end.bytes_since(range.start.max(end));
        end = end.max(range.end);
    }
    Some(Surplus { span: LsnRange { start, end }, bytes })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::seal::MAX_PLAINTEXT;
    use crate::segment::SegmentSize;
    use crate::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> LsnRange {
        LsnRange { start: Lsn(start), end: Lsn(end) }
    }

    fn listing(mib: u64) -> WalListing {
        let branch = TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7));
        let segment_size = SegmentSize::new(mib << 20).expect("a legal size");
        let (partials, tails, parts) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        WalListing { branch, segment_size, runs: Vec::new(), partials, tails, parts }
    }

    #[test]
    fn objects_beyond_a_place_come_highest_first_and_what_is_cut_off_is_just_those() {
        let mut listing = listing(1);
        listing.runs = vec![range(3 * MIB, 5 * MIB), range(6 * MIB, 8 * MIB)];
        listing.tails.insert(SegmentNumber(5), vec![range(5 * MIB, 5 * MIB + 10), range(5 * MIB + 20, 5 * MIB + 30)]);
        listing.tails.insert(SegmentNumber(8), vec![range(8 * MIB, 8 * MIB + 10)]);
        let branch = listing.branch;
        let names = listing.objects_beyond(Lsn(5 * MIB + 10)).into_iter().map(|name| name.to_string());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                format!("tail/{branch}/000000010000000000000008/0000000000800000-000000000080000A"),
                format!("wal/{branch}/000000010000000000000007"),
                format!("wal/{branch}/000000010000000000000006"),
                format!("tail/{branch}/000000010000000000000005/0000000000500014-000000000050001E"),
            ]
        );
        listing.cut_at(Lsn(5 * MIB + 10));
        assert!(listing.objects_beyond(Lsn(5 * MIB + 10)).is_empty());
        assert_eq!(listing.highest(), Some(Lsn(5 * MIB + 10)));
        assert_eq!(listing.contiguous_end(Lsn(3 * MIB)), Lsn(5 * MIB + 10));
    }

    #[test]
    fn case_18_parts_of_a_large_segment_are_cut_off_one_by_one() {
        let mut listing = listing(64);
        listing.parts.insert(SegmentNumber(1), vec![0, 2, 3]);
        let end = Lsn((64 << 20) + MAX_PLAINTEXT);
        assert_eq!(listing.objects_beyond(end).len(), 2);
        listing.cut_at(end);
        assert_eq!(listing.parts_of(SegmentNumber(1)), [0]);
    }

    #[test]
    fn a_surplus_counts_every_byte_once() {
        let found = surplus(vec![range(50, 60), range(10, 20), range(15, 30)]).expect("some");
        assert_eq!((found.span, found.bytes), (range(10, 60), 30));
        assert_eq!(surplus(Vec::new()), None);
    }
}
