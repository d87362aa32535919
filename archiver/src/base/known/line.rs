//! The lines of a page of a list, read for one purpose at a time: the index needs no digests, and they are most of it.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use walseal_common::repository::{BlockRun, Extent, FileEntry, LAYER_BLOCK, PathField, ResumeObject};

/// What the index has to know of a line.
#[derive(Debug)]
pub enum Line {
    /// A data object.
    Object(ResumeObject),
    /// A file.
    File(ListedFile),
}

/// What the index has to know of a file.
#[derive(Debug, Deserialize)]
pub struct ListedFile {
    /// Where.
    #[serde(flatten)]
    pub path: PathField,
    size: u64,
    extents: Option<Vec<Extent>>,
    layers: Option<Vec<ListedLayer>>,
}

#[derive(Debug, Deserialize)]
struct ListedLayer {
    extents: Vec<Extent>,
    blocks: Option<Vec<BlockRun>>,
    length: u64,
}

impl ListedFile {
    /// Whether it consists of more than one layer.
    pub fn is_layered(&self) -> bool {
        self.layers.as_ref().is_some_and(|layers| layers.len() > 1)
    }

    /// Its frames, and bytes of their plaintext, layer by layer.
    pub fn layers(&self) -> impl Iterator<Item = (&[Extent], u64)> {
        let layers = self.layers.iter().flatten().map(|layer| {
            let blocks = |runs: &Vec<BlockRun>| runs.iter().map(|run| u64::from(run.count) * LAYER_BLOCK).sum();
            (layer.extents.as_slice(), layer.blocks.as_ref().map_or(layer.length, blocks))
        });
        self.extents.iter().map(|extents| (extents.as_slice(), self.size)).chain(layers)
    }
}

#[derive(Deserialize)]
struct Peek {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads a line for the index.
///
/// Errors: it is no line of a list; in words.
pub fn read(line: &[u8]) -> Result<Line, String> {
    let peek: Peek = parse(line)?;
    match peek.kind.as_str() {
        "object" => parse(line).map(Line::Object),
        "file" => parse(line).map(Line::File),
        other => Err(format!("\"{}\" is no type of line", other.chars().take(40).collect::<String>())),
    }
}

/// Reads a file's line with its digests.
///
/// Errors: as [`read`].
pub fn digested(line: &[u8]) -> Result<FileEntry, String> {
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
