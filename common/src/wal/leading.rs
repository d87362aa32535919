//! The rest of a record that began before the walk.

use super::content;
use super::record::{HEADER_LEN, RecordHeader};
use crate::lsn::Lsn;

/// The longest rest of a switch: its record is a header and nothing else, and at least 8 bytes of it lie before.
const LONGEST_SWITCH: usize = HEADER_LEN - 8;

/// The rest of a record: passed over, as nobody can check it without its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leading {
    length: u32,
    /// `left <= length`.
    left: u32,
    /// Its bytes, where it is short enough to be that of a switch.
    bytes: [u8; LONGEST_SWITCH],
}

impl Leading {
    /// A rest of `length` bytes, by the page's header.
    pub(super) const fn new(length: u32) -> Leading {
        Leading { length, left: length, bytes: [0; LONGEST_SWITCH] }
    }

    /// Bytes that are still to come.
    pub(super) const fn left(&self) -> u32 {
        self.left
    }

    /// Takes what of `data` belongs to it; returns how many bytes that is.
    pub(super) fn take(&mut self, data: &[u8]) -> usize {
        let used = (self.left as usize).min(data.len());
        let filled = (self.length - self.left) as usize;
        if let (Some(free), Some(now)) = (self.bytes.get_mut(filled..filled + used), data.get(..used)) {
            free.copy_from_slice(now);
        }
        // `used` is at most `left`, which is a u32.
        self.left -= used as u32;
        used
    }

    /// Whether it may be the rest of a switch, so that padding can follow. A switch that finds 8 or 16 bytes left in its
    /// segment begins there, ends in the next one, and consumes all of that (`ReserveXLogSwitch` in `xlog.c`). Other records
    /// may end in the same bytes: only together with the zeros that follow does it mean anything.
    pub(super) fn may_be_switch(&self, walk: Lsn) -> bool {
        let length = self.length as usize;
        if length != 8 && length != LONGEST_SWITCH {
            return false;
        }
        let mut raw = [0; HEADER_LEN];
        if let (Some(free), Some(rest)) = (raw.get_mut(HEADER_LEN - length..), self.bytes.get(..length)) {
            free.copy_from_slice(rest);
        }
        let header = RecordHeader::parse(&raw);
        // Two bytes of the header are always zero; the link is there when 16 bytes are.
        let [.., 0, 0, _, _, _, _] = raw else { return false };
        content::is_switch(&header) && (length == 8 || header.prev < walk)
    }
}
