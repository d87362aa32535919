//! The server's `backup_manifest`, as it has to be for a directory that was put together from changed blocks (case 56).
//!
//! Of such a backup the server's manifest lists what was sent: for a relation's file its changed blocks, under another
//! name, and a `backup_label` that says so. Here, once all files are written, those lines become those of the files as they
//! lie in the directory, with their size and a CRC-32C of what is read back, and the manifest's own checksum is computed
//! anew. All other lines stay, byte for byte. `pg_verifybackup` then judges the directory like any other.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walseal_common::repository::{Label, RelativePath};

use super::{Owner, RebuildError, sync_folder};

/// The longest line that is read, in bytes. A path has at most 4,096 bytes, each of which takes six as JSON.
const LONGEST_LINE: u64 = 64 << 10;

/// Lines whose files are read at once.
const BATCH: usize = 4_096;

/// Bytes read of a file at once.
const READ: usize = 1 << 20;

/// Where the manifest is made.
const UNFINISHED: &str = "backup_manifest.unfinished";

/// A file's line, in the order and with the names that the server gives them.
#[derive(Serialize, Deserialize)]
struct FileLine {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    last_modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: String,
    #[serde(rename = "Checksum")]
    checksum: String,
}

/// A line on its way from the old manifest into the new one.
enum Line {
    /// It stays.
    Same(Vec<u8>),
    /// It is that of this file now; `more` is what stands behind it.
    Of { line: FileLine, file: PathBuf, more: &'static str },
}

/// Makes the manifest of `data`, in which all files are written, that of its files. Durable on return.
///
/// Errors: the manifest is not one; a file that it lists is not there; the disk.
pub(super) fn complete(data: &Path, label: &Label, owner: &Owner, jobs: usize) -> Result<(), RebuildError> {
    let (old, new) = (data.join("backup_manifest"), data.join(UNFINISHED));
    let wrong = |why: &str| RebuildError::backup(label, format!("its backup_manifest {why}"));
    let opened = File::open(&old).map_err(RebuildError::io("open", &old))?;
    let before = opened.metadata().map_err(RebuildError::io("look at", &old))?;
    let mut reader = BufReader::new(opened);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut writer =
        Summed { writer: BufWriter::new(made.map_err(RebuildError::io("make the file", &new))?), sha: Sha256::new() };
    let write = |source| RebuildError::io("write", &new)(source);

    let mut ended = false;
    while !ended {
        let mut batch = Vec::new();
        while batch.len() < BATCH && !ended {
            let mut line = Vec::new();
            let read = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line);
            read.map_err(RebuildError::io("read", &old))?;
            if !line.ends_with(b"\n") {
                return Err(wrong("is cut off"));
            }
            ended = line.starts_with(b"\"Manifest-Checksum\"");
            if !ended {
                batch.push(Line::read(line, data).map_err(|why| wrong(&why))?);
            }
        }
        for line in described(batch, jobs)? {
            writer.write(&line).map_err(write)?;
        }
    }
    let Summed { mut writer, sha } = writer;
    let sum: String = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(writer, "\"Manifest-Checksum\": \"{sum}\"}}").map_err(write)?;
    let file = writer.into_inner().map_err(|error| write(error.into_error()))?;
    owner.take_file(&file, &new, before.mode())?;
    if let Ok(modified) = before.modified() {
        file.set_modified(modified).map_err(RebuildError::io("set the time of", &new))?;
    }
    file.sync_all().map_err(RebuildError::io("sync", &new))?;
    std::fs::rename(&new, &old).map_err(RebuildError::io("rename", &new))?;
    sync_folder(data)
}

/// Writes, and sums up what was written.
struct Summed {
    writer: BufWriter<File>,
    sha: Sha256,
}

impl Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.sha.update(bytes);
        self.writer.write_all(bytes)
    }
}

impl Line {
    /// Errors: what is wrong with the line, in words.
    fn read(bytes: Vec<u8>, data: &Path) -> Result<Line, String> {
        if !bytes.starts_with(b"{ \"Path\"") {
            return Ok(Line::Same(bytes));
        }
        let text = bytes.trim_ascii_end();
        let (text, more) = text.strip_suffix(b",").map_or((text, "\n"), |text| (text, ",\n"));
        let mut line: FileLine =
            serde_json::from_slice(text).map_err(|error| format!("has a line that describes no file: {error}"))?;
        let sent = RelativePath::new(line.path.as_bytes()).map_err(|error| error.to_string())?;
        let path = match sent.changed_blocks_of() {
            Some(path) => path,
            None if sent.as_bytes() == b"backup_label" => sent,
            None => return Ok(Line::Same(bytes)),
        };
        // Relations have plain names.
        line.path = path.to_string();
        let file = data.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        Ok(Line::Of { line, file, more })
    }

    fn describe(self) -> Result<Vec<u8>, RebuildError> {
        match self {
            Line::Same(bytes) => Ok(bytes),
            Line::Of { mut line, file, more } => {
                let (size, crc) = crc32c_of(&file)?;
                line.size = size;
                line.algorithm = "CRC32C".to_owned();
                // As it lies in the server's memory (`checksum_helper.c`).
                line.checksum = crc.to_ne_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                let text = serde_json::to_string(&line).map_err(|error| RebuildError::Thread(error.to_string()))?;
                Ok(format!("{text}{more}").into_bytes())
            }
        }
    }
}

/// The lines as they are to be written, in order; files are read by `jobs` threads.
fn described(lines: Vec<Line>, jobs: usize) -> Result<Vec<Vec<u8>>, RebuildError> {
    let share = lines.len().div_ceil(jobs.max(1)).max(1);
    let mut shares: Vec<Vec<Line>> = Vec::new();
    for line in lines {
        match shares.last_mut().filter(|last| last.len() < share) {
            Some(last) => last.push(line),
            None => shares.push(vec![line]),
        }
    }
    std::thread::scope(|scope| {
        let describe = |share: Vec<Line>| share.into_iter().map(Line::describe).collect::<Result<Vec<_>, _>>();
        let running: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || describe(share))).collect();
        let mut described = Vec::new();
        for thread in running {
            let share = thread.join().map_err(|_| RebuildError::Thread("it panicked".to_owned()))?;
            described.extend(share?);
        }
        Ok(described)
    })
}

/// Size and CRC-32C of a file.
fn crc32c_of(path: &Path) -> Result<(u64, u32), RebuildError> {
    let mut file = File::open(path).map_err(RebuildError::io("open", path))?;
    let mut buffer = vec![0; READ];
    let (mut size, mut crc) = (0, 0);
    loop {
        match file.read(&mut buffer).map_err(RebuildError::io("read", path))? {
            0 => return Ok((size, crc)),
            read => {
                let bytes = buffer.get(..read).unwrap_or_default();
                size += read as u64;
                crc = crc32c::crc32c_append(crc, bytes);
            }
        }
    }
}
