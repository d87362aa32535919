//! Listing a tree of files as S3 lists keys: byte order over the whole key, any prefix, page by page.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::key::check_key;
use super::super::{LARGEST_PAGE, ObjectMeta, Page};
use super::{Failure, is_reserved};

/// Folders with fewer entries are read anew for each page.
const MANY: usize = 16_384;

/// Bytes of names that are kept at most: about two million segments.
const MOST_KEPT: usize = 64 << 20;

/// A folder that has not changed for so long will not change again without its time telling.
const SETTLED: Duration = Duration::from_secs(2);

/// The names in the last large folder that was read. Its pages would otherwise each read all of it; as long as the folder has the
/// same time of change, which every name that comes or goes moves on, the names are the same.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<Arc<Names>>>);

/// The entries of a folder, in order: folders with a slash at the end.
#[derive(Debug)]
struct Names {
    folder: String,
    modified: SystemTime,
    /// All names, one after another, and where each begins and ends.
    text: String,
    spans: Vec<(u32, u32)>,
}

impl Names {
    fn new(folder: String, modified: SystemTime, text: String, mut spans: Vec<(u32, u32)>) -> Names {
        spans.sort_unstable_by_key(|span| name(&text, *span));
        Names { folder, modified, text, spans }
    }

    /// Those from `first` on.
    fn from(&self, first: &str) -> impl Iterator<Item = &str> {
        let before = self.spans.partition_point(|span| name(&self.text, *span) < first);
        self.spans.iter().skip(before).map(|span| name(&self.text, *span))
    }
}

fn name(text: &str, (begin, end): (u32, u32)) -> &str {
    text.get(begin as usize..end as usize).unwrap_or_default()
}

/// One page. Reads only folders that can hold keys of the page, and holds at most a page of names for each
/// level of folders, and what is `kept`.
pub(super) fn page(
    root: &Path,
    kept: &Kept,
    prefix: &str,
    start_after: Option<&str>,
    limit: usize,
) -> Result<Page, Failure> {
    let mut walk = Walk { root, kept, prefix, start_after, limit: limit.min(LARGEST_PAGE), found: Vec::new() };
    let folder = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
    if folder.split('/').next().is_some_and(is_reserved) {
        return Ok(Page::default());
    }
    walk.folder(folder)?;
    // It ends early only when it is full.
    let more = walk.found.len() >= walk.limit;
    Ok(Page { objects: walk.found, more })
}

struct Walk<'a> {
    root: &'a Path,
    kept: &'a Kept,
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
            for key in &names {
                if key.ends_with('/') {
                    self.folder(key)?;
                } else {
                    self.object(key)?;
                }
                if self.found.len() >= self.limit {
                    return Ok(());
                }
            }
            if names.len() < room {
                return Ok(());
            }
            last = names.into_iter().next_back();
        }
        Ok(())
    }

    /// The `room` smallest names in `folder` after `last` that can lead to a key of this page, as whole keys.
    fn smallest(&self, folder: &str, last: Option<&str>, room: usize) -> Result<BTreeSet<String>, Failure> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        // Most names of a large folder are told by these alone.
        let (wanted, passed) =
            (self.prefix.strip_prefix(folder), self.start_after.and_then(|key| key.strip_prefix(folder)));
        // `false` once a name comes that is too large for this page.
        let mut look = |name: &str| {
            let is_wanted = wanted.is_none_or(|wanted| name.starts_with(wanted) || wanted.starts_with(name));
            let is_passed = passed.is_some_and(|passed| name <= passed && !name.ends_with('/'));
            let largest = names.last().filter(|_| names.len() >= room).and_then(|key| key.strip_prefix(folder));
            if largest.is_some_and(|largest| name > largest) {
                return false;
            }
            if !is_wanted || is_passed {
                return true;
            }
            let key = format!("{folder}{name}");
            if last.is_none_or(|last| key.as_str() > last) && self.may_hold(&key) {
                names.insert(key);
                if names.len() > room {
                    names.pop_last();
                }
            }
            true
        };
        match self.kept_names(folder) {
            // In order: after the first that is too large all are. A folder may hold what comes after its own name.
            Some(kept) => {
                let after = last.and_then(|last| last.strip_prefix(folder)).or(passed).unwrap_or_default();
                let first = after.split_inclusive('/').next().unwrap_or_default().max(wanted.unwrap_or_default());
                let first = first.split_inclusive('/').next().unwrap_or_default();
                let _ = kept.from(first).all(look);
            }
            None => self.read(folder, &mut look)?,
        }
        Ok(names)
    }

    /// The names of `folder`, where they are kept and still those.
    fn kept_names(&self, folder: &str) -> Option<Arc<Names>> {
        let kept = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let now = || fs::metadata(self.root.join(folder)).and_then(|found| found.modified()).ok();
        (kept.folder == folder && now() == Some(kept.modified)).then_some(kept)
    }

    /// Calls `look` with the name of every object and folder in `folder`, and keeps the names where they are many.
    fn read(&self, folder: &str, look: &mut dyn FnMut(&str) -> bool) -> Result<(), Failure> {
        let failed = |e: &io::Error| Failure::io(&format!("could not read the folder \"{folder}\""), e);
        let path = self.root.join(folder);
        // Before it is read: what comes or goes meanwhile moves it on.
        let modified = fs::metadata(&path).and_then(|found| found.modified()).ok();
        let mut keeps = modified.is_some_and(|time| time.elapsed().is_ok_and(|age| age > SETTLED));
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            // Never there, or removed since its parent was read.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(failed(&error)),
        };
        let (mut text, mut spans) = (String::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(|e| failed(&e))?;
            let name = entry.file_name();
            // What is not text was not made by this store.
            let Some(name) = name.to_str() else { continue };
            if folder.is_empty() && is_reserved(name) {
                continue;
            }
            let begin = text.len();
            text.push_str(name);
            match file_type(&entry) {
                Ok(Some(kind)) if kind.is_dir() => text.push('/'),
                Ok(Some(kind)) if kind.is_file() => {}
                Ok(_) => {
                    text.truncate(begin);
                    continue;
                }
                Err(error) => return Err(failed(&error)),
            }
            look(text.get(begin..).unwrap_or_default());
            keeps &= text.len() <= MOST_KEPT;
            if keeps {
                // Of these fewer bytes are kept than fit into 32 bits.
                spans.push((begin as u32, text.len() as u32));
            } else {
                (text, spans) = (String::new(), Vec::new());
            }
        }
        if let Some(modified) = modified.filter(|_| keeps && spans.len() >= MANY) {
            let names = Names::new(folder.to_owned(), modified, text, spans);
            *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(names));
        }
        Ok(())
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

    fn object(&mut self, key: &str) -> Result<(), Failure> {
        let meta = match fs::metadata(self.root.join(key)) {
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
