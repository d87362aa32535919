//! What the repository's own objects say of the bytes that a source should have: the digests in their headers.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{ObjectName, Repository, RepositoryError};
use walseal_common::seal::{CompareDigest, CompareKeyId};
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::Branch;

/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 8;

/// A digest that an object of the repository gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    /// Of the segment from its start up to the position.
    pub(crate) digest: CompareDigest,
    /// The object that ends there.
    pub(crate) name: String,
    /// Who wrote it.
    pub(crate) writer: String,
}

/// Digests by position.
#[derive(Clone, Default, Debug)]
pub(crate) struct Knowledge {
    pub(crate) known: BTreeMap<Lsn, Known>,
    /// Objects that do not tell, and why.
    pub(crate) findings: Vec<String>,
}

impl Knowledge {
    /// What the objects of `branch` say that hold bytes of the segments of `range`. `parent`: the branch it comes from, and where it
    /// began; the segment in which that lies holds the parent's bytes up to there.
    pub(crate) async fn of(
        repository: &Repository,
        key: CompareKeyId,
        size: SegmentSize,
        (branch, range): (Branch, LsnRange),
        parent: Option<(Branch, Lsn)>,
    ) -> Result<Knowledge, RepositoryError> {
        let mut knowledge = Knowledge::default();
        knowledge.learn(repository, key, size, branch, range, Lsn(u64::MAX)).await?;
        if let Some((parent, switch)) = parent.filter(|(_, switch)| range.start <= *switch && *switch < range.end) {
            let shared = size.number(switch).range(size);
            knowledge.learn(repository, key, size, parent, shared, switch).await?;
        }
        Ok(knowledge)
    }

    async fn learn(
        &mut self,
        repository: &Repository,
        key: CompareKeyId,
        size: SegmentSize,
        branch: Branch,
        range: LsnRange,
        until: Lsn,
    ) -> Result<(), RepositoryError> {
        let listing = repository.wal_listing(branch, size, Some(size.number(range.start))).await?;
        let mut names: Vec<ObjectName> = Vec::new();
        let mut number = size.number(range.start);
        while number.start(size) < range.end {
            names.extend(listing.objects_of(number));
            number = number.next();
        }
        let mut reads = stream::iter(names)
            .map(|name| async move {
                let header = repository.read_header(&name).await;
                (name, header)
            })
            .buffered(READS_AT_ONCE);
        while let Some((name, header)) = reads.next().await {
            let header = match header {
                Ok((signed, _)) => signed.header,
                Err(error @ RepositoryError::Object { .. }) => {
                    self.findings.push(format!("{error}; it was not compared"));
                    continue;
                }
                // Superseded while this looked.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let Some(section) = header.wal else { continue };
            if section.compare_key != key {
                self.findings.push(format!("object {name} was written with another compare key, and was not compared"));
                continue;
            }
            if section.end <= until {
                let known = Known { digest: section.digest_end, name: name.to_string(), writer: header.writer };
                self.known.entry(section.end).or_insert(known);
            }
        }
        Ok(())
    }
}
