//! A piece of WAL on its way into the repository: sealed, stored once, and durable before anybody hears of it (I1).

use std::sync::LazyLock;

use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::{ObjectName, Repository, RepositoryError, WalPut};
use walseal_common::seal::{
    CompareDigest, Draft, Kind, MAX_PLAINTEXT, SealError, SealedObject, Transactions, WalSection, Workshop,
};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;

use crate::chunks::Chunks;
use crate::keys::ArchiveKeys;
use crate::memory::{BESIDE_FRAMES, Room};

/// Plaintext of one frame of WAL.
const FRAME_SIZE: u32 = 1 << 20;
/// On WAL, zstd's level 1 is both faster and smaller than level 3.
const LEVEL: i32 = 1;
/// A piece with more bytes is looked for before it is sealed, so that its plaintext can go while the ciphertext grows.
const LARGE: u64 = 1 << 20;

/// Pieces that are sealed at once on two cores: each more has a compressor of its own.
const SEALED_AT_ONCE: usize = 2;
/// A buffer that held more than a segment that shrinks to half is not kept, in bytes.
const KEPT: usize = 8 << 20;

/// What large pieces are sealed with. One buffer is kept, whatever else is in use: half of what a segment's object has.
static WORKSHOP: LazyLock<Workshop> =
    LazyLock::new(|| Workshop::new(SEALED_AT_ONCE, (MAX_PLAINTEXT + BESIDE_FRAMES) as usize).keeping_objects(1, KEPT));

/// A piece of one segment, with everything its object's header says.
#[derive(Clone, Debug)]
pub struct Piece {
    /// As what it is stored.
    pub kind: PieceKind,
    /// The branch it belongs to.
    pub branch: Branch,
    /// Size of the cluster's segments.
    pub segment_size: SegmentSize,
    /// Where it begins.
    pub start: Lsn,
    /// The WAL itself.
    pub bytes: Chunks,
    /// Digest of the segment up to `start`.
    pub digest_start: CompareDigest,
    /// Digest of the segment up to the piece's end.
    pub digest_end: CompareDigest,
    /// Transactions that end in it.
    pub transactions: Transactions,
    /// A record that ends in it began before it and was not read.
    pub leading_unread: bool,
    /// Up to where WAL of the branch is known to be durable; nothing beyond was ever confirmed. `None` where nobody knows.
    pub durable: Option<Lsn>,
}

/// As what a piece of WAL is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceKind {
    /// A whole segment, or one part of a segment over 16 MiB.
    Whole,
    /// A piece of the segment that is being filled.
    Tail,
    /// The valid part of a branch's last segment.
    Partial,
}

/// A piece of WAL could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The repository did not take it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It could not be sealed.
    #[error("{range} could not be sealed: {source}")]
    Seal {
        /// The WAL.
        range: LsnRange,
        /// Why.
        source: SealError,
    },
    /// The thread that sealed it ended early.
    #[error("{0} could not be sealed: the thread that did it ended early")]
    Thread(LsnRange),
    /// Somebody else took the name meanwhile.
    #[error(
        "{0} was written by somebody else while it was on its way; it is compared with what is there and tried again"
    )]
    Overtaken(String),
}

impl ShipError {
    /// Whether trying the same piece again is useless.
    pub fn is_permanent(&self) -> bool {
        match self {
            ShipError::Repository(error) => error.is_permanent(),
            ShipError::Seal { source, .. } => source.is_permanent(),
            ShipError::Thread(_) | ShipError::Overtaken(_) => false,
        }
    }
}

impl Piece {
    /// The LSNs it covers.
    pub fn range(&self) -> LsnRange {
        LsnRange { start: self.start, end: self.start.advance(self.bytes.len()) }
    }

    /// The segment it belongs to.
    pub fn segment(&self) -> SegmentName {
        SegmentName::new(self.branch.timeline, self.number(), self.segment_size)
    }

    fn number(&self) -> SegmentNumber {
        self.segment_size.number(self.start)
    }

    /// Its object's name.
    pub fn name(&self) -> ObjectName {
        match self.kind {
            PieceKind::Whole if self.segment_size.bytes() > MAX_PLAINTEXT => {
                let part = self.segment_size.offset(self.start) / MAX_PLAINTEXT;
                // At most 64 parts: 1 GiB in 16 MiB.
                ObjectName::Wal(self.branch, self.segment(), Some(part as u8))
            }
            PieceKind::Whole => ObjectName::Wal(self.branch, self.segment(), None),
            PieceKind::Tail => ObjectName::Tail(self.branch, self.segment(), self.range()),
            PieceKind::Partial => ObjectName::Partial(self.branch, self.segment()),
        }
    }

    fn section(&self, keys: &ArchiveKeys) -> WalSection {
        WalSection {
            branch: self.branch,
            segment: self.segment(),
            segment_size: self.segment_size,
            start: self.start,
            end: self.range().end,
            compare_key: keys.writer.compare().id(),
            digest_start: self.digest_start,
            digest_end: self.digest_end,
            transactions: self.transactions,
            leading_unread: self.leading_unread,
            durable: self.durable,
        }
    }

    /// Bytes of memory that the piece takes on its way: its plaintext, and then in its place the ciphertext.
    pub fn footprint(&self) -> u64 {
        self.bytes.len() + BESIDE_FRAMES.min(self.bytes.len() / 8 + (16 << 10))
    }

    fn draft(&self, name: &ObjectName, repository: &Repository, section: WalSection) -> Draft {
        let kind = match self.kind {
            PieceKind::Whole => Kind::Wal,
            PieceKind::Tail => Kind::Tail,
            PieceKind::Partial => Kind::Partial,
        };
        Draft {
            kind,
            cluster: repository.cluster(),
            name: name.to_string(),
            wal: Some(section),
            frame_size: FRAME_SIZE,
            level: LEVEL,
        }
    }

    /// Seals the piece, on another thread; each of its frames is freed once its ciphertext is there, and its place in `room`
    /// with it.
    async fn sealed_as(
        self,
        name: ObjectName,
        repository: &Repository,
        keys: &ArchiveKeys,
        room: Room,
    ) -> Result<(ObjectName, SealedObject), ShipError> {
        let range = self.range();
        let draft = self.draft(&name, repository, self.section(keys));
        let (mut bytes, keys) = (self.bytes, keys.clone());
        let sealed = tokio::task::spawn_blocking(move || {
            let mut sealer = match bytes.len() > LARGE {
                true => draft.seal_in(&WORKSHOP, &keys.recipients, &keys.writer)?,
                false => draft.seal(&keys.recipients, &keys.writer)?,
            };
            while let Some(frame) = bytes.take_first(FRAME_SIZE as usize) {
                sealer.frame(&frame)?;
                // First, so that whoever keeps chunks knows of the room for this one.
                room.shrink_to(bytes.len() + sealer.stored_size() + BESIDE_FRAMES);
                drop(frame);
            }
            sealer.finish()
        });
        let object = sealed.await.map_err(|_| ShipError::Thread(range))?;
        Ok((name, object.map_err(|source| ShipError::Seal { range, source })?))
    }

    /// Seals the piece and stores it. When this returns, it is durable, or was before with the same bytes. `room` is the
    /// memory set aside for it, at least its [`Piece::footprint`]; it shrinks to what is needed.
    ///
    /// Errors: [`RepositoryError::Conflict`] when the name holds other bytes; these bytes are then kept under
    /// `conflict/` (I3). [`ShipError::Overtaken`] when somebody took the name of a large piece in this very moment.
    pub async fn ship(self, repository: &Repository, keys: &ArchiveKeys, room: &Room) -> Result<WalPut, ShipError> {
        if self.bytes.len() > LARGE {
            return self.ship_unless_there(repository, keys, room).await;
        }
        let section = self.section(keys);
        let (name, object) = self.clone().sealed_as(self.name(), repository, keys, Room::elsewhere()).await?;
        match repository.put_wal(&name, &object, &section).await {
            Ok(put) => Ok(put),
            Err(error) if error.is_conflict() => {
                self.keep_conflicting(name, repository, keys).await?;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Piece::ship`], for a piece that is probably there: one small read tells, and nothing is sealed then.
    pub async fn ship_unless_there(
        self,
        repository: &Repository,
        keys: &ArchiveKeys,
        room: &Room,
    ) -> Result<WalPut, ShipError> {
        let name = self.name();
        match repository.compare_wal(&name, &self.section(keys)).await {
            Ok(()) => return Ok(WalPut::AlreadyThere),
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_conflict() => {
                self.keep_conflicting(name, repository, keys).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        self.ship_to_free_name(repository, keys, room).await
    }

    /// As [`Piece::ship_unless_there`], for a piece of which the name was free a moment ago: nothing is read before.
    pub async fn ship_to_free_name(
        self,
        repository: &Repository,
        keys: &ArchiveKeys,
        room: &Room,
    ) -> Result<WalPut, ShipError> {
        let (name, section) = (self.name(), self.section(keys));
        let (name, object) = self.sealed_as(name, repository, keys, room.clone()).await?;
        room.shrink_to(object.bytes.len() as u64);
        match repository.put_wal(&name, &object, &section).await {
            // The plaintext is gone. Whoever has it again finds the other bytes there, and keeps these.
            Err(error) if error.is_conflict() => Err(ShipError::Overtaken(name.to_string())),
            put => Ok(put?),
        }
    }

    /// Compares the piece with what is stored under its name.
    ///
    /// Errors: nothing is; other bytes are, or such as cannot be compared.
    pub async fn compare(&self, repository: &Repository, keys: &ArchiveKeys) -> Result<(), RepositoryError> {
        repository.compare_wal(&self.name(), &self.section(keys)).await
    }

    /// Whether the piece is durable already. Where the name holds other bytes it is not; shipping finds the same, and keeps
    /// these.
    pub async fn is_there(&self, repository: &Repository, keys: &ArchiveKeys) -> Result<bool, ShipError> {
        match self.compare(repository, keys).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the bytes below `conflict/`, because `name` holds others (I3).
    pub(crate) async fn keep_conflicting(
        self,
        name: ObjectName,
        repository: &Repository,
        keys: &ArchiveKeys,
    ) -> Result<(), ShipError> {
        // The digest names the bytes, so that a retry does not keep them twice.
        let word: String = self.digest_end.to_string().chars().take(16).collect();
        let kept = ObjectName::Conflict(Box::new(name), word);
        let (_, object) = self.sealed_as(kept, repository, keys, Room::elsewhere()).await?;
        repository.put(&object).await?;
        Ok(())
    }
}
