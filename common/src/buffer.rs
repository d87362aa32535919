//! Large buffers that go back to the system as soon as they are freed.
//!
//! glibc keeps what was freed for as long as anything lies above it, and learns from the sizes that it sees: after the first
//! buffer of a MiB was freed, those of a MiB are no longer taken from the system one by one (mallopt(3), `M_MMAP_THRESHOLD`).
//! A process that moves buffers from thread to thread then keeps tens of MiB that nobody uses. The threshold never passes
//! 32 MiB, so a buffer with more address space than that is always the system's, and pages that are never written cost nothing.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// More than glibc's threshold ever is, in bytes.
pub const ADDRESS_SPACE: usize = 33 << 20;

/// From this size on a buffer is worth two calls to the system, in bytes.
const LARGE: usize = 256 << 10;

/// A buffer for `capacity` bytes.
pub fn buffer(capacity: usize) -> Vec<u8> {
    Vec::with_capacity(space(capacity))
}

/// Address space for `capacity` bytes.
pub fn space(capacity: usize) -> usize {
    if capacity < LARGE { capacity } else { capacity.max(ADDRESS_SPACE) }
}

/// Buffers of one size that are used again and again: for each fresh one the system would have to clear its pages, which
/// costs more than to fill them. Cheap to clone; all clones share what is spare.
#[derive(Clone)]
pub struct Spares {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    size: usize,
    most: Arc<AtomicUsize>,
    /// What held more is not kept: its pages stay with it.
    largest: usize,
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spares(at most {} of {} bytes)", self.most(), self.size)
    }
}

impl Spares {
    /// Buffers of `size` bytes. At most `most` of them are kept when nobody uses them; the others go back to the system
    /// (I11).
    pub fn new(size: usize, most: usize) -> Spares {
        Spares { free: Arc::default(), size, most: Arc::new(AtomicUsize::new(most)), largest: usize::MAX }
    }

    /// None is kept that held more than so many bytes: of address space only the pages that were written cost memory, and those
    /// stay (I11).
    #[must_use]
    pub fn dropping_above(self, largest: usize) -> Spares {
        Spares { largest, ..self }
    }

    /// Bytes of each buffer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Keeps at most `most` from now on; what is more goes back to the system at once.
    pub fn keep(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
        let surplus = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = free.len().min(most);
            free.split_off(kept)
        };
        drop(surplus);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// An empty buffer, given back when it, and all that was frozen of it, is dropped.
    pub fn take(&self) -> Spare {
        Spare { bytes: self.take_vec(), home: self.clone() }
    }

    /// An empty buffer, for whoever calls [`Spares::give`] when it is done with it.
    pub fn take_vec(&self) -> Vec<u8> {
        let spare = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| buffer(self.size))
    }

    /// Takes a buffer of this size back, whatever is in it; one that has less room is none of these.
    pub fn give(&self, mut bytes: Vec<u8>) {
        if bytes.len() > self.largest || bytes.capacity() < self.size {
            return;
        }
        bytes.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.most() {
            free.push(bytes);
        }
    }
}

/// A buffer out of [`Spares`].
#[must_use = "dropped, it goes back at once"]
pub struct Spare {
    bytes: Vec<u8>,
    home: Spares,
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spare({} of {} bytes)", self.bytes.len(), self.home.size)
    }
}

impl Spare {
    /// A buffer that goes back to the system.
    pub fn alone(bytes: Vec<u8>) -> Spare {
        Spare { bytes, home: Spares::new(0, 0) }
    }

    /// The buffer itself.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds bytes at the end.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that can be shared, without a copy.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Spare {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_frozen_comes_back_empty_once_its_last_reader_is_gone() {
        let spares = Spares::new(LARGE, 1);
        let (mut first, second) = (spares.take(), spares.take());
        first.extend(b"first");
        let place = first.as_ref().as_ptr();
        let frozen = first.freeze();
        let slice = frozen.slice(1..3);
        drop(frozen);
        assert_eq!(spares.free.lock().expect("nobody panicked").len(), 0);
        assert_eq!(slice, &b"ir"[..]);
        drop(slice);
        let again = spares.take();
        assert_eq!((again.as_ref().len(), again.as_ref().as_ptr()), (0, place));
        // No more are kept than was said.
        drop((again, second));
        assert_eq!(spares.free.lock().expect("nobody panicked").len(), 1);
        spares.keep(2);
        drop((spares.take(), spares.take(), spares.take()));
        assert_eq!(spares.free.lock().expect("nobody panicked").len(), 2);
        // Nor one that held too much.
        let small = spares.clone().dropping_above(3);
        let (mut little, mut much) = (small.take(), small.take());
        little.extend(b"abc");
        much.extend(b"abcd");
        drop((little, much));
        assert_eq!(spares.free.lock().expect("nobody panicked").len(), 1);
        // Nor one whose room went elsewhere.
        let mut emptied = spares.take();
        drop(std::mem::take(emptied.vec()));
        drop(emptied);
        assert_eq!(spares.free.lock().expect("nobody panicked").len(), 0);
        drop(spares.take());
        spares.keep(0);
        assert_eq!(spares.free.lock().expect("nobody panicked").len(), 0);
    }

    #[test]
    fn i11_only_what_is_large_takes_address_space() {
        assert_eq!(buffer(1000).capacity(), 1000);
        assert!(buffer(1 << 20).capacity() > 32 << 20);
        assert!(buffer(64 << 20).capacity() >= 64 << 20);
    }
}
