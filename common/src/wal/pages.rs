//! The page headers of a walk: collected from pieces, and each checked against those before.

use super::error::WalError;
use super::page::{LONG_LEN, PageHeader, SHORT_LEN};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::timeline::SystemIdentifier;

/// What the pages said so far.
#[derive(Debug)]
pub(super) struct Pages {
    size: SegmentSize,
    /// The cluster that the long headers must name; the first one decides where nothing else did.
    expected: Option<SystemIdentifier>,
    system: Option<SystemIdentifier>,
    last: Option<PageHeader>,
    bytes: [u8; LONG_LEN],
    filled: usize,
}

impl Pages {
    pub(super) const fn new(size: SegmentSize, expected: Option<SystemIdentifier>) -> Pages {
        Pages { size, expected, system: None, last: None, bytes: [0; LONG_LEN], filled: 0 }
    }

    /// The last page's header; `None` before the first.
    pub(super) const fn last(&self) -> Option<&PageHeader> {
        self.last.as_ref()
    }

    /// The cluster that a long header named; `None` before the first.
    pub(super) const fn system(&self) -> Option<SystemIdentifier> {
        self.system
    }

    /// Whether a part of a header is here.
    pub(super) const fn is_collecting(&self) -> bool {
        self.filled > 0
    }

    /// Takes bytes of the header of the page at `page`; returns how many it took, and the header once it is whole.
    ///
    /// Errors: the page does not belong here, after the pages before.
    pub(super) fn collect(&mut self, data: &[u8], page: Lsn) -> Result<(usize, Option<PageHeader>), WalError> {
        let mut used = 0;
        loop {
            let needed = if self.filled < SHORT_LEN { SHORT_LEN } else { PageHeader::length_of(&self.bytes) };
            if self.filled == needed {
                break;
            }
            if used == data.len() {
                return Ok((used, None));
            }
            let taken = (needed - self.filled).min(data.len() - used);
            let free = self.bytes.get_mut(self.filled..self.filled + taken);
            if let (Some(free), Some(now)) = (free, data.get(used..used + taken)) {
                free.copy_from_slice(now);
            }
            self.filled += taken;
            used += taken;
        }
        let header = PageHeader::parse(self.bytes.get(..self.filled).unwrap_or(&self.bytes))?;
        self.filled = 0;
        self.check(&header, page)?;
        self.last = Some(header);
        Ok((used, Some(header)))
    }

    /// Whether the page belongs here (as `XLogReaderValidatePageHeader`).
    fn check(&mut self, header: &PageHeader, page: Lsn) -> Result<(), WalError> {
        header.check_place(page, self.size)?;
        if let Some(long) = header.long {
            match self.expected {
                Some(expected) if long.system != expected => {
                    return Err(WalError::OtherCluster { found: long.system, expected });
                }
                _ => self.expected = Some(long.system),
            }
            self.system = Some(long.system);
        }
        if let Some(last) = &self.last {
            if header.version != last.version {
                return Err(WalError::OtherVersion { found: header.version.major(), expected: last.version.major() });
            }
            if header.timeline < last.timeline {
                return Err(WalError::TimelineGoesBack { found: header.timeline, before: last.timeline });
            }
        }
        Ok(())
    }
}
