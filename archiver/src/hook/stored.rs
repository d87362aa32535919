//! What is stored under a segment's name: most calls of a backlog are for what an earlier call has shipped ahead, and need no
//! more than one small read and a look at the file.

use std::path::Path;
use std::sync::Arc;

use walseal_common::repository::{ObjectName, Repository};
use walseal_common::seal::{CompareKey, MAX_PLAINTEXT};
use walseal_common::segment::{SegmentName, SegmentSize, WalFileName};
use walseal_common::timeline::{Branch, TimelineHistory, TimelineId};

use super::PushError;
use super::archivist::{blocking, folder_of};
use super::freight::{Freight, header_of};
use super::lineage::{Lineage, read_history};
use crate::archive::Archive;

/// What is known to be stored under a segment's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stored {
    /// The bytes of the file.
    Same,
    /// Something that was not compared, as asked.
    Something,
    /// Nothing was, a moment ago.
    Nothing,
    /// Other bytes, or such as cannot be compared: storing these says what is wrong.
    Other,
    /// Each part tells.
    Unknown,
}

impl Stored {
    /// Looks for the segment of `freight` on `branch`; with `compare`, reads the file where something is there.
    pub(super) async fn find(
        repository: &Repository,
        key: &CompareKey,
        branch: Branch,
        freight: &Arc<Freight>,
        compare: bool,
    ) -> Result<Stored, PushError> {
        let (size, number) = (freight.size(), freight.number());
        if size.bytes() > MAX_PLAINTEXT {
            return Ok(Stored::Unknown);
        }
        let segment = SegmentName::new(branch.timeline, number, size);
        let there = match repository.read_header(&ObjectName::Wal(branch, segment, None)).await {
            Ok(_) if !compare => return Ok(Stored::Something),
            Ok((signed, _)) => signed.header.wal,
            Err(error) if error.is_not_found() => return Ok(Stored::Nothing),
            Err(error) => return Err(error.into()),
        };
        let (range, empty) = (number.range(size), key.hasher().digest());
        let whole = there.filter(|wal| {
            wal.segment_size == size && wal.start == range.start && wal.end == range.end && wal.digest_start == empty
        });
        let Some(there) = whole.filter(|wal| wal.compare_key == key.id()) else { return Ok(Stored::Other) };
        let (freight, key) = (freight.clone(), key.clone());
        let digest = blocking(move || freight.digest(&key, size.bytes())).await?;
        Ok(if digest == there.digest_end { Stored::Same } else { Stored::Other })
    }
}

/// Whether the segment's file `path` is durable with exactly these bytes, before it is known what the repository is. That is
/// one read less for most calls: the verified header of an object says of which cluster it is, and the digest compares all
/// else. `false` says nothing.
///
/// Errors: the store does not answer.
pub(super) async fn is_stored(archive: &Archive, path: &Path, segment: SegmentName) -> Result<bool, PushError> {
    match look(archive, path, segment).await {
        Err(error) if !error.is_permanent() => Err(error),
        // The whole way says what is wrong.
        Err(_) => Ok(false),
        Ok(stored) => Ok(stored == Stored::Same),
    }
}

async fn look(archive: &Archive, path: &Path, segment: SegmentName) -> Result<Stored, PushError> {
    let name = WalFileName::Segment(segment);
    let (file, trust) = (path.to_owned(), archive.trust.clone());
    let opened = blocking(move || {
        let header = header_of(&file, name)?;
        let Ok(size) = SegmentSize::new(u64::from(header.segment_size)) else { return Ok(None) };
        let history = match segment.timeline {
            TimelineId::FIRST => Some(TimelineHistory::root(TimelineId::FIRST)),
            later => read_history(&folder_of(&file), later)?,
        };
        // Without its history, the names in the repository tell the branch; that is another way.
        let Some(history) = history else { return Ok(None) };
        let branch = history.branch(header.system);
        let lineage = Lineage { branch, origin: branch, history: Some(history) };
        let freight = Freight::open(&file, name, segment, header.system, size, &lineage)?;
        Ok(Some((header.system, lineage.branch, Arc::new(freight))))
    });
    let Some((system, branch, freight)) = opened.await? else { return Ok(Stored::Unknown) };
    let repository = Repository::new(archive.store.clone(), system, trust);
    let find = Stored::find(&repository, archive.keys.writer.compare(), branch, &freight, true);
    let adoptions = async { Ok::<_, PushError>(repository.adoptions().await?) };
    let (found, adoptions) = tokio::try_join!(find, adoptions)?;
    // Where WAL was adopted, what lies on the branch that its history names may be another server's.
    Ok(if adoptions.at(branch, freight.start()) == branch { found } else { Stored::Unknown })
}
