//! A copy of resume pages below `cluster.state_dir`, sealed as they are in the repository. It may be lost (I8).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use walseal_common::repository::{BaseId, ObjectReference};
use walseal_common::seal::ObjectDigest;

/// The folder of copies; without one nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct PageCache {
    folder: Option<PathBuf>,
    /// Whether it was said that nothing can be kept.
    told: Arc<AtomicBool>,
}

impl PageCache {
    /// Copies in `resume` below this folder.
    pub fn below(state_dir: &Path) -> PageCache {
        PageCache { folder: Some(state_dir.join("resume")), ..PageCache::default() }
    }

    /// Page `number` of the backup `id`, if the copy is the very object that its label refers to.
    pub fn get(&self, id: &BaseId, number: u32, reference: &ObjectReference) -> Option<Bytes> {
        let file = self.file(id, number)?;
        // What lies there may have any size.
        if fs::metadata(&file).ok()?.len() != reference.size {
            return None;
        }
        let bytes = Bytes::from(fs::read(&file).ok()?);
        (ObjectDigest::of(&bytes) == reference.digest).then_some(bytes)
    }

    /// Keeps a copy. That it cannot be kept is said in the log, once, and changes nothing.
    pub fn put(&self, id: &BaseId, number: u32, bytes: &[u8]) {
        let Some(file) = self.file(id, number) else { return };
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&file, bytes));
        if let Err(error) = written
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(file = %file.display(), %error, "copies of resume pages cannot be kept; the repository has them");
        }
    }

    /// Removes the copies of all backups but this one.
    pub fn keep_only(&self, id: &BaseId) {
        let Some(Ok(entries)) = self.folder.as_ref().map(fs::read_dir) else { return };
        for entry in entries.flatten() {
            let other = entry.file_name().to_str().and_then(|name| name.parse::<BaseId>().ok());
            if other.is_some_and(|other| other != *id)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(folder = %entry.path().display(), %error, "old copies of resume pages could not be removed");
            }
        }
    }

    fn file(&self, id: &BaseId, number: u32) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(id.as_str()).join(format!("{number:08}")))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn i8_only_the_very_bytes_that_were_stored_are_taken_from_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = PageCache::below(folder.path());
        let [one, two] =
            ["20261121T023000Z-0000002a", "20261122T023000Z-0000002b"].map(|id| id.parse().expect("an id"));
        let reference = |bytes: &[u8]| ObjectReference {
            name: String::new(),
            size: bytes.len() as u64,
            digest: ObjectDigest::of(bytes),
        };
        cache.put(&one, 3, b"a page");
        cache.put(&two, 0, b"another");
        assert_eq!(cache.get(&one, 3, &reference(b"a page")).as_deref(), Some(&b"a page"[..]));
        assert_eq!(cache.get(&one, 3, &reference(b"a pagE")), None);
        assert_eq!(cache.get(&one, 3, &reference(b"a page, cut")), None);
        assert_eq!(cache.get(&one, 2, &reference(b"a page")), None);
        let stranger = folder.path().join("resume/notes");
        fs::write(&stranger, "kept").expect("a file");
        cache.keep_only(&two);
        assert_eq!(cache.get(&one, 3, &reference(b"a page")), None);
        assert!(cache.get(&two, 0, &reference(b"another")).is_some() && stranger.exists());
        PageCache::default().put(&one, 0, b"nowhere");
    }
}
