//! Is this file the segment that its name says (case 25)?

use super::error::WalError;
use super::page::PageHeader;
use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::timeline::{SystemIdentifier, TimelineId};

/// What the first page of a segment must say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpectedHeader {
    /// The cluster.
    pub system: SystemIdentifier,
    /// The timeline in the file's name.
    pub timeline: TimelineId,
    /// The segment in the file's name.
    pub segment: SegmentNumber,
    /// `wal_segment_size` of the cluster.
    pub size: SegmentSize,
    /// Where `timeline` began, from its history (0/0 for one without ancestors); `None` when it is not known.
    ///
    /// The segment in which a timeline begins starts with a copy of the parent's pages, which keep the parent's
    /// number. So a lower timeline in the header is right there; where the beginning is not known, any lower one is
    /// let pass.
    pub begin: Option<Lsn>,
}

/// Checks that `segment`, of which only the first 40 bytes are read, begins as a WAL file of that name must.
///
/// Errors: each mismatch its own, with what was found and what was expected.
pub fn check_segment_header(segment: &[u8], expected: &ExpectedHeader) -> Result<(), WalError> {
    let header = PageHeader::parse(segment)?;
    let long = header.long.ok_or(WalError::NoLongHeader)?;
    if long.system != expected.system {
        return Err(WalError::OtherCluster { found: long.system, expected: expected.system });
    }
    if u64::from(long.segment_size) != expected.size.bytes() {
        return Err(WalError::OtherSegmentSize { found: long.segment_size, expected: expected.size });
    }
    let start = expected.segment.start(expected.size);
    if header.address != start {
        let name = SegmentName::new(expected.timeline, expected.segment, expected.size);
        return Err(WalError::OtherSegment { found: header.address, expected: start, name });
    }
    let begins_here = expected.begin.is_none_or(|begin| start < begin && begin < expected.segment.end(expected.size));
    if header.timeline != expected.timeline && !(begins_here && header.timeline < expected.timeline) {
        return Err(WalError::OtherTimeline { found: header.timeline, expected: expected.timeline });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const SYSTEM: SystemIdentifier = SystemIdentifier(7_437_123_456_789_012_345);

    fn expected() -> ExpectedHeader {
        ExpectedHeader {
            system: SYSTEM,
            timeline: TimelineId::new(3).expect("not zero"),
            segment: SegmentNumber(5),
            size: SegmentSize::DEFAULT,
            begin: None,
        }
    }

    fn header(timeline: u32, address: u64, system: u64, segment_size: u32, page_size: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0xD110u16.to_le_bytes());
        bytes.extend(2u16.to_le_bytes());
        bytes.extend(timeline.to_le_bytes());
        bytes.extend(address.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(system.to_le_bytes());
        bytes.extend(segment_size.to_le_bytes());
        bytes.extend(page_size.to_le_bytes());
        bytes
    }

    #[test]
    fn case_25_a_segment_is_accepted_under_its_own_name_only() {
        let right = header(3, 5 << 24, SYSTEM.0, 16 << 20, 8192);
        assert_eq!(check_segment_header(&right, &expected()), Ok(()));

        let refused = |bytes: &[u8]| check_segment_header(bytes, &expected()).expect_err("a mismatch").to_string();
        let cases: [(Vec<u8>, &[&str]); 6] = [
            (header(3, 5 << 24, 99, 16 << 20, 8192), &["identifier 99", "7437123456789012345"]),
            (header(4, 5 << 24, SYSTEM.0, 16 << 20, 8192), &["timeline 4", "expected 3"]),
            (header(3, 6 << 24, SYSTEM.0, 16 << 20, 8192), &["0/6000000", "000000030000000000000005", "0/5000000"]),
            (header(3, 5 << 24, SYSTEM.0, 64 << 20, 8192), &["67108864", "16777216"]),
            (header(3, 5 << 24, SYSTEM.0, 16 << 20, 4096), &["4096", "8192"]),
            (vec![0; 40], &["magic 0x0000"]),
        ];
        for (bytes, words) in cases {
            let message = refused(&bytes);
            for word in words {
                assert!(message.contains(word), "{word:?} is not in: {message}");
            }
        }
        assert!(refused(&right[..39]).contains("only 39"));
        assert!(refused(&[]).contains("only 0"));
    }

    #[test]
    fn case_25_a_parents_number_is_right_only_where_the_timeline_begins() {
        let parents = header(2, 5 << 24, SYSTEM.0, 16 << 20, 8192);
        let with = |begin| check_segment_header(&parents, &ExpectedHeader { begin, ..expected() });
        assert_eq!(with(Some(Lsn(0x500_0100))), Ok(()));
        assert_eq!(with(None), Ok(()));
        assert!(with(Some(Lsn(0x500_0000))).is_err(), "the timeline began with this segment");
        assert!(with(Some(Lsn(0x400_0100))).is_err(), "the timeline began before this segment");
        assert!(with(Some(Lsn(0x600_0000))).is_err(), "the timeline begins after this segment");
    }
}
