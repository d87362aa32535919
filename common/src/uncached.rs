//! Files that are written and read past the page cache.
//!
//! What is written in bulk and not read soon, or read once, need not lie in memory: it would push out what is, on a database's host the
//! database's own pages, and to fill fresh pages of the system costs more than to compress what is in them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Every file system's and disk's blocks fit into this, in bytes.
pub const BLOCK: usize = 4096;

/// Of a smaller file all is the page cache's: the disk would be waited for twice.
pub const LARGE: u64 = 1 << 20;

/// A file that is written to in whole blocks, past the page cache where the file system lets us; the rest goes through it.
#[derive(Debug)]
pub struct Uncached {
    file: File,
    direct: bool,
}

impl Uncached {
    /// A file that is open for writing and is going to have `size` bytes. Nobody else may write through this very descriptor.
    pub fn new(file: File, size: u64) -> Uncached {
        let direct = size >= LARGE && set_direct(&file, true).is_ok();
        Uncached { file, direct }
    }

    /// Writes all of `bytes` at `at`. What begins at a [`BLOCK`] both in memory (see [`aligned`]) and in the file goes past
    /// the page cache, but for what is left of the last block.
    ///
    /// Errors: the system's.
    pub fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let begins = bytes.as_ptr().addr().is_multiple_of(BLOCK) && at.is_multiple_of(BLOCK as u64);
        let blocks = if self.direct && begins { bytes.len() / BLOCK * BLOCK } else { 0 };
        let mut written = 0;
        if blocks > 0 {
            written = match self.file.write_at(&bytes[..blocks], at) {
                Ok(written) => written,
                // Blocks here are larger, or the file system takes the flag and nothing else.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    set_direct(&self.file, false)?;
                    self.direct = false;
                    0
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
        }
        let (rest, at) = (bytes.get(written..).unwrap_or_default(), at + written as u64);
        if rest.is_empty() {
            return Ok(());
        }
        if !self.direct {
            return self.file.write_all_at(rest, at);
        }
        set_direct(&self.file, false)?;
        self.file.write_all_at(rest, at)?;
        set_direct(&self.file, true)
    }

    /// Whether blocks go past the page cache; where they do not, memory need not be aligned.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

/// Reads the first `length` bytes of a file into `buffer`, past the page cache where the file system lets us. Returns where they lie in
/// it; fewer where the file ends before. Nobody else may read through this very descriptor.
///
/// Errors: the system's.
pub fn read_first(file: &File, length: usize, buffer: &mut Vec<u8>) -> io::Result<Range<usize>> {
    let room = length.next_multiple_of(BLOCK);
    let begin = aligned(buffer, room);
    buffer.resize(begin + room, 0);
    let target = buffer.get_mut(begin..).unwrap_or_default();
    let mut direct = length as u64 >= LARGE && set_direct(file, true).is_ok();
    let mut read = 0;
    while read < length {
        let rest = target.get_mut(read..).unwrap_or_default();
        match file.read_at(rest, read as u64) {
            Ok(0) => break,
            Ok(more) => {
                read += more;
                // The end of the file, or so it seems: what follows would not begin at a block.
                if direct && !more.is_multiple_of(BLOCK) {
                    set_direct(file, false)?;
                    direct = false;
                }
            }
            Err(error) if direct && Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                set_direct(file, false)?;
                direct = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(begin..begin + read.min(length))
}

/// Makes `buffer` one that begins at a [`BLOCK`] and has room for `capacity` bytes; what was in it is gone. Returns how many
/// bytes lie before its begin, for `truncate` and slices. It holds until the buffer grows beyond that.
pub fn aligned(buffer: &mut Vec<u8>, capacity: usize) -> usize {
    buffer.clear();
    buffer.reserve(BLOCK + capacity);
    let before = buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
    buffer.resize(before, 0);
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn wherever_bytes_lie_they_are_written_as_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let length = 3 * BLOCK + 5;
        for (before, at) in [(0, 0), (3, 0), (0, BLOCK), (0, 7), (1, BLOCK), (0, 3 * BLOCK)] {
            for size in [0, LARGE] {
                let path = folder.path().join(format!("{before}-{at}-{size}"));
                let mut file = Uncached::new(File::create(&path).expect("a file"), size);
                let mut memory = Vec::new();
                let first = aligned(&mut memory, before + length) + before;
                memory.resize(first, 0);
                memory.extend(bytes(length));
                assert!((first - before + memory.as_ptr().addr()).is_multiple_of(BLOCK));
                file.write_all_at(&memory[first..], at as u64).expect("it is written");
                // Once more, over itself.
                file.write_all_at(&memory[first..], at as u64).expect("it is written");
                let found = std::fs::read(&path).expect("it is read");
                assert!(found[at..] == bytes(length) && found[..at].iter().all(|byte| *byte == 0), "{path:?}");
            }
        }
    }

    #[test]
    fn what_is_read_is_what_the_file_has_however_long_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let large = LARGE as usize;
        let mut memory = Vec::new();
        for size in [0, 1, BLOCK, large - 1, large, large + 1, large + BLOCK, 2 * large + 7] {
            let content = bytes(size);
            std::fs::write(&path, &content).expect("it is written");
            // All of it, less, and more than there is.
            for length in [size, size / 2, size + BLOCK + 1] {
                let file = File::open(&path).expect("it opens");
                let found = read_first(&file, length, &mut memory).expect("it is read");
                assert!(memory[found] == content[..length.min(size)], "{length} of {size}");
            }
        }
        let unreadable = File::create(&path).expect("a file");
        assert!(read_first(&unreadable, large, &mut memory).is_err());
    }

    #[test]
    fn a_file_that_takes_nothing_past_the_page_cache_gets_it_the_ordinary_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        // The flag is there in name only: what is written is refused.
        let mut file = Uncached { file: File::create(&path).expect("a file"), direct: true };
        let mut memory = Vec::new();
        let first = aligned(&mut memory, BLOCK);
        memory.extend(bytes(BLOCK));
        file.write_all_at(&memory[first..], 0).expect("it is written");
        file.write_all_at(b"rest", BLOCK as u64).expect("it is written");
        assert_eq!(std::fs::read(&path).expect("it is read"), [bytes(BLOCK), b"rest".to_vec()].concat());
        // An error is an error.
        let mut reading = Uncached::new(File::open(&path).expect("it opens"), LARGE);
        assert!(reading.write_all_at(&memory[first..], 0).is_err());
    }
}
