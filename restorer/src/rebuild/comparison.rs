//! Files that are there already: which of their frames are as the list of files says, and need not be fetched.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rustix::fs::OFlags;
use walseal_common::repository::{FrameDigest, Span};

use super::target_file::{TargetFile, TargetLayer};
use super::{RebuildError, Toll};

/// Files that one thread takes at a time.
const BATCH: usize = 32;

/// Bytes that are looked at for zeros at a time.
const CHUNK: u64 = 64 << 10;

/// Compares files with what is there under their names, `jobs` at a time: afterwards they know which of their frames they have.
/// Each has its length then, and zeros where no layer gives anything.
///
/// Errors: the disk.
pub(super) async fn compare(
    files: Vec<TargetFile>,
    jobs: usize,
    toll: &Arc<Toll>,
) -> Result<Vec<TargetFile>, RebuildError> {
    let (mut batches, mut files) = (Vec::new(), files.into_iter().peekable());
    while files.peek().is_some() {
        batches.push(files.by_ref().take(BATCH).collect::<Vec<_>>());
    }
    let compare = |mut batch: Vec<TargetFile>| {
        let toll = toll.clone();
        let work = move || {
            let mut buffer = Vec::new();
            batch.iter_mut().try_for_each(|file| file.compare(&mut buffer, &toll))?;
            Ok(batch)
        };
        async {
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string())))
        }
    };
    // In order: what is whole in one window is so in the order of the list.
    let compared = stream::iter(batches).map(compare).buffered(jobs.max(1)).try_collect::<Vec<_>>().await?;
    Ok(compared.into_iter().flatten().collect())
}

impl TargetFile {
    fn compare(&mut self, buffer: &mut Vec<u8>, toll: &Toll) -> Result<(), RebuildError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = match options.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RebuildError::io("open", &self.path)(error)),
        };
        let before = file.metadata().map_err(RebuildError::io("look at", &self.path))?.len();
        if before != self.size {
            file.set_len(self.size).map_err(RebuildError::io("make room for", &self.path))?;
        }
        self.was_there();
        for layer in self.layers.iter_mut().filter(|layer| !layer.is_uneven()) {
            let right = |index| layer.is_right(index, &file, before, buffer);
            let held = (0..layer.digests.len()).map(right).collect::<Result<Vec<_>, _>>();
            layer.held = held.map_err(RebuildError::io("read", &self.path))?;
            toll.kept(
                layer.held.iter().enumerate().filter(|(_, held)| **held).map(|(at, _)| layer.frame_length(at)).sum(),
            );
        }
        for gap in self.gaps() {
            clear(&file, gap, buffer).map_err(RebuildError::io("clear a part of", &self.path))?;
        }
        Ok(())
    }

    /// Ranges that no layer gives.
    fn gaps(&self) -> Vec<Range<u64>> {
        let mut spans: Vec<&Span> = self.layers.iter().flat_map(TargetLayer::spans).collect();
        spans.sort_unstable_by_key(|span| span.file);
        let (mut gaps, mut at) = (Vec::new(), 0);
        for span in spans {
            if span.file > at {
                gaps.push(at..span.file);
            }
            at = span.file + span.length;
        }
        if at < self.size {
            gaps.push(at..self.size);
        }
        gaps
    }
}

impl TargetLayer {
    /// Whether the file, which had `length` bytes, has all bytes of frame `index`, and the right ones. What newer layers hide of
    /// a frame nobody knows any more: such a frame is fetched.
    fn is_right(&self, index: usize, file: &File, length: u64, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
        let begin = (index as u64).saturating_mul(self.frame_size);
        let end = begin.saturating_add(self.frame_length(index));
        buffer.resize((end - begin) as usize, 0);
        let mut next = begin;
        for span in self.spans_from(begin).iter().take_while(|span| span.stream < end) {
            let (from, to) = (span.stream.max(begin), (span.stream + span.length).min(end));
            let at = span.file + (from - span.stream);
            if from != next || at + (to - from) > length {
                return Ok(false);
            }
            let target = buffer.get_mut((from - begin) as usize..(to - begin) as usize).unwrap_or_default();
            file.read_exact_at(target, at)?;
            next = to;
        }
        Ok(next == end && self.digests.get(index) == Some(&FrameDigest::of(buffer)))
    }
}

/// Writes zeros where there are none.
fn clear(file: &File, range: Range<u64>, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(CHUNK);
        buffer.resize(length as usize, 0);
        file.read_exact_at(buffer, at)?;
        if buffer.iter().any(|byte| *byte != 0) {
            buffer.fill(0);
            file.write_all_at(buffer, at)?;
        }
        at += length;
    }
    Ok(())
}
