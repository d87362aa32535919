//! Folders and links: what files are then made in.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use walseal_common::repository::{FileEntry, RelativePath};

use super::{Layout, Owner, RebuildError, sync_folder};

/// Where `pg_control` lies until the end (case 27). PostgreSQL does not look for that name.
pub(super) const UNFINISHED_CONTROL: &str = "global/pg_control.unfinished";

/// The data directory under construction. While it is, folders are open to this process only.
#[derive(Debug)]
pub(super) struct Skeleton {
    data: PathBuf,
    owner: Owner,
    folders: Vec<(PathBuf, u32)>,
    made: HashSet<PathBuf>,
    /// Whether folders and links may be there.
    stands: bool,
    control: Option<PathBuf>,
}

impl Skeleton {
    /// Makes the top folders.
    pub(super) fn begin(layout: &Layout) -> Result<Skeleton, RebuildError> {
        let (data, owner) = (layout.data.clone(), layout.owner.clone());
        let (folders, made, stands) = (Vec::new(), HashSet::new(), layout.stands);
        let mut skeleton = Skeleton { data, owner, folders, made, stands, control: None };
        for root in layout.roots() {
            if layout.existing.iter().any(|existing| existing == root) {
                skeleton.made.insert(root.to_owned());
                skeleton.folders.push((root.to_owned(), layout.mode));
                fs::set_permissions(root, Permissions::from_mode(0o700))
                    .map_err(RebuildError::io("change the permissions of", root))?;
            } else {
                skeleton.make_folder(root, layout.mode)?;
            }
        }
        Ok(skeleton)
    }

    /// Makes the links to them.
    pub(super) fn links(&mut self, layout: &Layout) -> Result<(), RebuildError> {
        if let Some(waldir) = &layout.waldir {
            self.link(&layout.data.join("pg_wal"), waldir)?;
        }
        if !layout.tablespaces.is_empty() {
            self.make_folder(&layout.data.join("pg_tblspc"), layout.mode)?;
        }
        for space in &layout.tablespaces {
            self.link(&layout.data.join(format!("pg_tblspc/{}", space.oid)), &space.place)?;
        }
        Ok(())
    }

    /// A link to a folder; what the list of files says of it holds for that folder.
    fn link(&mut self, link: &Path, folder: &Path) -> Result<(), RebuildError> {
        if self.stands {
            match fs::remove_file(link) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(RebuildError::io("remove the link", link)(error));
                }
                _ => {}
            }
        }
        std::os::unix::fs::symlink(folder, link).map_err(RebuildError::io("make the link", link))?;
        self.owner.take_link(link)?;
        self.made.insert(link.to_owned());
        Ok(())
    }

    fn make_folder(&mut self, path: &Path, mode: u32) -> Result<(), RebuildError> {
        if self.made.insert(path.to_owned()) {
            match DirBuilder::new().mode(0o700).create(path) {
                // What is there is a folder: the sweep has left nothing else under such a name.
                Err(error) if self.stands && error.kind() == ErrorKind::AlreadyExists => {}
                made => made.map_err(RebuildError::io("make the folder", path))?,
            }
            self.folders.push((path.to_owned(), mode));
        }
        Ok(())
    }

    /// A folder of the list of files.
    pub(super) fn folder(&mut self, path: &RelativePath, mode: u32) -> Result<(), RebuildError> {
        let path = self.place(path);
        if self.made.contains(&path) {
            let known = self.folders.iter_mut().find(|(folder, _)| *folder == path);
            // A top folder's own mode, and those behind links, stay what the layout says.
            if let Some((_, known)) = known {
                *known = mode & 0o777;
            }
            return Ok(());
        }
        self.parents(&path)?;
        self.make_folder(&path, mode & 0o777)
    }

    /// Where a file of the list of files goes, in a folder that is there.
    pub(super) fn file(&mut self, file: &FileEntry) -> Result<PathBuf, RebuildError> {
        let is_control = file.path.0.as_bytes() == b"global/pg_control";
        let path = if is_control { self.data.join(UNFINISHED_CONTROL) } else { self.place(&file.path.0) };
        self.parents(&path)?;
        if is_control {
            self.control = Some(path.clone());
        }
        Ok(path)
    }

    /// Folders that the list of files does not name before what lies in them.
    fn parents(&mut self, path: &Path) -> Result<(), RebuildError> {
        let Some(parent) = path.parent().filter(|parent| !self.made.contains(*parent)) else { return Ok(()) };
        let parent = parent.to_owned();
        self.parents(&parent)?;
        self.make_folder(&parent, 0o700)
    }

    fn place(&self, path: &RelativePath) -> PathBuf {
        self.data.join(OsStr::from_bytes(path.as_bytes()))
    }

    /// Whether there may be files already.
    pub(super) fn stands(&self) -> bool {
        self.stands
    }

    /// Where `pg_control` is now.
    pub(super) fn control_file(&self) -> Option<PathBuf> {
        self.control.clone()
    }

    /// Gives the folders their permissions and their owner, and makes them durable.
    pub(super) fn finish(self, layout: &Layout) -> Result<(), RebuildError> {
        // What lies deeper first: a folder given away may be closed to us where we are not root.
        for (folder, mode) in self.folders.iter().rev() {
            sync_folder(folder)?;
            self.owner.take(folder, *mode)?;
        }
        for root in layout.roots() {
            if let Some(parent) = root.parent() {
                sync_folder(parent)?;
            }
        }
        Ok(())
    }
}

impl Owner {
    /// Sets the permission bits of a file or folder and hands it to this user.
    pub(crate) fn take(&self, path: &Path, mode: u32) -> Result<(), RebuildError> {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777))
            .map_err(RebuildError::io("change the permissions of", path))?;
        if self.is_other {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
                .map_err(RebuildError::io("change the owner of", path))?;
        }
        Ok(())
    }

    /// The same for an open file.
    pub(crate) fn take_file(&self, file: &File, path: &Path, mode: u32) -> Result<(), RebuildError> {
        file.set_permissions(Permissions::from_mode(mode & 0o777))
            .map_err(RebuildError::io("change the permissions of", path))?;
        if self.is_other {
            std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))
                .map_err(RebuildError::io("change the owner of", path))?;
        }
        Ok(())
    }

    fn take_link(&self, link: &Path) -> Result<(), RebuildError> {
        if self.is_other {
            std::os::unix::fs::lchown(link, Some(self.uid), Some(self.gid))
                .map_err(RebuildError::io("change the owner of", link))?;
        }
        Ok(())
    }
}
