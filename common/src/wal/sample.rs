//! WAL made by hand, for tests: pages and records laid out as PostgreSQL does.

#![allow(clippy::expect_used)]

use super::page::{PAGE_SIZE, WalVersion};
use super::record::{CHECKED_HEADER_LEN, ResourceManager};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;

pub(super) const SYSTEM: u64 = 7_437_123_456_789_012_345;

/// WAL under construction, from the start of a segment.
pub(super) struct Sample {
    pub version: WalVersion,
    pub size: SegmentSize,
    pub start: Lsn,
    pub timeline: u32,
    pub bytes: Vec<u8>,
    /// What fillers are filled with.
    pub fill: u8,
    previous: Lsn,
}

impl Sample {
    pub(super) fn new(version: WalVersion) -> Sample {
        Sample::starting_at(version, Lsn(3 << 20))
    }

    pub(super) fn starting_at(version: WalVersion, start: Lsn) -> Sample {
        let size = SegmentSize::new(1 << 20).expect("1 MiB is legal");
        Sample { version, size, start, timeline: 1, bytes: Vec::new(), fill: 0xAB, previous: Lsn(start.0 - 64) }
    }

    pub(super) fn at(&self) -> Lsn {
        self.start.advance(self.bytes.len() as u64)
    }

    pub(super) fn page(&mut self, flags: u16, remaining: u32) {
        let at = self.at();
        let long = self.size.offset(at) == 0;
        self.bytes.extend(self.version.magic().to_le_bytes());
        self.bytes.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM.to_le_bytes());
            self.bytes.extend((self.size.bytes() as u32).to_le_bytes());
            self.bytes.extend(PAGE_SIZE.to_le_bytes());
        }
    }

    /// Bytes of a record, which begins or goes on here.
    pub(super) fn spread(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let room = PAGE_SIZE as usize - (self.at().0 % u64::from(PAGE_SIZE)) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
            if !rest.is_empty() {
                self.page(1, rest.len() as u32);
            }
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// The bytes of a record that would come next.
    pub(super) fn encode(&self, manager: ResourceManager, info: u8, xid: u32, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend((body.len() as u32 + 24).to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.0.to_le_bytes());
        record.extend([info, manager.0, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record[..CHECKED_HEADER_LEN]);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        record
    }

    /// Adds a record; returns where it starts.
    pub(super) fn record(&mut self, manager: ResourceManager, info: u8, xid: u32, body: &[u8]) -> Lsn {
        if self.at().0.is_multiple_of(u64::from(PAGE_SIZE)) {
            self.page(0, 0);
        }
        let start = self.at();
        let record = self.encode(manager, info, xid, body);
        self.spread(&record);
        self.previous = start;
        start
    }

    /// Adds a record with this main data.
    pub(super) fn main(&mut self, manager: ResourceManager, info: u8, xid: u32, main: &[u8]) -> Lsn {
        let mut body = vec![254];
        body.extend((main.len() as u32).to_le_bytes());
        body.extend(main);
        self.record(manager, info, xid, &body)
    }

    pub(super) fn commit(&mut self, xid: u32, micros: i64) -> Lsn {
        self.main(ResourceManager::TRANSACTION, 0x00, xid, &micros.to_le_bytes())
    }

    pub(super) fn abort(&mut self, xid: u32, micros: i64) -> Lsn {
        self.main(ResourceManager::TRANSACTION, 0x20, xid, &micros.to_le_bytes())
    }

    /// A record that is not interpreted, with a body of `length` bytes.
    pub(super) fn filler(&mut self, length: usize) -> Lsn {
        self.main(ResourceManager(10), 0, 700, &vec![self.fill; length.saturating_sub(5)])
    }

    /// Fills with one record up to `left` bytes before the end of the segment.
    pub(super) fn fill_segment_but(&mut self, left: u64) {
        while self.size.bytes() - self.size.offset(self.at()) > u64::from(PAGE_SIZE) + left {
            self.filler(4000);
        }
        let room = self.size.bytes() - self.size.offset(self.at()) - left;
        // A record within one page has 24 bytes of header and 5 of main data header; over a page boundary 24 more.
        let page_left = u64::from(PAGE_SIZE) - self.at().0 % u64::from(PAGE_SIZE);
        let headers = 24 + if room > page_left { 24 } else { 0 };
        self.filler((room - headers) as usize);
    }

    pub(super) fn switch(&mut self) -> Lsn {
        let start = self.record(ResourceManager::XLOG, 0x40, 0, &[]);
        let end = self.size.number(start).end(self.size);
        self.bytes.resize(end.bytes_since(self.start) as usize, 0);
        start
    }
}
