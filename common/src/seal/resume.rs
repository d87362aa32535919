//! The one secret that an archiver can open objects with: those of kind `resume`, which it wrote for itself (I9).

use std::fmt;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::{Draft, Envelope, Identity, Kind, Recipient, SealError, Sealer, WriterKey};

/// BLAKE3's context for the secret.
const CONTEXT: &str = "walseal 2026-11 resume identity";

/// Seals and opens `resume` objects: lists of files and digests, never their content.
///
/// The identity behind it follows from the writer key and stays in here: no other kind is sealed to it, and whatever else is
/// brought is refused before the key is used (I9).
#[derive(Clone)]
pub struct ResumeKey {
    identity: Identity,
}

impl ResumeKey {
    pub(super) fn derive(signing: &SigningKey) -> Option<ResumeKey> {
        let secret = Zeroizing::new(blake3::derive_key(CONTEXT, signing.as_bytes()));
        Identity::from_secret(&secret).map(|identity| ResumeKey { identity })
    }

    /// The public half, to which `resume` objects are sealed.
    pub fn recipient(&self) -> &Recipient {
        self.identity.recipient()
    }

    /// Begins a `resume` object.
    ///
    /// Errors: `draft` is of another kind; as [`Draft::seal`].
    pub fn seal(&self, draft: Draft, writer: &WriterKey) -> Result<Sealer, SealError> {
        only_resume(draft.kind)?;
        draft.seal(std::slice::from_ref(self.recipient()), writer)
    }

    /// All plaintext of a `resume` object, at most 16 MiB.
    ///
    /// Errors: it is of another kind, or of another writer; whatever is wrong with a frame.
    pub fn open(&self, envelope: &Envelope) -> Result<Vec<u8>, SealError> {
        only_resume(envelope.header().kind)?;
        envelope.read_all(std::slice::from_ref(&self.identity))
    }
}

fn only_resume(kind: Kind) -> Result<(), SealError> {
    if kind == Kind::Resume { Ok(()) } else { Err(SealError::NotForArchivers(kind.word())) }
}

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResumeKey(of {})", self.recipient())
    }
}
