//! The named restore points that can be reached. Nothing but the WAL itself has them: names that users give are sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::Serialize;
use walseal_common::lsn::Lsn;
use walseal_common::repository::Repository;
use walseal_common::seal::Identity;
use walseal_common::segment::SegmentNumber;
use walseal_common::terminal::Progress;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::{Branch, TimelineId};
use walseal_common::wal::Content;

use super::branches;
use super::inventory::Inventory;
use super::path::Path;
use super::reader::{PathReader, ReadError};
use super::refusal::PlanError;
use super::windows::{Span, spans};

/// Segments that are walked in one go, so that a record that spans two of them is met once.
const CHUNK: usize = 8;

/// A named restore point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RestorePoint {
    /// The name that somebody gave.
    pub name: String,
    /// When it was made, by the server's clock.
    pub time: PgTimestamp,
    /// Where its record starts: what `--to lsn:` takes.
    pub lsn: Lsn,
    /// The branch that it lies on.
    pub branch: Branch,
    /// Its timeline's number.
    pub timeline: TimelineId,
}

/// What a search for restore points has behind it.
#[derive(Default)]
struct Search {
    /// Segments that were opened, by the branch that holds them.
    done: BTreeSet<(Branch, SegmentNumber)>,
    found: BTreeMap<(Branch, Lsn), RestorePoint>,
}

/// Opens all WAL of all windows, and returns the restore points in it, by timeline and position. Objects that turn out to be of
/// no use are left out of `inventory`, and what only they hold is not searched. `progress` is told what is read, and how much
/// there is.
///
/// Cost: every segment is fetched and opened once. Memory: two segments, and the points.
///
/// Errors: WAL that cannot be read.
pub async fn restore_points(
    repository: &Repository,
    identities: &[Identity],
    inventory: &mut Inventory,
    progress: &Progress,
) -> Result<Vec<RestorePoint>, PlanError> {
    progress.set_total(wal_size(inventory));
    let mut search = Search::default();
    loop {
        match search.go_on(repository, identities, inventory, progress).await {
            Ok(()) => return Ok(search.found.into_values().collect()),
            Err(ReadError::Damaged(found)) if inventory.leave_out(repository, &found).await? => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Bytes of WAL in all windows, those that several share counted once.
pub fn wal_size(inventory: &Inventory) -> u64 {
    let mut segments = BTreeSet::new();
    for end in branches::ends(inventory).ends {
        let path = Path::new(&end, inventory);
        for span in spans(&path, inventory) {
            segments.extend(numbers(&path, &span).filter_map(|number| Some((path.branch_of(number)?.branch, number))));
        }
    }
    segments.len() as u64 * inventory.identity.segment_size.bytes()
}

/// The segments from the first base backup's stop point to the window's end.
fn numbers(path: &Path<'_>, span: &Span<'_>) -> impl Iterator<Item = SegmentNumber> + use<> {
    let (first, last) = (path.size().number(span.first().stop), path.size().number(Lsn(span.extent.end.0 - 1)));
    (first.0..=last.0).map(SegmentNumber)
}

impl Search {
    async fn go_on(
        &mut self,
        repository: &Repository,
        identities: &[Identity],
        inventory: &Inventory,
        progress: &Progress,
    ) -> Result<(), ReadError> {
        for end in branches::ends(inventory).ends {
            let path = Path::new(&end, inventory);
            let reader = PathReader::new(repository, identities, &path, Some(progress));
            for span in spans(&path, inventory) {
                let left: Vec<SegmentNumber> =
                    numbers(&path, &span).filter(|number| !self.is_done(&path, *number)).collect();
                for chunk in left.chunk_by(|one, next| one.next() == *next).flat_map(|run| run.chunks(CHUNK)) {
                    self.open(&reader, &span, chunk).await?;
                }
            }
        }
        Ok(())
    }

    fn is_done(&self, path: &Path<'_>, number: SegmentNumber) -> bool {
        path.branch_of(number).is_some_and(|step| self.done.contains(&(step.branch, number)))
    }

    async fn open(
        &mut self,
        reader: &PathReader<'_>,
        span: &Span<'_>,
        numbers: &[SegmentNumber],
    ) -> Result<(), ReadError> {
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
        let path = reader.path();
        let mut found = Vec::new();
        reader
            .visit(*first, *last, span.extent.start, |record| {
                if let Content::RestorePoint(point) = &record.content
                    && record.start >= span.first().stop
                    && record.end <= span.extent.end
                {
                    // A record lies on the branch that the way is on where it ends.
                    let holder = path.steps.iter().find(|step| step.switch.is_none_or(|switch| record.end <= switch));
                    let branch = holder.map_or(path.branch(), |step| step.branch);
                    let (name, time, lsn) = (point.name.clone(), point.time, record.start);
                    found.push(RestorePoint { name, time, lsn, branch, timeline: branch.timeline });
                }
                ControlFlow::Continue(())
            })
            .await?;
        self.found.extend(found.into_iter().map(|point| ((point.branch, point.lsn), point)));
        self.done.extend(numbers.iter().filter_map(|number| Some((path.branch_of(*number)?.branch, *number))));
        Ok(())
    }
}
