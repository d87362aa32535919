//! One header block of a tar archive.

use walseal_common::repository::RelativePath;

/// Size of a block, in bytes.
pub const BLOCK: usize = 512;

/// What an entry of an archive is, and what its header says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TarHeader {
    /// Where it belongs, relative to the folder that the archive is of.
    pub path: RelativePath,
    /// The permission bits, at most 0o7777.
    pub mode: u32,
    /// Time of its last change, in seconds since 1970; before that negative.
    pub mtime: i64,
    /// What it is.
    pub kind: EntryKind,
}

/// The kinds of entries that PostgreSQL sends; all others are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file of `size` bytes.
    File {
        /// Bytes that follow.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link, as there are in `pg_tblspc`.
    Symlink {
        /// Where it points, as it is: absolute for a tablespace.
        target: Vec<u8>,
    },
}

impl TarHeader {
    /// Reads a header that `src/port/tar.c` (`tarCreateHeader`) wrote: POSIX ustar, numbers in octal or, where they do not
    /// fit, in GNU's base 256. A prefix field is accepted although PostgreSQL does not use it.
    ///
    /// Errors: what is not as it must be, with the entry's name as far as it is known.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<TarHeader, (Option<String>, String)> {
        let name = &block[0..100];
        let shown = text(name).map(|name| name.escape_ascii().to_string()).ok();
        let fail = |why: String| (shown.clone(), why);

        let stated = number(&block[148..156]).map_err(|why| fail(format!("the checksum of its header {why}")))?;
        let computed = checksum(block);
        if stated != computed {
            return Err(fail(format!("its header has the checksum {computed}, but says {stated}")));
        }
        if &block[257..263] != b"ustar\0" || &block[263..265] != b"00" {
            return Err(fail("its header is not of the ustar format that PostgreSQL writes".to_owned()));
        }

        let field = |range: std::ops::Range<usize>, what: &str| {
            text(&block[range]).map_err(|why| fail(format!("its {what} {why}")))
        };
        let (name, prefix) = (field(0..100, "name")?, field(345..500, "name prefix")?);
        let target = field(157..257, "link target")?;
        let value = |range: std::ops::Range<usize>, what: &str| {
            number(&block[range]).map_err(|why| fail(format!("its {what} {why}")))
        };
        let mode = value(100..108, "mode")?;
        let size = value(124..136, "size")?;
        let mtime = value(136..148, "time")?;
        value(108..116, "user id")?;
        value(116..124, "group id")?;

        let mode = u32::try_from(mode).ok().filter(|mode| *mode <= 0o7777);
        let mode = mode.ok_or_else(|| fail("its mode has more than permission bits".to_owned()))?;
        let kind = match block[156] {
            b'0' => EntryKind::File { size },
            b'5' => EntryKind::Directory,
            b'2' if target.is_empty() => return Err(fail("it is a link that points nowhere".to_owned())),
            b'2' => EntryKind::Symlink { target: target.to_vec() },
            other => {
                return Err(fail(format!(
                    "it is of type '{}'; PostgreSQL sends files (0), directories (5) and links (2) only",
                    other.escape_ascii()
                )));
            }
        };
        let mut path = Vec::with_capacity(prefix.len() + 1 + name.len());
        if !prefix.is_empty() {
            path.extend_from_slice(prefix);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if !matches!(kind, EntryKind::File { .. }) {
            if size != 0 {
                return Err(fail(format!("it is no file, but says that {size} bytes follow")));
            }
            // Directories and links are written with a slash at the end of their names.
            if path.last() == Some(&b'/') {
                path.pop();
            }
        }
        // The server writes `./pg_wal/archive_status` where all other names are plain (`basebackup.c`, `sendDir`).
        let plain = path.strip_prefix(b"./").unwrap_or(&path);
        let path = RelativePath::new(plain).map_err(|error| fail(error.to_string()))?;
        // `print_tar_number` writes a negative time as the 64-bit number that has the same bits.
        Ok(TarHeader { path, mode, mtime: mtime as i64, kind })
    }
}

/// The sum of the header's bytes, its checksum field taken as spaces.
pub(super) fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// The text of a field: up to its first NUL, after which there may be nothing else.
fn text(field: &[u8]) -> Result<&[u8], &'static str> {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    if rest.iter().any(|&b| b != 0) { Err("has bytes after its end") } else { Ok(text) }
}

/// A numeric field: octal digits ended by spaces or NULs, or a byte 0x80 and the number in base 256.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    let Some((&first, rest)) = field.split_first() else { return Err("is not there") };
    if first == 0x80 {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().any(|&b| b != 0) {
            return Err("is larger than 64 bits");
        }
        return Ok(low.iter().fold(0, |value, &b| (value << 8) | u64::from(b)));
    }
    let digits = field.iter().take_while(|b| matches!(b, b'0'..=b'7')).count();
    let (digits, end) = field.split_at(digits);
    // A field of 12 bytes has 36 bits at most, so the shift can't overflow.
    if digits.is_empty() || end.iter().any(|b| !matches!(b, b' ' | 0)) {
        return Err("is not a number");
    }
    Ok(digits.iter().fold(0, |value, &b| (value << 3) | u64::from(b - b'0')))
}
