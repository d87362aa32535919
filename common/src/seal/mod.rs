//! The sealed object: keys, envelope, frames, signatures. No I/O.
