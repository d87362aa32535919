//! Listing a tree of files as S3 lists keys: byte order over the whole key, any prefix, page by page.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::super::key::check_key;
use super::super::{LARGEST_PAGE, ObjectMeta};
use super::{Failure, is_reserved};

/// One page. Reads only folders that can hold keys of the page, and holds at most a page of names for each
/// level of folders.
pub(super) fn page(
    root: &Path,
    prefix: &str,
    start_after: Option<&str>,
    limit: usize,
) -> Result<Vec<ObjectMeta>, Failure> {
    let mut walk = Walk { root, prefix, start_after, limit: limit.min(LARGEST_PAGE), found: Vec::new() };
    let folder = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
    if folder.split('/').next().is_some_and(is_reserved) {
        return Ok(Vec::new());
    }
    walk.folder(folder)?;
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    start_after: Option<&'a str>,
    limit: usize,
    found: Vec<ObjectMeta>,
}

impl Walk<'_> {
    /// Adds the objects below `folder`: empty for the root, else a key's folders with a slash at the end.
    fn folder(&mut self, folder: &str) -> Result<(), Failure> {
        // A folder sorts as its name with the slash: "a.b" comes before "a/b".
        let mut last: Option<String> = None;
        while self.found.len() < self.limit {
            let room = self.limit - self.found.len();
            let names = self.smallest(folder, last.as_deref(), room)?;
            for (key, entry) in &names {
                if key.ends_with('/') {
                    self.folder(key)?;
                } else {
                    self.object(key, entry)?;
                }
                if self.found.len() >= self.limit {
                    return Ok(());
                }
            }
            if names.len() < room {
                return Ok(());
            }
            last = names.into_iter().next_back().map(|(key, _)| key);
        }
        Ok(())
    }

    /// The `room` smallest names in `folder` after `last` that can lead to a key of this page, as whole keys.
    fn smallest(&self, folder: &str, last: Option<&str>, room: usize) -> Result<BTreeMap<String, DirEntry>, Failure> {
        let failed = |e: &io::Error| Failure::io(&format!("could not read the folder \"{folder}\""), e);
        let mut names = BTreeMap::new();
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            // Never there, or removed since its parent was read.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(names),
            Err(error) => return Err(failed(&error)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| failed(&e))?;
            let name = entry.file_name();
            // What is not text was not made by this store.
            let Some(name) = name.to_str() else { continue };
            if folder.is_empty() && is_reserved(name) {
                continue;
            }
            let mut key = format!("{folder}{name}");
            match file_type(&entry) {
                Ok(Some(kind)) if kind.is_dir() => key.push('/'),
                Ok(Some(kind)) if kind.is_file() => {}
                Ok(_) => continue,
                Err(error) => return Err(failed(&error)),
            }
            if last.is_some_and(|last| key.as_str() <= last) || !self.may_hold(&key) {
                continue;
            }
            names.insert(key, entry);
            if names.len() > room {
                names.pop_last();
            }
        }
        Ok(names)
    }

    /// Whether `key`, or a key below it when it ends with a slash, belongs to what is asked for.
    fn may_hold(&self, key: &str) -> bool {
        let wanted = if let Some(folder) = key.strip_suffix('/') {
            (key.starts_with(self.prefix) || self.prefix.starts_with(key)) && check_key(folder).is_ok()
        } else {
            key.starts_with(self.prefix) && check_key(key).is_ok()
        };
        let passed =
            self.start_after.is_some_and(|after| key <= after && !(key.ends_with('/') && after.starts_with(key)));
        wanted && !passed
    }

    fn object(&mut self, key: &str, entry: &DirEntry) -> Result<(), Failure> {
        let meta = match fs::metadata(entry.path()) {
            Ok(meta) => meta,
            // Deleted since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::io(&format!("could not look at \"{key}\""), &error)),
        };
        let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = modified.and_then(|since| i64::try_from(since.as_secs()).ok());
        self.found.push(ObjectMeta { key: key.to_owned(), size: meta.len(), modified });
        Ok(())
    }
}

/// The type of an entry, that of its target for a link; `None` when it vanished.
fn file_type(entry: &DirEntry) -> io::Result<Option<FileType>> {
    let own = entry.file_type()?;
    if !own.is_symlink() {
        return Ok(Some(own));
    }
    match fs::metadata(entry.path()) {
        Ok(meta) => Ok(Some(meta.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
