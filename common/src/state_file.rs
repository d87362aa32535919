//! A small file of local state, as JSON: a cache, or a memory. It is replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file that is read.
const LARGEST: u64 = 64 << 20;

/// What the file says; `None` where there is none, or none that can be read, with a warning: whoever keeps state can do without it (I8).
pub fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let read = fs::metadata(path).and_then(|meta| match meta.len() {
        length if length > LARGEST => Err(io::Error::other(format!("it has {length} bytes"))),
        _ => fs::read(path),
    });
    let told = match read {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => Err(error),
    };
    told.inspect_err(
        |error| tracing::warn!(path = %path.display(), %error, "this file cannot be read, and counts for nothing"),
    )
    .ok()
}

/// Replaces the file, for this user's eyes only. Durable on return.
///
/// Errors: the file system's.
pub fn save<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("it is no file in a folder"))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = Path::new(&name);
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(&serde_json::to_vec(content).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn i8_a_file_is_replaced_whole_and_one_that_is_damaged_counts_for_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.json");
        assert_eq!(load::<Vec<u32>>(&path), None);
        save(&path, &vec![1, 2]).expect("a folder of our own");
        // As a crash leaves it.
        fs::write(folder.path().join("state.json.new"), "[1, 2, 3").expect("a folder of our own");
        save(&path, &vec![3]).expect("a folder of our own");
        assert_eq!(load::<Vec<u32>>(&path), Some(vec![3]));
        fs::write(&path, "[4").expect("a folder of our own");
        assert_eq!(load::<Vec<u32>>(&path), None);
    }
}
