//! What a rebuild has cost so far.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use walseal_common::terminal::Progress;

/// Counts what a rebuild fetches and writes, and shows how far it is.
#[derive(Debug)]
pub(super) struct Toll {
    progress: Progress,
    fetched: AtomicU64,
    requests: AtomicU64,
    written: AtomicU64,
    kept: AtomicU64,
}

/// What a rebuild has cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Traffic {
    /// Bytes of data objects that were fetched.
    pub fetched: u64,
    /// In so many requests.
    pub requests: u64,
    /// Bytes of files that were written.
    pub written: u64,
    /// Bytes of files that were there already, and right.
    pub kept: u64,
}

impl Toll {
    pub(super) fn new(progress: &Progress) -> Toll {
        let [fetched, requests, written, kept] = Default::default();
        Toll { progress: progress.clone(), fetched, requests, written, kept }
    }

    /// So many bytes came in so many requests.
    pub(super) fn fetched(&self, bytes: u64, requests: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }

    /// So many bytes of files were written.
    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }

    /// So many bytes of files are right as they are.
    pub(super) fn kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }

    /// All of it, up to now.
    pub(super) fn traffic(&self) -> Traffic {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (fetched, requests) = (read(&self.fetched), read(&self.requests));
        Traffic { fetched, requests, written: read(&self.written), kept: read(&self.kept) }
    }
}
