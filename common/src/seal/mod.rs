//! The sealed object: keys, envelope, frames, signatures. No I/O. `docs/FORMAT.md` is normative.
//!
//! Writing: a [`Draft`] says what the object is, a [`Sealer`] takes its frames and ends in a [`SealedObject`];
//! over several threads, a [`Workshop`] seals runs of frames with a [`FrameSealer`], and an [`Assembly`] puts them together.
//! Reading: [`SignedHeader::read`] trusts a header after a small read, [`Outline::read`] header and trailer after two,
//! [`Envelope::read`] a whole object; an [`Opener`] turns frames back into plaintext.
//!
//! The writing half never needs a secret of the reading half (I9): a [`Recipient`] is public. What it opens of its own, lists
//! without content, it opens with a [`ResumeKey`], which refuses every other kind.

mod compare;
mod entropy;
mod envelope;
mod error;
mod frames;
mod header;
mod keys;
mod opener;
mod resume;
mod sealer;
mod trust;
mod workshop;

pub use compare::{CompareDigest, CompareHasher, CompareKey, CompareKeyId};
pub use entropy::Entropy;
pub use envelope::{Envelope, FRAME_HEADER, FrameEntry, Outline, SIGNED_PREFIX_HINT, SignedHeader, Trailer};
pub use error::SealError;
pub use frames::{FrameSealer, SealedRun};
pub use header::{Header, Kind, RecipientStanza, Sealing, Transactions, WalSection};
pub use keys::{Identity, KeyError, Recipient, RecipientId, WriterKey, WriterPublic};
pub use opener::Opener;
pub use resume::ResumeKey;
pub use sealer::{Assembly, Draft, MAX_PLAINTEXT, ObjectDigest, SealedObject, Sealer};
pub use trust::{Role, TrustedWriter, TrustedWriters};
pub use workshop::Workshop;

#[cfg(test)]
mod tests;
