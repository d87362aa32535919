//! WAL segments, and the names of the files in `pg_wal`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, LsnRange};
use crate::timeline::TimelineId;

/// `wal_segment_size` of a cluster, in bytes: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

/// The number is not a possible `wal_segment_size`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a WAL segment size; PostgreSQL allows powers of two from 1 MiB to 1 GiB")]
pub struct SegmentSizeError(pub u64);

impl SegmentSize {
    /// PostgreSQL's default, 16 MiB.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// The smallest that PostgreSQL allows, 1 MiB.
    pub const SMALLEST: SegmentSize = SegmentSize(1 << 20);

    /// A segment size of `bytes`.
    ///
    /// Errors: when it is no power of two between 1 MiB and 1 GiB.
    pub fn new(bytes: u64) -> Result<SegmentSize, SegmentSizeError> {
        match u32::try_from(bytes) {
            Ok(small) if small.is_power_of_two() && (1 << 20..=1 << 30).contains(&small) => Ok(SegmentSize(small)),
            _ => Err(SegmentSizeError(bytes)),
        }
    }

    /// Bytes in a segment.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// Segments in each 4 GiB of WAL, which is how file names count them.
    const fn per_xlog_id(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }

    /// Start of the segment that `lsn` lies in.
    pub const fn align_down(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !(self.bytes() - 1))
    }

    /// Offset of `lsn` in its segment, in bytes.
    pub const fn offset(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.bytes() - 1)
    }

    /// The whole segments that WAL from `start` to `stop` lies in; that of `start` where there is none between.
    pub fn around(self, start: Lsn, stop: Lsn) -> LsnRange {
        let last = self.number(Lsn(stop.0.saturating_sub(1)).max(start));
        LsnRange { start: self.align_down(start), end: last.end(self) }
    }

    /// Number of the segment that holds the byte at `lsn`.
    pub const fn number(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.0 / self.bytes())
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = SegmentSizeError;
    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        SegmentSize::new(u64::from(bytes))
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> u32 {
        size.0
    }
}

/// A segment's place in the WAL stream: its start LSN divided by the segment size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// First byte of the segment.
    pub const fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.0.saturating_mul(size.bytes()))
    }

    /// First byte after the segment.
    pub const fn end(self, size: SegmentSize) -> Lsn {
        self.start(size).advance(size.bytes())
    }

    /// The segment's bytes as a range.
    pub const fn range(self, size: SegmentSize) -> LsnRange {
        LsnRange { start: self.start(size), end: self.end(size) }
    }

    /// The segment after this one.
    pub const fn next(self) -> SegmentNumber {
        SegmentNumber(self.0.saturating_add(1))
    }
}

/// Name of a segment file: 24 hexadecimal digits, for example `000000010000000000000003`.
///
/// The name alone does not tell the segment's number: that needs the segment size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline in the name.
    pub timeline: TimelineId,
    log: u32,
    seg: u32,
}

impl SegmentName {
    /// Name of segment `number` of `timeline`.
    pub fn new(timeline: TimelineId, number: SegmentNumber, size: SegmentSize) -> SegmentName {
        let per = size.per_xlog_id();
        SegmentName { timeline, log: (number.0 / per) as u32, seg: (number.0 % per) as u32 }
    }

    /// The segment's number, or `None` when the name is impossible with this segment size.
    pub fn number(self, size: SegmentSize) -> Option<SegmentNumber> {
        let per = size.per_xlog_id();
        (u64::from(self.seg) < per).then(|| SegmentNumber(u64::from(self.log) * per + u64::from(self.seg)))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline, self.log, self.seg)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a name that PostgreSQL gives to a file of WAL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not the name of a WAL file; expected 24 hexadecimal digits, optionally with .partial \
     or .XXXXXXXX.backup, or XXXXXXXX.history"
)]
pub struct WalFileNameError(pub String);

/// Eight upper-case hexadecimal digits, as PostgreSQL writes them in file names.
fn hex8(text: &str) -> Option<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

impl FromStr for SegmentName {
    type Err = WalFileNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let timeline = TimelineId::new(hex8(text.get(0..8)?)?)?;
            Some(SegmentName { timeline, log: hex8(text.get(8..16)?)?, seg: hex8(text.get(16..)?)? })
        };
        parse().ok_or_else(|| WalFileNameError(text.to_owned()))
    }
}

impl Serialize for SegmentName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Every kind of file that PostgreSQL hands to `archive_command` or asks of `restore_command`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalFileName {
    /// A whole segment.
    Segment(SegmentName),
    /// The last, unfinished segment of a timeline that ended: `….partial`.
    Partial(SegmentName),
    /// A timeline's history: `00000002.history`.
    History(TimelineId),
    /// The record of a base backup: `<segment>.<offset>.backup`, offset in bytes.
    BackupHistory(SegmentName, u32),
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(name) => write!(f, "{name}"),
            WalFileName::Partial(name) => write!(f, "{name}.partial"),
            WalFileName::History(timeline) => write!(f, "{timeline}.history"),
            WalFileName::BackupHistory(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = WalFileNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            if let Some(timeline) = text.strip_suffix(".history") {
                return Some(WalFileName::History(TimelineId::new(hex8(timeline)?)?));
            }
            if let Some(segment) = text.strip_suffix(".partial") {
                return Some(WalFileName::Partial(segment.parse().ok()?));
            }
            if let Some(rest) = text.strip_suffix(".backup") {
                let (segment, offset) = rest.split_once('.')?;
                return Some(WalFileName::BackupHistory(segment.parse().ok()?, hex8(offset)?));
            }
            Some(WalFileName::Segment(text.parse().ok()?))
        };
        parse().ok_or_else(|| WalFileNameError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes() -> impl Strategy<Value = SegmentSize> {
        (20u32..=30).prop_map(|bits| SegmentSize(1 << bits))
    }

    #[test]
    fn case_18_names_follow_the_segment_size() {
        let one = TimelineId::FIRST;
        let name = |mib: u64, lsn: Lsn| {
            let size = SegmentSize::new(mib << 20).expect("a legal size");
            SegmentName::new(one, size.number(lsn), size).to_string()
        };
        // The values are those of pg_walfile_name() on clusters made with --wal-segsize 1, 16 and 64.
        let lsn = Lsn(0x1_2345_6789);
        assert_eq!(name(1, lsn), "000000010000000100000234");
        assert_eq!(name(16, lsn), "000000010000000100000023");
        assert_eq!(name(64, lsn), "000000010000000100000008");
    }

    #[test]
    fn segment_size_refuses_what_initdb_refuses() {
        for bytes in [0, 1, 1 << 19, (16 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert!(SegmentSize::new(bytes).is_err(), "{bytes} was accepted");
        }
    }

    #[test]
    fn wal_file_names_refuse_strangers() {
        for text in [
            "",
            "0",
            "00000001000000000000000",
            "0000000100000000000000011",
            "00000001000000000000000g",
            "00000000.history",
            "0000001.history",
            "000000010000000000000001.part",
            "../000000010000000000000001",
            "000000010000000000000001.0000028.backup",
            "00000001000000000000000a",
            "é0000001000000000000000",
            "000000000000000000000001",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn case_18_segment_names_survive_text(tli in 1u32.., raw: u64, size in sizes()) {
            let number = size.number(Lsn(raw));
            let timeline = TimelineId::new(tli).expect("not zero");
            let name = SegmentName::new(timeline, number, size);
            prop_assert_eq!(name.to_string().parse::<SegmentName>().ok(), Some(name));
            prop_assert_eq!(name.number(size), Some(number));
            prop_assert!(number.range(size).contains(Lsn(raw)) || number.end(size) == Lsn(u64::MAX));
        }

        #[test]
        fn wal_file_names_never_panic(text: String) {
            let parsed = text.parse::<WalFileName>();
            prop_assert!(parsed.is_err() || parsed.is_ok_and(|name| name.to_string() == text));
        }
    }
}
