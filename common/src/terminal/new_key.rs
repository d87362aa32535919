//! The file of a new key.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Failure;

/// Writes a key to a file of its own, for its owner only, durably. `why` says why no other file is overwritten by it.
///
/// Errors: the file is there; its folder is not, or may not be written to; the disk's.
pub fn write_new_key(path: &Path, content: &[u8], why: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::new(format!("write {}", path.display()), &error);
        match error.kind() {
            ErrorKind::AlreadyExists => failure.next(format!("name another file; {why}")),
            ErrorKind::NotFound => failure.next("make its folder first, or name a file in another one"),
            ErrorKind::PermissionDenied => {
                failure.next("name a file in a folder of this user, or run this as the user whom the folder belongs to")
            }
            _ => failure,
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    // The only copy of a key must survive a power cut: the folder's entry, too, is made durable.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_written_once_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("writer.key");
        let why = "a key is never overwritten";
        write_new_key(&path, b"first", why).expect("a new file");
        let mode = std::fs::metadata(&path).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = write_new_key(&path, b"second", why).expect_err("it is there").to_string();
        assert!(refused.contains("name another file; a key is never overwritten"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("readable"), b"first");
        let nowhere = write_new_key(&folder.path().join("none/key"), b"x", why).expect_err("no folder").to_string();
        assert!(nowhere.contains("make its folder first"), "{nowhere}");
    }
}
