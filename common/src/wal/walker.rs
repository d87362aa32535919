//! A walk through contiguous WAL, record by record (the rules are those of `xlogreader.c`).

use super::content::{self, Content};
use super::end::{EndReason, WalkEnd};
use super::error::WalError;
use super::event::{Event, Record, WalkOptions};
use super::leading::Leading;
use super::page::{PAGE_SIZE, PageHeader, WalVersion};
use super::pages::Pages;
use super::record::{HEADER_LEN, RecordHeader, padded};
use super::rules::{check_crc, check_length, control_content};
use super::transaction::TransactionReader;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::SegmentSize;
use crate::timeline::{SystemIdentifier, TimelineId};

/// A record of which not all bytes were there yet.
#[derive(Debug)]
struct InFlight {
    start: Lsn,
    header: RecordHeader,
    raw: [u8; HEADER_LEN],
    /// Bytes of the body to come.
    left: u32,
    crc: u32,
    reader: Option<TransactionReader>,
    /// Whether the body is collected in the walker's buffer.
    keep: bool,
}

#[derive(Debug)]
enum State {
    /// A record may start here.
    Between,
    /// A record's header is being collected; it may be split by a page header.
    Header { start: Lsn, raw: [u8; HEADER_LEN], filled: usize },
    /// A record's body.
    Body(InFlight),
    /// The rest of a record that began before the walk.
    Leading(Leading),
    /// Up to 7 bytes before the next record; then the event is due that ends here.
    Alignment { left: u8, record: Option<InFlight> },
    /// The rest of a segment after a switch.
    Padding,
}

/// A walk through WAL that is pushed in, in pieces of any size; see the [module](super)'s example.
///
/// Memory: a few hundred bytes, and [`WalkOptions::body_limit`] where bodies are asked for.
#[derive(Debug)]
pub struct Walker {
    size: SegmentSize,
    options: WalkOptions,
    start: Lsn,
    /// The next byte to be pushed. `position <= at`.
    at: Lsn,
    /// End of the last complete record.
    position: Lsn,
    /// Start of the last complete record.
    previous: Option<Lsn>,
    /// End of the last switch.
    switched: Option<Lsn>,
    /// Whether the walk began with what looks like the rest of a switch; what follows tells.
    maybe_switched: bool,
    pages: Pages,
    state: State,
    body: Vec<u8>,
    ended: Option<WalkEnd>,
}

impl Walker {
    /// A walk that begins with the byte at `start`, as a rule the first of a segment.
    ///
    /// Errors: [`WalError::StartNotAPage`].
    pub fn new(start: Lsn, size: SegmentSize, options: WalkOptions) -> Result<Walker, WalError> {
        if !start.0.is_multiple_of(u64::from(PAGE_SIZE)) {
            return Err(WalError::StartNotAPage(start));
        }
        Ok(Walker {
            size,
            options,
            start,
            at: start,
            position: start,
            previous: None,
            switched: None,
            maybe_switched: false,
            pages: Pages::new(size, options.system),
            state: State::Between,
            body: Vec::new(),
            ended: None,
        })
    }

    /// End of the last complete record (or of the one that was passed over at the start); never beyond what was pushed.
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// End of the last record after which the rest of its segment is padding (`pg_switch_wal()`), also of one that began
    /// before the walk; `None` where there was none.
    pub const fn last_switch(&self) -> Option<Lsn> {
        self.switched
    }

    /// Where the next byte to be pushed belongs.
    pub const fn next_byte(&self) -> Lsn {
        self.at
    }

    /// The timeline of the last page; `None` before the first.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.pages.last().map(|page| page.timeline)
    }

    /// Who wrote the WAL; `None` before the first page.
    pub fn version(&self) -> Option<WalVersion> {
        self.pages.last().map(|page| page.version)
    }

    /// The cluster; `None` before the first page of a segment.
    pub fn system(&self) -> Option<SystemIdentifier> {
        self.pages.system()
    }

    /// Where the walk stands, as an end: why valid WAL ended, or that there were no more bytes.
    pub fn end(&self) -> WalkEnd {
        self.ended.clone().unwrap_or(WalkEnd { position: self.position, at: self.at, reason: EndReason::OutOfBytes })
    }

    /// Takes the bytes that follow those pushed before, and hands each event to `visit`, in order. How the bytes are
    /// cut into pieces makes no difference.
    ///
    /// Errors: valid WAL ended; everything before was handed out, the rest is ignored, and so is what is pushed later.
    pub fn push<F: FnMut(Event<'_>)>(&mut self, data: &[u8], mut visit: F) -> Result<(), WalkEnd> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        let mut rest = data;
        while !rest.is_empty() {
            let used = self.step(rest, &mut visit).map_err(|(at, reason)| {
                let end = WalkEnd { position: self.position, at, reason };
                self.ended = Some(end.clone());
                end
            })?;
            self.at = self.at.advance(used as u64);
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads some bytes at `self.at`, at least one; returns how many. Errors: where and why valid WAL ends.
    fn step<F: FnMut(Event<'_>)>(&mut self, data: &[u8], visit: &mut F) -> Result<usize, (Lsn, EndReason)> {
        let offset = (self.at.0 % u64::from(PAGE_SIZE)) as usize;
        if matches!(self.state, State::Padding) {
            // The pages of this padding are zeros without headers, and a recycled segment may even have other bytes.
            let left = self.size.bytes() - self.size.offset(self.at);
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
            if used as u64 == left {
                self.state = State::Between;
            }
            return Ok(used);
        }
        if offset == 0 || self.pages.is_collecting() {
            let page = Lsn(self.at.0 - offset as u64);
            let (used, header) = self.pages.collect(data, page).map_err(|error| (page, EndReason::Page(error)))?;
            if let Some(header) = header {
                self.enter_page(&header, page == self.start).map_err(|reason| (page, reason))?;
            }
            return Ok(used);
        }
        let data = data.get(..PAGE_SIZE as usize - offset).unwrap_or(data);
        match &mut self.state {
            State::Between => self.begin_record(data, visit),
            State::Header { raw, filled, start } => {
                let used = (HEADER_LEN - *filled).min(data.len());
                let (start, before) = (*start, *filled);
                if let (Some(free), Some(now)) = (raw.get_mut(before..before + used), data.get(..used)) {
                    free.copy_from_slice(now);
                }
                *filled += used;
                let (raw, filled) = (*raw, *filled);
                if before < 4 && filled >= 4 && !self.has_length(start, &raw)? {
                    return Ok(used);
                }
                if filled == HEADER_LEN {
                    let header = self.check_header(start, &raw)?;
                    self.state = self.body_state(start, header, raw)?;
                    self.skip_alignment(self.at.advance(used as u64), visit)?;
                }
                Ok(used)
            }
            State::Body(record) => {
                let used = (record.left as usize).min(data.len());
                let now = data.get(..used).unwrap_or_default();
                if self.options.check_crc {
                    record.crc = crc32c::crc32c_append(record.crc, now);
                }
                if let Some(reader) = &mut record.reader {
                    reader.feed(now);
                }
                if record.keep {
                    self.body.extend_from_slice(now);
                }
                // `used` is at most `left`, which is a u32.
                record.left -= used as u32;
                self.skip_alignment(self.at.advance(used as u64), visit)?;
                Ok(used)
            }
            State::Leading(leading) => {
                let used = leading.take(data);
                self.skip_alignment(self.at.advance(used as u64), visit)?;
                Ok(used)
            }
            State::Alignment { left, .. } => {
                let used = usize::from(*left).min(data.len());
                *left -= used as u8;
                self.skip_alignment(self.at.advance(used as u64), visit)?;
                Ok(used)
            }
            // Handled above.
            State::Padding => Ok(data.len()),
        }
    }

    /// Brings the page header together with what is under way.
    fn enter_page(&mut self, header: &PageHeader, first: bool) -> Result<(), EndReason> {
        let left = match &self.state {
            State::Header { raw, filled, .. } => {
                // At least 8 bytes are here, since records start at multiples of 8: the length is known.
                Some(RecordHeader::parse(raw).length.saturating_sub(*filled as u32))
            }
            State::Body(record) => Some(record.left),
            State::Leading(leading) => Some(leading.left()),
            State::Between | State::Alignment { .. } | State::Padding => None,
        };
        match left {
            // The record under way was lost in a crash; it never happened, and the next one links past it.
            Some(_) if header.overwrites_record() && !header.continues_record() => {
                self.body.clear();
                self.state = State::Between;
                Ok(())
            }
            Some(_) if !header.continues_record() => Err(EndReason::NoContinuation),
            Some(expected) if header.remaining != expected || expected == 0 => {
                Err(EndReason::OtherContinuation { found: header.remaining, expected })
            }
            Some(_) => Ok(()),
            None if !header.continues_record() => Ok(()),
            None if first && header.remaining > 0 => {
                self.state = State::Leading(Leading::new(header.remaining));
                Ok(())
            }
            None => Err(EndReason::UnexpectedContinuation),
        }
    }

    /// Reads what starts at `self.at`, up to the end of the page at most. Whole records, which most are, are read in
    /// one go and without a copy.
    fn begin_record<F: FnMut(Event<'_>)>(&mut self, data: &[u8], visit: &mut F) -> Result<usize, (Lsn, EndReason)> {
        let start = self.at;
        let Some(raw) = data.first_chunk::<HEADER_LEN>() else {
            self.state = State::Header { start, raw: [0; HEADER_LEN], filled: 0 };
            return Ok(0);
        };
        if !self.has_length(start, raw)? {
            return Ok(0);
        }
        let header = self.check_header(start, raw)?;
        let end = usize::try_from(padded(header.length)).unwrap_or(usize::MAX);
        let whole = data.get(..end).and_then(|record| record.get(HEADER_LEN..header.length as usize));
        let Some(body) = whole else {
            self.state = self.body_state(start, header, *raw)?;
            self.skip_alignment(start.advance(HEADER_LEN as u64), visit)?;
            return Ok(HEADER_LEN);
        };
        if self.options.check_crc {
            check_crc(&header, raw, crc32c::crc32c(body)).map_err(|reason| (start, reason))?;
        }
        let version = self.known_version(start)?;
        let content = if let Some(mut reader) = TransactionReader::new(version, &header) {
            reader.feed(body);
            reader.finish().map_or_else(Content::Unreadable, Content::Transaction)
        } else {
            control_content(version, &header, (body.len() <= content::LONGEST_CONTROL_BODY as usize).then_some(body))
        };
        let limit = self.options.body_limit;
        let body = limit.and_then(|limit| (body.len() <= limit as usize).then_some(body));
        self.complete(start, start.advance(end as u64), &header, content, body, visit);
        Ok(end)
    }

    /// Checks the length of the record that starts at `start`. `false`: there is none, but the padding after a switch whose
    /// record began before the walk; that is what the walk goes on with.
    fn has_length(&mut self, start: Lsn, raw: &[u8; HEADER_LEN]) -> Result<bool, (Lsn, EndReason)> {
        match check_length(raw) {
            Ok(()) => Ok(true),
            Err(EndReason::TooShort(0)) if self.maybe_switched && start == self.position => {
                self.switched = Some(start);
                self.state = State::Padding;
                Ok(false)
            }
            Err(reason) => Err((start, reason)),
        }
    }

    /// Checks a record's header, apart from the length, which was checked before (as `ValidXLogRecordHeader`).
    fn check_header(&self, start: Lsn, raw: &[u8; HEADER_LEN]) -> Result<RecordHeader, (Lsn, EndReason)> {
        let header = RecordHeader::parse(raw);
        if !self.options.any_manager && !header.manager.is_valid(self.known_version(start)?) {
            return Err((start, EndReason::UnknownManager(header.manager.0)));
        }
        match self.previous {
            Some(expected) if header.prev != expected => {
                Err((start, EndReason::BrokenLink { found: header.prev, expected }))
            }
            None if header.prev >= start => Err((start, EndReason::LinkForward(header.prev))),
            _ => Ok(header),
        }
    }

    /// The version that the pages told; a record can't be reached before the first page.
    fn known_version(&self, at: Lsn) -> Result<WalVersion, (Lsn, EndReason)> {
        self.version().ok_or((at, EndReason::NoContinuation))
    }

    /// The state in which the body of this record is read in pieces.
    fn body_state(
        &mut self,
        start: Lsn,
        header: RecordHeader,
        raw: [u8; HEADER_LEN],
    ) -> Result<State, (Lsn, EndReason)> {
        let left = header.length - HEADER_LEN as u32;
        let wanted = self.options.body_limit.is_some_and(|limit| left <= limit);
        let control = content::is_control(&header) && left <= content::LONGEST_CONTROL_BODY;
        let reader = TransactionReader::new(self.known_version(start)?, &header);
        self.body.clear();
        Ok(State::Body(InFlight { start, header, raw, left, crc: 0, reader, keep: wanted || control }))
    }

    /// Called when all bytes before `end` were read: where a record has ended, waits for the padding to 8 bytes, then
    /// hands the record out.
    fn skip_alignment<F: FnMut(Event<'_>)>(&mut self, end: Lsn, visit: &mut F) -> Result<(), (Lsn, EndReason)> {
        let ended = match &self.state {
            State::Body(record) => record.left == 0,
            State::Leading(leading) => leading.left() == 0,
            State::Alignment { .. } => true,
            State::Between | State::Header { .. } | State::Padding => false,
        };
        if !ended {
            return Ok(());
        }
        let (missing, record) = match std::mem::replace(&mut self.state, State::Between) {
            State::Body(record) => {
                let crc = record.crc;
                if self.options.check_crc {
                    check_crc(&record.header, &record.raw, crc).map_err(|reason| (record.start, reason))?;
                }
                (end.0.next_multiple_of(8) - end.0, Some(record))
            }
            State::Alignment { left, record } => (u64::from(left), record),
            State::Leading(leading) => {
                self.maybe_switched = leading.may_be_switch(self.start);
                (end.0.next_multiple_of(8) - end.0, None)
            }
            _ => (end.0.next_multiple_of(8) - end.0, None),
        };
        if missing > 0 {
            self.state = State::Alignment { left: missing as u8, record };
            return Ok(());
        }
        match record {
            Some(record) => self.complete_in_flight(record, end, visit),
            None => {
                self.position = end;
                visit(Event::LeadingSkipped { range: LsnRange { start: self.start, end } });
                Ok(())
            }
        }
    }

    fn complete_in_flight<F: FnMut(Event<'_>)>(
        &mut self,
        record: InFlight,
        end: Lsn,
        visit: &mut F,
    ) -> Result<(), (Lsn, EndReason)> {
        let version = self.known_version(record.start)?;
        let mut buffer = std::mem::take(&mut self.body);
        let kept = record.keep.then_some(buffer.as_slice());
        let content = match record.reader {
            Some(reader) => reader.finish().map_or_else(Content::Unreadable, Content::Transaction),
            None => {
                let short = kept.filter(|body| body.len() <= content::LONGEST_CONTROL_BODY as usize);
                control_content(version, &record.header, short)
            }
        };
        let limit = self.options.body_limit;
        let body = kept.filter(|body| limit.is_some_and(|limit| body.len() <= limit as usize));
        self.complete(record.start, end, &record.header, content, body, visit);
        buffer.clear();
        self.body = buffer;
        Ok(())
    }

    fn complete<F: FnMut(Event<'_>)>(
        &mut self,
        start: Lsn,
        end: Lsn,
        header: &RecordHeader,
        content: Content,
        body: Option<&[u8]>,
        visit: &mut F,
    ) {
        self.previous = Some(start);
        self.position = end;
        if content::is_switch(header) {
            self.switched = Some(end);
            if self.size.offset(end) != 0 {
                self.state = State::Padding;
            }
        }
        visit(Event::Record(Record {
            start,
            end,
            prev: header.prev,
            length: header.length,
            xid: header.xid,
            manager: header.manager,
            info: header.info,
            content,
            body,
        }));
    }
}
