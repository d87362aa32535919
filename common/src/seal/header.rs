//! What the plain, signed header of an object says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::compare::{CompareDigest, CompareKeyId};
use super::{RecipientId, SealError};
use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentSize};
use crate::timeline::{Branch, SystemIdentifier};

/// What an object is. A kind that is not listed here is refused by name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// What a repository is.
    Identity,
    /// A whole WAL segment, or a part of one over 16 MiB.
    Wal,
    /// The valid part of a branch's last segment.
    Partial,
    /// A durable piece of the segment that is being filled.
    Tail,
    /// A timeline's history file.
    History,
    /// A base backup.
    Label,
    /// A page of a base backup's list of files.
    Manifest,
    /// Frames of a base backup's files.
    Data,
    /// What the next base backup has to know of one: its list of files, and the server's manifest.
    Resume,
    /// WAL that is missing.
    Gap,
    /// Up to where WAL was durable at some time.
    Frontier,
    /// An index page of segments.
    Catalog,
    /// What the transactions of a run of segments did.
    Summary,
    /// On which branch the WAL of a living server goes on.
    Adopt,
    /// What happened.
    Ledger,
    /// What a drill found.
    Evidence,
    /// What a writer at work relies on.
    Lease,
    /// Which relation each file of a base backup is.
    Names,
    /// Configuration files beside those of a base backup.
    Config,
    /// A logical dump.
    Snapshot,
    /// Frames of a logical dump.
    Dump,
    /// A base backup that is kept until some time.
    Hold,
    /// What is about to be removed.
    Intent,
    /// What retention removed.
    Pruned,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 24] = [
        Kind::Identity,
        Kind::Wal,
        Kind::Partial,
        Kind::Tail,
        Kind::History,
        Kind::Label,
        Kind::Manifest,
        Kind::Data,
        Kind::Resume,
        Kind::Gap,
        Kind::Frontier,
        Kind::Catalog,
        Kind::Summary,
        Kind::Adopt,
        Kind::Ledger,
        Kind::Lease,
        Kind::Evidence,
        Kind::Names,
        Kind::Config,
        Kind::Snapshot,
        Kind::Dump,
        Kind::Hold,
        Kind::Intent,
        Kind::Pruned,
    ];

    /// The word in the header.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Identity => "identity",
            Kind::Wal => "wal",
            Kind::Partial => "partial",
            Kind::Tail => "tail",
            Kind::History => "history",
            Kind::Label => "label",
            Kind::Manifest => "manifest",
            Kind::Data => "data",
            Kind::Resume => "resume",
            Kind::Gap => "gap",
            Kind::Frontier => "frontier",
            Kind::Catalog => "catalog",
            Kind::Summary => "summary",
            Kind::Adopt => "adopt",
            Kind::Ledger => "ledger",
            Kind::Evidence => "evidence",
            Kind::Lease => "lease",
            Kind::Names => "names",
            Kind::Config => "config",
            Kind::Snapshot => "snapshot",
            Kind::Dump => "dump",
            Kind::Hold => "hold",
            Kind::Intent => "intent",
            Kind::Pruned => "pruned",
        }
    }

    /// Whether it has frames. What has none is read by everyone.
    pub const fn is_sealed(self) -> bool {
        !matches!(
            self,
            Kind::Label
                | Kind::Snapshot
                | Kind::Gap
                | Kind::Frontier
                | Kind::Catalog
                | Kind::Adopt
                | Kind::Ledger
                | Kind::Lease
                | Kind::Hold
                | Kind::Intent
                | Kind::Pruned
        )
    }

    /// Whether its header says which WAL it holds.
    pub const fn is_wal(self) -> bool {
        matches!(self, Kind::Wal | Kind::Partial | Kind::Tail)
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// The header, as in section 3 of the format.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Header {
    /// What the object is.
    pub kind: Kind,
    /// The cluster it belongs to.
    pub cluster: SystemIdentifier,
    /// Its name in the repository.
    pub name: String,
    /// Who signed it: `walsealw1…`.
    pub writer: String,
    /// The writer's clock; never used to decide what a restore needs.
    pub created: Timestamp,
    /// How the frames are sealed; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealing>,
    /// Which WAL it holds; present for the kinds that hold some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalSection>,
}

/// As [`Header`], with the kind still a word, so that an unknown one can be named.
#[derive(Deserialize)]
struct RawHeader {
    kind: String,
    cluster: SystemIdentifier,
    name: String,
    writer: String,
    created: Timestamp,
    sealed: Option<Sealing>,
    wal: Option<WalSection>,
}

impl Header {
    /// Reads the header's JSON and checks that its members fit its kind.
    pub(super) fn parse(json: &[u8]) -> Result<Header, SealError> {
        let raw: RawHeader = serde_json::from_slice(json).map_err(|error| SealError::Header(error.to_string()))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.word() == raw.kind)
            .ok_or_else(|| SealError::UnknownKind(raw.kind.chars().take(40).collect()))?;
        if kind.is_sealed() && raw.sealed.is_none() {
            return Err(SealError::Header(format!("a {} without \"sealed\"", kind.word())));
        }
        if kind.is_wal() != raw.wal.is_some() {
            return Err(SealError::Header(format!("\"wal\" is missing or out of place in a {}", kind.word())));
        }
        if let Some(sealed) = &raw.sealed {
            sealed.check()?;
        }
        if let Some(wal) = &raw.wal {
            wal.check()?;
        }
        Ok(Header {
            kind,
            cluster: raw.cluster,
            name: raw.name,
            writer: raw.writer,
            created: raw.created,
            sealed: raw.sealed,
            wal: raw.wal,
        })
    }
}

/// How an object's frames are sealed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sealing {
    /// How plaintext is compressed: always `zstd`.
    pub codec: String,
    /// Most bytes of plaintext in one frame.
    pub frame_size: u32,
    /// The first 15 bytes of every frame's nonce.
    #[serde(with = "base64_bytes")]
    pub nonce: [u8; 15],
    /// The data key, sealed to each recipient.
    pub recipients: Vec<RecipientStanza>,
}

/// Smallest and largest `frame_size`, in bytes.
pub(super) const FRAME_SIZES: std::ops::RangeInclusive<u32> = (64 << 10)..=(1 << 20);

impl Sealing {
    fn check(&self) -> Result<(), SealError> {
        if self.codec != "zstd" {
            return Err(SealError::Header(format!("codec \"{}\" is not known", self.codec)));
        }
        if !FRAME_SIZES.contains(&self.frame_size) {
            return Err(SealError::Header(format!("frame_size {} is out of bounds", self.frame_size)));
        }
        Ok(())
    }
}

/// The data key, sealed to one recipient.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecipientStanza {
    /// Fingerprint of the recipient.
    pub id: RecipientId,
    /// HPKE's encapsulated key.
    #[serde(with = "base64_bytes")]
    pub enc: [u8; 32],
    /// The sealed data key.
    #[serde(with = "base64_bytes")]
    pub key: [u8; 48],
}

/// Which WAL an object holds, as in section 5 of the format.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WalSection {
    /// The branch it belongs to.
    pub branch: Branch,
    /// The segment it belongs to.
    pub segment: SegmentName,
    /// Size of segments of this cluster.
    pub segment_size: SegmentSize,
    /// First byte it holds.
    pub start: Lsn,
    /// First byte that it does not hold any more.
    pub end: Lsn,
    /// Which key the digests were made with.
    pub compare_key: CompareKeyId,
    /// Digest of the segment's bytes up to `start`.
    pub digest_start: CompareDigest,
    /// Digest of the segment's bytes up to `end`.
    pub digest_end: CompareDigest,
    /// Transactions that end in these bytes.
    pub transactions: Transactions,
    /// A record that ends in these bytes began before them and was not read: `transactions` may lack one.
    pub leading_unread: bool,
    /// When the object was sealed, the WAL of this branch was durable up to here, as far as its writer knew, and nothing
    /// beyond had been confirmed to PostgreSQL (I1). `None`: the writer does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<Lsn>,
}

impl WalSection {
    fn check(&self) -> Result<(), SealError> {
        let number = self
            .segment
            .number(self.segment_size)
            .ok_or_else(|| SealError::Header(format!("{} is no segment of this size", self.segment)))?;
        let range = number.range(self.segment_size);
        let inside = range.start <= self.start && self.start < self.end && self.end <= range.end;
        if !inside || self.segment.timeline != self.branch.timeline {
            return Err(SealError::Header(format!(
                "{}..{} of branch {} does not lie in segment {}",
                self.start, self.end, self.branch, self.segment
            )));
        }
        Ok(())
    }
}

/// Transactions that end (commit, abort, and both of prepared ones) in some bytes of WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Transactions {
    /// How many.
    pub count: u64,
    /// The lowest time in their records; times are not in LSN order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowest: Option<Timestamp>,
    /// The highest time in their records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest: Option<Timestamp>,
}

impl Transactions {
    /// Adds one that ended at `time`.
    pub fn add(&mut self, time: Timestamp) {
        self.count += 1;
        self.lowest = Some(self.lowest.map_or(time, |lowest| lowest.min(time)));
        self.highest = Some(self.highest.map_or(time, |highest| highest.max(time)));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Transactions) {
        self.count += other.count;
        self.lowest = [self.lowest, other.lowest].into_iter().flatten().min();
        self.highest = [self.highest, other.highest].into_iter().flatten().max();
    }
}

impl std::str::FromStr for RecipientId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_hex::<8>(text).map(RecipientId)
    }
}

impl Serialize for RecipientId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecipientId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Exactly `N` bytes of lower-case hexadecimal.
pub(super) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let bad = || format!("expected {} hexadecimal digits", 2 * N);
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(bad());
    }
    let mut bytes = [0; N];
    for (at, slot) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * at..2 * at + 2).ok_or_else(bad)?;
        *slot = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(bytes)
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(serde::de::Error::custom)?;
        <[u8; N]>::try_from(bytes).map_err(|_| serde::de::Error::custom(format!("expected {N} bytes in Base64")))
    }
}
