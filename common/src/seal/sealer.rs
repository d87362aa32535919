//! Making an object: header, frames, trailer, in one pass.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{OpModeS, Serializable};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::entropy::{Drawn, System};
use super::envelope::{FOOTER_MAGIC, MAGIC, VERSION, header_message, trailer_message};
use super::frames::{Compressed, FrameSealer, SealedRun};
use super::header::FRAME_SIZES;
use super::workshop::Workshop;
use super::{Entropy, Header, Kind, Recipient, RecipientStanza, SealError, Sealing, WalSection, WriterKey};
use crate::buffer::Spare;
use crate::timeline::SystemIdentifier;

/// Most bytes of plaintext in one object: memory in flight is bounded by it, whatever the segment size (I11).
pub const MAX_PLAINTEXT: u64 = 16 << 20;

/// What an object will be, before it has content.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the object is.
    pub kind: Kind,
    /// The cluster it belongs to.
    pub cluster: SystemIdentifier,
    /// Its name in the repository; the data key is bound to it.
    pub name: String,
    /// Which WAL it holds, for the kinds that hold some.
    pub wal: Option<WalSection>,
    /// Most bytes of plaintext in one frame, 64 KiB to 1 MiB.
    pub frame_size: u32,
    /// zstd's level.
    pub level: i32,
}

/// Digest of all bytes of an object, by which labels refer to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectDigest([u8; 32]);
super::compare::hexadecimal!(ObjectDigest, 32);

impl ObjectDigest {
    /// The digest of an object's bytes.
    pub fn of(bytes: &[u8]) -> ObjectDigest {
        ObjectDigest(*blake3::hash(bytes).as_bytes())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A finished object, ready to be stored.
#[derive(Clone, Debug)]
pub struct SealedObject {
    /// Its name in the repository.
    pub name: String,
    /// All its bytes.
    pub bytes: Bytes,
    /// Bytes of plaintext in its frames.
    pub plain_size: u64,
}

impl SealedObject {
    /// The digest of all its bytes: some milliseconds for the largest. Nothing refers so to objects of WAL.
    pub fn digest(&self) -> ObjectDigest {
        ObjectDigest::of(&self.bytes)
    }
}

#[derive(Serialize)]
struct TrailerOut<'a, B: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plain_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a B>,
}

impl Draft {
    /// Begins an object with frames, sealed to all `recipients`, with the operating system's randomness.
    ///
    /// Errors: no random bytes; no recipient at all (there is no plaintext mode).
    pub fn seal(self, recipients: &[Recipient], writer: &WriterKey) -> Result<Sealer, SealError> {
        self.seal_with(recipients, writer, &mut System, Timestamp::now())
    }

    /// As [`Draft::seal`], with randomness and clock given: for test vectors only.
    pub fn seal_with(
        self,
        recipients: &[Recipient],
        writer: &WriterKey,
        entropy: &mut dyn Entropy,
        created: Timestamp,
    ) -> Result<Sealer, SealError> {
        let (frames, assembly) = self.open_with(recipients, writer, entropy, created)?;
        Ok(Sealer { compressor: frames.compressor()?, frames, assembly, waiting: None, workshop: None })
    }

    /// As [`Draft::seal`], with the compressor and the buffer of a workshop, to which they go back.
    ///
    /// Errors: as [`Draft::seal`].
    pub fn seal_in(
        self,
        workshop: &Workshop,
        recipients: &[Recipient],
        writer: &WriterKey,
    ) -> Result<Sealer, SealError> {
        let (frames, mut assembly) = self.open_with(recipients, writer, &mut System, Timestamp::now())?;
        let compressor = workshop.compressor(&frames)?;
        assembly.reserve_in(workshop);
        Ok(Sealer { compressor, frames, assembly, waiting: None, workshop: Some(workshop.clone()) })
    }

    /// Begins an object whose frames are sealed in runs, on any thread and in any order, and put together in order.
    ///
    /// Errors: as [`Draft::seal`].
    pub fn open(self, recipients: &[Recipient], writer: &WriterKey) -> Result<(FrameSealer, Assembly), SealError> {
        self.open_with(recipients, writer, &mut System, Timestamp::now())
    }

    pub(super) fn open_with(
        self,
        recipients: &[Recipient],
        writer: &WriterKey,
        entropy: &mut dyn Entropy,
        created: Timestamp,
    ) -> Result<(FrameSealer, Assembly), SealError> {
        if recipients.is_empty() {
            return Err(SealError::Sealing("no recipient is given, and nothing is ever stored unsealed".to_owned()));
        }
        if !FRAME_SIZES.contains(&self.frame_size) {
            return Err(SealError::TooLarge(format!("a frame of {} bytes", self.frame_size)));
        }
        let mut data_key = Zeroizing::new([0; 32]);
        let mut nonce = [0; 15];
        entropy.fill(data_key.as_mut_slice())?;
        entropy.fill(&mut nonce)?;
        let stanzas = recipients
            .iter()
            .map(|recipient| stanza(recipient, &data_key, self.cluster, &self.name, entropy))
            .collect::<Result<Vec<_>, _>>()?;
        let sealed = Sealing { codec: "zstd".to_owned(), frame_size: self.frame_size, nonce, recipients: stanzas };
        let (frame_size, level) = (self.frame_size as usize, self.level);
        let ((buffer, name), header_digest) = begin(self, Some(sealed), writer, created)?;
        let frames = FrameSealer::new(&data_key, nonce, header_digest, frame_size, level);
        let writer = writer.clone();
        let buffer = Spare::alone(buffer);
        let assembly =
            Assembly { name, buffer, header_digest, table: Vec::new(), frames: 0, plain_size: 0, ended: false, writer };
        Ok((frames, assembly))
    }

    /// Makes an object without frames: its `body` is plain, and signed.
    pub fn sign<B: Serialize>(self, writer: &WriterKey, body: &B) -> Result<SealedObject, SealError> {
        self.sign_at(writer, body, Timestamp::now())
    }

    /// As [`Draft::sign`], with the clock given: for test vectors only.
    pub fn sign_at<B: Serialize>(
        self,
        writer: &WriterKey,
        body: &B,
        created: Timestamp,
    ) -> Result<SealedObject, SealError> {
        let ((buffer, name), digest) = begin(self, None, writer, created)?;
        finish(
            name,
            Spare::alone(buffer),
            &digest,
            writer,
            &TrailerOut { frames: None, plain_size: None, body: Some(body) },
            0,
        )
    }
}

fn stanza(
    recipient: &Recipient,
    data_key: &[u8; 32],
    cluster: SystemIdentifier,
    name: &str,
    entropy: &mut dyn Entropy,
) -> Result<RecipientStanza, SealError> {
    let mut drawn = Drawn::from(entropy)?;
    let (enc, sealed) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient.key,
        DATA_KEY_INFO,
        data_key,
        data_key_context(cluster, name).as_bytes(),
        &mut drawn,
    )
    .map_err(|error| SealError::Sealing(error.to_string()))?;
    let key = <[u8; 48]>::try_from(sealed).map_err(|_| SealError::Sealing("HPKE gave a wrong length".to_owned()))?;
    if drawn.overdrawn() {
        return Err(SealError::Sealing("HPKE took more randomness than a key has".to_owned()));
    }
    Ok(RecipientStanza { id: recipient.id(), enc: enc.to_bytes().into(), key })
}

/// HPKE's info for data keys.
pub(super) const DATA_KEY_INFO: &[u8] = b"walseal data key 1";

/// HPKE's associated data: binds a data key to cluster and object name.
pub(super) fn data_key_context(cluster: SystemIdentifier, name: &str) -> String {
    format!("{cluster}\n{name}")
}

type Begun = ((Vec<u8>, String), [u8; 32]);

fn begin(draft: Draft, sealed: Option<Sealing>, writer: &WriterKey, created: Timestamp) -> Result<Begun, SealError> {
    let name = draft.name.clone();
    let header = Header {
        kind: draft.kind,
        cluster: draft.cluster,
        name: draft.name,
        writer: writer.public().to_string(),
        created,
        sealed,
        wal: draft.wal,
    };
    let json = serde_json::to_vec(&header).map_err(|error| SealError::Sealing(error.to_string()))?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|length| *length <= super::envelope::MAX_HEADER)
        .ok_or_else(|| SealError::TooLarge(format!("a header of {} bytes", json.len())))?;
    let mut buffer = Vec::with_capacity(json.len() + (64 << 10));
    buffer.extend_from_slice(MAGIC);
    buffer.extend_from_slice(&VERSION.to_le_bytes());
    buffer.extend_from_slice(&[0, 0]);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&json);
    let digest = *blake3::hash(&buffer).as_bytes();
    let signature = writer.sign(&header_message(&buffer));
    buffer.extend_from_slice(&signature);
    Ok(((buffer, name), digest))
}

fn finish<B: Serialize>(
    name: String,
    mut object: Spare,
    header_digest: &[u8; 32],
    writer: &WriterKey,
    trailer: &TrailerOut<'_, B>,
    plain_size: u64,
) -> Result<SealedObject, SealError> {
    let json = serde_json::to_vec(trailer).map_err(|error| SealError::Sealing(error.to_string()))?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|length| *length <= super::envelope::MAX_TRAILER)
        .ok_or_else(|| SealError::TooLarge(format!("a trailer of {} bytes", json.len())))?;
    let signature = writer.sign(&trailer_message(header_digest, &json));
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&json);
    checksum.update(&signature);
    let buffer = object.vec();
    buffer.reserve_exact(json.len() + 80);
    buffer.extend_from_slice(&json);
    buffer.extend_from_slice(&signature);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&checksum.finalize().to_le_bytes());
    buffer.extend_from_slice(FOOTER_MAGIC);
    let bytes = object.freeze();
    Ok(SealedObject { name, bytes, plain_size })
}

/// An object that is being put together from runs of sealed frames, in order.
pub struct Assembly {
    name: String,
    buffer: Spare,
    header_digest: [u8; 32],
    table: Vec<u8>,
    frames: u64,
    plain_size: u64,
    /// Whether the last frame is in: no other may follow.
    ended: bool,
    writer: WriterKey,
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assembly({}, {} frames)", self.name, self.frames)
    }
}

impl Assembly {
    /// Takes a buffer of the workshop, so that ciphertext is not moved while it grows; it goes back there once the object is gone.
    pub fn reserve_in(&mut self, workshop: &Workshop) {
        let mut buffer = workshop.object();
        buffer.extend(self.buffer.as_ref());
        self.buffer = buffer;
    }

    /// Adds the run that follows.
    ///
    /// Errors: another one should follow, or none; more than [`MAX_PLAINTEXT`] bytes of plaintext.
    pub fn append(&mut self, run: &SealedRun) -> Result<(), SealError> {
        let plain_size = self.plain_size + run.plain;
        if self.ended || run.first != self.frames {
            let why = format!("frame {} came where frame {} should", run.first, self.frames);
            return Err(SealError::Sealing(why));
        }
        if plain_size > MAX_PLAINTEXT {
            return Err(SealError::TooLarge(format!("{plain_size} bytes of plaintext")));
        }
        self.buffer.extend(run.bytes.as_ref());
        self.table.extend_from_slice(&run.table);
        self.frames += run.count();
        self.plain_size = plain_size;
        self.ended = run.last;
        Ok(())
    }

    /// Ends the object, with a plain body in its trailer where there is one.
    ///
    /// Errors: its last frame is missing.
    pub fn finish<B: Serialize>(self, body: Option<&B>) -> Result<SealedObject, SealError> {
        if !self.ended {
            return Err(SealError::Sealing(format!("the last of {} frames is missing", self.frames)));
        }
        let trailer =
            TrailerOut { frames: Some(STANDARD.encode(&self.table)), plain_size: Some(self.plain_size), body };
        finish(self.name, self.buffer, &self.header_digest, &self.writer, &trailer, self.plain_size)
    }
}

/// An object that is being made on one thread. Frames go in, [`Sealer::finish`] ends it.
pub struct Sealer {
    frames: FrameSealer,
    assembly: Assembly,
    compressor: zstd::bulk::Compressor<'static>,
    /// The last frame, at the end of the buffer: it is encrypted when it is known whether another one follows.
    waiting: Option<Compressed>,
    /// Where the compressor goes back to.
    workshop: Option<Workshop>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({}, {} frames)", self.assembly.name, self.assembly.frames)
    }
}

impl Sealer {
    /// Adds one frame with this plaintext. Returns its number, from 0.
    ///
    /// Errors: more bytes than `frame_size`, or more than [`MAX_PLAINTEXT`] in the object.
    pub fn frame(&mut self, plain: &[u8]) -> Result<u64, SealError> {
        let plain_size = self.plain_size() + plain.len() as u64;
        if plain_size > MAX_PLAINTEXT {
            return Err(SealError::TooLarge(format!("{plain_size} bytes of plaintext")));
        }
        self.encrypt_waiting(false)?;
        self.waiting = Some(self.frames.compress(&mut self.compressor, plain, self.assembly.buffer.vec())?);
        Ok(self.assembly.frames)
    }

    /// Adds frames of `frame_size` bytes for all of `plain`.
    pub fn frames_of(&mut self, plain: &[u8]) -> Result<(), SealError> {
        plain.chunks(self.frames.frame_size()).try_for_each(|chunk| self.frame(chunk).map(|_| ()))
    }

    /// Bytes of plaintext so far.
    pub fn plain_size(&self) -> u64 {
        self.assembly.plain_size + self.waiting.map_or(0, |waiting| u64::from(waiting.plain))
    }

    /// Bytes of the object so far.
    pub fn stored_size(&self) -> u64 {
        self.assembly.buffer.as_ref().len() as u64
    }

    /// Ends the object. One without any frame gets an empty one.
    pub fn finish(self) -> Result<SealedObject, SealError> {
        self.finish_with::<()>(None)
    }

    /// Ends the object, with a plain body in its trailer.
    pub fn finish_with<B: Serialize>(mut self, body: Option<&B>) -> Result<SealedObject, SealError> {
        if self.waiting.is_none() {
            self.frame(&[])?;
        }
        self.encrypt_waiting(true)?;
        if let Some(workshop) = self.workshop {
            workshop.give_back(self.frames.level(), self.compressor);
        }
        self.assembly.finish(body)
    }

    fn encrypt_waiting(&mut self, last: bool) -> Result<(), SealError> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        let Assembly { buffer, table, frames, plain_size, ended, .. } = &mut self.assembly;
        self.frames.encrypt(*frames, last, waiting, buffer.vec(), table)?;
        *frames += 1;
        *plain_size += u64::from(waiting.plain);
        *ended = last;
        Ok(())
    }
}
