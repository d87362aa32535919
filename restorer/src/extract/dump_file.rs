//! The file that a dump goes to: hidden from its name until it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use walseal_common::store::directory::name_once;

use super::ExtractError;

/// A dump that is being written beside its name, readable by this user alone. Dropped, it is gone unless it was finished.
///
/// Its writer keeps it locked, so that what a killed one left is known for what it is by the next one.
#[derive(Debug)]
pub struct DumpFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl DumpFile {
    /// Begins the file that will be `path`, an absolute path.
    ///
    /// Errors: there is something of that name; another process writes it; the disk.
    pub fn begin(path: &Path) -> Result<DumpFile, ExtractError> {
        vacant(path)?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".walseal-partial");
        let partial = PathBuf::from(partial);
        // Held until ours is there: two that come at once do not take away each other's.
        let _abandoned = take_away_abandoned(&partial)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(ExtractError::io("make", &partial))?;
        let begun = DumpFile { path: path.to_owned(), partial, file };
        lock(&begun.file, &begun.partial)?;
        Ok(begun)
    }

    /// For a program to write to.
    ///
    /// Errors: too many open files.
    pub fn handle(&self) -> Result<File, ExtractError> {
        self.file.try_clone().map_err(ExtractError::io("open", &self.partial))
    }

    /// Bytes that are there by now.
    pub fn length(&self) -> u64 {
        // Shown to a person only.
        self.file.metadata().map_or(0, |found| found.len())
    }

    /// Gives it its name. Durable on return.
    ///
    /// Errors: there is something of that name by now; the disk.
    pub fn finish(self) -> Result<u64, ExtractError> {
        self.file.sync_all().map_err(ExtractError::io("sync", &self.partial))?;
        let length = self.file.metadata().map_err(ExtractError::io("look at", &self.partial))?.len();
        match name_once(&self.partial, &self.path) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(taken(&self.path)),
            Err(error) => return Err(ExtractError::io("rename", &self.partial)(error.into())),
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(ExtractError::io("sync", folder))?;
        Ok(length)
    }
}

impl Drop for DumpFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.partial) {
            // It has its own name now.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %self.partial.display(), %error, "an unfinished dump could not be removed")
            }
            Ok(()) => {}
        }
    }
}

/// Checks that nothing has this name, and that its folder is there.
///
/// Errors: what is in the way.
pub fn vacant(path: &Path) -> Result<(), ExtractError> {
    match fs::symlink_metadata(path) {
        Ok(_) => return Err(taken(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(ExtractError::io("look at", path)(error)),
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if fs::metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let why = format!("there is no folder {}", folder.display());
    Err(ExtractError::Refused { why, next: vec!["make it, or name another file".to_owned()] })
}

fn taken(path: &Path) -> ExtractError {
    let why = format!("{} is there already, and is never overwritten", path.display());
    ExtractError::Refused { why, next: vec!["name another file, or move that one away".to_owned()] }
}

/// Removes what a killed process left of the same dump.
///
/// Errors: it is not ours; its writer lives; the disk.
fn take_away_abandoned(partial: &Path) -> Result<Option<File>, ExtractError> {
    let file = match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(partial) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ExtractError::io("open", partial)(error)),
    };
    let found = file.metadata().map_err(ExtractError::io("look at", partial))?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("{} is in the way, and was not made by this user", partial.display());
        return Err(ExtractError::Refused { why, next: vec!["name another file".to_owned()] });
    }
    lock(&file, partial)?;
    // Who held the lock until now may have put its own in this place.
    if fs::symlink_metadata(partial).is_ok_and(|there| there.ino() == found.ino()) {
        tracing::info!(file = %partial.display(), "removed a dump that was not finished");
        fs::remove_file(partial).map_err(ExtractError::io("remove", partial))?;
    }
    Ok(Some(file))
}

fn lock(file: &File, path: &Path) -> Result<(), ExtractError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(ExtractError::Refused {
            why: format!("{} is being written by another restore", path.display()),
            next: vec!["wait for it, or name another file".to_owned()],
        }),
        Err(error) => Err(ExtractError::io("lock", path)(error.into())),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn i7_a_dump_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("orders.dump");
        let dump = DumpFile::begin(&path).expect("begun");
        dump.handle().expect("a handle").write_all(b"whole").expect("written");
        assert_eq!(names(folder.path()), ["orders.dump.walseal-partial"]);
        let found = fs::metadata(&dump.partial).expect("there");
        assert_eq!((found.mode() & 0o777, dump.length()), (0o600, 5));
        assert_eq!(dump.finish().expect("finished"), 5);
        assert_eq!(names(folder.path()), ["orders.dump"]);
        assert_eq!(fs::read(&path).expect("there"), b"whole");

        drop(DumpFile::begin(&folder.path().join("other")).expect("begun"));
        assert_eq!(names(folder.path()), ["orders.dump"]);
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("orders.dump");
        let dump = DumpFile::begin(&path).expect("begun");
        fs::write(&path, "precious").expect("written");
        let error = dump.finish().expect_err("it came first");
        assert!(error.to_string().contains("never overwritten"), "{error}");
        let error = DumpFile::begin(&path).expect_err("it is there");
        assert!(error.to_string().contains("never overwritten"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
        assert_eq!(names(folder.path()), ["orders.dump"]);
        let error = DumpFile::begin(&folder.path().join("no/orders.dump")).expect_err("no folder");
        assert!(error.to_string().contains("there is no folder"), "{error}");
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("orders.dump");
        let living = DumpFile::begin(&path).expect("begun");
        let error = DumpFile::begin(&path).expect_err("one is at it");
        assert!(error.to_string().contains("by another restore"), "{error}");
        assert_eq!(names(folder.path()), ["orders.dump.walseal-partial"]);
        drop(living);
        // What a killed process leaves: nobody holds its lock.
        fs::write(folder.path().join("orders.dump.walseal-partial"), "half").expect("written");
        let dump = DumpFile::begin(&path).expect("begun");
        assert_eq!(dump.length(), 0);
        drop(dump);
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "precious").expect("written");
        symlink(&elsewhere, folder.path().join("orders.dump.walseal-partial")).expect("made");
        DumpFile::begin(&path).expect_err("a link leads elsewhere");
        assert_eq!(fs::read_to_string(&elsewhere).expect("there"), "precious");
    }
}
