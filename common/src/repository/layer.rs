//! Layers: a file as some base backup read it whole, and the blocks that changed in later ones.
//!
//! Where the server sends changed blocks only (PostgreSQL 17 and newer), a line of the list of files tells all that the file
//! consists of, so that nobody walks a chain: each frame is fetched once, each block is written once.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::base::{Extent, FileEntry, FrameDigest, RelativePath, frame_digests};

/// Bytes of a block: PostgreSQL's BLCKSZ, the only one for which there are layers.
pub const LAYER_BLOCK: u64 = 8192;

/// The most layers of a file; more are refused. Files are read whole again long before.
pub const MOST_LAYERS: usize = 1_000;

/// What one backup read of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// Which frames hold it, in order.
    pub extents: Vec<Extent>,
    /// First half of the digest of each frame's plaintext, in order.
    #[serde(with = "frame_digests")]
    pub digests: Vec<FrameDigest>,
    /// The blocks that the frames hold, in order; none in the oldest layer, whose frames hold the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<BlockRun>>,
    /// Bytes of the file at that time. What lies beyond is not taken from older layers any more.
    pub length: u64,
}

/// Blocks that follow one another: `[first, count]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct BlockRun {
    /// Number of the first block in the file, from 0.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl From<(u32, u32)> for BlockRun {
    fn from((first, count): (u32, u32)) -> BlockRun {
        BlockRun { first, count }
    }
}

impl From<BlockRun> for (u32, u32) {
    fn from(run: BlockRun) -> (u32, u32) {
        (run.first, run.count)
    }
}

impl BlockRun {
    fn bytes(self) -> Range<u64> {
        let first = u64::from(self.first) * LAYER_BLOCK;
        first..first + u64::from(self.count) * LAYER_BLOCK
    }
}

/// Bytes of a layer that the file as it is now has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Where they begin in the layer's joined frames.
    pub stream: u64,
    /// Where they begin in the file.
    pub file: u64,
    /// How many they are; never 0.
    pub length: u64,
}

impl Layer {
    /// Bytes of its joined frames.
    pub fn plain_size(&self) -> u64 {
        match &self.blocks {
            None => self.length,
            Some(blocks) => blocks.iter().map(|run| u64::from(run.count) * LAYER_BLOCK).sum(),
        }
    }

    /// Whether its parts fit one another: ascending blocks within its length, a digest for each frame, frames where
    /// there is content.
    fn adds_up(&self) -> bool {
        let ascending = |blocks: &[BlockRun]| {
            let mut end = 0;
            blocks.iter().all(|run| {
                let bytes = run.bytes();
                let fits = run.count > 0 && bytes.start >= end && bytes.end <= self.length;
                end = bytes.end;
                fits
            })
        };
        self.blocks.as_deref().is_none_or(ascending) && frames_add_up(&self.extents, &self.digests, self.plain_size())
    }

    /// The layer's bytes as they lay in the file: where in the frames, where in the file.
    fn runs(&self) -> Vec<Span> {
        match &self.blocks {
            None => vec![Span { stream: 0, file: 0, length: self.length }],
            Some(blocks) => {
                let mut stream = 0;
                let run = |run: &BlockRun| {
                    let bytes = run.bytes();
                    let length = bytes.end - bytes.start;
                    stream += length;
                    Span { stream: stream - length, file: bytes.start, length }
                };
                blocks.iter().map(run).collect()
            }
        }
    }
}

fn frames_add_up(extents: &[Extent], digests: &[FrameDigest], plain: u64) -> bool {
    let frames: u64 = extents.iter().map(|extent| u64::from(extent.count)).sum();
    let possible = extents.iter().all(|extent| extent.frame.checked_add(extent.count).is_some());
    possible && frames == digests.len() as u64 && (frames == 0) == (plain == 0)
}

impl FileEntry {
    /// Whether the parts of the line fit one another, as section 6 of the format says. Whether its extents lie in the
    /// label's objects only the label tells.
    pub fn adds_up(&self) -> bool {
        let Some((oldest, newer)) = self.layers.split_first() else {
            return frames_add_up(&self.extents, &self.digests, self.size);
        };
        self.extents.is_empty()
            && self.digests.is_empty()
            && self.layers.len() <= MOST_LAYERS
            && oldest.blocks.is_none()
            && newer.iter().all(|layer| layer.blocks.is_some())
            && self.layers.iter().all(Layer::adds_up)
            && self.layers.last().is_some_and(|newest| newest.length == self.size)
    }

    /// All extents, of every layer.
    pub fn all_extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents.iter().chain(self.layers.iter().flat_map(|layer| &layer.extents))
    }

    /// All extents, of every layer, to be changed.
    pub fn all_extents_mut(&mut self) -> impl Iterator<Item = &mut Extent> {
        self.extents.iter_mut().chain(self.layers.iter_mut().flat_map(|layer| &mut layer.extents))
    }

    /// Its layers: those it has, or itself as the only one.
    pub fn into_layers(self) -> Vec<Layer> {
        if self.layers.is_empty() {
            vec![Layer { extents: self.extents, digests: self.digests, blocks: None, length: self.size }]
        } else {
            self.layers
        }
    }
}

/// What the file as it is now has of each layer, in order of its bytes: of each block what the newest layer that holds it
/// has, unless the file was cut below it since. What no layer gives is zeros. The layers must add up.
pub fn spans(layers: &[Layer]) -> Vec<Vec<Span>> {
    let mut found = vec![Vec::new(); layers.len()];
    // What newer layers hold, ascending and apart; and the shortest that the file has been since.
    let (mut covered, mut shortest): (Vec<Range<u64>>, u64) = (Vec::new(), u64::MAX);
    for (layer, kept) in layers.iter().zip(&mut found).rev() {
        shortest = shortest.min(layer.length);
        let runs = layer.runs();
        let mut next = 0;
        for run in &runs {
            let end = (run.file + run.length).min(shortest);
            let mut at = run.file;
            while covered.get(next).is_some_and(|range| range.end <= at) {
                next += 1;
            }
            let mut ahead = next;
            while at < end {
                let hidden = covered.get(ahead).filter(|range| range.start < end);
                let until = hidden.map_or(end, |range| range.start.max(at));
                if until > at {
                    kept.push(Span { stream: run.stream + (at - run.file), file: at, length: until - at });
                }
                at = hidden.map_or(end, |range| range.end);
                ahead += 1;
            }
        }
        covered = union(covered, runs.iter().map(|run| run.file..run.file + run.length));
    }
    found
}

/// Both lists of ranges as one, ascending and apart.
fn union(one: Vec<Range<u64>>, other: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = one.into_iter().chain(other).collect();
    all.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Before the name of a file of which the server sent changed blocks only (`basebackup_incremental.c`).
const PREFIX: &[u8] = b"INCREMENTAL.";

impl RelativePath {
    /// The relation's file that this one, as the server sends it, holds changed blocks of: `base/5/1259.1` for
    /// `base/5/INCREMENTAL.1259.1`. None for any other file, whatever it is called.
    pub fn changed_blocks_of(&self) -> Option<RelativePath> {
        let path = self.as_bytes();
        let at = path.iter().rposition(|byte| *byte == b'/')? + 1;
        let (folder, name) = path.split_at(at);
        let name = name.strip_prefix(PREFIX).filter(|name| is_relation_file(name))?;
        let place = ["base", "global", "pg_tblspc"].iter().any(|top| self.is_within(top));
        if place { RelativePath::new(&[folder, name].concat()).ok() } else { None }
    }
}

/// `1259`, `1259_vm`, `1259.1`, `1259_vm.1`.
fn is_relation_file(name: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut parts = name.splitn(2, |byte| *byte == b'.');
    let (fork, segment) = (parts.next().unwrap_or_default(), parts.next());
    let mut parts = fork.splitn(2, |byte| *byte == b'_');
    let (number, fork) = (parts.next().unwrap_or_default(), parts.next());
    digits(number) && segment.is_none_or(digits) && fork.is_none_or(|fork| matches!(fork, b"fsm" | b"vm" | b"init"))
}

#[cfg(test)]
#[path = "layer/tests.rs"]
mod tests;
