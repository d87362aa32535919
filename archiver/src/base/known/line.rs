//! The lines of a page of a list, read for one purpose at a time: the index needs no digests, and they are most of it.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use walseal_common::repository::{Extent, FrameDigests, PathField, ResumeObject};

/// What the index has to know of a line.
#[derive(Debug)]
pub enum Line {
    /// A data object.
    Object(ResumeObject),
    /// A file with frames.
    File(ListedFile),
    /// Something that says nothing about frames.
    Other,
}

/// What the index has to know of a file.
#[derive(Debug, Deserialize)]
pub struct ListedFile {
    /// Where.
    #[serde(flatten)]
    pub path: PathField,
    /// Bytes.
    pub size: u64,
    /// Its frames.
    pub extents: Vec<Extent>,
}

/// A file with the digests of its frames.
#[derive(Debug, Deserialize)]
pub struct DigestedFile {
    /// Where.
    #[serde(flatten)]
    pub path: PathField,
    /// Bytes.
    pub size: u64,
    /// Its frames.
    pub extents: Vec<Extent>,
    /// Their digests.
    pub digests: FrameDigests,
}

#[derive(Deserialize)]
struct Peek {
    #[serde(rename = "type")]
    kind: String,
    /// Whether a file is all in one layer, which is what frames are compared with.
    extents: Option<IgnoredAny>,
}

/// Reads a line for the index.
///
/// Errors: it is no line of a list; in words.
pub fn read(line: &[u8]) -> Result<Line, String> {
    let peek: Peek = parse(line)?;
    match peek.kind.as_str() {
        "object" => parse(line).map(Line::Object),
        "file" if peek.extents.is_some() => parse(line).map(Line::File),
        "file" => Ok(Line::Other),
        other => Err(format!("\"{}\" is no type of line", other.chars().take(40).collect::<String>())),
    }
}

/// Reads a file's line with its digests.
///
/// Errors: as [`read`].
pub fn digested(line: &[u8]) -> Result<DigestedFile, String> {
    parse(line)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// The lines of a page with their places in it, in bytes.
pub fn lines(page: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    page.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let start = at;
        at += line.len();
        (start, line.strip_suffix(b"\n").unwrap_or(line))
    })
}
