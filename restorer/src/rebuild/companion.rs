//! What a restore keeps beside a data directory, which must hold nothing strange itself.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::RebuildError;

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
