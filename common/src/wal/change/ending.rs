//! What the end of a transaction lists (`xl_xact_commit`, `xl_xact_abort` in `xact.h`): its subtransactions, the files that go with
//! it, the relations that were dropped.

use serde::{Deserialize, Serialize};

use super::super::field::u32_at;
use super::super::page::WalVersion;
use super::super::record::RelationFile;
use super::super::xid::Xid;

const HAS_INFO: u8 = 0x80;
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// `PGSTAT_KIND_RELATION` (`pgstat.h`, `pgstat_kind.h`).
const STATISTICS_OF_RELATION: u32 = 2;

/// A relation of a database, by OID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RelationOid {
    /// The database's; 0 for what all databases share.
    pub database: u32,
    /// The relation's.
    pub oid: u32,
}

/// What the end of a transaction lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ending {
    /// Subtransactions that ended with it and in the same way.
    pub subtransactions: Vec<Xid>,
    /// Files that are removed: on commit those of relations that were dropped, or that got new ones by a `TRUNCATE` or a rewrite.
    pub removed: Vec<RelationFile>,
    /// Relations that are no more, indexes and temporary ones among them. PostgreSQL 14 does not say.
    pub dropped: Vec<RelationOid>,
}

impl Ending {
    /// Reads the main data of a record of [`ResourceManager::TRANSACTION`](super::super::ResourceManager::TRANSACTION) that ends a
    /// transaction, with flags `info`.
    ///
    /// Errors: in words, when it claims more than its record holds.
    pub fn parse(version: WalVersion, info: u8, main: &[u8]) -> Result<Ending, &'static str> {
        let mut ending = Ending::default();
        if info & HAS_INFO == 0 {
            return Ok(ending);
        }
        let mut rest = Rest { main, at: 8 };
        let flags = rest.number()?;
        if flags & HAS_DATABASE != 0 {
            rest.at += 8;
        }
        if flags & HAS_SUBTRANSACTIONS != 0 {
            ending.subtransactions = rest.list(4)?.map(|item| Xid(field(item, 0))).collect();
        }
        if flags & HAS_RELATIONS != 0 {
            let file = |item: &[u8]| RelationFile {
                tablespace: field(item, 0),
                database: field(item, 4),
                number: field(item, 8),
            };
            ending.removed = rest.list(12)?.map(file).collect();
        }
        if flags & HAS_DROPPED_STATISTICS != 0 {
            // In 18 an id has 64 bits, lower half first; that of a relation has 32 (`xl_xact_stats_item`).
            let items = rest.list(if version >= WalVersion::V18 { 16 } else { 12 })?;
            let relations = items.filter(|item| field(item, 0) == STATISTICS_OF_RELATION);
            ending.dropped =
                relations.map(|item| RelationOid { database: field(item, 4), oid: field(item, 8) }).collect();
        }
        Ok(ending)
    }
}

struct Rest<'a> {
    main: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn number(&mut self) -> Result<u32, &'static str> {
        let number = u32_at(self.main, self.at).ok_or("a transaction's end is cut off")?;
        self.at += 4;
        Ok(number)
    }

    /// A count and as many items of `size` bytes.
    fn list(&mut self, size: usize) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, &'static str> {
        let bytes = (self.number()? as usize).saturating_mul(size);
        let items = self.at.checked_add(bytes).and_then(|end| self.main.get(self.at..end));
        let items = items.ok_or("a transaction's end claims more than its record holds")?;
        self.at += bytes;
        Ok(items.chunks_exact(size))
    }
}

/// A number of an item, which is long enough.
fn field(item: &[u8], at: usize) -> u32 {
    u32_at(item, at).unwrap_or_default()
}
