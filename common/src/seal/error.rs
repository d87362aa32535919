//! Why an object was refused.

/// An object could not be sealed, or was refused on reading. Every variant names one cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The first bytes are not those of a walseal object.
    #[error("this is not a walseal object: its first bytes are wrong")]
    NotAnObject,
    /// A format version of the future, or damage.
    #[error("format version {0} is not known here; this program reads version 1: a newer walseal can read it")]
    UnknownVersion(u16),
    /// A kind that this program does not know.
    #[error("objects of kind \"{0}\" are not known here; a newer walseal can read them")]
    UnknownKind(String),
    /// The object ends before it should.
    #[error("the object is truncated: {0}")]
    Truncated(&'static str),
    /// The object's bytes do not add up.
    #[error("the object's structure is damaged: {0}")]
    Structure(String),
    /// The header is not readable JSON or lacks a member.
    #[error("the header is not readable: {0}")]
    Header(String),
    /// The trailer is not readable JSON or lacks a member.
    #[error("the trailer is not readable: {0}")]
    Trailer(String),
    /// The object is another one than was asked for.
    #[error("this is the object \"{found}\", not \"{expected}\": it was renamed or swapped")]
    WrongName {
        /// The name in the header.
        found: String,
        /// The name that was asked for.
        expected: String,
    },
    /// The object belongs to another cluster.
    #[error("this object belongs to cluster {found}, not to {expected}")]
    WrongCluster {
        /// The system identifier in the header.
        found: String,
        /// The one that was asked for.
        expected: String,
    },
    /// Nobody told this program to trust the writer.
    #[error("written by {0}, which is not a trusted writer; if it is yours, add it: keys.trusted_writers = [\"{0}\"]")]
    UntrustedWriter(String),
    /// The writer is trusted, but not for this kind of object.
    #[error("written by {writer}, which is not trusted for objects of kind \"{kind}\" (its roles: {roles})")]
    WrongRole {
        /// The writer's public key.
        writer: String,
        /// The object's kind.
        kind: &'static str,
        /// The roles it is trusted for.
        roles: String,
    },
    /// A trusted writer signed it, under a name of another one's.
    #[error("it was signed by {0}, and stands under the name of another writer")]
    OtherWriter(String),
    /// A signature does not belong to these bytes.
    #[error("the {0}'s signature does not verify: these bytes are not what the writer signed")]
    Signature(&'static str),
    /// The stored bytes of a frame changed.
    #[error("frame {0} is damaged: its checksum does not match (bit rot or tampering)")]
    FrameDamaged(u64),
    /// A frame was replaced by other bytes with a right checksum.
    #[error("frame {0} is not the one its writer signed")]
    FrameReplaced(u64),
    /// The data key opens, but a frame does not decrypt.
    #[error("frame {0} does not decrypt: it was moved, or sealed under another key")]
    FrameForeign(u64),
    /// A frame's plaintext is not as the trailer says.
    #[error("frame {0} does not decompress to what its writer recorded")]
    FrameContent(u64),
    /// None of the identities at hand is a recipient of the object.
    #[error(
        "none of the identities given here opens this object: it is sealed to the recipients {0} (the recovery card says \
         which these are); name the identity of one of them in keys.identity_files"
    )]
    WrongIdentity(String),
    /// The sealed data key does not open although the recipient matches.
    #[error("the object's data key does not open with identity {0}: the header was not made for it")]
    DataKey(String),
    /// The object has no frames to open.
    #[error("objects of kind \"{0}\" hold nothing sealed")]
    NothingSealed(&'static str),
    /// An archiver was asked to open something else than its own lists (I9).
    #[error(
        "objects of kind \"{0}\" are not for archivers to open; they open nothing but their own of kind \"resume\""
    )]
    NotForArchivers(&'static str),
    /// More plaintext than one object or frame may hold.
    #[error("{0} is more than one object may hold")]
    TooLarge(String),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    NoEntropy(String),
    /// Compression or key sealing failed inside a library.
    #[error("sealing failed: {0}")]
    Sealing(String),
}

impl SealError {
    /// Whether reading the same bytes again must fail again. Always: bytes do not heal by waiting. A caller that
    /// read them over a network may fetch them again once.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, SealError::NoEntropy(_))
    }

    /// Whether it is this one object that nobody can use, so that whoever does not need it can go on. Not so when the
    /// reader lacks a key or trust: then all objects of that writer or for that recipient are alike.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            SealError::UntrustedWriter(_)
                | SealError::WrongRole { .. }
                | SealError::WrongIdentity(_)
                | SealError::NotForArchivers(_)
                | SealError::NoEntropy(_)
                | SealError::Sealing(_)
        )
    }
}
