//! Turning frames back into plaintext, with an identity.

use std::fmt;
use std::io::Cursor;

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR};
use zeroize::Zeroizing;

use super::envelope::{SignedHeader, Trailer};
use super::frames::frame_nonce;
use super::sealer::{DATA_KEY_INFO, data_key_context};
use super::{Identity, SealError, Sealing};

/// Opens frames of one object. Each frame is checked against the signed trailer before it is decrypted, unless
/// [`Opener::of_compared`] says that all bytes of the object were.
pub struct Opener {
    trailer: Trailer,
    cipher: XChaCha20Poly1305,
    header_digest: [u8; 32],
    nonce: [u8; 15],
    decompressor: zstd::bulk::Decompressor<'static>,
    scratch: Vec<u8>,
    compared: bool,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({} frames)", self.trailer.frames.len())
    }
}

impl Opener {
    /// An opener for the object with this header and trailer.
    ///
    /// Errors: none of `identities` is a recipient; the data key was sealed for another object.
    pub fn new(signed: &SignedHeader, trailer: Trailer, identities: &[Identity]) -> Result<Opener, SealError> {
        let header = &signed.header;
        let sealing = header.sealed.as_ref().ok_or(SealError::NothingSealed(header.kind.word()))?;
        let data_key = data_key(sealing, identities, &data_key_context(header.cluster, &header.name))?;
        Ok(Opener {
            trailer,
            cipher: XChaCha20Poly1305::new((&*data_key).into()),
            header_digest: signed.digest,
            nonce: sealing.nonce,
            decompressor: zstd::bulk::Decompressor::new().map_err(|error| SealError::Sealing(error.to_string()))?,
            scratch: Vec::new(),
            compared: false,
        })
    }

    /// For an object of which all bytes were compared with a digest that a trusted writer signed: its frames are not compared once
    /// more, one by one.
    #[must_use]
    pub fn of_compared(self) -> Opener {
        Opener { compared: true, ..self }
    }

    /// Opens frame `number`, whose stored bytes with length and checksum are `bytes`, and appends its plaintext to
    /// `plain`, which grows where it has no room for it.
    ///
    /// Errors: names the frame and what is wrong with it; `plain` is then as long as before.
    pub fn frame_into(&mut self, number: usize, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), SealError> {
        let index = number as u64;
        let (entry, ciphertext) = match self.compared {
            true => self.trailer.measured_frame(number, bytes)?,
            false => self.trailer.verified_frame(number, bytes)?,
        };
        let nonce = frame_nonce(&self.nonce, index, number + 1 == self.trailer.frames.len());
        self.scratch.clear();
        self.scratch.extend_from_slice(ciphertext);
        self.cipher
            .decrypt_in_place(&nonce, &self.header_digest, &mut self.scratch)
            .map_err(|_| SealError::FrameForeign(index))?;
        let length = entry.plain as usize;
        let before = plain.len();
        // Not `resize`: nobody has to clear what is written over next.
        plain.reserve(length);
        let mut target = Cursor::new(&mut *plain);
        target.set_position(before as u64);
        // The target has no more room than it had or was just made: a bomb inflates to its end, which is address space, and no further.
        match self.decompressor.decompress_to_buffer(&self.scratch, &mut target) {
            Ok(written) if written == length => Ok(()),
            _ => {
                plain.truncate(before);
                Err(SealError::FrameContent(index))
            }
        }
    }
}

fn data_key(sealing: &Sealing, identities: &[Identity], context: &str) -> Result<Zeroizing<[u8; 32]>, SealError> {
    for identity in identities {
        let id = identity.recipient().id();
        let Some(stanza) = sealing.recipients.iter().find(|stanza| stanza.id == id) else { continue };
        let broken = || SealError::DataKey(identity.recipient().to_string());
        let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&stanza.enc).map_err(|_| broken())?;
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &identity.key,
            &enc,
            DATA_KEY_INFO,
            &stanza.key,
            context.as_bytes(),
        )
        .map(Zeroizing::new)
        .map_err(|_| broken())?;
        let key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| broken())?;
        return Ok(Zeroizing::new(key));
    }
    let recipients: Vec<String> = sealing.recipients.iter().map(|stanza| stanza.id.to_string()).collect();
    Err(SealError::WrongIdentity(recipients.join(", ")))
}
