//! Frames: compressed, then encrypted, each by itself, so that any thread can make any of them.

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::SealError;
use crate::buffer::Spare;

/// Bytes before a frame's ciphertext: its length, and a checksum.
const BEFORE: usize = 8;

/// Bytes behind it: the tag.
const TAG: usize = 16;

/// Seals frames of one object. Cheap to clone; each frame's number goes to one caller only, which [`super::Assembly::append`]
/// checks.
#[derive(Clone)]
pub struct FrameSealer {
    cipher: Arc<XChaCha20Poly1305>,
    nonce: [u8; 15],
    header_digest: [u8; 32],
    frame_size: usize,
    level: i32,
}

impl fmt::Debug for FrameSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameSealer(frames of {} bytes)", self.frame_size)
    }
}

/// A frame that is compressed, at the end of its buffer, and waits to be encrypted there.
#[derive(Clone, Copy)]
#[must_use = "it is plaintext yet"]
pub(super) struct Compressed {
    /// Where it begins, behind the room for what comes before.
    at: usize,
    /// Bytes of its plaintext.
    pub(super) plain: u32,
}

/// Frames that follow one another, sealed.
pub struct SealedRun {
    pub(super) first: u64,
    pub(super) bytes: Spare,
    /// Their rows of the trailer's table.
    pub(super) table: Vec<u8>,
    pub(super) plain: u64,
    pub(super) last: bool,
}

impl SealedRun {
    /// Bytes that a frame of `plain` bytes has in it at the most.
    pub fn most(plain: usize) -> usize {
        BEFORE + zstd::zstd_safe::compress_bound(plain) + TAG
    }

    /// Bytes of all its frames.
    pub fn size(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }

    /// How many frames.
    pub(super) fn count(&self) -> u64 {
        (self.table.len() / TABLE_ROW) as u64
    }
}

impl fmt::Debug for SealedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedRun({} frames from {}, {} bytes)", self.count(), self.first, self.bytes.as_ref().len())
    }
}

/// Bytes of a frame's row in the trailer.
const TABLE_ROW: usize = 24;

impl FrameSealer {
    pub(super) fn new(
        data_key: &[u8; 32],
        nonce: [u8; 15],
        header_digest: [u8; 32],
        frame_size: usize,
        level: i32,
    ) -> FrameSealer {
        let cipher = Arc::new(XChaCha20Poly1305::new(data_key.into()));
        FrameSealer { cipher, nonce, header_digest, frame_size, level }
    }

    /// Most bytes of plaintext in a frame.
    pub fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// zstd's level.
    pub(super) fn level(&self) -> i32 {
        self.level
    }

    /// Seals the frames with these plaintexts into `bytes`, as number `first`, `first` + 1, and so on. `last` says that the
    /// object ends with them.
    pub(super) fn run<'a>(
        &self,
        compressor: &mut zstd::bulk::Compressor<'_>,
        bytes: Spare,
        (first, last): (u64, bool),
        plains: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<SealedRun, SealError> {
        let mut run = SealedRun { first, bytes, table: Vec::new(), plain: 0, last };
        let mut number = first;
        let mut plains = plains.into_iter().peekable();
        while let Some(plain) = plains.next() {
            let compressed = self.compress(compressor, plain, run.bytes.vec())?;
            let last = last && plains.peek().is_none();
            self.encrypt(number, last, compressed, run.bytes.vec(), &mut run.table)?;
            run.plain += plain.len() as u64;
            number += 1;
        }
        Ok(run)
    }

    pub(super) fn compressor(&self) -> Result<zstd::bulk::Compressor<'static>, SealError> {
        zstd::bulk::Compressor::new(self.level).map_err(|error| SealError::Sealing(error.to_string()))
    }

    /// Compresses a frame to the end of `buffer`.
    pub(super) fn compress(
        &self,
        compressor: &mut zstd::bulk::Compressor<'_>,
        plain: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<Compressed, SealError> {
        if plain.len() > self.frame_size {
            return Err(SealError::TooLarge(format!("a frame of {} bytes", plain.len())));
        }
        buffer.reserve(SealedRun::most(plain.len()));
        buffer.extend_from_slice(&[0; BEFORE]);
        let at = buffer.len();
        let mut end = Cursor::new(buffer);
        end.set_position(at as u64);
        compressor.compress_to_buffer(plain, &mut end).map_err(|error| SealError::Sealing(error.to_string()))?;
        Ok(Compressed { at, plain: plain.len() as u32 })
    }

    /// Encrypts the frame at the end of `buffer` where it is, and appends its row to `table`.
    pub(super) fn encrypt(
        &self,
        number: u64,
        last: bool,
        compressed: Compressed,
        buffer: &mut Vec<u8>,
        table: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let Compressed { at, plain } = compressed;
        let nonce = frame_nonce(&self.nonce, number, last);
        let target = buffer.get_mut(at..).unwrap_or_default();
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, &self.header_digest, InOutBuf::from(target))
            .map_err(|_| SealError::Sealing("a frame could not be encrypted".to_owned()))?;
        buffer.extend_from_slice(&tag);
        let ciphertext = buffer.get(at..).unwrap_or_default();
        let stored = (ciphertext.len() as u32).to_le_bytes();
        let checksum = crc32fast::hash(ciphertext);
        let digest = blake3::hash(ciphertext);
        table.extend_from_slice(&stored);
        table.extend_from_slice(&plain.to_le_bytes());
        table.extend_from_slice(&digest.as_bytes()[..16]);
        if let Some(before) = buffer.get_mut(at - BEFORE..at) {
            before[..4].copy_from_slice(&stored);
            before[4..].copy_from_slice(&checksum.to_le_bytes());
        }
        Ok(())
    }
}

/// The nonce of a frame: prefix, number (big-endian), last-frame flag.
pub(super) fn frame_nonce(prefix: &[u8; 15], number: u64, last: bool) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..15].copy_from_slice(prefix);
    nonce[15..23].copy_from_slice(&number.to_be_bytes());
    nonce[23] = u8::from(last);
    nonce.into()
}
