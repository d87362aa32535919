//! Paths of files below the data directory.

use std::fmt;

/// A path relative to the data directory, or to a tablespace's folder: bytes, parts separated by `/`.
///
/// No part is empty, `.` or `..`, and there is no NUL: such a path never leads out of the folder it is joined to.
/// Nothing says that it is UTF-8, because PostgreSQL does not ask that of file names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Box<[u8]>);

/// The bytes are not a path below the data directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a path below the data directory: {why}", .path.escape_ascii())]
pub struct EntryPathError {
    /// What was given.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub why: &'static str,
}

impl EntryPath {
    /// Takes over a path as a tar archive or a manifest has it: one leading `./` is dropped, because
    /// PostgreSQL writes `./pg_wal/archive_status` (`basebackup.c`, `sendDir`).
    ///
    /// Errors: an empty or absolute path, a part that is empty, `.` or `..`, a NUL.
    pub fn new(bytes: &[u8]) -> Result<EntryPath, EntryPathError> {
        let plain = bytes.strip_prefix(b"./").unwrap_or(bytes);
        let why = if plain.is_empty() {
            "it is empty"
        } else if plain.starts_with(b"/") {
            "it is absolute"
        } else if plain.contains(&0) {
            "it holds a NUL"
        } else if plain.split(|&b| b == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
            "one of its parts is empty, \".\" or \"..\""
        } else {
            return Ok(EntryPath(plain.into()));
        };
        Err(EntryPathError { path: bytes.to_vec(), why })
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text, where it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// This path below the folder `pg_tblspc/<oid>`.
    pub fn in_tablespace(&self, oid: u32) -> EntryPath {
        let mut joined = format!("pg_tblspc/{oid}/").into_bytes();
        joined.extend_from_slice(&self.0);
        EntryPath(joined.into())
    }

    /// Whether this is `folder` or lies below it.
    pub fn is_within(&self, folder: &str) -> bool {
        self.0.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// Bytes that are not printable ASCII are escaped, unless the whole path is UTF-8 without control characters.
impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_of_the_data_directory_are_refused() {
        for bytes in [
            &b""[..],
            b"./",
            b"/etc/passwd",
            b"..",
            b"../x",
            b"base/../../x",
            b"base//1",
            b"base/./1",
            b"base/",
            b".//etc",
            b"././x",
            b"a\0b",
        ] {
            assert!(EntryPath::new(bytes).is_err(), "{:?} was accepted", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn paths_are_bytes_and_print_safely() {
        let odd = EntryPath::new(b"base/\xff\n").expect("bytes are fine");
        assert_eq!(odd.to_string(), "base/\\xff\\n");
        assert_eq!(odd.as_str(), None);
        let dotted = EntryPath::new(b"./pg_wal/archive_status").expect("as the server writes it");
        assert_eq!(dotted.as_bytes(), b"pg_wal/archive_status");
        assert!(dotted.is_within("pg_wal") && !dotted.is_within("pg_wa") && !dotted.is_within("pg_wal/archive"));
        assert_eq!(
            EntryPath::new(b"PG_15/1").expect("fine").in_tablespace(16384).to_string(),
            "pg_tblspc/16384/PG_15/1"
        );
    }
}
