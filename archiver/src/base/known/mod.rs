//! What was stored before: the files of the parent, and of attempts that were interrupted, with the digests of their frames.
//!
//! Memory does not follow the number of digests (I11): an index has 16 bytes for each file, and the few pages that the stream
//! needs next to one another are opened again; a server sends files in the same order nearly every time.
//!
//! | part | holds |
//! | --- | --- |
//! | [`line`] | the lines of a page |
//! | [`cache`] | the copy of pages in `cluster.state_dir` |
//! | [`reader`] | pages, from there or from the repository, opened |
//! | [`objects`] | the data objects: which are worth referring to, and still there |
//! | [`index`] | in which page a file is |
//! | [`frames`] | all of it together |

pub mod cache;
pub mod file;
pub mod frames;
pub mod index;
pub mod line;
pub mod objects;
pub mod reader;
#[cfg(test)]
mod tests;

use walseal_common::repository::{FileEntry, RelativePath};

pub use cache::PageCache;
pub use file::{KnownExtent, KnownFile};
pub use frames::{Known, KnownFrames, Sources};
pub use objects::{KnownObject, KnownObjects};
pub use reader::PageReader;

/// Knows files that were stored before.
#[async_trait::async_trait]
pub trait KnownFiles: Send {
    /// What was stored of the file at `path`, the best first. That it is not known is no error: its frames are stored anew.
    async fn find(&mut self, path: &RelativePath) -> Vec<KnownFile>;

    /// Likewise of the changed blocks of the file at `path`, by an attempt that was interrupted: where the same blocks have changed
    /// since, their frames are the same.
    async fn changed(&mut self, path: &RelativePath) -> Vec<KnownFile>;

    /// The whole line of the file at `path` in the parent, whose extents have the numbers of known objects. `None` where it has
    /// none, or where it can't be read again.
    async fn line(&mut self, path: &RelativePath) -> Option<FileEntry>;
}

/// Nothing was stored before.
#[async_trait::async_trait]
impl KnownFiles for () {
    async fn find(&mut self, _: &RelativePath) -> Vec<KnownFile> {
        Vec::new()
    }

    async fn changed(&mut self, _: &RelativePath) -> Vec<KnownFile> {
        Vec::new()
    }

    async fn line(&mut self, _: &RelativePath) -> Option<FileEntry> {
        None
    }
}
