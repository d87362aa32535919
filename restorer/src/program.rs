//! Where this program lies, for those who start it again: `restore_command` above all.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What Linux puts behind the path of a running program whose file was replaced or removed (`proc(5)`, `/proc/pid/exe`).
const REPLACED: &[u8] = b" (deleted)";

/// The path of this program. Where a newer version took its place while it ran, that is the newer one.
///
/// Errors: there is none any more; the system does not tell.
pub fn path() -> io::Result<PathBuf> {
    standing(std::env::current_exe()?)
}

fn standing(told: PathBuf) -> io::Result<PathBuf> {
    // It may be called so.
    if told.exists() {
        return Ok(told);
    }
    let before =
        told.as_os_str().as_bytes().strip_suffix(REPLACED).map(|path| Path::new(std::ffi::OsStr::from_bytes(path)));
    match before {
        Some(path) if path.exists() => Ok(path.to_owned()),
        _ => {
            let gone = format!(
                "{} was removed while it ran; start it anew from where it is now",
                before.unwrap_or(&told).display()
            );
            Err(io::Error::new(io::ErrorKind::NotFound, gone))
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_while_it_ran_is_named_as_the_one_that_is_there_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, told) = (folder.path().join("walseal-restorer"), folder.path().join("walseal-restorer (deleted)"));
        std::fs::write(&path, "").expect("written");
        assert_eq!(standing(path.clone()).expect("there"), path);
        assert_eq!(standing(told.clone()).expect("there"), path);
        // One that is really called so.
        std::fs::write(&told, "").expect("written");
        assert_eq!(standing(told.clone()).expect("there"), told);
        for file in [&path, &told] {
            std::fs::remove_file(file).expect("removed");
        }
        let gone = standing(told).expect_err("nothing is there").to_string();
        assert!(
            gone.ends_with("walseal-restorer was removed while it ran; start it anew from where it is now"),
            "{gone}"
        );
    }
}
