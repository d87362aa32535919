//! Small files that are put in their places, durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Owner, RebuildError};

/// Puts a file with these bytes into `folder`, for `owner`'s eyes only, in place of one that has that name. Durable on return.
pub(super) fn put(folder: &Path, name: &str, bytes: &[u8], owner: &Owner) -> Result<PathBuf, RebuildError> {
    put_with(folder, name, bytes, owner, 0o600)
}

/// The same with these permission bits.
pub(super) fn put_with(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    owner: &Owner,
    mode: u32,
) -> Result<PathBuf, RebuildError> {
    let (file, fresh) = (folder.join(name), folder.join(format!("{name}.new")));
    let write = || -> io::Result<File> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        target.write_all(bytes)?;
        target.sync_all()?;
        Ok(target)
    };
    let written = write().map_err(RebuildError::io("write", &fresh))?;
    owner.take_file(&written, &fresh, mode)?;
    fs::rename(&fresh, &file).map_err(RebuildError::io("rename", &fresh))?;
    sync_folder(folder)?;
    Ok(file)
}

/// Takes a file of `folder` away where it is there. Durable on return.
pub(super) fn take_away(folder: &Path, name: &str) -> Result<(), RebuildError> {
    let file = folder.join(name);
    match fs::remove_file(&file) {
        Ok(()) => sync_folder(folder),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(RebuildError::io("remove", &file)(error)),
    }
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), RebuildError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(RebuildError::io("sync", folder))
}
