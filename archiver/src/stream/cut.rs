//! Cutting the WAL stream into pieces: whole segments when they are full, tails in between.

use walseal_common::buffer::Spare;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::RepositoryIdentity;
use walseal_common::seal::{CompareDigest, CompareHasher, CompareKey, MAX_PLAINTEXT, Transactions};
use walseal_common::segment::{SegmentNumber, SegmentSize};
use walseal_common::timeline::Branch;
use walseal_common::wal::change::{RunSummary, RunWalk};
use walseal_common::wal::{Content, Event, Finish, FinishWalk, TransactionOutcome, WalVersion, WalkOptions, Walker};

use super::exposure::Commits;
use super::start::Durable;
use super::tails::Tails;
use crate::chunks::{self, Chunks};
use crate::shipment::{Piece, PieceKind};

/// WAL that came again is not what was shipped before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's WAL up to {at} is not what {name} holds, written by {writer}: another server wrote branch {branch}, \
     or one of the two is damaged. Nothing is confirmed any more, and the slot keeps this server's WAL; find out which \
     server is alive, and stop the other's archiver. If this one is: walseal-archiver adopt --writer KEY, with the key of this \
     archiver"
)]
pub struct OverlapDiffers {
    /// The branch.
    pub branch: Branch,
    /// The position for which both sides have a digest.
    pub at: Lsn,
    /// The object that ends there.
    pub name: String,
    /// Who wrote that object.
    pub writer: String,
}

/// A walk through what is cut.
enum Walk {
    /// Through a server's stream, which is right as it comes.
    Stream(Walker),
    /// Through the file of one segment, which has to be finished.
    File(FinishWalk),
}

/// What is known of a stretch of WAL while it grows.
#[derive(Clone, Copy, Default)]
struct Tally {
    transactions: Transactions,
    leading_unread: bool,
}

/// A place in the segment from which a piece may begin, and what is known of the WAL since.
#[derive(Clone, Copy)]
struct Mark {
    at: Lsn,
    /// Digest of the segment from its start to here.
    digest: CompareDigest,
    since: Tally,
}

/// Cuts a branch's WAL into pieces. Holds at most one object's worth of plaintext: 16 MiB (I11).
pub struct Cutter {
    branch: Branch,
    segment_size: SegmentSize,
    key: CompareKey,
    /// Digest of the segment from its start to `received`.
    hasher: CompareHasher,
    walk: Option<Walk>,
    /// First byte of `part`: the segment's start, or that of a part of 16 MiB.
    start: Mark,
    /// Full chunks.
    part: Chunks,
    /// The chunk that follows them and is being filled.
    open: Option<Spare>,
    tails: Tails,
    /// Where the tails begin that were not joined yet. `start <= loose <= cut`.
    loose: Mark,
    /// Everything before it was cut, or was durable before this stream began. `cut <= received`.
    cut: Mark,
    /// Something that a session may wait for ends in what was not cut yet.
    awaited: bool,
    /// End of what was durable before this stream: compared when the stream has passed it.
    overlap: Option<(Lsn, Durable)>,
    /// Commits that end in what was pushed, and were not asked for yet.
    commits: Option<Commits>,
    summarising: Option<Summarising>,
}

/// What transactions did is told as well.
struct Summarising {
    version: WalVersion,
    runs: RunWalk,
    /// Runs that are complete and were not asked for yet.
    done: Vec<(SegmentNumber, RunSummary)>,
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutter({} at {}, cut to {})", self.branch, self.received(), self.cut.at)
    }
}

impl Cutter {
    /// Begins at `start`, the start of a segment. `durable` tells up to where WAL lies in the repository, and what of the
    /// segment that holds its end; it is compared when the stream has passed it, and nothing of it is shipped as a tail.
    pub fn new(
        branch: Branch,
        segment_size: SegmentSize,
        key: &CompareKey,
        start: Lsn,
        durable: Option<(Lsn, Durable)>,
    ) -> Cutter {
        debug_assert_eq!(segment_size.offset(start), 0, "a stream begins with a segment");
        let hasher = key.hasher();
        let mark = Mark { at: start, digest: hasher.digest(), since: Tally::default() };
        Cutter {
            branch,
            segment_size,
            key: key.clone(),
            hasher,
            walk: stream_walk(start, segment_size, false),
            start: mark,
            part: Chunks::default(),
            open: None,
            tails: Tails::default(),
            loose: mark,
            cut: mark,
            awaited: false,
            overlap: durable,
            commits: None,
            summarising: None,
        }
    }

    /// Also tells what the transactions of each run of segments did; of a stream that has not begun, written by `version`.
    #[must_use]
    pub fn summarising(mut self, version: WalVersion) -> Cutter {
        let start = self.received();
        self.walk = stream_walk(start, self.segment_size, true);
        let runs = RunWalk::new(start, self.segment_size);
        self.summarising = Some(Summarising { version, runs, done: Vec::new() });
        self
    }

    /// Runs of segments that were completed since this was last asked, each by its first segment, and what was done in it.
    pub fn summaries(&mut self) -> Vec<(SegmentNumber, RunSummary)> {
        self.summarising.as_mut().map(|summarising| std::mem::take(&mut summarising.done)).unwrap_or_default()
    }

    /// For the file of one segment, of which [`Cutter::finish`] tells whether it is finished.
    pub fn of_file(branch: Branch, identity: &RepositoryIdentity, key: &CompareKey, number: SegmentNumber) -> Cutter {
        let size = identity.segment_size;
        let walk = FinishWalk::new(number, size, identity.cluster).ok().map(Walk::File);
        Cutter { walk, ..Cutter::new(branch, size, key, number.start(size), None) }
    }

    /// Whether the segment is finished whose file was pushed, all of it; `None` for a stream.
    pub fn finish(&self) -> Option<Finish> {
        match &self.walk {
            Some(Walk::File(walk)) => Some(walk.finish()),
            _ => None,
        }
    }

    /// End of what was pushed.
    pub fn received(&self) -> Lsn {
        self.start.at.advance(self.part.len() + self.open_bytes().len() as u64)
    }

    fn open_bytes(&self) -> &[u8] {
        self.open.as_ref().map_or(&[], AsRef::as_ref)
    }

    /// Bytes that no piece holds yet.
    pub fn uncut(&self) -> u64 {
        self.received().bytes_since(self.cut.at)
    }

    /// Whether a session may wait for what no piece holds yet: a transaction committed or was prepared there, or nobody knows.
    pub fn is_awaited(&self) -> bool {
        self.uncut() > 0 && (self.awaited || self.walk.is_none())
    }

    /// What a digest at `end` speaks for: its segment, from the start on.
    pub fn compared(&self, end: Lsn) -> LsnRange {
        LsnRange { start: self.segment_size.align_down(Lsn(end.0.saturating_sub(1))), end }
    }

    /// Whether what was durable before this stream has yet to be compared with what comes.
    pub fn is_comparing(&self) -> bool {
        self.overlap.is_some()
    }

    /// Up to where every commit was seen, and those that were since this was last asked. `None` where the walk through the WAL
    /// lost its way and nothing more can be said until the next segment.
    pub(super) fn commits(&mut self) -> Option<(Lsn, Option<Commits>)> {
        self.walk.is_some().then(|| (self.received(), self.commits.take()))
    }

    /// Takes the bytes that follow. Parts and segments that they complete are appended to `pieces`.
    ///
    /// Errors: the bytes contradict what the repository holds.
    pub fn push(&mut self, mut bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), OverlapDiffers> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.take(now);
            let received = self.received();
            if let Some((at, durable)) = self.overlap.take_if(|(at, _)| *at == received) {
                if self.hasher.digest() != durable.digest {
                    let Durable { name, writer, .. } = durable;
                    return Err(OverlapDiffers { branch: self.branch, at, name, writer });
                }
                self.tails = Tails::found(durable.pieces);
                self.mark_cut();
            }
            if self.received().bytes_since(self.start.at) == self.part_capacity() {
                pieces.push(self.finish_part());
            }
            bytes = later;
        }
        Ok(())
    }

    /// Bytes until something is due: the end of a part or of a chunk, or the position to compare.
    fn room(&self) -> usize {
        let received = self.received();
        let filled = received.bytes_since(self.start.at);
        let chunk_end = received.advance(chunks::CHUNK as u64 - filled % chunks::CHUNK as u64);
        let part_end = self.start.at.advance(self.part_capacity()).min(chunk_end);
        let due = self.overlap.as_ref().map_or(part_end, |(at, _)| part_end.min(*at));
        usize::try_from(due.bytes_since(received)).unwrap_or(usize::MAX)
    }

    fn part_capacity(&self) -> u64 {
        self.segment_size.bytes().min(MAX_PLAINTEXT)
    }

    fn take(&mut self, bytes: &[u8]) {
        let open = self.open.get_or_insert_with(chunks::place);
        open.extend(bytes);
        if open.as_ref().len() == chunks::CHUNK {
            self.close_chunk();
        }
        self.hasher.update(bytes);
        let mut seen = Tally::default();
        let (commits, awaited) = (&mut self.commits, &mut self.awaited);
        let summarising = &mut self.summarising;
        let visit = |event: Event<'_>| {
            if let Some(summarising) = summarising {
                summarising.runs.add(summarising.version, &event);
            }
            match event {
                Event::LeadingSkipped { .. } => seen.leading_unread = true,
                Event::Record(record) => match &record.content {
                    Content::Transaction(end) => {
                        // A rollback returns at once (`RecordTransactionAbort`, `xact.c`).
                        *awaited |= end.outcome != TransactionOutcome::Abort;
                        match end.time.to_jiff() {
                            Some(time) => {
                                seen.transactions.add(time);
                                if end.outcome.is_commit() {
                                    let one = Commits::one(time, record.end);
                                    *commits = Some(commits.map_or(one, |before| before.and(one)));
                                }
                            }
                            None => seen.leading_unread = true,
                        }
                    }
                    Content::Unreadable(_) => seen.leading_unread = true,
                    _ => *awaited |= record.is_prepare(),
                },
            }
        };
        match &mut self.walk {
            Some(Walk::Stream(walker)) => {
                if let Err(end) = walker.push(bytes, visit) {
                    // The bytes are the server's and are kept as they are; only the hint of times is lost until the next
                    // segment.
                    tracing::warn!(branch = %self.branch, %end, "the record walk stopped; this segment's times stay unknown");
                    seen.leading_unread = true;
                    self.walk = None;
                    if let Some(summarising) = &mut self.summarising {
                        summarising.runs.lose();
                    }
                }
            }
            // Whoever cuts a file asks how its walk ended.
            Some(Walk::File(walk)) => seen.leading_unread |= !walk.push(bytes, visit),
            None => return,
        }
        for mark in [&mut self.start, &mut self.loose, &mut self.cut] {
            let tally = &mut mark.since;
            tally.transactions.merge(&seen.transactions);
            tally.leading_unread |= seen.leading_unread || self.walk.is_none();
        }
    }

    fn close_chunk(&mut self) {
        if let Some(open) = self.open.take() {
            self.part.push(open.freeze());
        }
    }

    /// What of the part was pushed from `from` on. Of the chunk that is being filled it is copied: that goes on to be filled.
    fn bytes_from(&self, from: Lsn) -> Chunks {
        let skipped = from.bytes_since(self.start.at);
        let mut bytes = self.part.after(skipped);
        let open = usize::try_from(skipped.saturating_sub(self.part.len())).unwrap_or(usize::MAX);
        bytes.push(chunks::copy(self.open_bytes().get(open..).unwrap_or_default()));
        bytes
    }

    /// What is known from here on.
    fn mark(&self) -> Mark {
        let since = Tally { leading_unread: self.walk.is_none(), ..Tally::default() };
        Mark { at: self.received(), digest: self.hasher.digest(), since }
    }

    fn mark_cut(&mut self) {
        self.cut = self.mark();
        self.awaited = false;
    }

    /// Everything from `from` on.
    fn piece(&self, kind: PieceKind, from: &Mark, bytes: Chunks) -> Piece {
        Piece {
            kind,
            branch: self.branch,
            segment_size: self.segment_size,
            start: from.at,
            bytes,
            digest_start: from.digest,
            digest_end: self.hasher.digest(),
            transactions: from.since.transactions,
            leading_unread: from.since.leading_unread,
            // Known only when it is shipped.
            durable: None,
        }
    }

    fn finish_part(&mut self) -> Piece {
        self.close_chunk();
        let bytes = std::mem::take(&mut self.part);
        let end = self.start.at.advance(bytes.len());
        let piece = self.piece(PieceKind::Whole, &self.start, bytes);
        if self.segment_size.offset(end) == 0 {
            self.hasher = self.key.hasher();
            if self.walk.is_none() {
                self.walk = stream_walk(end, self.segment_size, self.summarising.is_some());
            }
            if let Some(summarising) = &mut self.summarising {
                summarising.done.extend(summarising.runs.reached(end));
            }
        }
        self.start.at = end;
        self.start = self.mark();
        (self.loose, self.tails) = (self.start, Tails::default());
        self.mark_cut();
        piece
    }

    /// Cuts what was not cut yet as a tail, or nothing when there is nothing. Once a part has many tails, the new one
    /// covers the part from its start.
    pub fn cut_tail(&mut self) -> Option<Piece> {
        if self.uncut() == 0 || self.overlap.is_some() {
            return None;
        }
        let covers = self.tails.are_too_many();
        let from = if covers { self.start } else { self.cut };
        let piece = self.piece(PieceKind::Tail, &from, self.bytes_from(from.at));
        self.tails.cut(covers);
        self.mark_cut();
        if covers {
            self.loose = self.cut;
        }
        Some(piece)
    }

    /// Joins what was cut as tails into one, where they are many by now. It holds nothing that is not on its way already, so
    /// that nobody has to wait for it; [`Cutter::landed`] says when it has replaced them.
    pub fn join_tails(&mut self) -> Option<Piece> {
        if self.uncut() > 0 {
            return None;
        }
        let from_start = self.tails.to_join()?;
        let from = if from_start { self.start } else { self.loose };
        let piece = self.piece(PieceKind::Tail, &from, self.bytes_from(from.at));
        self.tails.join(piece.range(), from_start);
        self.loose = self.cut;
        Some(piece)
    }

    /// Whether these bytes are what [`Cutter::join_tails`] made last, on its way.
    pub fn is_joining(&self, range: LsnRange) -> bool {
        self.tails.is_joining(range)
    }

    /// A piece is durable.
    pub fn landed(&mut self, range: LsnRange) {
        self.tails.landed(range);
    }

    /// The end of a timeline: what the last segment holds, to be kept as `.partial`. `None` when it ended with a segment or
    /// (over 16 MiB) with a part.
    pub fn partial(&self) -> Option<Piece> {
        let part = self.bytes_from(self.start.at);
        (!part.is_empty()).then(|| self.piece(PieceKind::Partial, &self.start, part))
    }

    /// The branch whose WAL it is.
    pub(super) const fn branch(&self) -> Branch {
        self.branch
    }

    /// Size of its segments.
    pub(super) const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// The segment that is being filled.
    pub fn segment(&self) -> SegmentNumber {
        self.segment_size.number(self.start.at)
    }
}

fn stream_walk(start: Lsn, size: SegmentSize, with_bodies: bool) -> Option<Walk> {
    let body_limit = with_bodies.then_some(RunWalk::BODY_LIMIT);
    // A segment's start is always the start of a page.
    Walker::new(start, size, WalkOptions { check_crc: false, body_limit, ..WalkOptions::default() })
        .ok()
        .map(Walk::Stream)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use walseal_common::repository::Cover;
    use walseal_common::seal::WriterKey;
    use walseal_common::timeline::{SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    fn branch() -> Branch {
        TimelineHistory::root(TimelineId::FIRST).branch(SystemIdentifier(7))
    }

    fn key() -> CompareKey {
        WriterKey::generate().expect("random bytes").compare().clone()
    }

    /// Bytes that are no WAL: the walk stops at once, which must not matter to the pieces.
    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn digest(key: &CompareKey, bytes: &[u8]) -> CompareDigest {
        let mut hasher = key.hasher();
        hasher.update(bytes);
        hasher.digest()
    }

    fn durable(key: &CompareKey, bytes: &[u8]) -> Durable {
        Durable { digest: digest(key, bytes), name: "tail/x".to_owned(), writer: "walsealw1x".to_owned(), pieces: 1 }
    }

    const MIB: u64 = 1 << 20;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn i2_pieces_hold_every_byte_once_in_order(
            steps in prop::collection::vec((1usize..400_000, any::<bool>()), 1..60),
            size in prop::sample::select(vec![1u64, 2, 32]),
        ) {
            let size = SegmentSize::new(size * MIB).expect("a legal size");
            let start = SegmentNumber(5).start(size);
            let key = key();
            let mut cutter = Cutter::new(branch(), size, &key, start, None);
            let total: usize = steps.iter().map(|(length, _)| length).sum();
            let wal = noise(total);
            let mut pieces = Vec::new();
            let mut at = 0;
            for (length, cut) in steps {
                cutter.push(&wal[at..at + length], &mut pieces).expect("no overlap to differ");
                at += length;
                if cut {
                    pieces.extend(cutter.cut_tail());
                }
            }
            pieces.extend(cutter.cut_tail());
            prop_assert_eq!(cutter.received(), start.advance(total as u64));
            prop_assert_eq!(cutter.uncut(), 0);
            let ranges: Vec<LsnRange> = pieces.iter().map(Piece::range).collect();
            prop_assert_eq!(Cover::of(start, &ranges).end, cutter.received());
            for piece in &pieces {
                let from = piece.start.bytes_since(start) as usize;
                let to = from + piece.bytes.len() as usize;
                let bytes = piece.bytes.clone().take_first(usize::MAX).expect("never empty");
                prop_assert_eq!(&bytes[..], &wal[from..to]);
                let segment = size.align_down(piece.start).bytes_since(start) as usize;
                prop_assert_eq!(piece.digest_start, digest(&key, &wal[segment..from]));
                prop_assert_eq!(piece.digest_end, digest(&key, &wal[segment..to]));
                prop_assert!(piece.bytes.len() <= MAX_PLAINTEXT);
                prop_assert_eq!(size.number(piece.start), size.number(Lsn(piece.range().end.0 - 1)));
            }
            // A reader never needs more than 64 gets for a segment.
            for number in 0..=(total as u64 / size.bytes()) {
                let segment = SegmentNumber(5 + number).range(size);
                let inside: Vec<LsnRange> = ranges.iter().copied().filter(|r| segment.contains(r.start)).collect();
                prop_assert!(Cover::of(segment.start, &inside).pieces.len() <= 64);
            }
        }
    }

    #[test]
    fn a_long_quiet_segment_never_needs_more_than_64_gets() {
        let size = SegmentSize::new(MIB).expect("a legal size");
        let start = SegmentNumber(1).start(size);
        let mut cutter = Cutter::new(branch(), size, &key(), start, None);
        let mut pieces = Vec::new();
        for step in noise(1000) {
            cutter.push(&[step], &mut pieces).expect("no overlap to differ");
            pieces.extend(cutter.cut_tail());
            let ranges: Vec<LsnRange> = pieces.iter().map(Piece::range).collect();
            let cover = Cover::of(start, &ranges);
            assert_eq!(cover.end, cutter.received());
            assert!(cover.pieces.len() <= 64, "{} gets at {}", cover.pieces.len(), cutter.received());
        }
    }

    #[test]
    fn tails_that_are_joined_as_they_come_are_shipped_about_twice_and_never_need_more_than_64_gets() {
        let size = SegmentSize::new(MIB).expect("a legal size");
        let start = SegmentNumber(1).start(size);
        // What is joined lands at once, late, or never before something else is cut.
        for late in [0, 7, 40] {
            let mut cutter = Cutter::new(branch(), size, &key(), start, None);
            let (mut ranges, mut under_way, mut shipped) = (Vec::new(), None, 0);
            for step in 0..900 {
                cutter.push(&noise(1000), &mut Vec::new()).expect("no overlap to differ");
                let tail = cutter.cut_tail().expect("there is something to cut");
                shipped += tail.bytes.len();
                ranges.push(tail.range());
                if let Some(joined) = cutter.join_tails() {
                    assert!(cutter.is_joining(joined.range()));
                    shipped += joined.bytes.len();
                    under_way = Some((step + late, joined.range()));
                }
                if let Some((_, range)) = under_way.take_if(|(due, _)| *due <= step) {
                    cutter.landed(range);
                    ranges.push(range);
                }
                let cover = Cover::of(start, &ranges);
                assert_eq!(cover.end, cutter.received());
                assert!(cover.pieces.len() <= 64, "{} gets at {}", cover.pieces.len(), cutter.received());
            }
            let whole = cutter.received().bytes_since(start);
            assert!(late > 7 || shipped <= 4 * whole, "{shipped} bytes for {whole}");
        }
    }

    #[test]
    fn what_is_durable_already_is_compared_and_not_shipped_again() {
        let size = SegmentSize::new(MIB).expect("a legal size");
        let (start, key) = (SegmentNumber(9).start(size), key());
        let wal = noise(3000);
        let durable = durable(&key, &wal[..1000]);
        let mut cutter = Cutter::new(branch(), size, &key, start, Some((start.advance(1000), durable.clone())));
        let mut pieces = Vec::new();
        cutter.push(&wal[..900], &mut pieces).expect("not at the position yet");
        assert!(cutter.cut_tail().is_none(), "nothing new before the position to compare");
        cutter.push(&wal[900..2000], &mut pieces).expect("the same bytes");
        let tail = cutter.cut_tail().expect("1000 new bytes");
        assert_eq!(tail.range(), LsnRange { start: start.advance(1000), end: start.advance(2000) });
        assert_eq!(tail.digest_start, durable.digest);
    }

    #[test]
    fn case_17_other_bytes_than_the_durable_ones_are_refused() {
        let size = SegmentSize::new(MIB).expect("a legal size");
        let (start, key) = (SegmentNumber(9).start(size), key());
        let mut wal = noise(3000);
        let durable = durable(&key, &wal[..1000]);
        wal[999] ^= 1;
        let mut cutter = Cutter::new(branch(), size, &key, start, Some((start.advance(1000), durable)));
        let error = cutter.push(&wal, &mut Vec::new()).expect_err("they differ");
        assert_eq!((error.branch, error.at), (branch(), start.advance(1000)));
        assert!(error.to_string().contains("what tail/x holds, written by walsealw1x"), "{error}");
    }
}
