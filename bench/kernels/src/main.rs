//! `kernels FILE FOLDER LEVEL`: reads FILE and does to it, one after the other and on one core, what a base backup does to its bytes; prints
//! as JSON the CPU seconds of each part. Objects are written to FOLDER, and each is removed before the next.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const OBJECT: usize = 16 << 20;
const FRAME: usize = 64 << 10;

/// CPU seconds of each part.
#[derive(Default)]
struct Spent {
    digests: f64,
    zstd: f64,
    seal: f64,
    checks: f64,
    write: f64,
}

/// CPU seconds of this thread, the only one: the first field is in nanoseconds (`Documentation/scheduler/sched-stats.rst` of Linux).
fn cpu() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}

fn main() -> Result<(), Box<dyn Error>> {
    let [file, folder, level] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "kernels FILE FOLDER LEVEL")?;
    let mut compressor = zstd::bulk::Compressor::new(level.parse()?)?;
    let cipher = XChaCha20Poly1305::new(&[7; 32].into());
    let (mut file, mut spent) = (File::open(file)?, Spent::default());
    let (mut plain, mut compressed, mut object) = (vec![0; OBJECT], Vec::new(), Vec::new());
    let (mut read, mut stored, mut number) = (0_u64, 0_u64, 0_u64);
    loop {
        let length = fill(&mut file, &mut plain)?;
        if length == 0 {
            break;
        }
        let frames = || plain[..length].chunks(FRAME);

        // The checksum of the server's manifest, and the digest by which frames are found again.
        let begun = cpu()?;
        let mut crc = 0;
        let mut sum = 0_u8;
        for frame in frames() {
            crc = crc32c::crc32c_append(crc, frame);
            sum ^= blake3::hash(frame).as_bytes()[0];
        }
        spent.digests += cpu()? - begun;

        let begun = cpu()?;
        compressed.clear();
        let mut ends = Vec::new();
        for frame in frames() {
            let at = compressed.len();
            compressed.resize(at + zstd::zstd_safe::compress_bound(frame.len()), 0);
            let size = compressor.compress_to_buffer(frame, &mut compressed[at..])?;
            compressed.truncate(at + size);
            ends.push(at + size);
        }
        spent.zstd += cpu()? - begun;

        let begun = cpu()?;
        object.clear();
        let (mut from, mut places) = (0, Vec::new());
        for end in &ends {
            let at = object.len();
            object.extend_from_slice(&compressed[from..*end]);
            from = *end;
            let mut nonce = [u8::try_from(crc & 0x7f)? ^ sum; 24];
            nonce[..8].copy_from_slice(&number.to_be_bytes());
            number += 1;
            let tag = cipher.encrypt_inout_detached(&XNonce::from(nonce), &[3; 32], InOutBuf::from(&mut object[at..]));
            object.extend_from_slice(&tag.map_err(|_| "a frame could not be encrypted")?);
            places.push(at..object.len());
        }
        spent.seal += cpu()? - begun;

        let begun = cpu()?;
        let mut hasher = crc32fast::Hasher::new();
        for place in places {
            let ciphertext = &object[place];
            hasher.update(&crc32fast::hash(ciphertext).to_le_bytes());
            hasher.update(blake3::hash(ciphertext).as_bytes());
        }
        hasher.update(blake3::hash(&object).as_bytes());
        spent.checks += cpu()? - begun;

        let begun = cpu()?;
        let path = Path::new(&folder).join(format!("object-{}", hasher.finalize()));
        let mut target = File::create(&path)?;
        target.write_all(&object)?;
        target.sync_all()?;
        spent.write += cpu()? - begun;
        fs::remove_file(path)?;
        read += length as u64;
        stored += object.len() as u64;
    }
    let Spent { digests, zstd, seal, checks, write } = spent;
    println!(
        "{{\"plain\": {read}, \"stored\": {stored}, \"digests\": {digests}, \"zstd\": {zstd}, \"seal\": {seal}, \"checks\": {checks}, \"write\": {write}}}"
    );
    Ok(())
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}
