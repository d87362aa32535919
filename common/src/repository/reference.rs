//! Objects that a label refers to: as a whole, or some of their frames.

use std::ops::Range;

use bytes::Bytes;

use super::{ObjectName, ObjectReference, Repository, RepositoryError, UnknownName};
use crate::seal::{Envelope, ObjectDigest, Outline, SIGNED_PREFIX_HINT, SealError, SignedHeader};

/// How many bytes of an object's end to read for its trailer: enough for 256 frames.
const TRAILER_HINT: u64 = 12 << 10;

impl Repository {
    /// Reads an object that a label refers to and checks that it is the very same.
    pub async fn read_reference(&self, reference: &ObjectReference) -> Result<Envelope, RepositoryError> {
        let bytes = self.unverified_reference(reference).await?;
        self.verify_reference(reference, bytes)
    }

    /// The bytes of an object that a label refers to, which have its size and digest.
    pub async fn reference_bytes(&self, reference: &ObjectReference) -> Result<Bytes, RepositoryError> {
        let bytes = self.unverified_reference(reference).await?;
        self.check_reference(reference, &bytes)?;
        Ok(bytes)
    }

    /// What lies under the name of an object that a label refers to, for [`Repository::verify_reference`]: that takes the
    /// processor a while, and may be done on another thread.
    pub async fn unverified_reference(&self, reference: &ObjectReference) -> Result<Bytes, RepositoryError> {
        Ok(self.store.get(&self.reference_name(reference)?.key(self.cluster)).await?)
    }

    /// Checks that `bytes` are the very object that a label refers to, and its signatures.
    pub fn verify_reference(&self, reference: &ObjectReference, bytes: Bytes) -> Result<Envelope, RepositoryError> {
        self.check_reference(reference, &bytes)?;
        self.verify(&self.reference_name(reference)?, bytes)
    }

    /// Header and trailer of an object that a label refers to, both verified, in two small reads: which frames it has, and
    /// where. Nobody compares the object's digest with the label's; what [`Repository::part_of_reference`] reads is checked
    /// against this trailer when it is opened, and must be checked against the list of files. Also returns how many bytes were read.
    ///
    /// Errors: not there, of another size, or not exactly what a trusted writer signed under this name.
    pub async fn outline_of_reference(&self, reference: &ObjectReference) -> Result<(Outline, u64), RepositoryError> {
        let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
        let size = reference.size;
        let last = size.saturating_sub(TRAILER_HINT)..size;
        let ends = (
            self.part_of_reference(reference, 0..SIGNED_PREFIX_HINT.min(size)),
            self.part_of_reference(reference, last),
        );
        let (mut first, mut last) = tokio::try_join!(ends.0, ends.1)?;
        let mut read = first.len() + last.len();
        let header = SignedHeader::length(&first).map_err(refuse)?;
        if header > first.len() as u64 && header <= size {
            first = self.part_of_reference(reference, 0..header).await?;
            read += first.len();
        }
        let trailer = Outline::trailer_length(&last).map_err(refuse)?;
        if trailer > last.len() as u64 && trailer <= size {
            last = self.part_of_reference(reference, size - trailer..size).await?;
            read += last.len();
        }
        let name = self.reference_name(reference)?.to_string();
        let outline = Outline::read(&first, &last, size, &self.trust, self.cluster, &name).map_err(refuse)?;
        Ok((outline, read as u64))
    }

    /// The bytes `range` of an object that a label refers to, as they lie in the store.
    ///
    /// Errors: not there, or of another size.
    pub async fn part_of_reference(
        &self,
        reference: &ObjectReference,
        range: Range<u64>,
    ) -> Result<Bytes, RepositoryError> {
        let length = range.end.saturating_sub(range.start);
        let part = self.store.get_range(&self.reference_name(reference)?.key(self.cluster), range).await?;
        if part.object_size == reference.size && part.bytes.len() as u64 == length {
            return Ok(part.bytes);
        }
        let why = format!("it has {} bytes, the label says {}", part.object_size, reference.size);
        Err(RepositoryError::Object { name: reference.name.clone(), source: SealError::Structure(why) })
    }

    fn check_reference(&self, reference: &ObjectReference, bytes: &Bytes) -> Result<(), RepositoryError> {
        if bytes.len() as u64 == reference.size && ObjectDigest::of(bytes) == reference.digest {
            return Ok(());
        }
        let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
        // Reading it as an object first says more precisely what is wrong, where that is possible.
        self.verify(&self.reference_name(reference)?, bytes.clone())?.verify_frames().map_err(refuse)?;
        Err(refuse(SealError::Structure("it is not the object that the label refers to".to_owned())))
    }

    fn reference_name(&self, reference: &ObjectReference) -> Result<ObjectName, RepositoryError> {
        let unknown = |error: UnknownName| SealError::Structure(error.to_string());
        let refuse = |source| RepositoryError::Object { name: reference.name.clone(), source };
        reference.name.parse().map_err(unknown).map_err(refuse)
    }
}
