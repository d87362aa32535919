//! What runs of frames are sealed with, used again and again: a compressor and its buffers cost more to make than a run takes
//! to seal, because the system clears each of their pages.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::SealError;
use super::frames::{FrameSealer, Held, SealedRun};
use crate::buffer::{Spare, Spares};

/// Bytes that a run may well have once it is sealed: enough for a buffer that is never moved while it grows.
const RUN: usize = 1 << 20;

/// Most buffers for objects that are kept: as many as fill up while others are on their way.
const OBJECTS: usize = 2;

/// Compressors and buffers for as many runs as are sealed at once. Cheap to clone; all clones share them. What it keeps is
/// freed with its last clone.
#[derive(Clone)]
pub struct Workshop {
    places: Arc<Mutex<Vec<Place>>>,
    most: usize,
    runs: Spares,
    objects: Spares,
}

/// One thread's tools.
struct Place {
    level: i32,
    compressor: zstd::bulk::Compressor<'static>,
    held: Held,
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workshop({} places)", self.most)
    }
}

impl Workshop {
    /// For so many runs at once, and for objects of at most `object` bytes. Whatever is used beyond that is made and freed (I11).
    pub fn new(runs: usize, object: usize) -> Workshop {
        Workshop {
            places: Arc::default(),
            most: runs,
            runs: Spares::new(RUN, runs),
            objects: Spares::new(object, OBJECTS),
        }
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
        let taken = self.places.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut place = match taken.filter(|place| place.level == frames.level()) {
            Some(place) => place,
            None => Place { level: frames.level(), compressor: frames.compressor()?, held: Held::default() },
        };
        let run = frames.run(&mut place.compressor, &mut place.held, self.runs.take(), (first, last), plains)?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() < self.most {
            places.push(place);
        }
        Ok(run)
    }

    /// An empty buffer for an object.
    pub(super) fn object(&self) -> Spare {
        self.objects.take()
    }
}
