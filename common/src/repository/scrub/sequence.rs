//! Whether objects of WAL fit together. Where two of one segment share a position, their digests of the segment's bytes up to there
//! must be equal; and a whole segment must be the one of which the catalog page speaks.

use std::collections::BTreeMap;

use super::flaw::{Flaw, FlawKind};
use crate::lsn::{Lsn, LsnRange};
use crate::repository::wal_listing::range_of;
use crate::repository::{CatalogPage, ObjectName, Repository, RepositoryError};
use crate::seal::{CompareDigest, CompareKeyId, WalSection};
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::timeline::Branch;

/// Positions of one segment whose digests are kept: those of 64 gets.
const MOST_POSITIONS: usize = 256;

/// What was read of the segment at hand, in the order of names.
#[derive(Debug)]
pub(super) struct Sequence {
    size: Option<SegmentSize>,
    at: Option<(Branch, SegmentName)>,
    positions: BTreeMap<Lsn, (CompareKeyId, CompareDigest, String)>,
    page: Option<(Branch, SegmentNumber, Option<CatalogPage>)>,
}

impl Sequence {
    pub(super) fn new(size: Option<SegmentSize>) -> Sequence {
        Sequence { size, at: None, positions: BTreeMap::new(), page: None }
    }

    /// Takes the next object of WAL, whose header says `section`.
    ///
    /// Errors: the store's.
    pub(super) async fn next(
        &mut self,
        repository: &Repository,
        name: &ObjectName,
        section: &WalSection,
    ) -> Result<Option<Flaw>, RepositoryError> {
        let (branch, segment) = match name {
            ObjectName::Wal(branch, segment, _) => (*branch, *segment),
            ObjectName::Tail(branch, segment, _) | ObjectName::Partial(branch, segment) => (*branch, *segment),
            _ => return Ok(None),
        };
        let size = self.size.unwrap_or(section.segment_size);
        let range = LsnRange { start: section.start, end: section.end };
        let fits = (section.branch, section.segment, section.segment_size) == (branch, segment, size)
            && range_of(name, size).is_none_or(|told| told == range);
        if !fits {
            let what = format!(
                "its header says that it holds {} to {} of segment {} of branch {}",
                range.start, range.end, section.segment, section.branch
            );
            return Ok(Some(Flaw::new(FlawKind::Misplaced, name, what)));
        }
        if self.at != Some((branch, segment)) {
            self.at = Some((branch, segment));
            self.positions.clear();
        }
        for (at, digest) in [(section.start, section.digest_start), (section.end, section.digest_end)] {
            match self.positions.get(&at) {
                Some((key, known, _)) if *key != section.compare_key || *known == digest => {}
                Some((_, _, other)) => {
                    let what = format!("it holds other bytes before {at} than {other}: one of the two was replaced");
                    return Ok(Some(Flaw::new(FlawKind::Replaced, name, what)));
                }
                None if self.positions.len() < MOST_POSITIONS => {
                    self.positions.insert(at, (section.compare_key, digest, name.to_string()));
                }
                None => {}
            }
        }
        self.compare_with_page(repository, name, section).await
    }

    async fn compare_with_page(
        &mut self,
        repository: &Repository,
        name: &ObjectName,
        section: &WalSection,
    ) -> Result<Option<Flaw>, RepositoryError> {
        let ObjectName::Wal(branch, segment, _) = name else { return Ok(None) };
        let size = section.segment_size;
        let Some(number) = segment.number(size).filter(|number| section.end == number.end(size)) else {
            return Ok(None);
        };
        let first = CatalogPage::first_of(number);
        if self.page.as_ref().is_none_or(|(known, at, _)| (known, at) != (branch, &first)) {
            let page = match repository.catalog_page(*branch, first, size).await {
                Ok(page) => Some(page),
                // A flaw of its own, or none.
                Err(RepositoryError::Object { .. }) => None,
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            self.page = Some((*branch, first, page));
        }
        let Some((_, _, Some(page))) = &self.page else { return Ok(None) };
        let differs = page.compare_key == section.compare_key
            && page.entry(number).is_some_and(|entry| entry.digest != section.digest_end);
        Ok(differs.then(|| {
            let page = CatalogPage::name(*branch, first, size);
            let what = format!("it holds other bytes than {page} says: one of the two was replaced");
            Flaw::new(FlawKind::Replaced, name, what)
        }))
    }
}
