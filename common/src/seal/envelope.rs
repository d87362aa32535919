//! Reading an object's plain parts: header, trailer, the table of frames. Nothing here needs a key that opens.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::sealer::MAX_PLAINTEXT;
use super::{Header, Identity, Opener, SealError, TrustedWriters};
use crate::timeline::SystemIdentifier;

/// The first bytes of every object.
pub(super) const MAGIC: &[u8; 8] = b"WALSEAL\0";
/// The last bytes of every object.
pub(super) const FOOTER_MAGIC: &[u8; 8] = b"WALSEND\0";
/// The one format version.
pub(super) const VERSION: u16 = 1;
/// Most bytes in a header.
pub(super) const MAX_HEADER: u32 = 1 << 20;
/// Most bytes in a trailer.
pub(super) const MAX_TRAILER: u32 = 256 << 20;

const FIXED: usize = 16;
const SIGNATURE: usize = 64;
const FOOTER: usize = 16;
/// Bytes before each frame's ciphertext: its length and its checksum.
pub const FRAME_HEADER: usize = 8;
/// Bytes per frame in the trailer's table.
const TABLE_ENTRY: usize = 24;

/// How many bytes of an object to read for its header: enough for several recipients. When it is not,
/// [`SignedHeader::length`] says how many are.
pub const SIGNED_PREFIX_HINT: u64 = 4096;

/// What the writer signs for a header.
pub(super) fn header_message(signed: &[u8]) -> Vec<u8> {
    [b"walseal header 1\0", signed].concat()
}

/// What the writer signs for a trailer.
pub(super) fn trailer_message(header_digest: &[u8; 32], json: &[u8]) -> Vec<u8> {
    [&b"walseal trailer 1\0"[..], header_digest, json].concat()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn signature_at(bytes: &[u8], at: usize) -> Option<[u8; SIGNATURE]> {
    bytes.get(at..at.checked_add(SIGNATURE)?)?.try_into().ok()
}

/// A header whose signature was verified.
#[derive(Clone, Debug)]
pub struct SignedHeader {
    /// What it says.
    pub header: Header,
    /// Digest of the signed bytes: associated data of every frame.
    pub(super) digest: [u8; 32],
    /// Where the frames begin.
    pub(super) frames_at: usize,
}

impl SignedHeader {
    /// Bytes from the start of an object to the end of its header's signature, as its first 16 bytes say.
    ///
    /// Errors: not an object, or a version that is not known.
    pub fn length(prefix: &[u8]) -> Result<u64, SealError> {
        let magic = prefix.get(..MAGIC.len()).ok_or(SealError::Truncated("it ends within its first bytes"))?;
        if magic != MAGIC {
            return Err(SealError::NotAnObject);
        }
        let fixed = prefix.get(MAGIC.len()..FIXED).ok_or(SealError::Truncated("it ends within its first bytes"))?;
        let version = u16::from_le_bytes([fixed[0], fixed[1]]);
        if version != VERSION {
            return Err(SealError::UnknownVersion(version));
        }
        if fixed[2..4] != [0, 0] {
            return Err(SealError::Structure("bytes 10 and 11 are not zero".to_owned()));
        }
        let length = u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        if length > MAX_HEADER {
            return Err(SealError::Structure(format!("a header of {length} bytes is too long")));
        }
        Ok((FIXED + length as usize + SIGNATURE) as u64)
    }

    /// Reads and verifies the header of the object `name` of `cluster` from its first bytes.
    ///
    /// Errors: anything that is not exactly what a trusted writer signed for this name;
    /// [`SealError::Truncated`] also when `prefix` is shorter than [`SignedHeader::length`].
    pub fn read(
        prefix: &[u8],
        trust: &TrustedWriters,
        cluster: SystemIdentifier,
        name: &str,
    ) -> Result<SignedHeader, SealError> {
        let frames_at = SignedHeader::length(prefix)? as usize;
        let signed_end = frames_at - SIGNATURE;
        let signed = prefix.get(..signed_end).ok_or(SealError::Truncated("it ends within its header"))?;
        let signature =
            signature_at(prefix, signed_end).ok_or(SealError::Truncated("it ends within its header's signature"))?;
        let header = Header::parse(signed.get(FIXED..).unwrap_or_default())?;
        // The signature comes before every other judgement: until it verifies, the header is a stranger's word.
        let key = trust.key_for(&header.writer, header.kind)?;
        if !key.verifies(&header_message(signed), &signature) {
            return Err(SealError::Signature("header"));
        }
        if header.cluster != cluster {
            return Err(SealError::WrongCluster { found: header.cluster.to_string(), expected: cluster.to_string() });
        }
        if header.name != name {
            return Err(SealError::WrongName { found: header.name.clone(), expected: name.to_owned() });
        }
        Ok(SignedHeader { header, digest: *blake3::hash(signed).as_bytes(), frames_at })
    }

    /// The writer that an object claims, unverified: for the message that shows what to trust.
    pub fn claimed_writer(prefix: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Claim {
            writer: String,
        }
        let end = usize::try_from(SignedHeader::length(prefix).ok()?).ok()?.checked_sub(SIGNATURE)?;
        let claim: Claim = serde_json::from_slice(prefix.get(FIXED..end)?).ok()?;
        claim.writer.parse::<super::WriterPublic>().ok().map(|writer| writer.to_string())
    }
}

/// One frame, as the trailer lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameEntry {
    /// Where the frame's 8 bytes of length and checksum begin, from the object's start.
    pub at: u64,
    /// Bytes of ciphertext.
    pub stored: u32,
    /// Bytes of plaintext.
    pub plain: u32,
    /// First half of the ciphertext's digest.
    pub(super) digest: [u8; 16],
}

impl FrameEntry {
    /// The frame's bytes in the object, with its length and checksum.
    pub fn range(&self) -> Range<u64> {
        self.at..self.at + FRAME_HEADER as u64 + u64::from(self.stored)
    }
}

/// A trailer whose signature was verified.
#[derive(Clone, Debug)]
pub struct Trailer {
    /// The frames in order.
    pub frames: Vec<FrameEntry>,
    /// Bytes of plaintext in all frames.
    pub plain_size: u64,
    body: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawTrailer {
    frames: Option<String>,
    plain_size: Option<u64>,
    body: Option<serde_json::Value>,
}

impl Trailer {
    /// The plain body as a `T`.
    ///
    /// Errors: there is none, or it is not of this shape.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, SealError> {
        let body = self.body.as_ref().ok_or_else(|| SealError::Trailer("it has no body".to_owned()))?;
        T::deserialize(body).map_err(|error| SealError::Trailer(error.to_string()))
    }

    fn parse(json: &[u8], signed: &SignedHeader, frames_end: usize) -> Result<Trailer, SealError> {
        let raw: RawTrailer = serde_json::from_slice(json).map_err(|error| SealError::Trailer(error.to_string()))?;
        let bad = |why: &str| SealError::Structure(why.to_owned());
        let Some(sealing) = &signed.header.sealed else {
            if raw.frames.is_some() || frames_end != signed.frames_at {
                return Err(bad("it has frames although its header says that nothing is sealed"));
            }
            return Ok(Trailer { frames: Vec::new(), plain_size: 0, body: raw.body });
        };
        let table = raw.frames.ok_or_else(|| bad("its trailer lists no frames"))?;
        let table = STANDARD.decode(table).map_err(|error| SealError::Trailer(error.to_string()))?;
        let (entries, rest) = table.as_chunks::<TABLE_ENTRY>();
        if !rest.is_empty() || entries.is_empty() {
            return Err(bad("its table of frames is not whole"));
        }
        let mut at = signed.frames_at as u64;
        let mut plain_size = 0;
        let mut frames = Vec::with_capacity(entries.len());
        for entry in entries {
            let stored = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let plain = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let mut digest = [0; 16];
            digest.copy_from_slice(&entry[8..]);
            if plain > sealing.frame_size || stored < 16 {
                return Err(bad("its table of frames has an impossible entry"));
            }
            let frame = FrameEntry { at, stored, plain, digest };
            at = frame.range().end;
            plain_size += u64::from(plain);
            frames.push(frame);
        }
        if at != frames_end as u64 {
            return Err(bad("its frames are not as long as its trailer says (truncated or extended)"));
        }
        if raw.plain_size != Some(plain_size) || plain_size > MAX_PLAINTEXT {
            return Err(bad("its plain_size does not fit its frames"));
        }
        Ok(Trailer { frames, plain_size, body: raw.body })
    }
}

/// A whole object in memory with both signatures verified. Its frames are checked as they are read.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The verified header.
    pub signed: SignedHeader,
    /// The verified trailer.
    pub trailer: Trailer,
    bytes: Bytes,
}

impl Envelope {
    /// Reads the object `name` of `cluster` from all its bytes and verifies what can be verified without opening it:
    /// structure, names, both signatures.
    ///
    /// Errors: anything that is not exactly what a trusted writer signed.
    pub fn read(
        bytes: Bytes,
        trust: &TrustedWriters,
        cluster: SystemIdentifier,
        name: &str,
    ) -> Result<Envelope, SealError> {
        let signed = SignedHeader::read(&bytes, trust, cluster, name)?;
        let trailer = Trailer::read(&bytes, 0, &signed, trust)?;
        Ok(Envelope { signed, trailer, bytes })
    }

    /// The verified header's content.
    pub fn header(&self) -> &Header {
        &self.signed.header
    }

    /// The stored bytes of frame `number` with their length and checksum.
    pub(super) fn frame_bytes(&self, number: usize) -> Option<&[u8]> {
        let range = self.trailer.frames.get(number)?.range();
        self.bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    /// Checks every frame without a key: length, checksum, and that it is the one the writer signed.
    ///
    /// Errors: names the first frame that is not.
    pub fn verify_frames(&self) -> Result<(), SealError> {
        (0..self.trailer.frames.len()).try_for_each(|number| {
            let bytes = self.frame_bytes(number).ok_or(SealError::Truncated("it ends within a frame"))?;
            self.trailer.verified_frame(number, bytes).map(|_| ())
        })
    }

    /// Opens the object with the identity that it is sealed to.
    ///
    /// Errors: none of `identities` is a recipient, or the data key was not sealed for this object.
    pub fn open(&self, identities: &[Identity]) -> Result<Opener, SealError> {
        Opener::new(&self.signed, self.trailer.clone(), identities)
    }

    /// All plaintext of the object, at most 16 MiB.
    ///
    /// Errors: as [`Envelope::open`], and whatever is wrong with a frame.
    pub fn read_all(&self, identities: &[Identity]) -> Result<Vec<u8>, SealError> {
        let mut plain = Vec::with_capacity(usize::try_from(self.trailer.plain_size).unwrap_or(0));
        self.read_all_into(identities, &mut plain)?;
        Ok(plain)
    }

    /// As [`Envelope::read_all`], behind what is in `plain`.
    ///
    /// Errors: as there; `plain` may then hold the first frames.
    pub fn read_all_into(&self, identities: &[Identity], plain: &mut Vec<u8>) -> Result<(), SealError> {
        let mut opener = self.open(identities)?;
        for number in 0..self.trailer.frames.len() {
            let bytes = self.frame_bytes(number).ok_or(SealError::Truncated("it ends within a frame"))?;
            opener.frame_into(number, bytes, plain)?;
        }
        Ok(())
    }

    /// The plaintext of frame `number`, with an opener of this object.
    pub fn read_frame(&self, opener: &mut Opener, number: usize) -> Result<Vec<u8>, SealError> {
        let bytes = self.frame_bytes(number).ok_or(SealError::Truncated("there is no such frame"))?;
        let mut plain = Vec::new();
        opener.frame_into(number, bytes, &mut plain)?;
        Ok(plain)
    }

    /// Its plain parts, and all its bytes.
    pub fn into_parts(self) -> (Outline, Bytes) {
        (Outline { signed: self.signed, trailer: self.trailer }, self.bytes)
    }
}

/// The plain parts of an object with both signatures verified, without its frames: they tell where each of those lies.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The verified header.
    pub signed: SignedHeader,
    /// The verified trailer.
    pub trailer: Trailer,
}

impl Outline {
    /// Reads the plain parts of the object `name` of `cluster` from its first bytes and its last ones; it has `size` bytes.
    ///
    /// Errors: anything that is not exactly what a trusted writer signed; [`SealError::Truncated`] also when `first` is shorter
    /// than [`SignedHeader::length`] or `last` than [`Outline::trailer_length`].
    pub fn read(
        first: &[u8],
        last: &[u8],
        size: u64,
        trust: &TrustedWriters,
        cluster: SystemIdentifier,
        name: &str,
    ) -> Result<Outline, SealError> {
        let signed = SignedHeader::read(first, trust, cluster, name)?;
        let before = size.checked_sub(last.len() as u64).and_then(|before| usize::try_from(before).ok());
        let before = before.ok_or_else(|| SealError::Structure("it has more bytes than its size says".to_owned()))?;
        let trailer = Trailer::read(last, before, &signed, trust)?;
        Ok(Outline { signed, trailer })
    }

    /// Bytes from the trailer's begin to the end of the object that ends with `last`.
    ///
    /// Errors: there is no footer.
    pub fn trailer_length(last: &[u8]) -> Result<u64, SealError> {
        let (_, length) = footer(last)?;
        Ok((length + SIGNATURE + FOOTER) as u64)
    }

    /// What opens its frames: see [`Opener::frame_into`].
    ///
    /// Errors: as [`Envelope::open`].
    pub fn opener(&self, identities: &[Identity]) -> Result<Opener, SealError> {
        Opener::new(&self.signed, self.trailer.clone(), identities)
    }
}

/// Where the footer begins in `bytes`, which end with it, and the length of the trailer's JSON.
fn footer(bytes: &[u8]) -> Result<(usize, usize), SealError> {
    let cut = || SealError::Truncated("its footer is missing");
    let at = bytes.len().checked_sub(FOOTER).ok_or_else(cut)?;
    if bytes.get(at + 8..) != Some(FOOTER_MAGIC) {
        return Err(cut());
    }
    let length = u32_at(bytes, at).filter(|length| *length <= MAX_TRAILER).ok_or_else(cut)?;
    Ok((at, length as usize))
}

impl Trailer {
    /// The trailer of the object that ends with `last`, which `before` other bytes precede.
    fn read(last: &[u8], before: usize, signed: &SignedHeader, trust: &TrustedWriters) -> Result<Trailer, SealError> {
        let cut = || SealError::Truncated("its trailer is not whole");
        let (footer_at, length) = footer(last)?;
        let at = footer_at.checked_sub(SIGNATURE + length).ok_or_else(cut)?;
        let frames_end = before.checked_add(at).filter(|end| *end >= signed.frames_at).ok_or_else(cut)?;
        let json = last.get(at..at + length).ok_or_else(cut)?;
        let signature = signature_at(last, at + length).ok_or_else(cut)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(json);
        checksum.update(&signature);
        if u32_at(last, footer_at + 4) != Some(checksum.finalize()) {
            return Err(SealError::Structure("its trailer is damaged: the checksum does not match".to_owned()));
        }
        let key = trust.key_for(&signed.header.writer, signed.header.kind)?;
        if !key.verifies(&trailer_message(&signed.digest, json), &signature) {
            return Err(SealError::Signature("trailer"));
        }
        Trailer::parse(json, signed, frames_end)
    }

    /// The entry of frame `number` and its ciphertext, of which `bytes` are all, by its lengths alone.
    pub(super) fn measured_frame<'a>(
        &self,
        number: usize,
        bytes: &'a [u8],
    ) -> Result<(&FrameEntry, &'a [u8]), SealError> {
        let index = number as u64;
        let entry = self.frames.get(number).ok_or(SealError::Truncated("there is no such frame"))?;
        let ciphertext = bytes.get(FRAME_HEADER..).ok_or(SealError::FrameDamaged(index))?;
        let length = u32_at(bytes, 0).ok_or(SealError::FrameDamaged(index))?;
        if length != entry.stored || ciphertext.len() != entry.stored as usize {
            return Err(SealError::FrameDamaged(index));
        }
        Ok((entry, ciphertext))
    }

    /// The same, of stored bytes that are compared with checksum and digest.
    pub(super) fn verified_frame<'a>(
        &self,
        number: usize,
        bytes: &'a [u8],
    ) -> Result<(&FrameEntry, &'a [u8]), SealError> {
        let index = number as u64;
        let (entry, ciphertext) = self.measured_frame(number, bytes)?;
        let checksum = u32_at(bytes, 4).ok_or(SealError::FrameDamaged(index))?;
        if checksum != crc32fast::hash(ciphertext) {
            return Err(SealError::FrameDamaged(index));
        }
        if blake3::hash(ciphertext).as_bytes()[..16] != entry.digest {
            return Err(SealError::FrameReplaced(index));
        }
        Ok((entry, ciphertext))
    }
}
