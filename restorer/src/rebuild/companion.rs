//! What a restore keeps beside a data directory, which must hold nothing strange itself.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Owner, RebuildError, sync_folder};

/// The folder of what a restore keeps beside a data directory: `<data directory>.walseal`.
pub fn companion_folder(data: &Path) -> PathBuf {
    let mut name = OsString::from(data.as_os_str());
    name.push(".walseal");
    PathBuf::from(name)
}

/// Makes that folder where it is not there, for `owner`'s eyes only.
pub(super) fn make_companion(data: &Path) -> Result<PathBuf, RebuildError> {
    let folder = companion_folder(data);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(RebuildError::io("make the folder", &folder)(error))
        }
        _ => Ok(folder),
    }
}

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
