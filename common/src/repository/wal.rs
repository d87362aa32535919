//! Storing WAL: written once, and equal bytes again are success (I3).

use crate::lsn::Lsn;
use crate::seal::{SealedObject, WalSection};
use crate::store::PutOutcome;
use crate::timeline::{Branch, TimelineHistory};

use super::{ObjectName, Repository, RepositoryError, WalListing};

/// What became of WAL that was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WalPut {
    /// It was written and is durable.
    Stored,
    /// The same bytes were there before; the verified header says so.
    AlreadyThere,
}

impl Repository {
    /// Stores an object of WAL. When the name is taken, the verified header of what is there tells whether the bytes are
    /// equal.
    ///
    /// Errors: [`RepositoryError::Conflict`] for other bytes; the caller keeps them under `conflict/`.
    /// [`RepositoryError::OtherCompareKey`] when nobody can tell.
    pub async fn put_wal(
        &self,
        name: &ObjectName,
        object: &SealedObject,
        section: &WalSection,
    ) -> Result<WalPut, RepositoryError> {
        match self.put(object).await? {
            PutOutcome::Created => Ok(WalPut::Stored),
            PutOutcome::AlreadyExists => self.compare_wal(name, section).await.map(|()| WalPut::AlreadyThere),
        }
    }

    /// Checks that the stored object `name` holds the bytes that `section` describes.
    ///
    /// Errors: as [`Repository::put_wal`]; not there.
    pub async fn compare_wal(&self, name: &ObjectName, section: &WalSection) -> Result<(), RepositoryError> {
        let (signed, _) = self.read_header(name).await?;
        let writer = signed.header.writer.clone();
        let Some(there) = signed.header.wal else {
            return Err(RepositoryError::Conflict { name: name.to_string(), writer });
        };
        if there.compare_key != section.compare_key {
            return Err(RepositoryError::OtherCompareKey { name: name.to_string(), writer });
        }
        let same = there.start == section.start
            && there.end == section.end
            && there.digest_start == section.digest_start
            && there.digest_end == section.digest_end;
        if same { Ok(()) } else { Err(RepositoryError::Conflict { name: name.to_string(), writer }) }
    }

    /// As [`WalListing::contiguous_end`], and where the contiguous WAL ends in a segment whose `.partial` is there, what that
    /// object's verified header adds.
    pub async fn contiguous_end(&self, listing: &WalListing, from: Lsn) -> Result<Lsn, RepositoryError> {
        let mut end = listing.contiguous_end(from);
        loop {
            let number = listing.segment_size.number(end);
            let segment = crate::segment::SegmentName::new(listing.branch.timeline, number, listing.segment_size);
            if !listing.partials.contains(&segment) {
                return Ok(end);
            }
            let (signed, _) = self.read_header(&ObjectName::Partial(listing.branch, segment)).await?;
            match signed.header.wal {
                Some(wal) if wal.start <= end && end < wal.end => end = listing.end_from(wal.end),
                _ => return Ok(end),
            }
            if listing.segment_size.number(end) == number {
                return Ok(end);
            }
        }
    }

    /// The history of a branch, opened.
    ///
    /// Errors: not there (case 2: the current timeline's is mandatory); not the history that the branch's name stands for.
    pub async fn history(
        &self,
        branch: Branch,
        identities: &[crate::seal::Identity],
    ) -> Result<TimelineHistory, RepositoryError> {
        if branch.timeline == crate::timeline::TimelineId::FIRST {
            return Ok(TimelineHistory::root(branch.timeline));
        }
        Ok(self.history_file(branch, identities).await?.0)
    }

    /// The same, and the file as it is stored, of a later timeline than the first, which has none.
    ///
    /// Errors: as [`Repository::history`].
    pub async fn history_file(
        &self,
        branch: Branch,
        identities: &[crate::seal::Identity],
    ) -> Result<(TimelineHistory, Vec<u8>), RepositoryError> {
        let name = ObjectName::History(branch);
        let content = self.open(&name, identities).await?;
        let refuse = |why: String| RepositoryError::Object {
            name: name.to_string(),
            source: crate::seal::SealError::Structure(why),
        };
        let history = TimelineHistory::parse(branch.timeline, &content).map_err(|error| refuse(error.to_string()))?;
        if history.branch(self.cluster()) == branch {
            Ok((history, content))
        } else {
            Err(refuse("its content is the history of another branch".to_owned()))
        }
    }
}
