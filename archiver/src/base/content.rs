//! What of an arriving file is to be stored: most files as they come, some in another form.

use walseal_common::repository::{FileEntry, RelativePath};

use super::incremental::{IncrementalError, IncrementalReader};

/// How a file is stored.
#[derive(Debug)]
pub enum Content {
    /// As it comes.
    Whole,
    /// Its changed blocks came: only those, over what the parent has.
    Changed {
        /// Reads what comes.
        reader: IncrementalReader,
        /// The file's line in the parent, with extents by the numbers of known objects.
        before: Box<FileEntry>,
    },
    /// The `backup_label` of a backup of changed blocks, held until it is whole.
    Label(Vec<u8>),
}

/// The longest `backup_label`: a label of 1,024 bytes, and some lines.
const LONGEST_LABEL: usize = 64 << 10;

/// What begins lines that a whole data directory's `backup_label` does not have. With them PostgreSQL would not start
/// (`xlogrecovery.c`, `read_backup_label`).
const INCREMENTAL_LINE: &[u8] = b"INCREMENTAL FROM ";

impl Content {
    /// How the file at `path` of a backup of changed blocks is stored, where `before` is what the parent has of a file of which
    /// only those came.
    pub fn of(path: &RelativePath, size: u64, before: Option<FileEntry>) -> Content {
        match before {
            Some(before) => Content::Changed { reader: IncrementalReader::new(size), before: Box::new(before) },
            None if path.as_bytes() == b"backup_label" => Content::Label(Vec::new()),
            None => Content::Whole,
        }
    }

    /// Takes the file's next bytes, and returns those that are to be stored.
    ///
    /// Errors: they are not as the server writes them.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], IncrementalError> {
        match self {
            Content::Whole => Ok(bytes),
            Content::Changed { reader, .. } => reader.push(bytes),
            Content::Label(held) if held.len() + bytes.len() <= LONGEST_LABEL => {
                held.extend_from_slice(bytes);
                Ok(&[])
            }
            Content::Label(_) => Err(IncrementalError(format!("it has more than {LONGEST_LABEL} bytes"))),
        }
    }

    /// What is to be stored after the last byte has come.
    pub fn rest(&mut self) -> Vec<u8> {
        match self {
            Content::Label(held) => {
                let lines = held.split_inclusive(|byte| *byte == b'\n');
                lines.filter(|line| !line.starts_with(INCREMENTAL_LINE)).flatten().copied().collect()
            }
            Content::Whole | Content::Changed { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_a_backup_of_changed_blocks_becomes_one_that_postgresql_starts_from() {
        let path = RelativePath::new(b"backup_label").expect("a path");
        let mut content = Content::of(&path, 99, None);
        let sent = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nLABEL: INCREMENTAL FROM here\n\
                     INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\nSTART TIMELINE: 1\n";
        for bytes in sent.chunks(7) {
            assert_eq!(content.take(bytes), Ok(&b""[..]));
        }
        let kept = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nLABEL: INCREMENTAL FROM here\n\
                     START TIMELINE: 1\n";
        assert_eq!(content.rest(), kept);
        assert!(content.take(&[b'x'; LONGEST_LABEL]).is_err());
    }
}
