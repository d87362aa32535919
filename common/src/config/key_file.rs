//! Reading files that hold a secret.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::error::ConfigError;
use super::origin::Origin;
use crate::secret::Secret;

/// Largest file that can be a key; a limit against a path that names something else.
const LARGEST: u64 = 64 << 10;

/// Permissions that a file with a secret must not have: read or write by others, write by the group.
pub(super) const TOO_OPEN: u32 = 0o026;

/// The text of a file that holds a secret, without the line ends at its end.
///
/// `key` and `origin` say who named the file. Errors: it cannot be read, is no file, is empty, too large or not
/// text; others may read or change it, or its group may change it.
pub fn read_secret_file(key: &'static str, origin: &Origin, path: &Path) -> Result<Secret, ConfigError> {
    let bad = |problem: String| ConfigError::BadFile { key, origin: origin.clone(), path: path.to_owned(), problem };
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::InvalidData => bad("is not text, and so no key".to_owned()),
        _ => bad(format!("cannot be read: {error}")),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    // Asked of the open file, so that it is the one that is read.
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(bad("is a folder, not a file".to_owned()));
    }
    if let Some(problem) = too_open(metadata.permissions().mode()) {
        return Err(ConfigError::Exposed { key, origin: origin.clone(), path: path.to_owned(), problem });
    }
    let mut text = Zeroizing::new(String::new());
    file.by_ref().take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST {
        return Err(bad("is too large to be a key".to_owned()));
    }
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(bad("is empty".to_owned())),
        text => Ok(Secret::new(text)),
    }
}

/// What is wrong with the permissions of a file that holds a secret.
pub(super) fn too_open(mode: u32) -> Option<String> {
    let mode = mode & 0o7777;
    let who = match mode & TOO_OPEN {
        0 => return None,
        bits if bits & 0o004 != 0 => "everybody can read it",
        bits if bits & 0o002 != 0 => "everybody can change it",
        _ => "its group can change it",
    };
    Some(format!("holds a secret and {who} (mode {mode:03o})"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::fs;

    use super::*;

    fn read_with_mode(mode: u32, text: &str) -> Result<Secret, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("writer.key");
        fs::write(&path, text).expect("write the key");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set the mode");
        read_secret_file("keys.writer_key_file", &Origin::Variable("WALSEAL_KEYS_WRITER_KEY_FILE".into()), &path)
    }

    #[test]
    fn a_key_file_is_read_when_only_owner_and_group_can_read_it() {
        for mode in [0o600, 0o400, 0o640, 0o440, 0o700, 0o601] {
            assert_eq!(read_with_mode(mode, "secret\r\n\n").expect("allowed mode").expose(), "secret", "{mode:o}");
        }
    }

    #[test]
    fn a_key_file_is_refused_when_others_can_read_or_the_group_can_write_it() {
        for mode in [0o644, 0o604, 0o602, 0o620, 0o660, 0o666] {
            let error = read_with_mode(mode, "hunter2").expect_err("too open").to_string();
            assert!(error.contains("run: chmod g-w,o-rwx /") && error.contains(&format!("mode {mode:o}")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_can_be_no_key_is_refused() {
        for text in ["", "\n", &"x".repeat(70_000)] {
            assert!(read_with_mode(0o600, text).is_err());
        }
        let origin = Origin::Flag("--key");
        assert!(read_secret_file("keys.writer_key_file", &origin, Path::new("/proc")).is_err());
        assert!(read_secret_file("keys.writer_key_file", &origin, Path::new("/nowhere/at/all")).is_err());
    }
}
