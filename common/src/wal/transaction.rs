//! Ends of transactions (`xact.h`), read as they arrive: a commit record can be as long as its transaction had
//! subtransactions and dropped relations, and of all that only a few fields are needed.

use serde::{Deserialize, Serialize};

use super::field::{i64_at, u32_at};
use super::page::WalVersion;
use super::record::{RecordHeader, ResourceManager};
use super::xid::Xid;
use crate::time::PgTimestamp;

pub(super) const KIND_MASK: u8 = 0x70;
const COMMIT: u8 = 0x00;
pub(super) const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionOutcome {
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`, or an error.
    Abort,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    AbortPrepared,
}

impl TransactionOutcome {
    /// The outcome that a record of [`ResourceManager::TRANSACTION`] tells, if it tells one.
    pub(super) fn of(header: &RecordHeader) -> Option<TransactionOutcome> {
        if header.manager != ResourceManager::TRANSACTION {
            return None;
        }
        match header.info & KIND_MASK {
            COMMIT => Some(TransactionOutcome::Commit),
            ABORT => Some(TransactionOutcome::Abort),
            COMMIT_PREPARED => Some(TransactionOutcome::CommitPrepared),
            ABORT_PREPARED => Some(TransactionOutcome::AbortPrepared),
            _ => None,
        }
    }

    /// Whether the transaction's work counts from here on.
    pub const fn is_commit(self) -> bool {
        matches!(self, TransactionOutcome::Commit | TransactionOutcome::CommitPrepared)
    }

    const fn is_prepared(self) -> bool {
        matches!(self, TransactionOutcome::CommitPrepared | TransactionOutcome::AbortPrepared)
    }
}

/// The end of a transaction.
///
/// `recovery_target_time` looks at the times of all four outcomes, commits and aborts (`recoveryStopsBefore`,
/// `xlogrecovery.c`); users think of commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransactionEnd {
    /// How it ended.
    pub outcome: TransactionOutcome,
    /// The transaction; of a prepared one its own id, not that of the transaction that said `COMMIT PREPARED`.
    pub xid: Xid,
    /// When, by the server's clock. Not monotonic in LSN (case 54).
    pub time: PgTimestamp,
    /// How many subtransactions ended with it.
    pub subtransactions: u32,
}

/// The field that is read next, in the order of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    PartId,
    ShortLength,
    LongLength,
    Time,
    Info,
    SubtransactionCount,
    RelationCount,
    StatisticsCount,
    InvalidationCount,
    TwoPhaseXid,
    Finished,
    Failed(&'static str),
}

impl Field {
    const fn width(self) -> usize {
        match self {
            Field::PartId | Field::ShortLength => 1,
            Field::Time => 8,
            Field::Finished | Field::Failed(_) => 0,
            _ => 4,
        }
    }
}

/// Reads the body of a record that tells an outcome, in pieces of any size, keeping a few bytes at most.
#[derive(Clone, Debug)]
pub(super) struct TransactionReader {
    version: WalVersion,
    has_info: bool,
    flags: u32,
    field: Field,
    fill: [u8; 8],
    filled: usize,
    /// Bytes to pass over before `field`.
    skip: u64,
    /// Bytes of main data that are left, once its length is known.
    main_left: u64,
    end: TransactionEnd,
}

impl TransactionReader {
    /// A reader for the record with this header; `None` when the record tells no end of a transaction.
    pub(super) fn new(version: WalVersion, header: &RecordHeader) -> Option<TransactionReader> {
        let outcome = TransactionOutcome::of(header)?;
        Some(TransactionReader {
            version,
            has_info: header.info & HAS_INFO != 0,
            flags: 0,
            field: Field::PartId,
            fill: [0; 8],
            filled: 0,
            skip: 0,
            main_left: 0,
            end: TransactionEnd { outcome, xid: header.xid, time: PgTimestamp(0), subtransactions: 0 },
        })
    }

    /// Takes the next bytes of the body.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            bytes = bytes.get(passed..).unwrap_or_default();
            self.skip -= passed as u64;
            let width = self.field.width();
            if bytes.is_empty() || width == 0 {
                return;
            }
            let taken = (width - self.filled).min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            if let Some(free) = self.fill.get_mut(self.filled..self.filled + taken) {
                free.copy_from_slice(now);
            }
            self.filled += taken;
            bytes = later;
            if self.filled == width {
                self.filled = 0;
                self.field =
                    self.read(width).unwrap_or(Field::Failed("a transaction's end claims more than its record holds"));
            }
        }
    }

    /// The end that was read. Errors: in words, when the bytes were not those of such a record.
    pub(super) fn finish(self) -> Result<TransactionEnd, &'static str> {
        match self.field {
            Field::Failed(why) => Err(why),
            Field::Finished if self.end.time.to_jiff().is_none() => Err("a transaction's end has an impossible time"),
            // What is passed over after the last field need not be looked at.
            Field::Finished => Ok(self.end),
            _ => Err("a transaction's end is cut off"),
        }
    }

    /// Interprets the field that is complete now; the next one, or `None` when it does not fit the record.
    fn read(&mut self, width: usize) -> Option<Field> {
        let fill = self.fill;
        let number = || u32_at(&fill, 0);
        match self.field {
            Field::PartId => {
                // A part with replication origin or top-level transaction may precede the main data; blocks never do.
                self.skip = match fill.first()? {
                    252 => 4,
                    253 => 2,
                    254 => return Some(Field::LongLength),
                    255 => return Some(Field::ShortLength),
                    _ => return Some(Field::Failed("a transaction's end refers to blocks")),
                };
                return Some(Field::PartId);
            }
            Field::ShortLength => {
                self.main_left = u64::from(*fill.first()?);
                return Some(Field::Time);
            }
            Field::LongLength => {
                self.main_left = u64::from(number()?);
                return Some(Field::Time);
            }
            _ => {}
        }
        self.main_left = self.main_left.checked_sub(width as u64)?;
        match self.field {
            Field::Time => {
                self.end.time = PgTimestamp(i64_at(&fill, 0)?);
                if self.has_info {
                    return Some(Field::Info);
                }
            }
            Field::Info => {
                self.flags = number()?;
                if self.flags & HAS_DATABASE != 0 {
                    self.pass(2, 4)?;
                }
            }
            Field::SubtransactionCount => {
                self.end.subtransactions = number()?;
                self.pass(number()?, 4)?;
            }
            Field::RelationCount => self.pass(number()?, 12)?,
            // A statistics object's id grew from 32 to 64 bits in 18 (`xl_xact_stats_item`).
            Field::StatisticsCount => self.pass(number()?, if self.version >= WalVersion::V18 { 16 } else { 12 })?,
            Field::InvalidationCount => self.pass(number()?, 16)?,
            Field::TwoPhaseXid => self.end.xid = Xid(number()?),
            _ => return None,
        }
        Some(self.next())
    }

    /// Passes over `count` things of `size` bytes, which must lie within the main data.
    fn pass(&mut self, count: u32, size: u64) -> Option<()> {
        let bytes = u64::from(count) * size;
        self.main_left = self.main_left.checked_sub(bytes)?;
        self.skip = bytes;
        Some(())
    }

    /// The next field that the flags announce; each flag is cleared when its field's turn comes.
    fn next(&mut self) -> Field {
        let order = [
            (HAS_SUBTRANSACTIONS, Field::SubtransactionCount),
            (HAS_RELATIONS, Field::RelationCount),
            (HAS_DROPPED_STATISTICS, Field::StatisticsCount),
            (HAS_INVALIDATIONS, Field::InvalidationCount),
            (HAS_TWO_PHASE, Field::TwoPhaseXid),
        ];
        for (flag, field) in order {
            if self.flags & flag != 0 {
                self.flags &= !flag;
                return field;
            }
        }
        if self.end.outcome.is_prepared() && self.field != Field::TwoPhaseXid {
            return Field::Failed("the end of a prepared transaction does not name it");
        }
        Field::Finished
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lsn::Lsn;

    fn header(info: u8) -> RecordHeader {
        RecordHeader { length: 0, xid: Xid(77), prev: Lsn(0), info, manager: ResourceManager::TRANSACTION, crc: 0 }
    }

    fn body(main: &[u8]) -> Vec<u8> {
        let mut body = vec![254];
        body.extend((main.len() as u32).to_le_bytes());
        body.extend(main);
        body
    }

    /// Every optional part at once, with counts that differ, as version `version` lays them out.
    fn full_main(version: WalVersion) -> Vec<u8> {
        let mut main = Vec::new();
        main.extend(848_543_400_120_000i64.to_le_bytes());
        let stats = version >= WalVersion::V15;
        main.extend((0xFFu32 | if stats { 0x100 } else { 0 }).to_le_bytes());
        main.extend([9; 8]);
        let mut part = |count: u32, size: usize| {
            main.extend(count.to_le_bytes());
            main.extend(vec![0xEE; count as usize * size]);
        };
        part(3, 4);
        part(2, 12);
        if stats {
            part(5, if version == WalVersion::V18 { 16 } else { 12 });
        }
        part(4, 16);
        main.extend(4242u32.to_le_bytes());
        main.extend(b"the gid\0");
        main.extend([1; 16]);
        main
    }

    fn read(version: WalVersion, info: u8, body: &[u8], piece: usize) -> Result<TransactionEnd, &'static str> {
        let mut reader = TransactionReader::new(version, &header(info)).expect("an end of a transaction");
        body.chunks(piece).for_each(|piece| reader.feed(piece));
        reader.finish()
    }

    #[test]
    fn case_10_a_prepared_transaction_keeps_its_own_xid_in_every_version() {
        for version in WalVersion::ALL {
            for piece in [1, 2, 3, 7, 1000] {
                let end = read(version, HAS_INFO | COMMIT_PREPARED, &body(&full_main(version)), piece);
                let expected = TransactionEnd {
                    outcome: TransactionOutcome::CommitPrepared,
                    xid: Xid(4242),
                    time: PgTimestamp(848_543_400_120_000),
                    subtransactions: 3,
                };
                assert_eq!(end, Ok(expected), "{version:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_transaction_that_claims_more_than_its_record_is_refused() {
        let mut main = vec![0; 8];
        main.extend(HAS_SUBTRANSACTIONS.to_le_bytes());
        main.extend(u32::MAX.to_le_bytes());
        assert!(read(WalVersion::V15, HAS_INFO | COMMIT, &body(&main), 100).is_err());
        assert!(read(WalVersion::V15, COMMIT, &body(&main[..7]), 100).is_err());
        assert!(read(WalVersion::V15, COMMIT_PREPARED, &body(&main), 100).is_err(), "it does not name a transaction");
        assert!(read(WalVersion::V15, COMMIT, &body(&i64::MAX.to_le_bytes()), 100).is_err(), "no such time");
        assert!(read(WalVersion::V15, COMMIT, &[0, 0, 0], 100).is_err(), "a block reference");
    }

    proptest! {
        #[test]
        fn transaction_reader_never_panics_and_pieces_do_not_matter(
            bytes: Vec<u8>, info in prop::sample::select(vec![0u8, 0x80, 0x20, 0xA0, 0x30, 0xB0, 0x40, 0xC0]), piece in 1usize..20,
        ) {
            let bytes = body(&bytes);
            let whole = read(WalVersion::V18, info, &bytes, bytes.len());
            prop_assert_eq!(read(WalVersion::V18, info, &bytes, piece), whole);
        }
    }
}
