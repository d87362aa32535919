//! Whether bytes are the WAL that is missing.

use std::collections::BTreeMap;

use walseal_common::lsn::Lsn;
use walseal_common::seal::{CompareDigest, CompareHasher, CompareKey, MAX_PLAINTEXT};
use walseal_common::segment::SegmentSize;
use walseal_common::timeline::{SystemIdentifier, TimelineId};
use walseal_common::wal::{ExpectedHeader, WalError, WalkEnd, WalkOptions, Walker, check_segment_header};

use super::known::Known;

/// Bytes that tell what a segment is: its long page header.
const HEADER: usize = 40;

/// What the WAL must be.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) system: SystemIdentifier,
    pub(super) timeline: TimelineId,
    /// Where the timeline began, where that is known.
    pub(super) begin: Option<Lsn>,
    pub(super) size: SegmentSize,
    pub(super) key: CompareKey,
}

/// The bytes are not what they must be.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// Valid WAL ends.
    #[error("{0}")]
    Ends(WalkEnd),
    /// A segment is not what its place says (case 25).
    #[error("the segment at {at} is refused: {source}")]
    Header { at: Lsn, source: WalError },
    /// The repository holds other bytes.
    #[error(
        "its WAL up to {at} is not what {name} holds, written by {writer}: it is another server's, or one of the two is damaged"
    )]
    Differs { at: Lsn, name: String, writer: String },
}

/// Reads WAL in order: checks the first page of each segment (case 25), walks every record, and compares with what the repository
/// knows.
pub(super) struct Examiner<'a> {
    rules: &'a Rules,
    known: &'a BTreeMap<Lsn, Known>,
    at: Lsn,
    /// First bytes of the segment, until they tell what it is.
    head: Vec<u8>,
    hasher: CompareHasher,
    walker: Walker,
    digests: BTreeMap<Lsn, CompareDigest>,
    agreed: Vec<String>,
}

impl std::fmt::Debug for Examiner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Examiner(at {}, {} agreed)", self.at, self.agreed.len())
    }
}

impl<'a> Examiner<'a> {
    /// Begins at `start`, the start of a segment.
    ///
    /// Errors: none in practice; a segment's start is always the start of a page.
    pub(super) fn new(rules: &'a Rules, known: &'a BTreeMap<Lsn, Known>, start: Lsn) -> Result<Examiner<'a>, Unfit> {
        let options = WalkOptions { system: Some(rules.system), any_manager: true, ..WalkOptions::default() };
        let walker = Walker::new(start, rules.size, options).map_err(|source| Unfit::Header { at: start, source })?;
        Ok(Examiner {
            rules,
            known,
            at: start,
            head: Vec::with_capacity(HEADER),
            hasher: rules.key.hasher(),
            walker,
            digests: BTreeMap::new(),
            agreed: Vec::new(),
        })
    }

    /// End of the bytes so far.
    pub(super) fn at(&self) -> Lsn {
        self.at
    }

    /// End of the last record that was checked, with what fills its segment after a switch.
    pub(super) fn checked(&self) -> Lsn {
        let position = self.walker.position();
        if self.walker.last_switch() != Some(position) {
            return position;
        }
        let size = self.rules.size;
        let end = if size.offset(position) == 0 { position } else { size.number(position).end(size) };
        end.min(self.at)
    }

    /// Digests of the segment at the end of each part that was read whole.
    pub(super) fn digests(&self) -> &BTreeMap<Lsn, CompareDigest> {
        &self.digests
    }

    /// Names of the objects that hold some of the same bytes, and agree.
    pub(super) fn agreed(&self) -> &[String] {
        &self.agreed
    }

    /// Takes the bytes that follow.
    ///
    /// Errors: see [`Unfit`]; what was checked before stays so.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Unfit> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.next_stop().bytes_since(self.at)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.look_at_head(now)?;
            self.walker.push(now, |_| ()).map_err(Unfit::Ends)?;
            self.hasher.update(now);
            self.at = self.at.advance(now.len() as u64);
            self.compare()?;
            bytes = later;
        }
        Ok(())
    }

    /// Where something is due next: the end of a part, or a position that the repository knows.
    fn next_stop(&self) -> Lsn {
        let size = self.rules.size;
        let part = size.bytes().min(MAX_PLAINTEXT);
        let part_end = Lsn(self.at.0 - self.at.0 % part).advance(part);
        let known = self.known.range(self.at.advance(1)..).next().map(|(at, _)| *at);
        known.map_or(part_end, |known| known.min(part_end))
    }

    fn look_at_head(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        if self.head.len() >= HEADER {
            return Ok(());
        }
        let more = bytes.get(..bytes.len().min(HEADER - self.head.len())).unwrap_or_default();
        self.head.extend_from_slice(more);
        if self.head.len() < HEADER {
            return Ok(());
        }
        let Rules { system, timeline, begin, size, .. } = *self.rules;
        let segment = size.number(self.at);
        let expected = ExpectedHeader { system, timeline, segment, size, begin };
        let at = segment.start(size);
        check_segment_header(&self.head, &expected).map_err(|source| Unfit::Header { at, source })
    }

    fn compare(&mut self) -> Result<(), Unfit> {
        let (size, at) = (self.rules.size, self.at);
        if let Some(known) = self.known.get(&at) {
            if known.digest != self.hasher.digest() {
                return Err(Unfit::Differs { at, name: known.name.clone(), writer: known.writer.clone() });
            }
            self.agreed.push(known.name.clone());
        }
        if at.0.is_multiple_of(size.bytes().min(MAX_PLAINTEXT)) {
            self.digests.insert(at, self.hasher.digest());
        }
        if size.offset(at) == 0 {
            self.hasher = self.rules.key.hasher();
            self.head.clear();
        }
        Ok(())
    }
}
