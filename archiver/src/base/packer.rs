//! Files into frames, frames into runs, runs into data objects.

use std::collections::HashMap;

use walseal_common::buffer::Spares;
use walseal_common::repository::{Extent, FrameDigest};
use walseal_common::seal::MAX_PLAINTEXT;

use super::known::KnownFile;

/// Plaintext in a frame, in bytes.
const FRAME: usize = 64 << 10;

/// Plaintext in a frame of a large file: it has fewer of them, so that its line in the manifest fits into a page.
const LARGE_FRAME: usize = 1 << 20;

/// From this size on a file is cut into large frames. Relations come in files of 1 GiB, so this is for strays.
const LARGE_FILE: u64 = 8 << 30;

/// Most frames in an object, however small they are: each has 24 bytes in its trailer.
const MAX_FRAMES: u64 = 8_192;

/// A run is passed on once it has this much plaintext, in bytes: enough to be worth a thread's while, and small enough that
/// several threads share the work on one object.
pub const RUN: usize = 1 << 20;

/// Frames of one data object that follow one another, ready to be sealed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackedRun {
    /// The object's number in the backup, from 0.
    pub object: u32,
    /// Number of the first frame in the object, from 0.
    pub first: u64,
    /// Most bytes in a frame of the object.
    pub frame_size: u32,
    /// The plaintext of all frames, one after the other.
    pub plain: Vec<u8>,
    /// How many bytes of it each frame has.
    pub lengths: Vec<u32>,
    /// Whether the object ends with it.
    pub last: bool,
}

impl PackedRun {
    /// The plaintext of each frame.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.plain.as_slice();
        self.lengths.iter().map(move |length| {
            let (frame, behind) = rest.split_at_checked(*length as usize).unwrap_or_default();
            rest = behind;
            frame
        })
    }

    fn end(&self) -> u64 {
        self.first + self.lengths.len() as u64
    }
}

/// Where the content of a file went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackedFile {
    /// Bytes of the file.
    pub size: u64,
    /// Its frames, in order.
    pub extents: Vec<Extent>,
    /// The digest of each frame's plaintext, in order.
    pub digests: Vec<FrameDigest>,
}

/// A data object that the list of files refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed {
    /// This backup's own, by its number.
    Own(u32),
    /// One that was stored before, by its number in [`super::known::KnownObjects`].
    Known(u32),
}

/// Cuts files into frames and packs those that were not stored before into objects of at most [`MAX_PLAINTEXT`] bytes, in the
/// order of arrival. A frame holds bytes of one file only. Holds two runs at most (I11).
///
/// Extents refer to objects by their place in [`Packer::listed`], in the order in which they are first referred to.
#[derive(Debug)]
pub struct Packer {
    /// For plaintexts of runs.
    plains: Spares,
    /// Plaintext of the object's frames that are closed, in bytes.
    plain: u64,
    /// A run that is full, as long as it is not known whether the object ends with it.
    held: Option<PackedRun>,
    /// The run that is being filled; the frame that is being filled is the end of its plaintext.
    run: PackedRun,
    /// Bytes of that frame, and its size when it is full.
    open: usize,
    frame_size: usize,
    file: PackedFile,
    /// What was stored of the file before, the best first.
    known: Vec<KnownFile>,
    listed: Vec<Listed>,
    /// Places of known objects in it.
    places: HashMap<u32, u32>,
    /// Place of the object that is being filled, once a frame is in it.
    own: Option<u32>,
    /// Bytes of frames that had to be stored.
    fresh: u64,
}

impl Packer {
    /// Most runs that it holds at once.
    pub const HELD: usize = 2;

    /// Buffers for the plaintext of runs, of which at most so many are used at once.
    pub fn plains(most: usize) -> Spares {
        Spares::new(RUN + LARGE_FRAME, most)
    }

    /// Fills buffers of [`Packer::plains`].
    pub fn new(plains: Spares) -> Packer {
        Packer {
            plains,
            plain: 0,
            held: None,
            run: PackedRun::default(),
            open: 0,
            frame_size: 0,
            file: PackedFile::default(),
            known: Vec::new(),
            listed: Vec::new(),
            places: HashMap::new(),
            own: None,
            fresh: 0,
        }
    }

    /// Begins a file of `size` bytes; `None` where that is not known. Frames that are in `known` are referred to. What that
    /// completes is appended to `full`. It is a bug to begin one before the last ended.
    pub fn begin(&mut self, size: Option<u64>, known: Vec<KnownFile>, full: &mut Vec<PackedRun>) {
        debug_assert!(self.open == 0 && self.file == PackedFile::default(), "the last file has not ended");
        self.frame_size = if size.is_some_and(|size| size >= LARGE_FILE) { LARGE_FRAME } else { FRAME };
        self.known = known;
        // Cut in another way, frames of the same number are not the same part of the file.
        self.known.retain(|file| file.frame_size().is_none_or(|size| size == self.frame_size as u64));
        if self.frame_size > self.run.frame_size as usize && self.run.end() > 0 {
            // The header of the object that is open promises smaller frames.
            self.end_object(full);
        }
        self.run.frame_size = self.run.frame_size.max(self.frame_size as u32);
    }

    /// Adds bytes to the file, and passes on each run that they complete.
    pub fn add(&mut self, mut bytes: &[u8], full: &mut Vec<PackedRun>) {
        self.file.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.open == 0 && self.run.plain.len() >= RUN {
                let next = PackedRun { first: self.run.end(), ..self.empty_run(self.run.object) };
                full.extend(self.held.replace(std::mem::replace(&mut self.run, next)));
            }
            if self.run.plain.capacity() == 0 {
                self.run.plain = self.plains.take_vec();
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.frame_size - self.open));
            self.run.plain.extend_from_slice(now);
            self.open += now.len();
            bytes = later;
            if self.open == self.frame_size {
                self.close_frame(full);
            }
        }
    }

    /// The objects that extents refer to so far, in order.
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// Bytes of frames so far that were not stored before.
    pub fn fresh(&self) -> u64 {
        self.fresh
    }

    /// Ends the object that is being filled, between two files.
    pub fn cut(&mut self, full: &mut Vec<PackedRun>) {
        debug_assert!(self.open == 0, "the last file has not ended");
        if self.run.end() > 0 {
            self.end_object(full);
        }
    }

    /// Ends the file.
    pub fn end(&mut self, full: &mut Vec<PackedRun>) -> PackedFile {
        if self.open > 0 {
            self.close_frame(full);
        }
        std::mem::take(&mut self.file)
    }

    /// The last runs, after the last file, and the objects that extents refer to.
    pub fn finish(mut self, full: &mut Vec<PackedRun>) -> Vec<Listed> {
        self.cut(full);
        self.listed
    }

    fn empty_run(&self, object: u32) -> PackedRun {
        PackedRun { object, frame_size: self.run.frame_size, ..PackedRun::default() }
    }

    fn close_frame(&mut self, full: &mut Vec<PackedRun>) {
        let length = std::mem::take(&mut self.open);
        let frame = self.run.plain.get(self.run.plain.len() - length..).unwrap_or_default();
        let digest = FrameDigest::of(frame);
        let index = self.file.digests.len();
        self.file.digests.push(digest);
        if let Some((object, number)) = self.known.iter_mut().find_map(|file| file.place(index, digest)) {
            self.run.plain.truncate(self.run.plain.len() - length);
            let place = self.known(object);
            self.refer(place, number);
            return;
        }
        self.fresh += length as u64;
        if self.plain + length as u64 > MAX_PLAINTEXT || self.run.end() == MAX_FRAMES {
            let mut next = self.plains.take_vec();
            let closed = self.run.plain.len() - length;
            next.extend_from_slice(self.run.plain.get(closed..).unwrap_or_default());
            self.run.plain.truncate(closed);
            self.end_object(full);
            self.run.plain = next;
        }
        let place = match self.own {
            Some(place) => place,
            None => self.list(Listed::Own(self.run.object)),
        };
        self.own = Some(place);
        self.refer(place, self.run.end() as u32);
        self.plain += length as u64;
        self.run.lengths.push(length as u32);
    }

    /// The place of a known object in [`Packer::listed`], by its number.
    pub fn known(&mut self, object: u32) -> u32 {
        if let Some(place) = self.places.get(&object) {
            return *place;
        }
        let place = self.list(Listed::Known(object));
        self.places.insert(object, place);
        place
    }

    fn list(&mut self, object: Listed) -> u32 {
        self.listed.push(object);
        self.listed.len() as u32 - 1
    }

    /// The file's next frame is frame `number` of the object at `place`.
    fn refer(&mut self, place: u32, number: u32) {
        match self.file.extents.last_mut() {
            Some(extent) if extent.object == place && extent.frame + extent.count == number => extent.count += 1,
            _ => self.file.extents.push(Extent { object: place, frame: number, count: 1 }),
        }
    }

    /// Passes on what the object has left, and begins another one.
    fn end_object(&mut self, full: &mut Vec<PackedRun>) {
        let next = PackedRun { frame_size: self.frame_size as u32, ..self.empty_run(self.run.object + 1) };
        let run = std::mem::replace(&mut self.run, next);
        let held = self.held.take();
        self.plain = 0;
        self.own = None;
        if run.lengths.is_empty() {
            full.extend(held.map(|held| PackedRun { last: true, ..held }));
        } else {
            full.extend(held);
            full.push(PackedRun { last: true, ..run });
        }
    }
}

#[cfg(test)]
mod tests;
