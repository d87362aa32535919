//! What frames are sealed with, used again and again: a compressor and its buffers cost more to make than a run takes
//! to seal, because the system clears each of their pages.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zstd::bulk::Compressor;

use super::SealError;
use super::frames::{FrameSealer, SealedRun};
use crate::buffer::{Spare, Spares};

/// Bytes that a run may well have once it is sealed: enough for a buffer that is never moved while it grows.
const RUN: usize = 1 << 20;

/// Most buffers for objects that are kept: as many as fill up while others are on their way.
const OBJECTS: usize = 2;

/// Compressors and buffers for as many runs as are sealed at once. Cheap to clone; all clones share them. What it keeps is
/// freed with its last clone.
#[derive(Clone)]
pub struct Workshop {
    /// Compressors with their levels.
    compressors: Arc<Mutex<Vec<(i32, Compressor<'static>)>>>,
    most: usize,
    runs: Spares,
    objects: Spares,
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workshop({} compressors)", self.most)
    }
}

impl Workshop {
    /// For so many runs at once, and for objects of at most `object` bytes. Whatever is used beyond that is made and freed (I11).
    pub fn new(runs: usize, object: usize) -> Workshop {
        Workshop {
            compressors: Arc::default(),
            most: runs,
            runs: Spares::new(RUN, runs),
            objects: Spares::new(object, OBJECTS),
        }
    }

    /// Keeps at most so many buffers for objects, and none that held more than `largest` bytes: it is as large as
    /// what it held.
    #[must_use]
    pub fn keeping_objects(self, most: usize, largest: usize) -> Workshop {
        Workshop { objects: Spares::new(self.objects.size(), most).dropping_above(largest), ..self }
    }

    /// Seals a run: see [`FrameSealer::run`].
    ///
    /// Errors: more bytes in a frame than [`FrameSealer::frame_size`].
    pub fn seal<'a>(
        &self,
        frames: &FrameSealer,
        first: u64,
        plains: impl IntoIterator<Item = &'a [u8]>,
        last: bool,
    ) -> Result<SealedRun, SealError> {
        let mut compressor = self.compressor(frames)?;
        let run = frames.run(&mut compressor, self.runs.take(), (first, last), plains)?;
        self.give_back(frames.level(), compressor);
        Ok(run)
    }

    /// A compressor for these frames.
    pub(super) fn compressor(&self, frames: &FrameSealer) -> Result<Compressor<'static>, SealError> {
        let taken = self.compressors.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match taken.filter(|(level, _)| *level == frames.level()) {
            Some((_, compressor)) => Ok(compressor),
            None => frames.compressor(),
        }
    }

    /// Takes a compressor of this level back.
    pub(super) fn give_back(&self, level: i32, compressor: Compressor<'static>) {
        let mut compressors = self.compressors.lock().unwrap_or_else(PoisonError::into_inner);
        if compressors.len() < self.most {
            compressors.push((level, compressor));
        }
    }

    /// An empty buffer for an object.
    pub(super) fn object(&self) -> Spare {
        self.objects.take()
    }
}
