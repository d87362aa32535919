//! What a restore needs on which file system, and whether it is there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walseal_common::terminal::units;

use super::{Layout, RebuildError, Survey};

/// Kept free beside what is counted: temporary files, the server's log, blocks that are not full.
const RESERVE: u64 = 64 << 20;

/// What goes to one file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// A folder on it.
    pub folder: PathBuf,
    /// Bytes of files.
    pub files: u64,
    /// Bytes of WAL that lie there at a time.
    pub wal: u64,
    /// Bytes that should stay free.
    pub reserve: u64,
    /// Bytes that are free for users now.
    pub free: u64,
}

impl Need {
    /// Bytes that must be free.
    pub fn bytes(&self) -> u64 {
        self.files.saturating_add(self.wal).saturating_add(self.reserve)
    }
}

/// What goes where; `wal` is the most WAL that lies in `pg_wal` at a time, in bytes.
pub fn needs(layout: &Layout, survey: &Survey, wal: u64) -> Result<Vec<Need>, RebuildError> {
    let mut shares = vec![(layout.data.as_path(), survey.data_bytes, 0)];
    shares.push((layout.waldir.as_deref().unwrap_or(&layout.data), 0, wal));
    for space in &layout.tablespaces {
        shares.push((&space.place, survey.tablespace_bytes.get(&space.oid).copied().unwrap_or(0), 0));
    }
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    for (folder, files, wal) in shares {
        let existing = existing_part(folder);
        let device = std::fs::metadata(existing).map_err(RebuildError::io("look at", existing))?.dev();
        let found =
            rustix::fs::statvfs(existing).map_err(|error| RebuildError::io("look at", existing)(error.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let owned = folder.to_owned();
        let need = needs.entry(device).or_insert(Need { folder: owned, files: 0, wal: 0, reserve: RESERVE, free });
        // What is written over is not needed twice.
        need.files = need.files.saturating_add(files.saturating_sub(if layout.stands { occupied(folder) } else { 0 }));
        need.wal = need.wal.saturating_add(wal);
    }
    Ok(needs.into_values().collect())
}

/// Refuses when a file system has less free than is needed, with both numbers.
pub fn check_space(needs: &[Need]) -> Result<(), RebuildError> {
    let Some(short) = needs.iter().find(|need| need.bytes() > need.free) else { return Ok(()) };
    let why = format!(
        "the file system of {} has {} free, and the restore needs {} there ({} of files, {} of WAL, {} to spare)",
        short.folder.display(),
        units::size(short.free),
        units::size(short.bytes()),
        units::size(short.files),
        units::size(short.wal),
        units::size(short.reserve)
    );
    let next = ["name a folder on a larger file system, or make room", "spread it: --waldir, --tablespace OLD=NEW"];
    Err(RebuildError::refused(why, next.map(str::to_owned)))
}

/// Bytes that the files below a folder take of its file system; links are not followed. What cannot be looked at counts nothing:
/// the need is rather said too large.
fn occupied(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let each = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    each.map(|(path, found)| if found.is_dir() { occupied(&path) } else { found.blocks().saturating_mul(512) }).sum()
}

/// The nearest folder on the way to `path` that exists.
fn existing_part(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}
