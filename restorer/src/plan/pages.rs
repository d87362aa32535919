//! Catalog pages on a path: what 256 headers say, in one read. They save reads and prove nothing: a page that cannot be read, or that
//! a header contradicts, is left out, and the headers are read.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use walseal_common::repository::{CatalogEntry, CatalogPage, Repository, RepositoryError};
use walseal_common::seal::Transactions;
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use crate::damage::Damage;

/// Pages that are kept: bounds memory to about 50 KiB for each (I11).
const KEPT: usize = 64;

type Place = (Branch, SegmentNumber);

/// The pages that were read.
#[derive(Default)]
pub(super) struct Pages {
    kept: Mutex<VecDeque<(Place, Option<Arc<CatalogPage>>)>>,
}

impl Pages {
    /// The page of `branch` that begins with `first`, which the repository names; `None` where it cannot be used.
    ///
    /// Errors: the store.
    pub(super) async fn page(
        &self,
        repository: &Repository,
        branch: Branch,
        first: SegmentNumber,
        size: SegmentSize,
    ) -> Result<Option<Arc<CatalogPage>>, RepositoryError> {
        let place = (branch, first);
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = kept.iter().position(|(there, _)| *there == place) {
                let found = kept.remove(at);
                kept.extend(found.clone());
                return Ok(found.and_then(|(_, page)| page));
            }
        }
        let page = match repository.catalog_page(branch, first, size).await {
            Ok(page) => Some(Arc::new(page)),
            Err(error) if error.is_not_found() => None,
            Err(error)
                if matches!(error, RepositoryError::Object { .. })
                    || Damage::of(&error, repository.cluster()).is_some() =>
            {
                tracing::warn!("{error}; the headers of its segments are read instead");
                None
            }
            Err(error) => return Err(error),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((place, page.clone()));
        while kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(page)
    }
}

/// What a page says of a segment, as its header would.
pub(super) fn hint(entry: &CatalogEntry) -> Option<Transactions> {
    (!entry.leading_unread).then_some(entry.transactions)
}

/// The last of the pages `named` from `first` on, up to and with `last`, of which `holds` is true, where it is true of all before it:
/// one that it is not true of is followed by none of which it is. In a number of looks that grows with the logarithm of theirs.
///
/// Errors: those of `holds`.
pub(super) async fn last_that<E>(
    named: &BTreeSet<SegmentNumber>,
    first: SegmentNumber,
    last: SegmentNumber,
    holds: impl AsyncFn(SegmentNumber) -> Result<bool, E>,
) -> Result<Option<SegmentNumber>, E> {
    if first > last {
        return Ok(None);
    }
    let pages: Vec<SegmentNumber> = named.range(first..=last).copied().collect();
    // It holds of all before `low`, and not of `high`, if there is one.
    let (mut low, mut high, mut step) = (0, pages.len(), 1);
    while low < high {
        let at = (low + step - 1).min(high - 1);
        let Some(page) = pages.get(at) else { break };
        if holds(*page).await? {
            low = at + 1;
            step *= 2;
        } else {
            high = at;
            break;
        }
    }
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(page) = pages.get(middle) else { break };
        if holds(*page).await? { low = middle + 1 } else { high = middle }
    }
    Ok(low.checked_sub(1).and_then(|last| pages.get(last)).copied())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_page_is_found_in_few_looks(count in 0u64..400, holding in 0u64..400, from in 0u64..10) {
            let named: BTreeSet<SegmentNumber> = (0..count).map(|page| SegmentNumber(page * 256)).collect();
            let looks = Cell::new(0);
            let found = futures_util::FutureExt::now_or_never(last_that(
                &named,
                SegmentNumber(from * 256),
                SegmentNumber(u64::MAX),
                async |page| {
                    looks.set(looks.get() + 1);
                    Ok::<_, ()>(page.0 < holding * 256)
                },
            ));
            let expected = (from..count.min(holding)).last().map(|page| SegmentNumber(page * 256));
            prop_assert_eq!(found, Some(Ok(expected)));
            prop_assert!(looks.get() <= 20, "{} looks", looks.get());
        }
    }
}
