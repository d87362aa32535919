//! What lies beside a segment's file and tells whether PostgreSQL has finished it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use walseal_common::segment::{SegmentName, SegmentSize, WalFileName};
use walseal_common::timeline::SystemIdentifier;
use walseal_common::wal::{ExpectedHeader, check_segment_header};

/// Bytes of a long page header.
const HEADER: u64 = 40;

/// What the folder of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Witness {
    /// PostgreSQL has queued or archived the segment (`archive_status`, see `pgarch.c`), or has begun the one after it.
    Finished,
    /// It is a `pg_wal`, and nothing in it says that the segment is finished.
    Unfinished,
    /// There is nothing that tells, as beside a copy.
    None,
}

impl Witness {
    /// Asks the folder in which the file of `segment` lies. What cannot be read does not speak.
    pub(super) fn find(folder: &Path, segment: SegmentName, size: SegmentSize, system: SystemIdentifier) -> Witness {
        let status = folder.join("archive_status");
        let marked = |mark: &str| status.join(format!("{segment}.{mark}")).exists();
        if marked("ready") || marked("done") || is_followed(folder, segment, size, system) == Some(true) {
            Witness::Finished
        } else if status.is_dir() {
            Witness::Unfinished
        } else {
            Witness::None
        }
    }
}

/// Whether the segment after this one has begun. A file made in advance, or recycled, has another first page.
fn is_followed(folder: &Path, segment: SegmentName, size: SegmentSize, system: SystemIdentifier) -> Option<bool> {
    let number = segment.number(size)?.next();
    let next = SegmentName::new(segment.timeline, number, size);
    let expected = ExpectedHeader { system, timeline: segment.timeline, segment: number, size, begin: None };
    // pg_receivewal calls the one that it is writing .partial.
    let begun = [WalFileName::Segment(next), WalFileName::Partial(next)].iter().any(|name| {
        let mut header = Vec::new();
        let read =
            File::open(folder.join(name.to_string())).and_then(|file| file.take(HEADER).read_to_end(&mut header));
        read.is_ok() && check_segment_header(&header, &expected).is_ok()
    });
    Some(begun)
}
