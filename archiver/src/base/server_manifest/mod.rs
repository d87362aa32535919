//! PostgreSQL's `backup_manifest`: read line by line as it arrives, and compared with what was received.
//!
//! The format is that of `src/backend/backup/backup_manifest.c`, versions 1 (PostgreSQL 13 to 16) and 2 (17 and
//! later, with the system identifier); the documentation's chapter "Backup Manifest Format" describes it. Each file
//! stands on a line of its own, so that the reader holds one line at a time, however many files there are (I11).

mod line;
mod received;
#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};
use walseal_common::lsn::LsnRange;
use walseal_common::repository::RelativePath;
use walseal_common::timeline::{SystemIdentifier, TimelineId};

pub use line::ListedFile;
pub use received::ReceivedFiles;

/// The longest line that is read, in bytes. A path has at most 4,096 bytes, each of which takes six as JSON.
const LONGEST_LINE: usize = 64 << 10;

/// What a manifest says beside its list of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerManifest {
    /// The cluster, from version 2 on.
    pub system_identifier: Option<SystemIdentifier>,
    /// How many files it lists.
    pub files: u64,
    /// The WAL that replay needs, newest timeline first.
    pub wal_ranges: Vec<ManifestWalRange>,
}

/// WAL of one timeline that replay needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestWalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// From where to where.
    pub range: LsnRange,
}

/// The manifest can't be read, or disagrees with what was received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A line is not as PostgreSQL writes it.
    #[error("line {line} of the server's backup manifest is not as expected: {why}")]
    Malformed {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// The manifest has a version that this program does not know.
    #[error("the server's backup manifest has version {0}; this walseal reads versions 1 and 2: use a newer one")]
    Version(u64),
    /// The manifest's own checksum is wrong.
    #[error("the server's backup manifest was changed on its way: its checksum is {computed}, but it says {stated}")]
    Checksum {
        /// SHA-256 of what arrived.
        computed: String,
        /// What its last line says.
        stated: String,
    },
    /// The manifest ends too early.
    #[error("the server's backup manifest is cut off after line {0}")]
    Truncated(u64),
    /// A file is listed, but did not arrive.
    #[error("{0} is in the server's backup manifest, but was not received, or is listed twice")]
    NotReceived(RelativePath),
    /// A file arrived, but is not listed.
    #[error("{first} was received, but is not in the server's backup manifest ({count} such files)")]
    NotListed {
        /// The first of them, by name.
        first: RelativePath,
        /// How many there are.
        count: usize,
    },
    /// A file arrived twice.
    #[error("{0} was received twice")]
    ReceivedTwice(RelativePath),
    /// A file has another size than listed.
    #[error("{path} has {received} bytes, but {listed} in the server's backup manifest")]
    Size {
        /// The file.
        path: RelativePath,
        /// Bytes listed.
        listed: u64,
        /// Bytes that arrived.
        received: u64,
    },
    /// A file has another checksum than listed.
    #[error(
        "{path} was changed on its way: its {algorithm} is {received}, but {listed} in the server's backup manifest"
    )]
    FileChecksum {
        /// The file.
        path: RelativePath,
        /// How both were computed.
        algorithm: &'static str,
        /// The checksum listed, in hexadecimal.
        listed: String,
        /// That of what arrived.
        received: String,
    },
    /// A file is listed with an algorithm that was not asked for.
    #[error("{path} has a checksum of type {listed} in the server's backup manifest, where {asked} was asked for")]
    Algorithm {
        /// The file.
        path: RelativePath,
        /// The algorithm in the manifest.
        listed: String,
        /// The one that was asked for.
        asked: &'static str,
    },
}

impl ManifestError {
    /// Whether another backup would fail in the same way. Bytes that changed on their way, or files that did, may
    /// be right the next time.
    pub fn is_permanent(&self) -> bool {
        matches!(self, ManifestError::Version(_) | ManifestError::Malformed { .. } | ManifestError::Algorithm { .. })
    }
}

/// Which lines may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Version,
    SystemIdentifier,
    FilesStart,
    /// A file; `first` may also be the end of the list.
    File {
        first: bool,
    },
    FilesEnd,
    WalRangesStart,
    WalRange,
    WalRangesEnd,
    Checksum,
    End,
}

/// Reads a manifest in whatever pieces it arrives.
pub struct ManifestReader {
    expect: Expect,
    /// The line that has begun, without its end.
    line: Vec<u8>,
    number: u64,
    sha: Sha256,
    found: ServerManifest,
}

impl Default for ManifestReader {
    fn default() -> Self {
        ManifestReader::new()
    }
}

impl ManifestReader {
    /// A reader before the first byte.
    pub fn new() -> ManifestReader {
        ManifestReader {
            expect: Expect::Version,
            line: Vec::new(),
            number: 0,
            sha: Sha256::new(),
            found: ServerManifest { system_identifier: None, files: 0, wal_ranges: Vec::new() },
        }
    }

    /// Takes the manifest's next bytes and calls `each` for every file whose line they complete. Nothing is proven
    /// before [`ManifestReader::finish`] has checked the manifest's own checksum.
    ///
    /// Errors: a line that PostgreSQL would not write, or what `each` returns.
    pub fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(ListedFile) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > LONGEST_LINE {
                return Err(ManifestError::Malformed { line: self.number + 1, why: "it is too long".to_owned() });
            }
            if piece.ends_with(b"\n") {
                self.number += 1;
                let line = std::mem::take(&mut self.line);
                self.complete(&line, each)?;
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// Says that the manifest has ended.
    ///
    /// Errors: it is cut off.
    pub fn finish(self) -> Result<ServerManifest, ManifestError> {
        if self.expect == Expect::End && self.line.is_empty() {
            Ok(self.found)
        } else {
            Err(ManifestError::Truncated(self.number))
        }
    }

    /// Takes a complete line.
    fn complete(
        &mut self,
        line: &[u8],
        each: &mut dyn FnMut(ListedFile) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        let malformed = |why: &str| ManifestError::Malformed { line: self.number, why: why.to_owned() };
        let text = std::str::from_utf8(line).map_err(|_| malformed("it is not UTF-8"))?.trim();
        if self.expect != Expect::Checksum {
            self.sha.update(line);
        }
        let (item, more) = match text.strip_suffix(',') {
            Some(item) => (item.trim_end(), true),
            None => (text, false),
        };
        let after = |list_goes_on: Expect, list_ends: Expect| if more { list_goes_on } else { list_ends };
        self.expect = match self.expect {
            Expect::Version => match line::number_after(item, "{ \"PostgreSQL-Backup-Manifest-Version\":") {
                Some(1) if more => Expect::FilesStart,
                Some(2) if more => Expect::SystemIdentifier,
                Some(version) if more => return Err(ManifestError::Version(version)),
                _ => return Err(malformed("it should say the manifest's version")),
            },
            Expect::SystemIdentifier => match line::number_after(item, "\"System-Identifier\":") {
                Some(number) if more => {
                    self.found.system_identifier = Some(SystemIdentifier(number));
                    Expect::FilesStart
                }
                _ => return Err(malformed("it should say the system identifier")),
            },
            Expect::FilesStart if text == "\"Files\": [" => Expect::File { first: true },
            Expect::FilesStart => return Err(malformed("the list of files should begin")),
            Expect::File { first: true } if text == "]," => Expect::WalRangesStart,
            Expect::File { .. } => {
                let file = ListedFile::parse(item).map_err(|why| malformed(&why))?;
                self.found.files += 1;
                each(file)?;
                after(Expect::File { first: false }, Expect::FilesEnd)
            }
            Expect::FilesEnd if text == "]," => Expect::WalRangesStart,
            Expect::FilesEnd => return Err(malformed("the list of files should end")),
            Expect::WalRangesStart if text == "\"WAL-Ranges\": [" => Expect::WalRange,
            Expect::WalRangesStart => return Err(malformed("the list of WAL ranges should begin")),
            Expect::WalRange => {
                self.found.wal_ranges.push(line::wal_range(item).map_err(|why| malformed(&why))?);
                after(Expect::WalRange, Expect::WalRangesEnd)
            }
            Expect::WalRangesEnd if text == "]," => Expect::Checksum,
            Expect::WalRangesEnd => return Err(malformed("the list of WAL ranges should end")),
            Expect::Checksum => {
                let stated = text.strip_prefix("\"Manifest-Checksum\": \"").and_then(|rest| rest.strip_suffix("\"}"));
                let stated = stated.ok_or_else(|| malformed("it should hold the manifest's checksum"))?;
                let computed = line::hex(&std::mem::take(&mut self.sha).finalize());
                if !stated.eq_ignore_ascii_case(&computed) {
                    return Err(ManifestError::Checksum { computed, stated: stated.to_owned() });
                }
                Expect::End
            }
            Expect::End => return Err(malformed("the manifest should have ended")),
        };
        Ok(())
    }
}
