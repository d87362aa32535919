//! What can be restored: windows of LSN and time without a gap.

use serde::Serialize;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{BaseId, Label, Repository, Surplus};
use walseal_common::seal::Identity;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::{Branch, TimelineId};

use super::branches;
use super::inventory::Inventory;
use super::path::Path;
use super::reader::{PathReader, ReadError};
use super::refusal::PlanError;

/// A range to which the repository can restore, without a gap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Window {
    /// The branch that it ends on.
    pub branch: Branch,
    /// Its timeline's number.
    pub timeline: TimelineId,
    /// The earliest point: where its first base backup is complete.
    pub from: Lsn,
    /// The last point: end of WAL without a hole.
    pub to: Lsn,
    /// The earliest time that can be asked for: no transaction up to `from` ended later, as far as anything tells.
    pub from_time: Option<PgTimestamp>,
    /// Time of the last transaction; none where the window has none.
    pub to_time: Option<PgTimestamp>,
    /// The base backups in it, oldest first.
    pub bases: Vec<BaseId>,
    /// The WAL that cannot be had after it, where more follows, or a gap is on record.
    pub gap: Option<LsnRange>,
    /// Whether retention removed all of that: nothing was lost there.
    pub gap_pruned: bool,
    /// What arrived beyond its end without what lies before, and counts for nothing.
    pub surplus: Option<Surplus>,
    /// Names of objects that are there for the gap's bytes, and of no use.
    pub damaged: Vec<String>,
}

/// Every window, by branch and position. Branches that live on in a child are part of the child's windows; those whose history
/// is not readable have none, see [`super::ends`]. Objects that turn out to be of no use on the way are left out of `inventory`:
/// a window ends before them.
///
/// Errors: WAL that cannot be read.
pub async fn windows(
    repository: &Repository,
    identities: &[Identity],
    inventory: &mut Inventory,
) -> Result<Vec<Window>, PlanError> {
    loop {
        match windows_of(repository, identities, inventory).await {
            Err(PlanError::Read(ReadError::Damaged(found))) if inventory.leave_out(repository, &found).await? => {}
            done => return done,
        }
    }
}

async fn windows_of(
    repository: &Repository,
    identities: &[Identity],
    inventory: &Inventory,
) -> Result<Vec<Window>, PlanError> {
    let mut windows = Vec::new();
    for end in branches::ends(inventory).ends {
        let path = Path::new(&end, inventory);
        let reader = PathReader::new(repository, identities, &path, None);
        let pruned = path.pruned();
        for span in spans(&path, inventory) {
            let (extent, first) = (span.extent, span.first());
            let wal = LsnRange { start: first.start, end: extent.end };
            let last = reader.last_transaction(wal).await?;
            let next = path.next_extent(extent.end).map(|next| next.start);
            let beyond = (path.known_end() > extent.end).then(|| path.known_end());
            let gap = next.or(beyond).map(|end| LsnRange { start: extent.end, end });
            windows.push(Window {
                branch: path.branch(),
                timeline: end.branch.timeline,
                from: first.stop,
                to: extent.end,
                from_time: reader.holding(first, |_| false).await?.until(),
                to_time: last.map(|point| point.time),
                bases: span.bases().map(|base| base.id.clone()).collect(),
                damaged: gap.map_or_else(Vec::new, |gap| path.damaged_in(gap).map(|d| d.name.to_string()).collect()),
                surplus: path.surplus().filter(|_| extent.end == path.known_end()),
                gap_pruned: gap.is_some_and(|gap| gap.without(&pruned).is_empty()),
                gap,
            });
        }
    }
    Ok(windows)
}

/// WAL without a hole that base backups lead into.
pub(super) struct Span<'a> {
    /// All of it, also what lies before the first base backup.
    pub(super) extent: LsnRange,
    first: &'a Label,
    others: Vec<&'a Label>,
}

impl<'a> Span<'a> {
    /// The base backup that is complete first.
    pub(super) fn first(&self) -> &'a Label {
        self.first
    }

    /// All of them, in the order in which they are complete.
    fn bases(&self) -> impl Iterator<Item = &'a Label> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

/// The parts of `path` that something can be restored to, in order.
pub(super) fn spans<'a>(path: &Path<'_>, inventory: &'a Inventory) -> Vec<Span<'a>> {
    let span = |extent: &LsnRange| {
        let inside =
            |base: &&Label| path.excludes(base).is_none() && extent.start <= base.start && base.stop <= extent.end;
        let mut bases: Vec<&Label> = inventory.bases.iter().filter(inside).collect();
        bases.sort_by_key(|base| (base.stop, base.id.clone()));
        let (first, others) = bases.split_first()?;
        Some(Span { extent: *extent, first, others: others.to_vec() })
    };
    path.extents.iter().filter_map(span).collect()
}
