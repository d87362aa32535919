//! Which folders would survive a power failure.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Folders to remember; when there are more, all are forgotten, which costs a few syncs.
const REMEMBERED: usize = 4096;

/// Syncs folders up to the root, and remembers which need it no more.
///
/// A folder that somebody else made a moment ago may not be durable yet although it is there, so existing
/// is no proof. What is remembered is bound to the folder's identity, because another process may remove an
/// empty folder and make it again.
#[derive(Debug)]
pub(super) struct DurableFolders {
    root: PathBuf,
    known: Mutex<HashMap<PathBuf, Identity>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
    created: SystemTime,
}

impl Identity {
    /// `None` where the file system does not say when the folder was made: inode numbers are used again.
    fn of(meta: &Metadata) -> Option<Identity> {
        Some(Identity { device: meta.dev(), inode: meta.ino(), created: meta.created().ok()? })
    }
}

impl DurableFolders {
    pub(super) fn new(root: PathBuf) -> DurableFolders {
        DurableFolders { root, known: Mutex::new(HashMap::new()) }
    }

    /// Makes the entries of `folder` durable, and the entry of every folder between it and the root.
    ///
    /// Errors: `NotFound` when the entry that keeps `folder` was removed meanwhile, and the folder after it.
    pub(super) fn sync(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)?;
        let mut current = folder;
        while current != self.root {
            let Some(parent) = current.parent() else { break };
            let identity = Identity::of(&fs::metadata(current)?);
            if identity.is_none() || self.known().get(current) != identity.as_ref() {
                sync_folder(parent)?;
                if let Some(identity) = identity {
                    let mut known = self.known();
                    if known.len() >= REMEMBERED {
                        known.clear();
                    }
                    known.insert(current.to_owned(), identity);
                }
            }
            current = parent;
        }
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Identity>> {
        // The map is whole between any two calls on it, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the entries of one folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
