//! Writing an object: hidden and synced first, then named in one step.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Failure, Inner, PutOutcome, unfinished_folder};
use crate::buffer::Spares;
use crate::uncached::{BLOCK, Uncached, aligned};

/// How often a put makes its folder again after a concurrent delete removed it while it was empty.
const FOLDER_ATTEMPTS: usize = 64;

/// What is written at once, in bytes.
const STRETCH: usize = 256 << 10;

/// Most buffers of that size that are kept while nobody writes.
const STRETCHES: usize = 4;

/// Buffers for [`Inner::write`].
pub(super) fn stretches() -> Spares {
    Spares::new(STRETCH + BLOCK, STRETCHES)
}

impl Inner {
    pub(super) fn put_new(&self, key: &str, body: &[u8]) -> Result<PutOutcome, Failure> {
        let path = self.path(key)?;
        self.check_root()?;
        let folder = path.parent().unwrap_or(&self.root);
        // Saves writing a body that will be refused; the naming below is what decides.
        if fs::symlink_metadata(&path).is_ok() {
            return self.already_exists(&path, folder);
        }
        let unfinished = Unfinished::write(self, body)?;
        for _ in 0..FOLDER_ATTEMPTS {
            self.make_folders(folder)?;
            match name_once(&unfinished.path, &path) {
                Ok(()) => return self.make_durable(folder).map(|()| PutOutcome::Created),
                Err(Errno::EXIST) => return self.already_exists(&path, folder),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Failure::io("could not give the file its name", &errno.into())),
            }
        }
        let gone = io::Error::from(io::ErrorKind::NotFound);
        Err(Failure::io("the object's folder vanished again and again while it was written", &gone))
    }

    fn write(&self, file: &mut Uncached, body: &[u8]) -> io::Result<()> {
        if !file.is_direct() {
            return file.write_all_at(body, 0);
        }
        let mut memory = self.stretches.take();
        let mut at = 0;
        for stretch in body.chunks(STRETCH) {
            let begin = aligned(memory.vec(), STRETCH);
            memory.extend(stretch);
            file.write_all_at(memory.as_ref().get(begin..).unwrap_or_default(), at)?;
            at += stretch.len() as u64;
        }
        Ok(())
    }

    /// The name is taken. Its writer may have died, or be about to, before the name was durable; whoever is
    /// told that the object exists may count on it, so that is made up for here.
    fn already_exists(&self, path: &Path, folder: &Path) -> Result<PutOutcome, Failure> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => {
                return Err(Failure::protocol(
                    "there is a folder of this name; a name cannot be an object and a folder at once".to_owned(),
                ));
            }
            _ => {}
        }
        self.make_durable(folder).map(|()| PutOutcome::AlreadyExists)
    }

    /// Makes the names of an object and of its folders durable.
    fn make_durable(&self, folder: &Path) -> Result<(), Failure> {
        match self.folders.sync(folder) {
            Ok(()) => Ok(()),
            // Somebody saw the object and deleted it already, and its folder with it: what was put is gone
            // because it was deleted, not because it was not written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_root(),
            Err(error) => Err(Failure::io("could not sync the object's folder", &error)),
        }
    }

    fn make_folders(&self, folder: &Path) -> Result<(), Failure> {
        // The root itself is never made here: were it unmounted, objects would land beneath the mount.
        let missing: Vec<&Path> =
            folder.ancestors().take_while(|ancestor| *ancestor != self.root).filter(|path| !path.is_dir()).collect();
        for path in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // A concurrent delete took the parent; the caller's loop comes back.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.check_root(),
                Err(error) => return Err(Failure::io("could not make the object's folder", &error)),
            }
        }
        Ok(())
    }
}

/// A synced file without its final name; removed when dropped, unless it was renamed.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn write(store: &Inner, body: &[u8]) -> Result<Unfinished, Failure> {
        let root = &store.root;
        let folder = unfinished_folder(root)
            .map_err(|e| Failure::io(&format!("could not make {}", root.join(super::UNFINISHED).display()), &e))?;
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|e| Failure::io("could not get random bytes for a file's name", &io::Error::other(e)))?;
        let name = format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
        let failed = |e: io::Error| Failure::io("could not write the file", &e);
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let unfinished = Unfinished { path };
        let mut file = Uncached::new(file, body.len() as u64);
        store.write(&mut file, body).map_err(failed)?;
        file.file().sync_all().map_err(failed)?;
        Ok(unfinished)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "could not remove an unfinished file; it is never listed");
            }
        }
    }
}

/// Gives the file at `from` the name `to`, which nothing has yet; exactly one of several concurrent callers succeeds. It may keep its
/// old name as well, which the caller then removes.
///
/// Errors: `EXIST` when the name is taken, `NOENT` when its folder is gone.
pub fn name_once(from: &Path, to: &Path) -> Result<(), Errno> {
    match name_by_rename(from, to) {
        // Not every file system knows the flag (NFS does not), and those that do not have hard links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => name_by_link(from, to),
        other => other,
    }
}

pub(super) fn name_by_rename(from: &Path, to: &Path) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

pub(super) fn name_by_link(from: &Path, to: &Path) -> Result<(), Errno> {
    rustix::fs::link(from, to)
}
