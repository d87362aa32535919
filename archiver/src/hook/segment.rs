//! Segments, whole and partial, from a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use walseal_common::lsn::Lsn;
use walseal_common::repository::{ObjectName, WalPut};
use walseal_common::segment::{SegmentName, SegmentNumber, SegmentSize, WalFileName};
use walseal_common::timeline::{Branch, TimelineHistory};
use walseal_common::wal::{ExpectedHeader, WalkOptions, Walker, check_segment_header};

use super::{Archivist, PushError, Pushed, beside, read_small};
use crate::shipment::Piece;
use crate::stream::Cutter;

/// Bytes that are read at once.
const STEP: usize = 1 << 20;

/// Bytes of the first page that its header has at most.
const HEADER: usize = 64;

/// A segment's file, opened and checked.
struct Source<'a> {
    path: &'a Path,
    file: File,
    number: SegmentNumber,
    size: SegmentSize,
}

impl Source<'_> {
    /// Opens the file and checks that it is what its name says (case 25).
    fn open<'a>(
        archivist: &Archivist,
        path: &'a Path,
        segment: SegmentName,
        history: Option<&TimelineHistory>,
    ) -> Result<Source<'a>, PushError> {
        let failed = |source| PushError::Read { path: path.to_owned(), source };
        let size = archivist.identity.segment_size;
        let number = segment
            .number(size)
            .ok_or_else(|| PushError::Impossible { name: segment.to_string(), size: size.bytes() })?;
        let mut file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found != size.bytes() {
            return Err(PushError::Size { path: path.to_owned(), found, expected: size.bytes() });
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(failed)?;
        let expected = ExpectedHeader {
            system: archivist.repository.cluster(),
            timeline: segment.timeline,
            segment: number,
            size,
            begin: history.map(TimelineHistory::begin),
        };
        check_segment_header(&header, &expected)
            .map_err(|source| PushError::Content { path: path.to_owned(), source })?;
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(Source { path, file, number, size })
    }

    /// The next bytes, at most `limit`; empty at the end.
    fn read(&mut self, limit: u64) -> Result<Vec<u8>, PushError> {
        let mut bytes = Vec::with_capacity(STEP.min(usize::try_from(limit).unwrap_or(STEP)));
        let step = limit.min(STEP as u64);
        (&mut self.file)
            .take(step)
            .read_to_end(&mut bytes)
            .map_err(|source| PushError::Read { path: self.path.to_owned(), source })?;
        Ok(bytes)
    }

    fn rewind(&mut self) -> Result<(), PushError> {
        std::io::Seek::rewind(&mut self.file).map_err(|source| PushError::Read { path: self.path.to_owned(), source })
    }
}

/// Ships a whole segment.
pub(super) async fn whole(
    archivist: &Archivist,
    path: &Path,
    segment: SegmentName,
    branch: Branch,
    history: Option<&TimelineHistory>,
) -> Result<Pushed, PushError> {
    let mut source = Source::open(archivist, path, segment, history)?;
    let end = source.size.bytes();
    let (outcome, _) = ship_up_to(archivist, &mut source, branch, end).await?;
    Ok(outcome)
}

/// Ships a `.partial` up to its valid end. Its bytes beyond that may be left over from a recycled segment, and differ
/// between nodes, so only the valid part is stored and compared (case 4).
pub(super) async fn partial(
    archivist: &Archivist,
    path: &Path,
    segment: SegmentName,
    branch: Branch,
    history: Option<&TimelineHistory>,
) -> Result<Pushed, PushError> {
    let mut source = Source::open(archivist, path, segment, history)?;
    let start = source.number.start(source.size);
    let mut end = valid_end(&mut source, start)?;
    if let Some(fork) = fork_beside(path, segment, source.size) {
        end = end.min(fork);
    }
    source.rewind()?;
    let (outcome, cutter) = ship_up_to(archivist, &mut source, branch, end.bytes_since(start)).await?;
    let Some(piece) = cutter.partial() else { return Ok(outcome) };
    // One that a stream made may end at another byte than the last whole record: compared is what both have.
    let name = ObjectName::Partial(branch, segment);
    match archivist.repository.read_header(&name).await {
        Ok((signed, _)) => {
            if let Some(there) = signed.header.wal.filter(|wal| wal.end != piece.range().end) {
                source.rewind()?;
                let (_, same) = ship_up_to(archivist, &mut source, branch, there.end.bytes_since(start)).await?;
                if same.partial().is_some_and(|same| same.digest_end == there.digest_end) {
                    return Ok(Pushed::AlreadyThere);
                }
            }
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(ended(ship(archivist, &piece).await?, outcome))
}

/// Cuts the first `length` bytes into pieces and ships those that are whole parts. What is left is in the cutter.
async fn ship_up_to(
    archivist: &Archivist,
    source: &mut Source<'_>,
    branch: Branch,
    length: u64,
) -> Result<(Pushed, Cutter), PushError> {
    let start = source.number.start(source.size);
    let mut cutter = Cutter::new(branch, source.size, archivist.keys.writer.compare(), start, None);
    let mut outcome = Pushed::AlreadyThere;
    let mut left = length;
    let mut pieces = Vec::new();
    while left > 0 {
        let bytes = source.read(left)?;
        if bytes.is_empty() {
            let found = length - left;
            return Err(PushError::Size { path: source.path.to_owned(), found, expected: length });
        }
        left -= bytes.len() as u64;
        // A cutter without anything to compare refuses nothing.
        cutter.push(&bytes, &mut pieces).map_err(|differs| Box::new(differs.into()))?;
        for piece in pieces.drain(..) {
            outcome = ended(ship(archivist, &piece).await?, outcome);
        }
    }
    Ok((outcome, cutter))
}

async fn ship(archivist: &Archivist, piece: &Piece) -> Result<WalPut, PushError> {
    Ok(piece.ship_unless_there(&archivist.repository, &archivist.keys).await?)
}

fn ended(put: WalPut, before: Pushed) -> Pushed {
    if put == WalPut::Stored { Pushed::Shipped } else { before }
}

/// End of the last whole record.
fn valid_end(source: &mut Source<'_>, start: Lsn) -> Result<Lsn, PushError> {
    let content = |path: &Path, source| PushError::Content { path: path.to_owned(), source };
    let mut walker =
        Walker::new(start, source.size, WalkOptions::default()).map_err(|error| content(source.path, error))?;
    loop {
        let bytes = source.read(STEP as u64)?;
        if bytes.is_empty() || walker.push(&bytes, |_| ()).is_err() {
            return Ok(walker.position());
        }
    }
}

/// Where the segment's timeline ended, as the newest history beside the file says.
fn fork_beside(path: &Path, segment: SegmentName, size: SegmentSize) -> Option<Lsn> {
    let folder = path.parent()?;
    let number = segment.number(size)?;
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| match name.parse() {
            Ok(WalFileName::History(timeline)) if timeline > segment.timeline => Some((timeline, name)),
            _ => None,
        })
        .filter_map(|(timeline, name)| TimelineHistory::parse(timeline, &read_small(&beside(path, &name)).ok()?).ok())
        .filter_map(|history| history.end_of(segment.timeline))
        .find(|fork| number.range(size).contains(*fork))
}
