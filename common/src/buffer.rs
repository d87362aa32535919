//! Large buffers that go back to the system as soon as they are freed.
//!
//! glibc keeps what was freed for as long as anything lies above it, and learns from the sizes that it sees: after the first
//! buffer of a MiB was freed, those of a MiB are no longer taken from the system one by one (mallopt(3), `M_MMAP_THRESHOLD`).
//! A process that moves buffers from thread to thread then keeps tens of MiB that nobody uses. The threshold never passes
//! 32 MiB, so a buffer with more address space than that is always the system's, and pages that are never written cost nothing.

use bytes::BytesMut;

/// More than glibc's threshold ever is, in bytes.
pub const ADDRESS_SPACE: usize = 33 << 20;

/// From this size on a buffer is worth two calls to the system, in bytes.
const LARGE: usize = 256 << 10;

/// A buffer for `capacity` bytes.
pub fn buffer(capacity: usize) -> Vec<u8> {
    Vec::with_capacity(space(capacity))
}

/// As [`buffer`], to be split into pieces that share it.
pub fn shared_buffer(capacity: usize) -> BytesMut {
    BytesMut::with_capacity(space(capacity))
}

/// Address space for `capacity` bytes.
pub fn space(capacity: usize) -> usize {
    if capacity < LARGE { capacity } else { capacity.max(ADDRESS_SPACE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_only_what_is_large_takes_address_space() {
        assert_eq!(buffer(1000).capacity(), 1000);
        assert!(shared_buffer(1 << 20).capacity() > 32 << 20);
        assert!(buffer(64 << 20).capacity() >= 64 << 20);
    }
}
