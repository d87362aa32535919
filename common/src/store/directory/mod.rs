//! A directory as a store: one file per object, its key is its path below the root.

mod durable;
mod list;
mod publish;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::io::Errno;

use super::failure::Failure;
use super::key::{check_key, check_prefix};
use super::{LARGEST_GET, ObjectStore, Page, PutOutcome, RangeBody, StoreError, StoreErrorKind};
use crate::buffer::Spares;
use crate::uncached::{LARGE, read_first};
use durable::DurableFolders;
pub use publish::name_once;

/// Folder below the root that holds files which are still being written. No key may start with it.
const UNFINISHED: &str = ".walseal-unfinished";
/// What the file system puts into the root by itself and only root may read.
const LOST_AND_FOUND: &str = "lost+found";
/// Bytes of an object for which memory is kept: of a full one that shrinks to half. Larger ones, and more of them, get fresh memory (I11).
const WHOLE: usize = 8 << 20;
const WHOLES: usize = 2;
/// An unfinished file that nobody wrote to for so long was left behind by a kill.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// A store in a directory of a local or network file system.
///
/// Objects appear whole: a file is written and synced under a hidden name on the same file system, then given its
/// name by an operation that fails where the name is taken, then every folder on its way is synced. Files
/// are made with mode 0600, folders with 0700.
///
/// The file system must have `renameat2(RENAME_NOREPLACE)` or hard links. Since a name cannot be a file and a
/// folder at once, a key below another key is refused. A wrong mount cannot be told from an empty
/// repository; callers that know what must be there look for it.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    folders: DurableFolders,
    /// What bodies are written from: memory that begins at a block.
    stretches: Spares,
    /// Memory for objects that are read whole.
    wholes: Spares,
    kept: list::Kept,
}

impl DirectoryStore {
    /// A store in the existing directory `root`. Nothing is touched; a missing root shows in the first call.
    pub fn new(root: PathBuf) -> DirectoryStore {
        let folders = DurableFolders::new(root.clone());
        let (stretches, kept) = (publish::stretches(), list::Kept::default());
        let wholes = Spares::new(WHOLE, WHOLES).dropping_above(WHOLE);
        DirectoryStore { inner: Arc::new(Inner { root, folders, stretches, wholes, kept }) }
    }

    /// A store in the existing directory `root`, after a look at it: removes what a kill left unfinished
    /// more than a day ago.
    ///
    /// Errors: [`StoreErrorKind::NoSuchStore`] when there is no such directory.
    pub async fn open(root: PathBuf) -> Result<DirectoryStore, StoreError> {
        let store = DirectoryStore::new(root);
        store.blocking("open", "", Inner::open).await?;
        Ok(store)
    }

    /// As [`DirectoryStore::open`], but makes the directory and its parents where they are missing.
    pub async fn create(root: PathBuf) -> Result<DirectoryStore, StoreError> {
        let store = DirectoryStore::new(root);
        store.blocking("create", "", |inner| inner.create()).await?;
        Ok(store)
    }

    async fn blocking<T, F>(&self, operation: &'static str, key: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let failure = match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            Err(join) => Failure::new(StoreErrorKind::Unreachable, format!("the operation was broken off: {join}")),
        };
        Err(failure.in_call(operation, key, self.describe()))
    }
}

#[async_trait::async_trait]
impl ObjectStore for DirectoryStore {
    async fn put_new(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let owned = key.to_owned();
        self.blocking("put", key, move |inner| inner.put_new(&owned, &body)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let owned = key.to_owned();
        self.blocking("get", key, move |inner| Ok(inner.read(&owned, 0..u64::MAX)?.bytes)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<RangeBody, StoreError> {
        let owned = key.to_owned();
        self.blocking("get", key, move |inner| inner.read(&owned, range)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let owned = prefix.to_owned();
        let start_after = start_after.map(str::to_owned);
        self.blocking("list", prefix, move |inner| {
            check_prefix(&owned).map_err(Failure::protocol)?;
            inner.check_root()?;
            list::page(&inner.root, &inner.kept, &owned, start_after.as_deref(), limit)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let owned = key.to_owned();
        self.blocking("delete", key, move |inner| inner.delete(&owned)).await
    }

    fn describe(&self) -> String {
        format!("file://{}", self.inner.root.display())
    }
}

impl Inner {
    fn open(&self) -> Result<(), Failure> {
        self.check_root()?;
        let entries = match fs::read_dir(self.root.join(UNFINISHED)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::io("could not read the folder of unfinished files", &error)),
        };
        let now = SystemTime::now();
        for entry in entries {
            let entry = entry.map_err(|e| Failure::io("could not read the folder of unfinished files", &e))?;
            let path = entry.path();
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| now.duration_since(at));
            // A file that vanished meanwhile was finished by its writer; one from the future is not old.
            if matches!(age, Ok(Ok(age)) if age > LEFTOVER_AGE) {
                match fs::remove_file(&path) {
                    Ok(()) => tracing::info!(file = %path.display(), "removed what an interrupted put left behind"),
                    Err(error) => {
                        tracing::warn!(file = %path.display(), %error, "could not remove what an interrupted put left behind");
                    }
                }
            }
        }
        Ok(())
    }

    fn create(&self) -> Result<(), Failure> {
        if fs::metadata(&self.root).is_ok_and(|meta| !meta.is_dir()) {
            return self.check_root();
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|e| Failure::io("could not make the directory", &e))?;
        for folder in self.root.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            // A parent that may not be opened was not made here.
            match durable::sync_folder(folder) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                other => other.map_err(|e| Failure::io("could not sync the parent directory", &e))?,
            }
        }
        self.open()
    }

    /// Errors: `NoSuchStore` when the root is no directory.
    fn check_root(&self) -> Result<(), Failure> {
        let missing = |why: &str| {
            let reason = format!("{why}; is its file system mounted? \"walseal-archiver init\" makes a new repository");
            Failure::new(StoreErrorKind::NoSuchStore, reason)
        };
        match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => {
                let reason = "there is a file of this name, and no directory; name a directory in repository.url";
                Err(Failure::new(StoreErrorKind::NoSuchStore, reason))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(missing("the repository's directory does not exist"))
            }
            Err(error) => Err(Failure::io("could not look at the repository's directory", &error)),
        }
    }

    /// The path of an object. Errors: `Protocol` when `key` cannot be one.
    fn path(&self, key: &str) -> Result<PathBuf, Failure> {
        check_key(key).map_err(Failure::protocol)?;
        let first = key.split('/').next().unwrap_or_default();
        if is_reserved(first) {
            return Err(Failure::protocol(format!("keys that start with \"{first}\" are reserved in a directory")));
        }
        Ok(self.root.join(key))
    }

    fn read(&self, key: &str, range: Range<u64>) -> Result<RangeBody, Failure> {
        let path = self.path(key)?;
        let absent = || {
            self.check_root()?;
            Err(Failure::new(StoreErrorKind::NotFound, "there is no such object".to_owned()))
        };
        let failed = |e: io::Error| Failure::io("could not read the file", &e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return absent(),
            Err(error) => return Err(failed(error)),
        };
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return absent();
        }
        let object_size = meta.len();
        let start = range.start.min(object_size);
        let length = range.end.min(object_size).saturating_sub(start);
        if length > LARGEST_GET {
            return Err(Failure::protocol(format!("{length} bytes were asked for at once; {LARGEST_GET} are allowed")));
        }
        let bytes = if start == 0 && length >= LARGE {
            let mut memory = self.wholes.take();
            let found =
                read_first(&file, usize::try_from(length).unwrap_or(usize::MAX), memory.vec()).map_err(failed)?;
            memory.freeze().slice(found)
        } else {
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(&mut bytes).map_err(failed)?;
            Bytes::from(bytes)
        };
        if bytes.len() as u64 != length {
            return Err(Failure::protocol(format!(
                "the file ended after {} of {length} bytes; something cuts files of this repository",
                bytes.len()
            )));
        }
        Ok(RangeBody { bytes, object_size })
    }

    fn delete(&self, key: &str) -> Result<(), Failure> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return self.check_root();
            }
            // A folder of objects is no object, so there is none of this name.
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Ok(()),
            Err(error) => return Err(Failure::io("could not remove the file", &error)),
        }
        // Folders that are empty now go, too, or every segment's tails would leave one behind. A put that
        // finds its folder gone makes it again, so nothing is lost to this race.
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) => {
                    if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) {
                        tracing::debug!(folder = %folder.display(), %error, "an empty folder stays");
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether a name directly below the root belongs to this store or the file system, not to an object.
fn is_reserved(name: &str) -> bool {
    name == UNFINISHED || name == LOST_AND_FOUND
}

impl Failure {
    /// What the operating system's error means to a caller, and what to do about it.
    fn io(what: &str, error: &io::Error) -> Failure {
        let (kind, hint) = match Errno::from_io_error(error) {
            Some(Errno::NOSPC) => (StoreErrorKind::Full, "; make space on the repository's file system"),
            Some(Errno::DQUOT) => (StoreErrorKind::Full, "; the user's quota is used up"),
            Some(Errno::ACCESS | Errno::PERM) => {
                (StoreErrorKind::Denied, "; the repository must belong to the user that runs this program (chown -R)")
            }
            Some(Errno::ROFS) => (
                StoreErrorKind::Denied,
                "; the repository's file system is mounted read-only: mount it for writing, or name another directory",
            ),
            Some(Errno::NOTDIR | Errno::ISDIR | Errno::EXIST) => {
                (StoreErrorKind::Protocol, "; a name cannot be an object and a folder at once")
            }
            Some(Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL | Errno::FBIG | Errno::ILSEQ) => {
                (StoreErrorKind::Protocol, "; this file system cannot hold the repository")
            }
            Some(Errno::XDEV) => {
                (StoreErrorKind::Protocol, "; all folders of a repository must lie on the same file system")
            }
            _ => (StoreErrorKind::Unreachable, ""),
        };
        Failure::new(kind, format!("{what}: {error}{hint}"))
    }
}

/// The folder of unfinished files, made when it is missing.
fn unfinished_folder(root: &Path) -> io::Result<PathBuf> {
    let folder = root.join(UNFINISHED);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => Ok(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(folder),
        Err(error) => Err(error),
    }
}
