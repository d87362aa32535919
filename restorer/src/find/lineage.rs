//! Relations that were made between the base backup before a range and the range: no list of names has them, and in the range they may only
//! be dropped.

use std::ops::ControlFlow;

use futures_util::StreamExt;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::segment::SegmentNumber;
use walseal_common::wal::WalVersion;
use walseal_common::wal::change::{BODY_LIMIT, ChangeWalk, RunSummary};

use super::names::Names;
use super::search::FindError;
use super::shelf::Shelf;
use crate::access::Access;
use crate::plan::reader::PathReader;

/// Segments that no summary tells of and that are read for names, at most: the newest. A cluster that streams has fewer than a run of them.
const MOST_READ: usize = 64;

/// Learns what the transactions made that committed in `span`: from summaries, and where there are none, from the WAL.
///
/// Errors: the store, and WAL that cannot be read.
pub(super) async fn learn(
    access: &Access,
    reader: &PathReader<'_>,
    version: WalVersion,
    span: LsnRange,
    names: &mut Names,
) -> Result<(), FindError> {
    let (path, size) = (reader.path(), reader.path().size());
    let parts = span.within(&path.extents);
    let (Some(begin), Some(end)) = (parts.first(), parts.last()) else { return Ok(()) };
    let (first, last) = (size.number(begin.start), size.number(Lsn(end.end.0 - 1)));
    let shelf = Shelf::of_structure(access, path, span).await?;
    let floor = newest_unread(&shelf, first, last);
    let mut walk = ChangeWalk::default();
    let mut next = first;
    let mut summaries = std::pin::pin!(shelf.read(access, span));
    while next <= last {
        let summary = summaries.as_mut().next().await.transpose()?;
        let stop = summary.as_ref().map_or(last.next(), |(run, _)| *run);
        for part in &parts {
            let from = size.number(part.start).max(next).max(floor);
            let to = size.number(Lsn(part.end.0 - 1)).min(SegmentNumber(stop.0.saturating_sub(1)));
            if from > to {
                continue;
            }
            if from > next {
                // What came before is not known.
                walk = ChangeWalk::default();
            }
            reader
                .visit_with_bodies(from, to, part.start, BODY_LIMIT, |record| {
                    if let Some(work) = walk.record(version, record).filter(|work| span.contains(work.commit)) {
                        names.learn(&work);
                    }
                    ControlFlow::Continue(())
                })
                .await?;
        }
        let Some((run, summary)) = summary else { break };
        summary.transactions.iter().filter(|work| span.contains(work.commit)).for_each(|work| names.learn(work));
        next = RunSummary::last_of(run).next();
        walk = ChangeWalk::resuming(summary.after);
    }
    Ok(())
}

/// From which segment on WAL is read where no summary tells.
fn newest_unread(shelf: &Shelf, first: SegmentNumber, last: SegmentNumber) -> SegmentNumber {
    let unread = || (first.0..=last.0).rev().map(SegmentNumber).filter(|number| !shelf.has(*number));
    let Some(oldest) = unread().nth(MOST_READ) else { return first };
    tracing::warn!(
        "no summary tells of {} segments before the time that is asked about; of those only the newest {MOST_READ} were read, and relations \
         that were made in the others have no names",
        unread().count()
    );
    oldest.next()
}
