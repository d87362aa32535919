//! WAL, opened: every record follows the one before it, on every branch, from the start of each range without a hole to its end.

use walseal_common::lsn::LsnRange;
use walseal_common::repository::{Flaw, FlawKind, ObjectName, Repository, RepositoryError, cure_of_wal_object};
use walseal_common::seal::Identity;
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::terminal::Opened;
use walseal_common::timeline::Branch;
use walseal_common::wal::{WalkOptions, Walker};

use crate::segment_source::{SegmentError, read_segment};

/// Walks over the WAL of `range`, which begins with a segment, and says where its records end before the range does. `told` hears of
/// bytes that were read.
///
/// Errors: the store's, where it does not answer.
pub(super) async fn verify(
    repository: &Repository,
    identities: &[Identity],
    branch: Branch,
    range: LsnRange,
    size: SegmentSize,
    opened: &mut Opened,
    told: &mut impl FnMut(u64),
) -> Result<Option<Flaw>, RepositoryError> {
    let mut number = size.number(range.start);
    // An extension may have a resource manager of its own.
    let options = WalkOptions { system: Some(repository.cluster()), any_manager: true, ..WalkOptions::default() };
    let mut walker: Option<Walker> = None;
    while number.start(size) < range.end {
        let name = ObjectName::Wal(branch, SegmentName::new(branch.timeline, number, size), None);
        let flaw = |what: String| {
            let cure = cure_of_wal_object(&name, number.start(size));
            Ok(Some(Flaw::new(FlawKind::Record, &name, what).cured_by(cure)))
        };
        let read = match read_segment(repository, branch, number, size, identities).await {
            Ok(read) => read,
            // Gone since it was listed: pruned, or missed by the next survey.
            Err(SegmentError::Missing { .. }) => return Ok(None),
            Err(SegmentError::Repository(error)) => match Flaw::of(&name, &error) {
                Some(found) => return Ok(Some(found.cured_by(cure_of_wal_object(&name, number.start(size))))),
                None => return Err(error),
            },
            Err(error) => return flaw(error.to_string()),
        };
        if let Some(lost) = read.lost.first() {
            return flaw(format!("some of its bytes cannot be had: {lost}"));
        }
        let held = read.valid_end.bytes_since(number.start(size));
        let bytes = read.bytes.get(..usize::try_from(held).unwrap_or(0)).unwrap_or_default();
        let walker = match &mut walker {
            Some(walker) => walker,
            None => match Walker::new(number.start(size), size, options) {
                Ok(new) => walker.insert(new),
                Err(error) => return flaw(error.to_string()),
            },
        };
        if let Err(end) = walker.push(bytes, |_| ()) {
            return flaw(format!("its records end at {}, before its bytes do: {}", end.position, end.reason));
        }
        opened.wal_bytes += held;
        told(held);
        if !read.whole {
            break;
        }
        number = number.next();
    }
    Ok(None)
}
