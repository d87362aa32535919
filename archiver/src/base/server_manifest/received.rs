//! What was received, to be compared with the manifest.

use std::hash::{DefaultHasher, Hash, Hasher};

use walseal_common::repository::RelativePath;

use super::{ListedFile, ManifestError, line};
use crate::base::checksum::FileChecksum;

/// The files that came out of the archives and are not yet found in the manifest.
///
/// Every file must be in both, once, with the same size and checksum (case 30), except what lies in `pg_wal`: the
/// manifest does not cover it, and `pg_verifybackup` leaves it out in the same way. `backup_manifest` itself is
/// never noted here. `postgresql.auto.conf` and the signal files, which `pg_verifybackup` leaves out because tools
/// change them afterwards, are compared: nothing has changed them yet.
///
/// A file takes 48 bytes and those of its path: there may be millions (I11).
#[derive(Default, Debug)]
pub struct ReceivedFiles {
    /// In the order of arrival; once `sorted`, in that of their hashes.
    files: Vec<Received>,
    sorted: bool,
    /// Those of all files, one after the other.
    paths: Vec<u8>,
}

#[derive(Debug)]
struct Received {
    /// Of the path; two paths may have the same, so the path itself is looked at.
    hash: u64,
    /// Where the path is among the others, and how many bytes it has.
    at: u64,
    length: u32,
    /// Whether the manifest lists it.
    listed: bool,
    size: u64,
    checksum: FileChecksum,
}

impl ReceivedFiles {
    /// Notes a file that was received whole. That one came twice is seen when they are compared.
    pub fn note(&mut self, path: &RelativePath, size: u64, checksum: FileChecksum) {
        if path.is_within("pg_wal") {
            return;
        }
        let (at, length) = (self.paths.len() as u64, path.as_bytes().len() as u32);
        self.paths.extend_from_slice(path.as_bytes());
        self.files.push(Received { hash: hash(path.as_bytes()), at, length, listed: false, size, checksum });
        self.sorted = false;
    }

    /// Compares a file of the manifest with what was received, and strikes it off.
    ///
    /// Errors: it was not received, or has another size or checksum; a file was received twice.
    pub fn strike(&mut self, listed: ListedFile) -> Result<(), ManifestError> {
        let ListedFile { path, size, checksum } = listed;
        if path.is_within("pg_wal") {
            return Ok(());
        }
        self.sort()?;
        let Some(file) = self.find(&path) else { return Err(ManifestError::NotReceived(path)) };
        file.listed = true;
        if file.size != size {
            return Err(ManifestError::Size { path, listed: size, received: file.size });
        }
        let own = &file.checksum;
        let asked = own.algorithm().name();
        let (algorithm, listed) = checksum.unwrap_or_else(|| ("NONE".to_owned(), Vec::new()));
        if !algorithm.eq_ignore_ascii_case(asked) {
            return Err(ManifestError::Algorithm { path, listed: algorithm, asked });
        }
        if !own.agrees_with(&listed) {
            let (listed, received) = (line::hex(&listed), own.to_string());
            return Err(ManifestError::FileChecksum { path, algorithm: asked, listed, received });
        }
        Ok(())
    }

    /// Says that the manifest has ended.
    ///
    /// Errors: files are left that it does not list; a file was received twice.
    pub fn finish(mut self) -> Result<(), ManifestError> {
        self.sort()?;
        let left = || self.files.iter().filter(|file| !file.listed);
        match left().map(|file| path_of(&self.paths, file)).min() {
            None => Ok(()),
            Some(first) => Err(ManifestError::NotListed { first: named(first)?, count: left().count() }),
        }
    }

    /// The file of this path that is not yet struck off.
    fn find(&mut self, path: &RelativePath) -> Option<&mut Received> {
        let ReceivedFiles { files, paths, .. } = self;
        let hash = hash(path.as_bytes());
        let first = files.partition_point(|file| file.hash < hash);
        let same = files.get_mut(first..).unwrap_or_default().iter_mut().take_while(|file| file.hash == hash);
        same.into_iter().find(|file| !file.listed && path_of(paths, file) == path.as_bytes())
    }

    /// Makes them ready to be looked up.
    ///
    /// Errors: two have the same path.
    fn sort(&mut self) -> Result<(), ManifestError> {
        if self.sorted {
            return Ok(());
        }
        let ReceivedFiles { files, paths, .. } = self;
        files.sort_unstable_by(|one, other| {
            one.hash.cmp(&other.hash).then_with(|| path_of(paths, one).cmp(path_of(paths, other)))
        });
        let twice = files.windows(2).find_map(|pair| match pair {
            [one, other] if one.hash == other.hash => {
                let path = path_of(paths, one);
                (path == path_of(paths, other)).then_some(path)
            }
            _ => None,
        });
        if let Some(path) = twice {
            return Err(ManifestError::ReceivedTwice(named(path)?));
        }
        self.sorted = true;
        Ok(())
    }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

fn path_of<'a>(paths: &'a [u8], file: &Received) -> &'a [u8] {
    let at = file.at as usize;
    paths.get(at..at + file.length as usize).unwrap_or_default()
}

/// The path for an error. Only what was a path is noted, so that the error in its place is never seen.
fn named(path: &[u8]) -> Result<RelativePath, ManifestError> {
    RelativePath::new(path).map_err(|error| ManifestError::Malformed { line: 0, why: error.to_string() })
}

#[cfg(test)]
impl ReceivedFiles {
    /// As if the file had come otherwise, or not at all.
    pub(super) fn replace(&mut self, path: &RelativePath, with: Option<(u64, FileChecksum)>) {
        let paths = &self.paths;
        self.files.retain(|file| path_of(paths, file) != path.as_bytes());
        if let Some((size, checksum)) = with {
            self.note(path, size, checksum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_a_file_takes_48_bytes_and_its_path() {
        assert_eq!(size_of::<Received>(), 48);
    }
}
