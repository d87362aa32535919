//! A strict reader of the tar archives that `BASE_BACKUP` streams.
//!
//! It takes bytes in whatever pieces they arrive and gives out entries and slices of their data without copying. It
//! accepts what `src/port/tar.c` writes and nothing else: an archive that is odd in any way is an error that names
//! the entry and the offset, because a backup that was read by guessing is worth nothing.
//!
//! Servers from PostgreSQL 15 on end an archive with two blocks of zeros; earlier ones leave that to the client
//! (`basebackup.c`, `perform_base_backup`). Both are taken. That an archive without them was cut between two entries
//! shows in the server's manifest only.

mod header;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use header::{BLOCK, EntryKind, TarHeader};

/// What comes out of a [`TarReader`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TarEvent {
    /// An entry begins.
    Entry(TarHeader),
    /// The next bytes of the entry's file; never empty.
    Data(Bytes),
    /// The entry is complete: as many bytes came as its header said.
    EntryEnd,
    /// The two blocks of zeros were seen; only zeros may follow.
    End,
}

/// The bytes are not a tar archive as PostgreSQL writes it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("byte {offset} of the archive{}: {why}", .entry.as_ref().map(|name| format!(", entry \"{name}\"")).unwrap_or_default())]
pub struct TarError {
    /// Where in the archive, in bytes: the start of the header that is wrong, or the byte that is.
    pub offset: u64,
    /// The entry's name, where one is known.
    pub entry: Option<String>,
    /// What is wrong.
    pub why: String,
}

/// Where the reader stands.
enum State {
    /// Before or in a header; the bytes of it that are there.
    Header { filled: usize, zero_block: bool },
    /// In the data of a file, before `left` bytes of it and `padding` zeros.
    Data { left: u64, padding: usize },
    /// Behind the end mark.
    Tail,
    /// After an error, which is given again.
    Failed(TarError),
}

/// Reads one archive.
pub struct TarReader {
    state: State,
    header: Box<[u8; BLOCK]>,
    /// The entry that data belong to, for messages.
    entry: Option<String>,
    /// Bytes taken so far.
    offset: u64,
}

impl Default for TarReader {
    fn default() -> Self {
        TarReader::new()
    }
}

impl TarReader {
    /// A reader at the start of an archive.
    pub fn new() -> TarReader {
        TarReader {
            state: State::Header { filled: 0, zero_block: false },
            header: Box::new([0; BLOCK]),
            entry: None,
            offset: 0,
        }
    }

    /// Takes the archive's next bytes and returns what they complete. `Data` events share memory with `bytes`.
    /// How the archive is cut into pieces changes nothing but how its data are cut.
    ///
    /// Errors: anything that is not as PostgreSQL writes it; after an error every call returns it again.
    pub fn push(&mut self, mut bytes: Bytes) -> Result<Vec<TarEvent>, TarError> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let taken =
                self.step(&bytes, &mut events).inspect_err(|error| self.state = State::Failed(error.clone()))?;
            self.offset += taken as u64;
            bytes = bytes.split_off(taken.min(bytes.len()));
            self.close_entry(&mut events);
        }
        Ok(events)
    }

    /// Says that the archive has ended.
    ///
    /// Errors: it ends within a header, an entry or its end mark, or was wrong before.
    pub fn finish(self) -> Result<(), TarError> {
        let (state, offset) = (self.state, self.offset);
        match state {
            State::Failed(error) => Err(error),
            State::Tail | State::Header { filled: 0, zero_block: false } => Ok(()),
            State::Header { .. } => {
                let why = "the archive ends in the middle of a header or of its end mark".to_owned();
                Err(TarError { offset, entry: None, why })
            }
            State::Data { left, padding } => {
                let why = format!("the archive ends {} bytes before the entry does", left + padding as u64);
                Err(TarError { offset, entry: self.entry, why })
            }
        }
    }

    /// Takes some bytes from the front of `bytes`, which is not empty, and returns how many.
    fn step(&mut self, bytes: &Bytes, events: &mut Vec<TarEvent>) -> Result<usize, TarError> {
        match &mut self.state {
            State::Failed(error) => Err(error.clone()),
            State::Tail => {
                all_zero(bytes, self.offset, None, "there are bytes after the archive's end").map(|()| bytes.len())
            }
            State::Data { left: 0, padding } => {
                let taken = bytes.len().min(*padding);
                let name = self.entry.clone();
                all_zero(&bytes[..taken], self.offset, name, "the padding after it is not zero")?;
                *padding -= taken;
                Ok(taken)
            }
            State::Data { left, .. } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                events.push(TarEvent::Data(bytes.slice(..taken)));
                Ok(taken)
            }
            State::Header { filled, zero_block } => {
                let taken = bytes.len().min(BLOCK - *filled);
                self.header[*filled..*filled + taken].copy_from_slice(&bytes[..taken]);
                *filled += taken;
                if *filled == BLOCK {
                    let after_zero_block = *zero_block;
                    // The block began before the bytes at hand where it came in pieces.
                    let start = self.offset + taken as u64 - BLOCK as u64;
                    self.block(start, after_zero_block, events)?;
                }
                Ok(taken)
            }
        }
    }

    /// Judges the header block that is complete and began at `start`.
    fn block(&mut self, start: u64, after_zero_block: bool, events: &mut Vec<TarEvent>) -> Result<(), TarError> {
        if self.header.iter().all(|&b| b == 0) {
            self.state = if after_zero_block {
                events.push(TarEvent::End);
                State::Tail
            } else {
                State::Header { filled: 0, zero_block: true }
            };
            return Ok(());
        }
        if after_zero_block {
            let why = "there is one block of zeros where two end an archive".to_owned();
            return Err(TarError { offset: start, entry: None, why });
        }
        let header = TarHeader::parse(&self.header).map_err(|(entry, why)| TarError { offset: start, entry, why })?;
        let size = match header.kind {
            EntryKind::File { size } => size,
            EntryKind::Directory | EntryKind::Symlink { .. } => 0,
        };
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.entry = Some(header.path.to_string());
        self.state = State::Data { left: size, padding };
        events.push(TarEvent::Entry(header));
        Ok(())
    }

    /// Ends the entry once its data and padding are there, be they empty.
    fn close_entry(&mut self, events: &mut Vec<TarEvent>) {
        if let State::Data { left: 0, padding: 0 } = self.state {
            events.push(TarEvent::EntryEnd);
            self.entry = None;
            self.state = State::Header { filled: 0, zero_block: false };
        }
    }
}

/// Errors: a byte that is not zero.
fn all_zero(bytes: &[u8], offset: u64, entry: Option<String>, why: &str) -> Result<(), TarError> {
    match bytes.iter().position(|&b| b != 0) {
        None => Ok(()),
        Some(at) => Err(TarError { offset: offset + at as u64, entry, why: why.to_owned() }),
    }
}
