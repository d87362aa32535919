//! The file that PostgreSQL finds: whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::FetchError;

/// Writes `content` beside `target` and gives it that name once it is durable (case 3: never a file of another length).
pub(super) fn deliver(target: &Path, content: &[u8]) -> Result<(), FetchError> {
    let mut name = OsString::from(target.as_os_str());
    // Always the same, so that one that a kill left behind is written over.
    name.push(".walseal");
    let unfinished = PathBuf::from(name);
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Io { operation, path, source }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(failed("make", &unfinished))?;
    file.write_all(content).map_err(failed("write", &unfinished))?;
    file.sync_all().map_err(failed("sync", &unfinished))?;
    fs::rename(&unfinished, target).map_err(failed("rename", &unfinished))
}
