//! Configuration files that lay outside the data directory, put beside the restored one.
//!
//! They are for a person to look at: nothing reads them from there, and a backup whose pages of them are damaged is restored without.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use walseal_common::repository::ConfigEntry;

use super::{Owner, RebuildError, Source, companion_folder};

/// What came of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ConfigFiles {
    /// Below which folder they lie, by their old paths.
    pub folder: PathBuf,
    /// The setting that named each, or `include`, and where it lies now.
    pub files: Vec<(String, PathBuf)>,
    /// What is not there, and why, a clause each.
    pub missing: Vec<String>,
}

impl ConfigFiles {
    /// Where the file lies now that a setting named.
    pub fn of(&self, setting: &str) -> Option<&Path> {
        self.files.iter().find(|(named, _)| named == setting).map(|(_, path)| path.as_path())
    }
}

/// Puts the files of the backup below `<data>.walseal/config`, for `owner`'s eyes only, in place of those of an earlier restore.
///
/// Errors: the disk. What the repository does not give is told in [`ConfigFiles::missing`].
pub(super) async fn put_beside(source: Source<'_>, data: &Path, owner: &Owner) -> Result<ConfigFiles, RebuildError> {
    let folder = companion_folder(data).join("config");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(RebuildError::io("remove what an earlier restore left in", &folder)(error));
        }
        _ => {}
    }
    let mut found = ConfigFiles { folder, ..ConfigFiles::default() };
    for page in &source.label.config {
        match source.repository.attachment::<ConfigEntry>(page, source.identities).await {
            Ok(entries) => {
                for entry in entries {
                    found.take(entry, owner)?;
                }
            }
            Err(error) => found.missing.push(error.to_string()),
        }
    }
    Ok(found)
}

impl ConfigFiles {
    fn take(&mut self, entry: ConfigEntry, owner: &Owner) -> Result<(), RebuildError> {
        match entry {
            ConfigEntry::File { path, setting, mode, content } => match below(&path) {
                Some(relative) => {
                    // Never open to others, whatever it was: it may name hosts and hold passwords.
                    let place = self.write(&relative, &content, mode.unwrap_or_default() & 0o640 | 0o600, owner)?;
                    self.files.push((setting, place));
                }
                None => self.missing.push(format!("{path:?} is not the path of a file")),
            },
            ConfigEntry::Unread { path, setting, why } => {
                self.missing.push(format!("{} was not read: {why}", path.unwrap_or(setting)));
            }
        }
        Ok(())
    }

    fn write(&self, relative: &Path, content: &[u8], mode: u32, owner: &Owner) -> Result<PathBuf, RebuildError> {
        let place = self.folder.join(relative);
        let mut folders: Vec<&Path> =
            place.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.folder)).collect();
        folders.reverse();
        for folder in folders {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.map_err(RebuildError::io("make the folder", folder))?,
            }
            owner.take(folder, 0o700)?;
        }
        let failed = || RebuildError::io("write", &place);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place).map_err(failed())?;
        file.write_all(content).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        owner.take_file(&file, &place, mode)?;
        Ok(place)
    }
}

/// An absolute path without its root; `None` where it would lead out of a folder, or names nothing.
fn below(path: &str) -> Option<PathBuf> {
    let rest = Path::new(path).strip_prefix("/").ok()?;
    let plain = !path.contains('\0') && rest.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && rest.file_name().is_some()).then(|| rest.to_owned())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        assert_eq!(below("/etc/postgresql/15/main/pg_hba.conf"), Some("etc/postgresql/15/main/pg_hba.conf".into()));
        for path in ["/", "", "etc/x", "/../etc/passwd", "/etc/../../x", "//..", "/etc/x\0y"] {
            assert_eq!(below(path), None, "{path:?}");
        }
    }
}
