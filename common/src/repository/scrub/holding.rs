//! The WAL of one branch, by name, and the positions up to which something vouches for it.

use crate::lsn::{Lsn, LsnRange};
use crate::repository::gap::missing_in;
use crate::repository::{Beyond, Repository, RepositoryError, WalListing};
use crate::segment::SegmentNumber;

use super::FlawKind;

/// Something that says that WAL was there up to a position.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Voucher {
    pub(super) end: Lsn,
    /// Whether it lies outside the repository.
    pub(super) outside: bool,
    /// As the beginning of "… says that WAL was there up to …".
    pub(super) who: String,
}

/// WAL that is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    pub(super) range: LsnRange,
    pub(super) kind: FlawKind,
    pub(super) why: String,
}

/// The WAL of a branch.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) listing: WalListing,
    /// Where the WAL that is wanted begins.
    pub(super) begin: Lsn,
    pub(super) vouchers: Vec<Voucher>,
    /// WAL of which it is recorded that it was lost.
    pub(super) recorded: Vec<LsnRange>,
    /// Where its WAL ends that goes on from the last hole.
    pub(super) end: Lsn,
}

impl Holding {
    /// Finds where the WAL has holes.
    ///
    /// Errors: the store's.
    pub(super) async fn holes(&mut self, repository: &Repository) -> Result<Vec<Hole>, RepositoryError> {
        let mut holes = Vec::new();
        let vouched = self.vouchers.iter().map(|voucher| voucher.end).max().unwrap_or(self.begin);
        // What somebody outside has seen hides nothing that is missing before all that is left.
        let inside = self.vouchers.iter().filter(|voucher| !voucher.outside).map(|voucher| voucher.end).max();
        let begin = inside.map_or(self.begin, |inside| inside.min(self.begin));
        if let Some(wanted) = LsnRange::new(begin, vouched) {
            for missing in missing_in(repository, &self.listing, wanted).await? {
                holes.extend(missing.without(&self.recorded).into_iter().map(|range| self.hole(range)));
            }
        }
        // What lies beyond, and for which nothing vouches: it counts where a header shows that what is missing before it was confirmed.
        let mut from = vouched;
        loop {
            self.end = contiguous_end(repository, &self.listing, from).await?;
            let next = self.listing.first_begun(self.listing.segment_size.number(self.end).next());
            let next = next.map(|number: SegmentNumber| number.start(self.listing.segment_size));
            let Some(next) = next.filter(|next| *next > self.end) else { break };
            let gap = LsnRange { start: self.end.max(vouched), end: next };
            let missing = gap.without(&self.recorded);
            if missing.is_empty() {
                from = next;
                continue;
            }
            match repository.beyond(&self.listing, self.end).await? {
                Beyond::Nothing | Beyond::Unconfirmed(_) => break,
                Beyond::Known { name, why, .. } => {
                    let why = format!("WAL lies behind it, and {name} {why}");
                    let hole = |range| Hole { range, kind: FlawKind::Hole, why: why.clone() };
                    holes.extend(missing.into_iter().map(hole));
                }
            }
            from = next;
        }
        Ok(holes)
    }

    fn hole(&self, range: LsnRange) -> Hole {
        let speaking =
            |outside| self.vouchers.iter().filter(move |one| one.outside == outside && one.end > range.start).max();
        let size = self.listing.segment_size;
        // Of a `.partial` the name tells only where it begins.
        let mut partials = self.listing.partials.iter().filter_map(|name| name.number(size));
        let behind = partials.any(|number| number.start(size) >= range.end)
            || self.listing.highest().is_some_and(|highest| highest > range.end);
        let (voucher, kind) = match (speaking(false), speaking(true)) {
            (Some(inside), _) => (Some(inside), FlawKind::Hole),
            (None, outside) if behind => (outside, FlawKind::Hole),
            (None, outside) => (outside, FlawKind::CutOff),
        };
        let why = match voucher {
            Some(voucher) => format!("{} that WAL was there up to {}", voucher.who, voucher.end),
            None => "WAL lies behind it".to_owned(),
        };
        Hole { range, kind, why }
    }
}

/// As [`Repository::contiguous_end`]; a `.partial` that cannot be read adds nothing.
pub(super) async fn contiguous_end(
    repository: &Repository,
    listing: &WalListing,
    from: Lsn,
) -> Result<Lsn, RepositoryError> {
    match repository.contiguous_end(listing, from).await {
        Err(RepositoryError::Object { .. }) => Ok(listing.contiguous_end(from)),
        other => Ok(other?.max(from)),
    }
}
