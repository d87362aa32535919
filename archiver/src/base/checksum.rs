//! The checksum that PostgreSQL's backup manifest has for each file.

use std::fmt;

use sha2::{Digest, Sha256};

/// How the server computes the checksum of each file for its manifest (`MANIFEST_CHECKSUMS` of BASE_BACKUP).
///
/// We ask for CRC-32C: it has to find only what went wrong between the server's buffer and ours, at the server's
/// cost. With SSE 4.2 or the ARMv8 instructions it runs at 10 GB/s and more, where SHA-256 without its own
/// instructions does about 0.5 GB/s on one core, on the machine that has queries to answer. What lies in the
/// repository is guarded by cryptographic digests and signatures of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumAlgorithm {
    /// None: only sizes are compared.
    None,
    /// CRC-32C, the default.
    #[default]
    Crc32c,
    /// SHA-256.
    Sha256,
}

impl ChecksumAlgorithm {
    /// The algorithm of this name in a manifest, or `None` for one that we never ask for.
    pub fn from_name(name: &str) -> Option<ChecksumAlgorithm> {
        [ChecksumAlgorithm::None, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Sha256]
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The name that BASE_BACKUP and manifests use.
    pub fn name(self) -> &'static str {
        match self {
            ChecksumAlgorithm::None => "NONE",
            ChecksumAlgorithm::Crc32c => "CRC32C",
            ChecksumAlgorithm::Sha256 => "SHA256",
        }
    }
}

/// The checksum of one file, computed while its bytes pass.
#[derive(Clone)]
pub enum FileDigest {
    /// Nothing is computed.
    None,
    /// CRC-32C so far.
    Crc32c(u32),
    /// SHA-256 so far.
    Sha256(Sha256),
}

impl FileDigest {
    /// Begins a file.
    pub fn new(algorithm: ChecksumAlgorithm) -> FileDigest {
        match algorithm {
            ChecksumAlgorithm::None => FileDigest::None,
            ChecksumAlgorithm::Crc32c => FileDigest::Crc32c(0),
            ChecksumAlgorithm::Sha256 => FileDigest::Sha256(Sha256::new()),
        }
    }

    /// Adds the file's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            FileDigest::None => {}
            FileDigest::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            FileDigest::Sha256(sha) => sha.update(bytes),
        }
    }

    /// Ends the file.
    pub fn finish(self) -> FileChecksum {
        match self {
            FileDigest::None => FileChecksum::None,
            FileDigest::Crc32c(crc) => FileChecksum::Crc32c(crc),
            FileDigest::Sha256(sha) => FileChecksum::Sha256(Box::new(sha.finalize().into())),
        }
    }
}

/// The checksum of a whole file.
#[derive(Clone, PartialEq, Eq)]
pub enum FileChecksum {
    /// There is none.
    None,
    /// CRC-32C.
    Crc32c(u32),
    /// SHA-256, elsewhere: it is never asked for, and millions of the others are held.
    Sha256(Box<[u8; 32]>),
}

impl FileChecksum {
    /// The algorithm that made it.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        match self {
            FileChecksum::None => ChecksumAlgorithm::None,
            FileChecksum::Crc32c(_) => ChecksumAlgorithm::Crc32c,
            FileChecksum::Sha256(_) => ChecksumAlgorithm::Sha256,
        }
    }

    /// Whether a manifest's bytes say the same. A manifest holds a CRC-32C as it lies in the server's memory
    /// (`checksum_helper.c`), so its byte order is the server's; both are taken.
    pub fn agrees_with(&self, listed: &[u8]) -> bool {
        match self {
            FileChecksum::None => listed.is_empty(),
            FileChecksum::Crc32c(crc) => listed == crc.to_le_bytes() || listed == crc.to_be_bytes(),
            FileChecksum::Sha256(sha) => listed == sha.as_slice(),
        }
    }
}

/// As a manifest of a little-endian server has it.
impl fmt::Display for FileChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|b| write!(f, "{b:02x}"));
        match self {
            FileChecksum::None => f.write_str("none"),
            FileChecksum::Crc32c(crc) => hex(f, &crc.to_le_bytes()),
            FileChecksum::Sha256(sha) => hex(f, sha.as_slice()),
        }
    }
}

impl fmt::Debug for FileChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        let of = |algorithm| {
            let mut digest = FileDigest::new(algorithm);
            digest.update(b"1234");
            digest.update(b"56789");
            digest.finish()
        };
        // RFC 3720, appendix B.4 uses the same polynomial; the check value of CRC-32C is E3069283.
        assert_eq!(of(ChecksumAlgorithm::Crc32c), FileChecksum::Crc32c(0xE306_9283));
        assert_eq!(of(ChecksumAlgorithm::Crc32c).to_string(), "839206e3");
        assert_eq!(
            of(ChecksumAlgorithm::Sha256).to_string(),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
        assert!(of(ChecksumAlgorithm::None).agrees_with(b"") && !of(ChecksumAlgorithm::None).agrees_with(b"x"));
    }
}
