//! Large bodies go to the disk past the page cache: nobody reads them soon, on a database's host they would push the
//! database's own pages out, and to fill fresh pages of the system costs more than to seal what is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::buffer::Spares;

/// Every file system's and disk's blocks fit into this, in bytes.
const BLOCK: usize = 4096;
/// What is written at once, in bytes.
const STRETCH: usize = 1 << 20;
/// A smaller body is the page cache's: the disk would be waited for twice.
const LARGE: usize = STRETCH;
/// Most buffers that are kept while nobody writes.
const KEPT: usize = 4;

/// Writes new files.
#[derive(Debug)]
pub(super) struct Writer {
    /// The system takes only memory that begins at a block.
    stretches: Spares,
}

impl Writer {
    pub(super) fn new() -> Writer {
        Writer { stretches: Spares::new(STRETCH + BLOCK, KEPT) }
    }

    /// Writes all of `body` to a file of [`create`]. It is not synced.
    pub(super) fn write(&self, file: &mut File, body: &[u8]) -> io::Result<()> {
        let rest = if is_direct(file)? { self.write_blocks(file, body)? } else { body };
        file.write_all(rest)
    }

    /// Writes as many whole blocks past the page cache as the file takes; returns what is left, for which the file is an
    /// ordinary one again.
    fn write_blocks<'a>(&self, file: &mut File, body: &'a [u8]) -> io::Result<&'a [u8]> {
        let (blocks, mut rest) = body.split_at(body.len() / BLOCK * BLOCK);
        let mut memory = self.stretches.take();
        memory.vec().resize(STRETCH + BLOCK, 0);
        let first = memory.as_ref().as_ptr().align_offset(BLOCK);
        for stretch in blocks.chunks(STRETCH) {
            let aligned = &mut memory.vec()[first..first + stretch.len()];
            aligned.copy_from_slice(stretch);
            let written = match file.write(aligned) {
                Ok(written) => written,
                // Blocks here are larger, or the file system takes the flag and nothing else.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            if written < stretch.len() {
                let done = stretch.as_ptr() as usize - body.as_ptr() as usize + written;
                rest = &body[done..];
                break;
            }
        }
        fcntl_setfl(&*file, fcntl_getfl(&*file)? - OFlags::DIRECT)?;
        Ok(rest)
    }
}

/// Makes a file at `path`, where there is none, for a body of `size` bytes.
pub(super) fn create(path: &Path, size: usize) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    if size < LARGE {
        return options.open(path);
    }
    match options.clone().custom_flags(OFlags::DIRECT.bits() as i32).open(path) {
        // tmpfs before Linux 6.6, and some of FUSE; the name may have been made all the same.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            options.open(path)
        }
        other => other,
    }
}

fn is_direct(file: &File) -> io::Result<bool> {
    Ok(fcntl_getfl(file)?.contains(OFlags::DIRECT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn whatever_its_length_a_body_is_written_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = Writer::new();
        for length in [0, 1, LARGE - 1, LARGE, LARGE + 1, LARGE + BLOCK, 3 * STRETCH, 3 * STRETCH + BLOCK + 7] {
            let body = bytes(length + 3);
            // A body that begins anywhere in memory.
            let body = &body[3..];
            let path = folder.path().join(length.to_string());
            let mut file = create(&path, body.len()).expect("it is made");
            writer.write(&mut file, body).expect("it is written");
            assert!(!is_direct(&file).expect("its flags"), "what comes after is the page cache's");
            assert!(std::fs::read(&path).expect("it is read") == body, "{length} bytes");
        }
    }

    #[test]
    fn what_a_file_does_not_take_past_the_page_cache_is_left_to_the_caller() {
        let folder = tempfile::tempdir().expect("a folder");
        // A file that was not opened for writing takes nothing: an error is an error.
        let path = folder.path().join("read-only");
        std::fs::write(&path, b"").expect("a file");
        let body = bytes(2 * STRETCH);
        let mut reading = File::open(&path).expect("it opens");
        assert!(Writer::new().write_blocks(&mut reading, &body).is_err());
        // Behind a byte nothing begins at a block any more.
        let mut odd = create(&folder.path().join("odd"), 1).expect("it is made");
        odd.write_all(b"x").expect("one byte");
        fcntl_setfl(&odd, fcntl_getfl(&odd).expect("its flags") | OFlags::DIRECT).expect("the flag");
        let rest = Writer::new().write_blocks(&mut odd, &body).expect("no error");
        odd.write_all(rest).expect("the rest");
        let found = std::fs::read(folder.path().join("odd")).expect("it is read");
        assert!(found[1..] == body[..]);
    }
}
