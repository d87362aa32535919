//! A file of WAL on its way: checked, then read part by part.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use walseal_common::lsn::Lsn;
use walseal_common::seal::{CompareDigest, CompareKey, MAX_PLAINTEXT};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize, WalFileName};
use walseal_common::timeline::SystemIdentifier;
use walseal_common::wal::{
    ExpectedHeader, Finish, FinishWalk, LongHeader, PageHeader, WalError, WalkEnd, WalkOptions, Walker,
    check_segment_header,
};

use super::PushError;
use super::lineage::Lineage;
use super::verified::Print;
use crate::shipment::Piece;
use crate::stream::Cutter;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Bytes that tell what a segment is: its long page header.
const HEADER: usize = 40;

/// What only the first page of a file of WAL says: its cluster, and the size of its segments.
pub(super) fn header_of(path: &Path, name: WalFileName) -> Result<LongHeader, PushError> {
    let mut header = Vec::with_capacity(HEADER);
    let failed = |source| PushError::Read { path: path.to_owned(), source };
    File::open(path).map_err(failed)?.take(HEADER as u64).read_to_end(&mut header).map_err(failed)?;
    let refused = |source| PushError::Wal { name, source };
    PageHeader::parse(&header).map_err(refused)?.long.ok_or(refused(WalError::NoLongHeader))
}

/// An open file of WAL, of which the size and the first page are right.
#[derive(Debug)]
pub(super) struct Freight {
    file: File,
    path: PathBuf,
    number: SegmentNumber,
    size: SegmentSize,
    system: SystemIdentifier,
    print: Print,
}

impl Freight {
    /// Opens the file of segment `segment` and checks that it is what its name says (I4, case 25).
    pub(super) fn open(
        path: &Path,
        name: WalFileName,
        segment: SegmentName,
        system: SystemIdentifier,
        size: SegmentSize,
        lineage: &Lineage,
    ) -> Result<Freight, PushError> {
        let failed = |source| PushError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let found = metadata.len();
        if found != size.bytes() {
            return Err(PushError::Size { name, found, expected: size.bytes() });
        }
        let number = segment.number(size).ok_or(walseal_common::segment::WalFileNameError(name.to_string()))?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let expected =
            ExpectedHeader { system, timeline: segment.timeline, segment: number, size, begin: lineage.begin() };
        check_segment_header(&header, &expected).map_err(|source| PushError::Wal { name, source })?;
        Ok(Freight { file, path: path.to_owned(), number, size, system, print: Print::of(&metadata) })
    }

    /// Tells later whether the file is still the one that was opened.
    pub(super) fn print(&self) -> Print {
        self.print
    }

    /// The segment's place.
    pub(super) fn number(&self) -> SegmentNumber {
        self.number
    }

    /// `wal_segment_size`, which is also the file's.
    pub(super) fn size(&self) -> SegmentSize {
        self.size
    }

    /// The segment's first byte.
    pub(super) fn start(&self) -> Lsn {
        self.number.start(self.size)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), PushError> {
        self.file.read_exact_at(buffer, at).map_err(|source| PushError::Read { path: self.path.clone(), source })
    }

    /// Calls `each` with the bytes from `from` to `to`, in order.
    fn each_chunk(&self, from: u64, to: u64, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), PushError> {
        let mut buffer = vec![0; CHUNK];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            self.read(chunk, at)?;
            if !each(chunk) {
                break;
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Pushes the next part, up to the offset `end`, through the cutter. Empty at the end.
    pub(super) fn next_part(&self, cutter: &mut Cutter, end: u64) -> Result<Vec<Piece>, PushError> {
        let from = cutter.received().bytes_since(self.start());
        let mut pieces = Vec::new();
        let mut differs = None;
        self.each_chunk(from, end.min(from + MAX_PLAINTEXT), |chunk| match cutter.push(chunk, &mut pieces) {
            Ok(()) => true,
            Err(error) => {
                differs = Some(error);
                false
            }
        })?;
        match differs {
            Some(error) => Err(PushError::Task(error.to_string())),
            None => Ok(pieces),
        }
    }

    /// Where the valid WAL of the file ends, record by record.
    pub(super) fn valid_end(&self) -> Result<WalkEnd, PushError> {
        let options = WalkOptions { system: Some(self.system), ..WalkOptions::default() };
        let mut walker = Walker::new(self.start(), self.size, options).map_err(no_page)?;
        self.each_chunk(0, self.size.bytes(), |chunk| walker.push(chunk, |_| ()).is_ok())?;
        Ok(walker.end())
    }

    /// Whether the segment is finished, by a walk through the file.
    pub(super) fn finish(&self) -> Result<Finish, PushError> {
        let mut walk = FinishWalk::new(self.number, self.size, self.system).map_err(no_page)?;
        self.each_chunk(0, self.size.bytes(), |chunk| walk.push(chunk, |_| ()))?;
        Ok(walk.finish())
    }

    /// The comparison digest of the file's first `length` bytes.
    pub(super) fn digest(&self, key: &CompareKey, length: u64) -> Result<CompareDigest, PushError> {
        let mut hasher = key.hasher();
        self.each_chunk(0, length.min(self.size.bytes()), |chunk| {
            hasher.update(chunk);
            true
        })?;
        Ok(hasher.digest())
    }
}

/// A segment's start is always the start of a page.
fn no_page(error: WalError) -> PushError {
    PushError::Task(error.to_string())
}
