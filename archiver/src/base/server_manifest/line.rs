//! The lines of a manifest.

use serde::Deserialize;
use walseal_common::lsn::{Lsn, LsnRange};
use walseal_common::repository::RelativePath;
use walseal_common::timeline::TimelineId;

use super::ManifestWalRange;

/// What a manifest says of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedFile {
    /// The file, relative to the data directory; one in a tablespace begins with `pg_tblspc/<oid>/`.
    pub path: RelativePath,
    /// Its size in bytes.
    pub size: u64,
    /// Name of the algorithm and the checksum itself; `None` where the server computed none.
    pub checksum: Option<(String, Vec<u8>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    _last_modified: Option<String>,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WalRangeLine {
    #[serde(rename = "Timeline")]
    timeline: TimelineId,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl ListedFile {
    /// Reads a file's line. The time in it is not used: the tar header has it, too.
    ///
    /// Errors: what is wrong, in words.
    pub(super) fn parse(text: &str) -> Result<ListedFile, String> {
        let line: FileLine =
            serde_json::from_str(text).map_err(|error| format!("it should describe a file: {error}"))?;
        let path = match (line.path, line.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => unhex(&encoded).ok_or("its Encoded-Path is not hexadecimal")?,
            _ => return Err("it should have one of Path and Encoded-Path".to_owned()),
        };
        let path = RelativePath::new(&path).map_err(|error| error.to_string())?;
        let checksum = match (line.algorithm, line.checksum) {
            (None, None) => None,
            (Some(algorithm), Some(checksum)) => {
                Some((algorithm, unhex(&checksum).ok_or("its Checksum is not hexadecimal")?))
            }
            _ => return Err("it should have both or none of Checksum-Algorithm and Checksum".to_owned()),
        };
        Ok(ListedFile { path, size: line.size, checksum })
    }
}

/// Reads a line of the list of WAL ranges.
pub(super) fn wal_range(text: &str) -> Result<ManifestWalRange, String> {
    let line: WalRangeLine =
        serde_json::from_str(text).map_err(|error| format!("it should describe a range of WAL: {error}"))?;
    let range = LsnRange::new(line.start, line.end).ok_or("its range of WAL runs backwards")?;
    Ok(ManifestWalRange { timeline: line.timeline, range })
}

/// The number that stands after `key`.
pub(super) fn number_after(text: &str, key: &str) -> Option<u64> {
    let digits = text.strip_prefix(key)?.trim();
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Bytes as lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes from hexadecimal.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}
