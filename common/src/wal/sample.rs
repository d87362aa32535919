//! WAL made by hand, for tests of what reads WAL: pages and records laid out as PostgreSQL does.
//!
//! ```
//! use walseal_common::lsn::Lsn;
//! use walseal_common::segment::SegmentSize;
//! use walseal_common::wal::WalVersion;
//! use walseal_common::wal::sample::Sample;
//!
//! let mut wal = Sample::of(WalVersion::V17, SegmentSize::SMALLEST, Lsn(3 << 20));
//! wal.commit(701, 1_000);
//! wal.switch();
//! assert_eq!(wal.bytes.len(), 1 << 20);
//! ```

use super::page::{PAGE_SIZE, WalVersion};
use super::record::{CHECKED_HEADER_LEN, ResourceManager};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;

/// The cluster of all samples.
pub const SYSTEM: u64 = 7_437_123_456_789_012_345;

/// WAL under construction, from the start of a segment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Who writes it.
    pub version: WalVersion,
    /// `wal_segment_size`.
    pub size: SegmentSize,
    /// Where `bytes` begin.
    pub start: Lsn,
    /// The timeline of pages to come.
    pub timeline: u32,
    /// The system identifier of long page headers to come.
    pub system: u64,
    /// What there is until now.
    pub bytes: Vec<u8>,
    /// What fillers are filled with.
    pub fill: u8,
    /// Start of the record before the next one.
    pub previous: Lsn,
}

impl Sample {
    /// In segments of 1 MiB, from the fourth on.
    pub fn new(version: WalVersion) -> Sample {
        Sample::starting_at(version, Lsn(3 << 20))
    }

    /// In segments of 1 MiB, from `start` on.
    pub fn starting_at(version: WalVersion, start: Lsn) -> Sample {
        Sample::of(version, SegmentSize::SMALLEST, start)
    }

    /// In segments of `size`, from `start` on, which is the start of one.
    pub fn of(version: WalVersion, size: SegmentSize, start: Lsn) -> Sample {
        let previous = Lsn(start.0.saturating_sub(64));
        Sample { version, size, start, timeline: 1, system: SYSTEM, bytes: Vec::new(), fill: 0xAB, previous }
    }

    /// The next byte's place.
    pub fn at(&self) -> Lsn {
        self.start.advance(self.bytes.len() as u64)
    }

    /// Begins a page with these flags, which goes on with `remaining` bytes of a record from before.
    pub fn page(&mut self, flags: u16, remaining: u32) {
        let at = self.at();
        let long = self.size.offset(at) == 0;
        self.bytes.extend(self.version.magic().to_le_bytes());
        self.bytes.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(self.system.to_le_bytes());
            self.bytes.extend((self.size.bytes() as u32).to_le_bytes());
            self.bytes.extend(PAGE_SIZE.to_le_bytes());
        }
    }

    /// Bytes of a record, which begins or goes on here.
    pub fn spread(&mut self, mut rest: &[u8]) {
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
    pub fn encode(&self, manager: ResourceManager, info: u8, xid: u32, body: &[u8]) -> Vec<u8> {
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
    pub fn record(&mut self, manager: ResourceManager, info: u8, xid: u32, body: &[u8]) -> Lsn {
        if self.at().0.is_multiple_of(u64::from(PAGE_SIZE)) {
            self.page(0, 0);
        }
        let start = self.at();
        let record = self.encode(manager, info, xid, body);
        self.spread(&record);
        self.previous = start;
        start
    }

    /// Adds a record with this main data; returns where it starts.
    pub fn main(&mut self, manager: ResourceManager, info: u8, xid: u32, main: &[u8]) -> Lsn {
        let mut body = vec![254];
        body.extend((main.len() as u32).to_le_bytes());
        body.extend(main);
        self.record(manager, info, xid, &body)
    }

    /// Adds a commit, at `micros` since 2000; returns where it starts.
    pub fn commit(&mut self, xid: u32, micros: i64) -> Lsn {
        self.main(ResourceManager::TRANSACTION, 0x00, xid, &micros.to_le_bytes())
    }

    /// Adds an abort, at `micros` since 2000; returns where it starts.
    pub fn abort(&mut self, xid: u32, micros: i64) -> Lsn {
        self.main(ResourceManager::TRANSACTION, 0x20, xid, &micros.to_le_bytes())
    }

    /// Adds a record that is not interpreted, with a body of `length` bytes; returns where it starts.
    pub fn filler(&mut self, length: usize) -> Lsn {
        self.main(ResourceManager(10), 0, 700, &vec![self.fill; length.saturating_sub(5)])
    }

    /// Fills with one record up to `left` bytes before the end of the segment.
    pub fn fill_segment_but(&mut self, left: u64) {
        while self.size.bytes() - self.size.offset(self.at()) > u64::from(PAGE_SIZE) + left {
            self.filler(4000);
        }
        if self.at().0.is_multiple_of(u64::from(PAGE_SIZE)) {
            self.page(0, 0);
        }
        let room = self.size.bytes() - self.size.offset(self.at()) - left;
        // A record within one page has 24 bytes of header and 5 of main data header; over a page boundary 24 more.
        let page_left = u64::from(PAGE_SIZE) - self.at().0 % u64::from(PAGE_SIZE);
        let headers = 24 + if room > page_left { 24 } else { 0 };
        self.filler((room - headers) as usize);
    }

    /// Adds a switch and the padding after it; returns where it starts.
    pub fn switch(&mut self) -> Lsn {
        let start = self.record(ResourceManager::XLOG, 0x40, 0, &[]);
        // It consumes the segment in which it ends.
        let end = self.size.number(Lsn(self.at().0 - 1)).end(self.size);
        self.bytes.resize(end.bytes_since(self.start) as usize, 0);
        start
    }
}
