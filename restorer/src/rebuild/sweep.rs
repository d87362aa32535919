//! What lies in a data directory that is there already and is not in the backup: it goes, so that no server meets it.
//!
//! Replication slots, statistics, files of tables that were made since, signal files: all of them would be taken for the
//! restored cluster's own. WAL may be the only copy of the last moments before a disaster: it is moved aside.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use walseal_common::repository::ManifestEntry;

use super::mark::MARK;
use super::skeleton::UNFINISHED_CONTROL;
use super::{Layout, RebuildError, Source};

/// How the folder in `pg_wal` begins to which WAL is moved. PostgreSQL leaves what is not named like WAL alone.
const ASIDE: &str = "replaced-";

/// What became of what was not in the backup.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Swept {
    /// Files and links that were removed.
    pub removed: u64,
    /// Files that were moved out of the way.
    pub set_aside: u64,
    /// To where.
    pub aside: Option<PathBuf>,
}

/// What a backup has, by the hashes of its paths: 8 bytes for each, whatever their length (I11). That a path which is not
/// among them has the hash of one happens once in 2^44 times for a million files, and keeps a file that is of no use.
struct Listed {
    hasher: RandomState,
    known: HashSet<u64>,
}

#[derive(Clone, Copy, Hash)]
enum Shape {
    File,
    Folder,
    Link,
}

impl Listed {
    async fn of(source: Source<'_>, layout: &Layout) -> Result<Listed, RebuildError> {
        let mut listed = Listed { hasher: RandomState::new(), known: HashSet::new() };
        for page in 0..source.label.manifest.len() {
            for entry in source.page(page).await? {
                match entry {
                    ManifestEntry::Tablespace { .. } => {}
                    ManifestEntry::Directory { path, .. } => listed.add(path.0.as_bytes(), Shape::Folder),
                    ManifestEntry::File(file) => listed.add(file.path.0.as_bytes(), Shape::File),
                }
            }
        }
        listed.add(UNFINISHED_CONTROL.as_bytes(), Shape::File);
        listed.add(MARK.as_bytes(), Shape::File);
        if layout.waldir.is_some() {
            listed.add(b"pg_wal", Shape::Link);
        }
        for space in &layout.tablespaces {
            listed.add(format!("pg_tblspc/{}", space.oid).as_bytes(), Shape::Link);
        }
        // Until the end it has another name.
        let control = listed.hash(b"global/pg_control", Shape::File);
        listed.known.remove(&control);
        Ok(listed)
    }

    fn hash(&self, path: &[u8], shape: Shape) -> u64 {
        self.hasher.hash_one((path, shape))
    }

    /// Adds a path, and the folders that it lies in.
    fn add(&mut self, path: &[u8], shape: Shape) {
        self.known.insert(self.hash(path, shape));
        let mut rest = path;
        while let Some(end) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = rest.get(..end).unwrap_or_default();
            if !self.known.insert(self.hash(rest, Shape::Folder)) {
                return;
            }
        }
    }

    fn has(&self, path: &[u8], shape: Shape) -> bool {
        self.known.contains(&self.hash(path, shape))
    }
}

/// Clears the folders of `layout` of what the backup does not have. Links are removed, never followed, and nothing of another
/// file system is touched. Not durable before those folders are.
///
/// Errors: the disk; something that is mounted in there.
pub(super) async fn sweep(source: Source<'_>, layout: &Layout) -> Result<Swept, RebuildError> {
    let listed = Listed::of(source, layout).await?;
    let (layout, major) = (layout.clone(), source.label.postgres_version / 10_000);
    let work = move || {
        let aside = format!("{ASIDE}{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        let mut broom = Broom { listed, layout, aside, swept: Swept::default() };
        broom.sweep(major)?;
        Ok(broom.swept)
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string())))
}

struct Broom {
    listed: Listed,
    layout: Layout,
    /// The name of the folder for WAL.
    aside: String,
    swept: Swept,
}

impl Broom {
    fn sweep(&mut self, major: u32) -> Result<(), RebuildError> {
        let Layout { data, waldir, tablespaces, .. } = self.layout.clone();
        self.folder(&data, b"", None)?;
        if let Some(waldir) = waldir.filter(|waldir| waldir.is_dir()) {
            self.folder(&waldir, b"pg_wal", None)?;
        }
        for space in tablespaces.iter().filter(|space| space.place.is_dir()) {
            // Clusters of other versions may have folders beside (pg_upgrade).
            self.folder(&space.place, format!("pg_tblspc/{}", space.oid).as_bytes(), Some(&format!("PG_{major}_")))?;
        }
        Ok(())
    }

    /// Goes through a folder that stays; of its entries only through those that begin with `prefix`, where there is one.
    fn folder(&mut self, folder: &Path, path: &[u8], prefix: Option<&str>) -> Result<(), RebuildError> {
        let device = look_at(folder)?.dev();
        for entry in fs::read_dir(folder).map_err(RebuildError::io("list", folder))? {
            let entry = entry.map_err(RebuildError::io("list", folder))?;
            let name = entry.file_name();
            let (name, place) = (name.as_bytes(), entry.path());
            let is_root = path.is_empty() || self.layout.roots().any(|root| root == folder);
            if (is_root && name == b"lost+found") || prefix.is_some_and(|prefix| !name.starts_with(prefix.as_bytes())) {
                continue;
            }
            let path = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
            let found = look_at(&place)?;
            let kind = found.file_type();
            if kind.is_dir() && self.listed.has(&path, Shape::Folder) {
                self.folder(&place, &path, None)?;
            } else if path.starts_with(b"pg_wal/") && path.len() == b"pg_wal/".len() + name.len() && !kind.is_symlink()
            {
                self.in_pg_wal(&place, name, &found, device)?;
            } else if kind.is_dir() {
                self.remove_folder(&place, &found, device)?;
            } else {
                // A file with another name is not only this directory's to write into (cp -al, pg_upgrade --link).
                let stays = (kind.is_file() && found.nlink() == 1 && self.listed.has(&path, Shape::File))
                    || (kind.is_symlink() && self.listed.has(&path, Shape::Link));
                if !stays {
                    self.remove(&place)?;
                }
            }
        }
        Ok(())
    }

    /// Something in `pg_wal` itself, of which no backup has any file.
    fn in_pg_wal(&mut self, place: &Path, name: &[u8], found: &Metadata, device: u64) -> Result<(), RebuildError> {
        if found.is_dir() {
            let stays = name.starts_with(ASIDE.as_bytes());
            return if stays { Ok(()) } else { self.remove_folder(place, found, device) };
        }
        let folder = place.parent().unwrap_or(place).join(&self.aside);
        if self.swept.aside.is_none() {
            match DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // Of a rebuild a moment ago.
                made => made.map_err(RebuildError::io("make the folder", &folder))?,
            }
            self.layout.owner.take(&folder, 0o700)?;
        }
        let to = folder.join(OsStr::from_bytes(name));
        fs::rename(place, &to).map_err(RebuildError::io("move aside", place))?;
        self.swept.set_aside += 1;
        self.swept.aside = Some(folder);
        Ok(())
    }

    fn remove_folder(&mut self, folder: &Path, found: &Metadata, device: u64) -> Result<(), RebuildError> {
        if found.dev() != device {
            let why =
                format!("another file system is mounted on {}, which is not part of the backup", folder.display());
            let next = format!("unmount it, and restore again: umount {}", folder.display());
            return Err(RebuildError::refused(why, [next]));
        }
        for entry in fs::read_dir(folder).map_err(RebuildError::io("list", folder))? {
            let place = entry.map_err(RebuildError::io("list", folder))?.path();
            let found = look_at(&place)?;
            if found.is_dir() { self.remove_folder(&place, &found, device)? } else { self.remove(&place)? }
        }
        fs::remove_dir(folder).map_err(RebuildError::io("remove the folder", folder))
    }

    fn remove(&mut self, file: &Path) -> Result<(), RebuildError> {
        fs::remove_file(file).map_err(RebuildError::io("remove", file))?;
        self.swept.removed += 1;
        Ok(())
    }
}

fn look_at(path: &Path) -> Result<Metadata, RebuildError> {
    fs::symlink_metadata(path).map_err(RebuildError::io("look at", path))
}
