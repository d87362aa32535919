//! Page headers (`xlog_internal.h`: `XLogPageHeaderData`, `XLogLongPageHeaderData`).

use super::error::WalError;
use super::field::{u16_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::timeline::{SystemIdentifier, TimelineId};

/// Bytes in a WAL page (`XLOG_BLCKSZ`); servers built with another size are refused by name.
pub const PAGE_SIZE: u32 = 8192;

/// Bytes of a short page header (`SizeOfXLogShortPHD`).
pub(super) const SHORT_LEN: usize = 24;
/// Bytes of a long page header (`SizeOfXLogLongPHD`).
pub(super) const LONG_LEN: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
// The same in PostgreSQL 14 to 18; 0x0004 says that backup blocks are removable, and nothing here asks for it.
const ALL_FLAGS: u16 = 0x000F;

/// The format of WAL: one for each PostgreSQL major.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalVersion {
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

impl WalVersion {
    /// All versions, oldest first.
    pub const ALL: [WalVersion; 5] =
        [WalVersion::V14, WalVersion::V15, WalVersion::V16, WalVersion::V17, WalVersion::V18];

    /// The magic number of its pages (`XLOG_PAGE_MAGIC`).
    pub const fn magic(self) -> u16 {
        match self {
            WalVersion::V14 => 0xD10D,
            WalVersion::V15 => 0xD110,
            WalVersion::V16 => 0xD113,
            WalVersion::V17 => 0xD116,
            WalVersion::V18 => 0xD118,
        }
    }

    /// The PostgreSQL major that writes it.
    pub const fn major(self) -> u16 {
        match self {
            WalVersion::V14 => 14,
            WalVersion::V15 => 15,
            WalVersion::V16 => 16,
            WalVersion::V17 => 17,
            WalVersion::V18 => 18,
        }
    }

    /// The version with this page magic. Errors: [`WalError::UnknownMagic`].
    pub fn from_magic(magic: u16) -> Result<WalVersion, WalError> {
        WalVersion::ALL.into_iter().find(|version| version.magic() == magic).ok_or(WalError::UnknownMagic(magic))
    }
}

/// The fields that only the first page of a segment has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongHeader {
    /// The cluster.
    pub system: SystemIdentifier,
    /// `wal_segment_size` in bytes, as written; not checked to be a legal size.
    pub segment_size: u32,
}

/// The header of a WAL page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// Who wrote it.
    pub version: WalVersion,
    /// The timeline of the first record on the page. In a segment in which a timeline begins, the pages before the
    /// fork keep the parent's.
    pub timeline: TimelineId,
    /// Where the page belongs.
    pub address: Lsn,
    /// Bytes of a record that began before this page and are still to come, on this page and later ones.
    pub remaining: u32,
    /// In the first page of a segment.
    pub long: Option<LongHeader>,
    flags: u16,
}

impl PageHeader {
    /// Reads the header at the start of `page`.
    ///
    /// Errors: too few bytes, an unknown magic or flag, timeline 0, or a page size other than [`PAGE_SIZE`].
    pub fn parse(page: &[u8]) -> Result<PageHeader, WalError> {
        let short = |needed: usize| WalError::Short { found: page.len(), needed };
        let missing = || short(SHORT_LEN);
        let version = WalVersion::from_magic(u16_at(page, 0).ok_or_else(missing)?)?;
        let flags = u16_at(page, 2).ok_or_else(missing)?;
        if flags & !ALL_FLAGS != 0 {
            return Err(WalError::UnknownFlags(flags));
        }
        let timeline = TimelineId::new(u32_at(page, 4).ok_or_else(missing)?).ok_or(WalError::NoTimeline)?;
        let address = Lsn(u64_at(page, 8).ok_or_else(missing)?);
        let remaining = u32_at(page, 16).ok_or_else(missing)?;
        if page.len() < SHORT_LEN {
            return Err(missing());
        }
        let long = if flags & LONG_HEADER == 0 {
            None
        } else {
            let missing = || short(LONG_LEN);
            let system = SystemIdentifier(u64_at(page, 24).ok_or_else(missing)?);
            let segment_size = u32_at(page, 32).ok_or_else(missing)?;
            let page_size = u32_at(page, 36).ok_or_else(missing)?;
            if page_size != PAGE_SIZE {
                return Err(WalError::OtherPageSize(page_size));
            }
            Some(LongHeader { system, segment_size })
        };
        Ok(PageHeader { version, timeline, address, remaining, long, flags })
    }

    /// Bytes that a header takes whose first [`SHORT_LEN`] bytes (or more) are `start`.
    pub(super) fn length_of(start: &[u8]) -> usize {
        match u16_at(start, 2) {
            Some(flags) if flags & LONG_HEADER != 0 => LONG_LEN,
            _ => SHORT_LEN,
        }
    }

    /// Whether the page begins with the rest of a record from before.
    pub const fn continues_record(&self) -> bool {
        self.flags & FIRST_IS_CONTRECORD != 0
    }

    /// Whether the rest of the record before was lost in a crash, and other WAL was written in its place
    /// (`CreateOverwriteContrecordRecord`, PostgreSQL 14 and later).
    pub const fn overwrites_record(&self) -> bool {
        self.flags & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }

    /// Checks what the header says of its place, for a page found at `at` (as `XLogReaderValidatePageHeader`).
    pub(super) fn check_place(&self, at: Lsn, size: SegmentSize) -> Result<(), WalError> {
        match self.long {
            Some(long) if u64::from(long.segment_size) != size.bytes() => {
                return Err(WalError::OtherSegmentSize { found: long.segment_size, expected: size });
            }
            None if size.offset(at) == 0 => return Err(WalError::NoLongHeader),
            Some(_) | None => {}
        }
        if self.address != at {
            return Err(WalError::OtherAddress { found: self.address, expected: at });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_page_magic_is_refused_with_its_number() {
        for magic in [0u16, 0xD10C, 0xD10E, 0xD10F, 0xD119, 0x0DD1, 0xFFFF] {
            let mut page = [0u8; LONG_LEN];
            page[..2].copy_from_slice(&magic.to_le_bytes());
            let error = PageHeader::parse(&page).expect_err("an unknown magic");
            assert_eq!(error, WalError::UnknownMagic(magic));
            assert!(error.to_string().contains(&format!("0x{magic:04X}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn page_header_never_panics(mut bytes: Vec<u8>, version in 0usize..5) {
            prop_assert!(PageHeader::parse(&bytes).is_ok() || PageHeader::parse(&bytes).is_err());
            if let Some(start) = bytes.first_chunk_mut::<2>() {
                *start = WalVersion::ALL[version].magic().to_le_bytes();
            }
            match PageHeader::parse(&bytes) {
                Ok(header) => prop_assert_eq!(header.long.is_some(), PageHeader::length_of(&bytes) == LONG_LEN && bytes.len() >= LONG_LEN),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
