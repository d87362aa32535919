//! What a walk asks of each record (`xlogreader.c`), and what it takes from those that it reads.

use super::content::{self, Content};
use super::end::EndReason;
use super::page::WalVersion;
use super::record::{CHECKED_HEADER_LEN, HEADER_LEN, LONGEST_RECORD, RecordHeader};

/// What a record says that is no end of a transaction.
pub(super) fn control_content(version: WalVersion, header: &RecordHeader, body: Option<&[u8]>) -> Content {
    if content::is_switch(header) {
        Content::Switch
    } else if content::is_control(header) {
        content::control(version, header, body)
    } else {
        Content::Other
    }
}

pub(super) fn check_length(raw: &[u8; HEADER_LEN]) -> Result<(), EndReason> {
    match RecordHeader::parse(raw).length {
        length if (length as usize) < HEADER_LEN => Err(EndReason::TooShort(length)),
        length if length > LONGEST_RECORD => Err(EndReason::TooLong(length)),
        _ => Ok(()),
    }
}

/// `crc` is that of the body; the header comes last (`ValidXLogRecord`).
pub(super) fn check_crc(header: &RecordHeader, raw: &[u8; HEADER_LEN], crc: u32) -> Result<(), EndReason> {
    let expected = crc32c::crc32c_append(crc, raw.get(..CHECKED_HEADER_LEN).unwrap_or(raw));
    if header.crc == expected { Ok(()) } else { Err(EndReason::BadChecksum { found: header.crc, expected }) }
}
