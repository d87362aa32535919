//! The bytes of one segment, put together from whatever objects hold it.
//!
//! A segment may lie in the repository whole, in parts (over 16 MiB), as a `.partial`, as tails, or as a mixture;
//! section 5 of `docs/FORMAT.md` says how they make up one. Everything that recovery or a plan reads of WAL comes
//! through [`read_segment`].

mod error;

use futures_util::stream::{self, StreamExt};
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{Cover, ObjectName, Repository, RepositoryError};
use walseal_common::seal::{CompareKey, Identity, MAX_PLAINTEXT, SealError, WalSection};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::store::LARGEST_PAGE;
use walseal_common::timeline::Branch;

use crate::damage::Damage;
pub use error::SegmentError;

/// How often a segment is looked at anew when its objects change while they are read: tails go away once the whole
/// segment is there, so the second look finds that one.
const LOOKS: usize = 4;

/// Objects of one segment that are read at the same time; bounds memory to about as many times 32 MiB (I11).
const READS_AT_ONCE: usize = 4;

/// One segment as recovery may see it.
#[derive(Clone, PartialEq, Eq)]
pub struct SegmentBytes {
    /// Exactly one segment long; zeros from `valid_end` on (case 3).
    pub bytes: Vec<u8>,
    /// End of the bytes that objects hold without a hole, from the segment's start on. Never below the start.
    pub valid_end: Lsn,
    /// Whether the bytes reach the segment's end.
    pub whole: bool,
    /// The highest LSN of this segment that any object speaks of. Beyond `valid_end` it proves a hole: bytes that
    /// were durable once and cannot be had now.
    pub known_end: Lsn,
    /// Objects that cannot be used, of bytes that no other object holds; `valid_end` lies before them.
    pub lost: Vec<Damage>,
}

impl std::fmt::Debug for SegmentBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SegmentBytes { valid_end, known_end, whole, lost, .. } = self;
        write!(f, "SegmentBytes(valid to {valid_end}, known to {known_end}, whole: {whole}, lost: {lost:?})")
    }
}

/// Reads segment `segment` of `branch` up to its valid end.
///
/// One get where the whole segment is one object; else two listings and as many gets as the fewest pieces that cover
/// it. An object that is damaged is left out where others hold the same bytes; where they do not, the bytes end before it.
/// Memory: one segment, and four objects.
///
/// Errors: [`SegmentError::Missing`] when no object holds anything of it; pieces that do not agree; an object that is
/// not what a trusted writer signed, and nothing before it can be had; none of `identities` opens it; the store.
pub async fn read_segment(
    repository: &Repository,
    branch: Branch,
    segment: SegmentNumber,
    size: SegmentSize,
    identities: &[Identity],
) -> Result<SegmentBytes, SegmentError> {
    read_segment_into(repository, branch, segment, size, identities, Vec::new()).await
}

/// As [`read_segment`], in the empty buffer `room` where the whole segment is one object, without a copy. What a segment before left in
/// its room is never seen: bytes count as they are written, and zeros are written behind a valid end (case 3).
///
/// Errors: as there.
pub async fn read_segment_into(
    repository: &Repository,
    branch: Branch,
    segment: SegmentNumber,
    size: SegmentSize,
    identities: &[Identity],
    mut room: Vec<u8>,
) -> Result<SegmentBytes, SegmentError> {
    let name = SegmentName::new(branch.timeline, segment, size);
    let source = Source { repository, branch, range: segment.range(size), name, size, identities };
    let mut lost = Lost::default();
    let whole = ObjectName::Wal(branch, name, None);
    for _ in 0..LOOKS {
        if size.bytes() <= MAX_PLAINTEXT && !lost.holds(&whole) {
            match source.piece(whole.clone(), source.range, std::mem::take(&mut room)).await {
                Ok(piece) => return source.join(vec![piece], source.range.end).await,
                Err(error) if is_gone(&error) => {}
                Err(error) => lost.add(error, repository)?,
            }
        }
        match source.joined_pieces(&mut lost).await {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(SegmentError::Unsteady { branch, segment: name })
}

fn is_gone(error: &SegmentError) -> bool {
    matches!(error, SegmentError::Repository(error) if error.is_not_found())
}

/// Objects of the segment that turned out to be of no use, in the order in which they did.
#[derive(Default)]
struct Lost(Vec<(Damage, SegmentError)>);

impl Lost {
    fn holds(&self, name: &ObjectName) -> bool {
        self.0.iter().any(|(damage, _)| damage.name == *name)
    }

    /// Notes the object that `error` is about. Errors: it is about something else.
    fn add(&mut self, error: SegmentError, repository: &Repository) -> Result<(), SegmentError> {
        match error.damage(repository).into_iter().next() {
            Some(damage) if !self.holds(&damage.name) => self.0.push((damage, error)),
            _ => return Err(error),
        }
        Ok(())
    }
}

/// One object's share of the segment.
struct Piece {
    name: ObjectName,
    section: WalSection,
    plain: Vec<u8>,
}

struct Source<'a> {
    repository: &'a Repository,
    branch: Branch,
    range: LsnRange,
    name: SegmentName,
    size: SegmentSize,
    identities: &'a [Identity],
}

impl Source<'_> {
    /// The segment from parts, partial and tails; `None` when it became whole meanwhile.
    async fn joined_pieces(&self, lost: &mut Lost) -> Result<Option<SegmentBytes>, SegmentError> {
        // Tails are listed before `wal/`: a tail goes only once its bytes lie there, so that nothing slips through.
        let tails = self.repository.tails(self.branch, self.name).await?;
        let mut available: Vec<(LsnRange, ObjectName)> =
            tails.into_iter().map(|range| (range, ObjectName::Tail(self.branch, self.name, range))).collect();
        for name in self.stored_names().await? {
            match &name {
                ObjectName::Wal(_, _, None) if self.size.bytes() <= MAX_PLAINTEXT => {
                    if !lost.holds(&name) {
                        return Ok(None);
                    }
                    available.push((self.range, name));
                }
                ObjectName::Wal(_, _, Some(part)) if self.size.bytes() > MAX_PLAINTEXT => {
                    let start = self.range.start.advance(u64::from(*part) * MAX_PLAINTEXT);
                    available.push((LsnRange { start, end: start.advance(MAX_PLAINTEXT) }, name));
                }
                ObjectName::Partial(..) => available.push((self.partial_range(&name, lost).await?, name)),
                _ => {}
            }
        }
        let inside = |range: &LsnRange| self.range.start <= range.start && range.end <= self.range.end;
        available.retain(|(range, _)| inside(range));
        let Some(known_end) = available.iter().map(|(range, _)| range.end).max() else {
            let (branch, segment, store) = (self.branch, self.name, self.repository.describe());
            return Err(SegmentError::Missing { branch, segment, store });
        };
        let pieces = self.best_pieces(&available, lost).await?;
        let end = pieces.last().map_or(self.range.start, |piece| piece.section.end);
        let uncovered = |(damage, _): &&(Damage, SegmentError)| {
            available.iter().any(|(range, name)| *name == damage.name && range.end > end)
        };
        // What a store refuses it may give later; what is damaged stays so.
        let fatal = |(_, error): &&(Damage, SegmentError)| {
            pieces.is_empty() || matches!(error, SegmentError::Repository(RepositoryError::Store(_)))
        };
        if let Some((_, error)) = lost.0.iter().filter(uncovered).find(fatal) {
            return Err(error.clone());
        }
        let still_lost = lost.0.iter().filter(uncovered).map(|(damage, _)| damage.clone()).collect();
        for (damage, _) in lost.0.iter().filter(|lost| !uncovered(lost)) {
            tracing::warn!("{damage}; it is left out, because other objects hold the same WAL");
        }
        let joined = self.join(pieces, known_end).await?;
        Ok(Some(SegmentBytes { lost: still_lost, ..joined }))
    }

    /// The bytes of a `.partial`, which only its header tells. One that cannot be read may hold anything of its segment.
    async fn partial_range(&self, name: &ObjectName, lost: &mut Lost) -> Result<LsnRange, SegmentError> {
        if lost.holds(name) {
            return Ok(self.range);
        }
        match self.repository.read_header(name).await {
            Ok((signed, _)) => {
                let section = signed.header.wal;
                Ok(section.map_or(self.range, |section| LsnRange { start: section.start, end: section.end }))
            }
            Err(error) if error.is_not_found() => Err(error.into()),
            Err(error) => lost.add(error.into(), self.repository).map(|()| self.range),
        }
    }

    /// Reads the fewest objects that reach furthest from the segment's start on, without those that are lost.
    async fn best_pieces(
        &self,
        available: &[(LsnRange, ObjectName)],
        lost: &mut Lost,
    ) -> Result<Vec<Piece>, SegmentError> {
        'looks: loop {
            let usable = || available.iter().filter(|(_, name)| !lost.holds(name));
            let partial = usable().find(|(_, name)| matches!(name, ObjectName::Partial(..))).map(|(range, _)| *range);
            // One of equal pieces is enough; the partial outlives the tails.
            let kept = |(range, name): &&(LsnRange, ObjectName)| {
                Some(*range) != partial || matches!(name, ObjectName::Partial(..))
            };
            let candidates: Vec<&(LsnRange, ObjectName)> = usable().filter(kept).collect();
            let ranges: Vec<LsnRange> = candidates.iter().map(|(range, _)| *range).collect();
            let chosen: Vec<(LsnRange, ObjectName)> = Cover::of(self.range.start, &ranges)
                .pieces
                .into_iter()
                .filter_map(|range| candidates.iter().find(|(there, _)| *there == range).map(|found| (*found).clone()))
                .collect();
            let mut reads =
                stream::iter(chosen).map(|(range, name)| self.piece(name, range, Vec::new())).buffered(READS_AT_ONCE);
            let mut pieces = Vec::new();
            while let Some(read) = reads.next().await {
                match read {
                    Ok(piece) => pieces.push(piece),
                    Err(error) if is_gone(&error) => return Err(error),
                    Err(error) => {
                        drop(reads);
                        lost.add(error, self.repository)?;
                        continue 'looks;
                    }
                }
            }
            return Ok(pieces);
        }
    }

    /// Names below `wal/` that belong to this segment: itself, its parts, its partial.
    async fn stored_names(&self) -> Result<Vec<ObjectName>, SegmentError> {
        let prefix = format!("{}{}", ObjectName::wal_prefix(self.branch), self.name);
        let mut names = Vec::new();
        let mut pages = self.repository.pages(&prefix, None, LARGEST_PAGE);
        while let Some(page) = pages.next().await? {
            names.extend(page.iter().filter_map(|meta| meta.key.parse::<ObjectName>().ok()));
        }
        Ok(names)
    }

    /// Reads and opens one object in the empty buffer `plain`, and checks that it holds `range` of this segment.
    async fn piece(&self, name: ObjectName, range: LsnRange, mut plain: Vec<u8>) -> Result<Piece, SegmentError> {
        let envelope = self.repository.read(&name).await?;
        let refuse = |source: SealError| RepositoryError::Object { name: name.to_string(), source };
        let Some(section) = envelope.header().wal.clone() else {
            return Err(refuse(SealError::Header("it does not say which WAL it holds".to_owned())).into());
        };
        let found = format!(
            "{}..{} of segment {} ({} bytes) of branch {}",
            section.start,
            section.end,
            section.segment,
            section.segment_size.bytes(),
            section.branch
        );
        let expected =
            format!("{range} of segment {} ({} bytes) of branch {}", self.name, self.size.bytes(), self.branch);
        if found != expected {
            return Err(SegmentError::Misplaced { name: name.to_string(), found, expected });
        }
        plain.reserve_exact(usize::try_from(range.len()).unwrap_or(0));
        envelope.read_all_into(self.identities, &mut plain).map_err(refuse)?;
        if plain.len() as u64 != range.len() {
            let found = format!("{} bytes of WAL", plain.len());
            return Err(SegmentError::Misplaced { name: name.to_string(), found, expected });
        }
        Ok(Piece { name, section, plain })
    }

    /// Joins pieces of which each begins at or before the end of the one before.
    async fn join(&self, pieces: Vec<Piece>, known_end: Lsn) -> Result<SegmentBytes, SegmentError> {
        let length = usize::try_from(self.size.bytes()).unwrap_or(0);
        let mut bytes = Vec::new();
        let mut before: Option<(ObjectName, WalSection)> = None;
        let mut compare_key = None;
        for piece in pieces {
            if let Some((name, section)) = &before {
                if piece.section.start < section.end && compare_key.is_none() {
                    compare_key = Some(self::compare_key(self.repository, self.identities).await?);
                }
                agree(&bytes, (name, section), &piece, compare_key.as_ref())?;
            }
            if bytes.is_empty() && piece.section.start == self.range.start {
                // The whole of it, as a rule.
                bytes = piece.plain;
            } else {
                let covered = self.range.start.advance(bytes.len() as u64).bytes_since(piece.section.start);
                bytes.reserve_exact(length.saturating_sub(bytes.len()));
                bytes.extend_from_slice(
                    piece.plain.get(usize::try_from(covered).unwrap_or(usize::MAX)..).unwrap_or(&[]),
                );
            }
            before = Some((piece.name, piece.section));
        }
        let valid_end = self.range.start.advance(bytes.len() as u64);
        bytes.reserve_exact(length.saturating_sub(bytes.len()));
        bytes.resize(length, 0);
        Ok(SegmentBytes { bytes, valid_end, whole: valid_end == self.range.end, known_end, lost: Vec::new() })
    }
}

/// The compare key that the repository's archivers share, from its `identity`. Secret.
///
/// Errors: the store's; none of the identities opens it, or no trusted writer signed it.
pub async fn compare_key(repository: &Repository, identities: &[Identity]) -> Result<CompareKey, RepositoryError> {
    let name = ObjectName::Identity;
    let content = repository.open(&name, identities).await?;
    let key = <[u8; 32]>::try_from(content.as_slice()).map_err(|_| {
        let source = SealError::Structure("the compare key in it is not 32 bytes long".to_owned());
        RepositoryError::Object { name: name.to_string(), source }
    })?;
    Ok(CompareKey::new(key))
}

/// Checks that `piece` goes on with (or overlaps) the bytes so far, whose last object is `before`.
fn agree(
    bytes: &[u8],
    (name, before): (&ObjectName, &WalSection),
    piece: &Piece,
    compare_key: Option<&CompareKey>,
) -> Result<(), SegmentError> {
    let (section, at) = (&piece.section, piece.section.start);
    let (first, second) = (name.to_string(), piece.name.to_string());
    let disagreement = |at| SegmentError::Disagreement { first: first.clone(), second: second.clone(), at };
    if before.end == at {
        if before.compare_key != section.compare_key {
            return Err(SegmentError::Incomparable { first, second, at });
        }
        return if before.digest_end == section.digest_start { Ok(()) } else { Err(disagreement(at)) };
    }
    let shared = usize::try_from(before.end.bytes_since(at)).unwrap_or(usize::MAX);
    let from = bytes.len().checked_sub(shared).unwrap_or(usize::MAX);
    let same = bytes.get(from..).zip(piece.plain.get(..shared)).is_some_and(|(one, other)| one == other);
    if !same {
        return Err(disagreement(before.end));
    }
    let Some(key) = compare_key.filter(|key| key.id() == section.compare_key) else {
        return Err(SegmentError::Incomparable { first, second, at });
    };
    let mut hasher = key.hasher();
    hasher.update(bytes.get(..from).unwrap_or_default());
    if hasher.digest() == section.digest_start { Ok(()) } else { Err(disagreement(at)) }
}

#[cfg(test)]
mod tests;
