//! WAL made by hand: pages and records laid out as PostgreSQL 15 does, in segments of 1 MiB.

use jiff::Timestamp;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::segment::SegmentSize;
use walseal_common::time::PgTimestamp;
use walseal_common::timeline::TimelineId;

use super::repository::SYSTEM;

const PAGE: u64 = 8192;
const MAGIC_15: u16 = 0xD110;
const XLOG: u8 = 0;
const TRANSACTION: u8 = 1;
const HEAP: u8 = 10;

/// Where a record lies: from its start to its end with padding.
pub(crate) type Spot = LsnRange;

/// WAL under construction, from the start of a segment on.
#[derive(Clone)]
pub(crate) struct SampleWal {
    pub(crate) size: SegmentSize,
    pub(crate) start: Lsn,
    pub(crate) timeline: TimelineId,
    pub(crate) bytes: Vec<u8>,
    previous: Lsn,
    records: Vec<Lsn>,
}

impl SampleWal {
    /// WAL that begins at `start`, the start of a segment, after a record that nobody sees.
    pub(crate) fn from(start: Lsn) -> SampleWal {
        SampleWal::with_size(start, SegmentSize::new(1 << 20).expect("1 MiB is legal"))
    }

    /// The same with larger segments.
    pub(crate) fn with_size(start: Lsn, size: SegmentSize) -> SampleWal {
        assert_eq!(size.offset(start), 0, "WAL is made from the start of a segment");
        SampleWal {
            size,
            start,
            timeline: TimelineId::FIRST,
            bytes: Vec::new(),
            previous: Lsn(start.0 - 64),
            records: Vec::new(),
        }
    }

    /// End of the last record.
    pub(crate) fn end(&self) -> Lsn {
        self.start.advance(self.bytes.len() as u64)
    }

    /// The bytes of a range.
    pub(crate) fn slice(&self, range: LsnRange) -> &[u8] {
        let from = range.start.bytes_since(self.start) as usize;
        &self.bytes[from..from + range.len() as usize]
    }

    /// The WAL up to `end`, the end of a record.
    pub(crate) fn until(&self, end: Lsn) -> SampleWal {
        let mut cut = self.clone();
        cut.bytes.truncate(end.bytes_since(self.start) as usize);
        cut.previous = self.records.iter().rev().find(|start| **start < end).copied().expect("a record ends there");
        cut
    }

    /// Ends of records, in order.
    pub(crate) fn ends(&self) -> impl Iterator<Item = Lsn> + '_ {
        self.records.iter().skip(1).copied().chain([self.end()])
    }

    /// The same WAL up to here on a new timeline: what is added to it from now on lies on `timeline`. The segment is
    /// filled with what the parent had, as PostgreSQL does when a timeline begins.
    pub(crate) fn fork(&self, timeline: u32) -> SampleWal {
        let timeline = TimelineId::new(timeline).expect("not zero");
        SampleWal { timeline, ..self.clone() }
    }

    pub(crate) fn commit(&mut self, xid: u32, time: &str) -> Spot {
        self.ended(0x00, xid, time, None)
    }

    pub(crate) fn abort(&mut self, xid: u32, time: &str) -> Spot {
        self.ended(0x20, xid, time, None)
    }

    /// `COMMIT PREPARED` of `prepared`.
    pub(crate) fn commit_prepared(&mut self, prepared: u32, time: &str) -> Spot {
        self.ended(0x30, 0, time, Some(prepared))
    }

    fn ended(&mut self, info: u8, xid: u32, time: &str, two_phase: Option<u32>) -> Spot {
        let mut main = micros(time).to_le_bytes().to_vec();
        let mut info = info;
        if let Some(prepared) = two_phase {
            info |= 0x80;
            main.extend((1u32 << 4).to_le_bytes());
            main.extend(prepared.to_le_bytes());
        }
        self.main(TRANSACTION, info, xid, &main)
    }

    pub(crate) fn restore_point(&mut self, name: &str, time: &str) -> Spot {
        let mut main = micros(time).to_le_bytes().to_vec();
        main.extend(name.as_bytes());
        main.resize(8 + 64, 0);
        self.main(XLOG, 0x70, 0, &main)
    }

    /// An online checkpoint.
    pub(crate) fn checkpoint(&mut self, next_xid: u64, time: &str) -> Spot {
        let mut main = vec![0; 88];
        main[0..8].copy_from_slice(&self.end().0.to_le_bytes());
        main[8..12].copy_from_slice(&self.timeline.number().to_le_bytes());
        main[12..16].copy_from_slice(&self.timeline.number().to_le_bytes());
        main[24..32].copy_from_slice(&next_xid.to_le_bytes());
        let seconds = time.parse::<Timestamp>().expect("a time").as_second();
        main[64..72].copy_from_slice(&seconds.to_le_bytes());
        self.main(XLOG, 0x10, 0, &main)
    }

    /// A record that nobody interprets, with about `length` bytes.
    pub(crate) fn filler(&mut self, length: usize) -> Spot {
        self.main(HEAP, 0, 700, &vec![0xAB; length])
    }

    /// Fillers up to the next segment, so that a record spans the boundary.
    pub(crate) fn fill_segment(&mut self) {
        let boundary = self.size.number(self.end()).end(self.size);
        while self.end() < boundary {
            self.filler(5000);
        }
    }

    /// Fillers until the next record starts exactly `left` bytes before the end of its segment.
    pub(crate) fn fill_segment_but(&mut self, left: u64) {
        let boundary = self.size.number(self.end()).end(self.size);
        while self.end().advance(PAGE) < boundary {
            self.filler(3000);
        }
        // On the last page: a record has 24 bytes of header, and 5 before its main data.
        self.filler((boundary.bytes_since(self.end()) - left - 29) as usize);
        assert_eq!(self.end().advance(left), boundary, "the filler ends where it should");
    }

    fn main(&mut self, manager: u8, info: u8, xid: u32, main: &[u8]) -> Spot {
        let mut body = vec![254];
        body.extend((main.len() as u32).to_le_bytes());
        body.extend(main);
        if self.end().0.is_multiple_of(PAGE) {
            self.page(0, 0);
        }
        let start = self.end();
        let mut record = Vec::new();
        record.extend((body.len() as u32 + 24).to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.0.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        self.spread(&record);
        self.previous = start;
        self.records.push(start);
        LsnRange { start, end: self.end() }
    }

    /// Bytes of a record that begins here; pages that it runs over get their headers.
    fn spread(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let room = (PAGE - self.end().0 % PAGE) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
            if !rest.is_empty() {
                self.page(1, rest.len() as u32);
            }
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    fn page(&mut self, flags: u16, remaining: u32) {
        let at = self.end();
        let long = self.size.offset(at) == 0;
        self.bytes.extend(MAGIC_15.to_le_bytes());
        self.bytes.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.number().to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM.0.to_le_bytes());
            self.bytes.extend((self.size.bytes() as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }
}

fn micros(time: &str) -> i64 {
    PgTimestamp::from_jiff(time.parse().expect("a time")).0
}
