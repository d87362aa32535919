//! Records (`xlogrecord.h`): the fixed header, and the body's block references and main data.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::field::{u16_at, u32_at, u64_at};
use super::page::WalVersion;
use super::xid::Xid;
use crate::lsn::Lsn;

/// Bytes of the fixed record header (`SizeOfXLogRecord`).
pub(super) const HEADER_LEN: usize = 24;
/// Bytes of the header that the checksum covers, after the body.
pub(super) const CHECKED_HEADER_LEN: usize = 20;
/// PostgreSQL never writes a record of 1 GiB or more (`MaxAllocSize`, `memutils.h`).
pub(super) const LONGEST_RECORD: u32 = 0x3FFF_FFFF;

/// Who interprets a record (`rmgrlist.h`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResourceManager(pub u8);

impl ResourceManager {
    /// Checkpoints, restore points, segment switches.
    pub const XLOG: ResourceManager = ResourceManager(0);
    /// Ends of transactions.
    pub const TRANSACTION: ResourceManager = ResourceManager(1);
    /// Files of relations, made and cut.
    pub const STORAGE: ResourceManager = ResourceManager(2);
    /// Databases, made and removed.
    pub const DATABASE: ResourceManager = ResourceManager(4);
    /// Which files the catalogs are that find all others.
    pub const RELATION_MAP: ResourceManager = ResourceManager(7);
    /// What a standby has to know.
    pub const STANDBY: ResourceManager = ResourceManager(8);
    /// Rows; the rest of what tables write.
    pub const HEAP2: ResourceManager = ResourceManager(9);
    /// Rows.
    pub const HEAP: ResourceManager = ResourceManager(10);

    // Numbers are positions here; the same in PostgreSQL 14 to 18.
    const NAMES: [&'static str; 22] = [
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ];

    /// Whether PostgreSQL of this version knows the number; extensions have 128 and up since 15.
    pub fn is_valid(self, version: WalVersion) -> bool {
        usize::from(self.0) < Self::NAMES.len() || (version >= WalVersion::V15 && self.0 >= 128)
    }
}

/// As `pg_waldump` prints it.
impl fmt::Display for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "custom{:03}", self.0),
        }
    }
}

/// The fixed header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Bytes of the record with this header, without page headers and without the padding to 8 after it.
    pub length: u32,
    /// The transaction, or [`Xid::INVALID`].
    pub xid: Xid,
    /// Start of the record before.
    pub prev: Lsn,
    /// Upper four bits: what kind of record, by resource manager; lower four: flags.
    pub info: u8,
    /// Who interprets it.
    pub manager: ResourceManager,
    /// CRC-32C of the body, then of the 20 bytes of header before this field.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the 24 bytes; says nothing about whether they make sense.
    pub fn parse(bytes: &[u8; 24]) -> RecordHeader {
        let [l0, l1, l2, l3, x0, x1, x2, x3, p0, p1, p2, p3, p4, p5, p6, p7, info, manager, _, _, c0, c1, c2, c3] =
            *bytes;
        RecordHeader {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: Xid(u32::from_le_bytes([x0, x1, x2, x3])),
            prev: Lsn(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            manager: ResourceManager(manager),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// The bits of `info` that tell kinds of records apart (`XLR_RMGR_INFO_MASK`).
    pub const fn kind(&self) -> u8 {
        self.info & 0xF0
    }
}

const ID_MAX_BLOCK: u8 = 32;
const ID_TOP_LEVEL_XID: u8 = 252;
const ID_ORIGIN: u8 = 253;
const ID_MAIN_LONG: u8 = 254;
const ID_MAIN_SHORT: u8 = 255;

const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_HAS_DATA: u8 = 0x20;
const BLOCK_SAME_RELATION: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;

/// Bytes of a data page (`BLCKSZ`).
const DATA_PAGE: u16 = 8192;

/// The file of a relation, as WAL names it (`RelFileLocator`; `RelFileNode` before 16).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelationFile {
    /// The tablespace's oid.
    pub tablespace: u32,
    /// The database's oid; 0 for shared relations.
    pub database: u32,
    /// `pg_class.relfilenode`.
    pub number: u32,
}

impl fmt::Display for RelationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

impl std::str::FromStr for RelationFile {
    type Err = &'static str;

    /// Reads what is written.
    fn from_str(text: &str) -> Result<RelationFile, &'static str> {
        let mut parts = text.split('/').map(|part| part.parse().ok());
        match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(tablespace), Some(database), Some(number), None) => Ok(RelationFile { tablespace, database, number }),
            _ => Err("a relation's file is written as tablespace/database/number"),
        }
    }
}

impl Serialize for RelationFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelationFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A full-page image within a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockImage {
    /// Bytes of the image in the record.
    pub length: u16,
    /// Bytes before the hole of zeros that was left out.
    pub hole_offset: u16,
    /// Bytes of the hole; 0 without one.
    pub hole_length: u16,
    /// Whether the image is compressed.
    pub compressed: bool,
}

/// A block that a record changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockReference {
    /// Its number within the record, 0 to 32.
    pub id: u8,
    /// The relation's file.
    pub relation: RelationFile,
    /// 0 main, 1 free space map, 2 visibility map, 3 init.
    pub fork: u8,
    /// The block's number in the fork.
    pub block: u32,
    /// Its full-page image, if there is one.
    pub image: Option<BlockImage>,
    /// Bytes of data that belong to the block, besides the image.
    pub data_length: u16,
}

/// The body of a record, taken apart (as `DecodeXLogRecord` in `xlogreader.c`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordBody<'a> {
    /// The blocks; at most 33.
    pub blocks: Vec<BlockReference>,
    /// The replication origin.
    pub origin: Option<u16>,
    /// The top-level transaction, where the record is the first of a subtransaction.
    pub top_level: Option<Xid>,
    /// What the resource manager stored with the record as a whole.
    pub main: &'a [u8],
}

impl<'a> RecordBody<'a> {
    /// Takes apart `body`, the bytes of a record after its fixed header.
    ///
    /// Errors: in words, what does not fit.
    pub fn parse(version: WalVersion, body: &'a [u8]) -> Result<RecordBody<'a>, &'static str> {
        const CUT: &str = "the record's block headers are cut off";
        let mut blocks: Vec<BlockReference> = Vec::new();
        let (mut origin, mut top_level) = (None, None);
        let mut at = 0usize;
        // Bytes of images, block data and main data that the headers so far announce; they follow the headers.
        let mut announced = 0usize;
        let mut main_length = 0usize;
        while body.len().saturating_sub(at) > announced {
            let id = *body.get(at).ok_or(CUT)?;
            at += 1;
            match id {
                ID_MAIN_SHORT | ID_MAIN_LONG => {
                    let (length, width) = if id == ID_MAIN_SHORT {
                        (u32::from(*body.get(at).ok_or(CUT)?), 1)
                    } else {
                        (u32_at(body, at).ok_or(CUT)?, 4)
                    };
                    at += width;
                    main_length = length as usize;
                    announced = announced.saturating_add(main_length);
                    break;
                }
                ID_ORIGIN => {
                    origin = Some(u16_at(body, at).ok_or(CUT)?);
                    at += 2;
                }
                ID_TOP_LEVEL_XID => {
                    top_level = Some(Xid(u32_at(body, at).ok_or(CUT)?));
                    at += 4;
                }
                0..=ID_MAX_BLOCK => {
                    if blocks.last().is_some_and(|last| last.id >= id) {
                        return Err("the record's block references are out of order");
                    }
                    let previous = blocks.last().map(|last| last.relation);
                    let (block, used) = block_reference(version, id, body.get(at..).ok_or(CUT)?, previous)?;
                    at += used;
                    announced +=
                        usize::from(block.data_length) + block.image.map_or(0, |image| usize::from(image.length));
                    blocks.push(block);
                }
                _ => return Err("the record has a block reference of an unknown kind"),
            }
        }
        if body.len().checked_sub(at) != Some(announced) {
            return Err("the record's length does not match its parts");
        }
        let main = body.get(body.len() - main_length..).ok_or(CUT)?;
        Ok(RecordBody { blocks, origin, top_level, main })
    }

    /// The image and the data of the block at place `index` of [`RecordBody::blocks`], as they stand in the record; `body` is what this
    /// was read from.
    pub fn block_bytes<'b>(&self, body: &'b [u8], index: usize) -> Option<(&'b [u8], &'b [u8])> {
        let image = |block: &BlockReference| block.image.map_or(0, |image| usize::from(image.length));
        let both = |block: &BlockReference| image(block) + usize::from(block.data_length);
        let parts: usize = self.blocks.iter().map(both).sum();
        let block = self.blocks.get(index)?;
        let begin = body.len().checked_sub(parts + self.main.len())?;
        let at = begin + self.blocks.iter().take(index).map(both).sum::<usize>();
        body.get(at..at + both(block))?.split_at_checked(image(block))
    }
}

/// Reads what follows the id of a block reference; also returns how many bytes that was.
fn block_reference(
    version: WalVersion,
    id: u8,
    bytes: &[u8],
    previous: Option<RelationFile>,
) -> Result<(BlockReference, usize), &'static str> {
    const CUT: &str = "a block reference is cut off";
    let flags = *bytes.first().ok_or(CUT)?;
    let data_length = u16_at(bytes, 1).ok_or(CUT)?;
    if (flags & BLOCK_HAS_DATA != 0) != (data_length > 0) {
        return Err("a block reference's data flag does not match its data length");
    }
    let mut at = 3;
    let image = if flags & BLOCK_HAS_IMAGE == 0 {
        None
    } else {
        let length = u16_at(bytes, at).ok_or(CUT)?;
        let hole_offset = u16_at(bytes, at + 2).ok_or(CUT)?;
        let info = *bytes.get(at + 4).ok_or(CUT)?;
        at += 5;
        // BKPIMAGE_IS_COMPRESSED before 15; since then one bit for each method (pglz, lz4, zstd).
        let compressed = info & if version == WalVersion::V14 { 0x02 } else { 0x1C } != 0;
        let hole_length = match (compressed, info & IMAGE_HAS_HOLE != 0) {
            (true, true) => {
                at += 2;
                u16_at(bytes, at - 2).ok_or(CUT)?
            }
            (true, false) => 0,
            (false, _) => DATA_PAGE.checked_sub(length).ok_or("a block image is longer than a page")?,
        };
        Some(BlockImage { length, hole_offset, hole_length, compressed })
    };
    let relation = if flags & BLOCK_SAME_RELATION != 0 {
        previous.ok_or("the first block reference has no relation")?
    } else {
        let field = |offset: usize| u32_at(bytes, at + offset).ok_or(CUT);
        let relation = RelationFile { tablespace: field(0)?, database: field(4)?, number: field(8)? };
        at += 12;
        relation
    };
    let block = u32_at(bytes, at).ok_or(CUT)?;
    at += 4;
    Ok((BlockReference { id, relation, fork: flags & 0x0F, block, image, data_length }, at))
}

/// Bytes of a record of `length` with the padding after it: records start at multiples of 8.
pub(super) const fn padded(length: u32) -> u64 {
    (length as u64).next_multiple_of(8)
}

/// An LSN in a record.
pub(super) fn lsn_at(bytes: &[u8], offset: usize) -> Option<Lsn> {
    u64_at(bytes, offset).map(Lsn)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn record_body_never_panics_and_stays_within_its_bytes(body: Vec<u8>, version in 0usize..5) {
            if let Ok(parsed) = RecordBody::parse(WalVersion::ALL[version], &body) {
                prop_assert!(parsed.main.len() <= body.len());
                prop_assert!(parsed.blocks.len() <= 33);
            }
        }

        #[test]
        fn record_body_finds_main_data_of_either_length(main in proptest::collection::vec(any::<u8>(), 0..600), long: bool) {
            let mut body = vec![ID_ORIGIN, 7, 0, ID_TOP_LEVEL_XID, 9, 0, 0, 0];
            if long || main.len() > 255 {
                body.push(ID_MAIN_LONG);
                body.extend((main.len() as u32).to_le_bytes());
            } else {
                body.extend([ID_MAIN_SHORT, main.len() as u8]);
            }
            body.extend(&main);
            let parsed = RecordBody::parse(WalVersion::V18, &body).expect("a legal body");
            prop_assert_eq!(parsed.main, &main[..]);
            prop_assert_eq!((parsed.origin, parsed.top_level), (Some(7), Some(Xid(9))));
            body.push(0);
            prop_assert!(RecordBody::parse(WalVersion::V18, &body).is_err());
        }
    }
}
