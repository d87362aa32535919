//! What was received, to be compared with the manifest.

use std::collections::HashMap;

use walseal_common::repository::RelativePath;

use super::{ListedFile, ManifestError, line};
use crate::base::checksum::FileChecksum;

/// The files that came out of the archives and are not yet found in the manifest.
///
/// Every file must be in both, once, with the same size and checksum (case 30), except what lies in `pg_wal`: the
/// manifest does not cover it, and `pg_verifybackup` leaves it out in the same way. `backup_manifest` itself is
/// never noted here. `postgresql.auto.conf` and the signal files, which `pg_verifybackup` leaves out because tools
/// change them afterwards, are compared: nothing has changed them yet.
#[derive(Default, Debug)]
pub struct ReceivedFiles {
    pub(super) files: HashMap<RelativePath, (u64, FileChecksum)>,
}

impl ReceivedFiles {
    /// Notes a file that was received whole.
    ///
    /// Errors: a file of this name came before.
    pub fn note(&mut self, path: RelativePath, size: u64, checksum: FileChecksum) -> Result<(), ManifestError> {
        if path.is_within("pg_wal") {
            return Ok(());
        }
        match self.files.insert(path.clone(), (size, checksum)) {
            None => Ok(()),
            Some(_) => Err(ManifestError::ReceivedTwice(path)),
        }
    }

    /// Compares a file of the manifest with what was received, and strikes it off.
    ///
    /// Errors: it was not received, or has another size or checksum.
    pub fn strike(&mut self, listed: ListedFile) -> Result<(), ManifestError> {
        let ListedFile { path, size, checksum } = listed;
        if path.is_within("pg_wal") {
            return Ok(());
        }
        let Some((received, own)) = self.files.remove(&path) else { return Err(ManifestError::NotReceived(path)) };
        if received != size {
            return Err(ManifestError::Size { path, listed: size, received });
        }
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
    /// Errors: files are left that it does not list.
    pub fn finish(self) -> Result<(), ManifestError> {
        let count = self.files.len();
        match self.files.into_keys().min() {
            None => Ok(()),
            Some(first) => Err(ManifestError::NotListed { first, count }),
        }
    }
}
