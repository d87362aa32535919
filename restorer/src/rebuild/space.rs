//! What a restore needs on which file system, and whether it is there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;
use walseal_common::terminal::units;

use super::{Layout, RebuildError, Survey};

/// Kept free beside what is counted: temporary files, the server's log, blocks that are not full.
const RESERVE: u64 = 64 << 20;

/// What goes to one file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// A folder on it.
    pub folder: String,
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

/// What goes to one folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Room {
    /// Which it is: `data directory`, `pg_wal`, `tablespace 16384`.
    pub what: String,
    /// Where.
    pub folder: String,
    /// Bytes of files that come there, beside what is there and written over.
    pub files: u64,
    /// Bytes of WAL that lie there at a time.
    pub wal: u64,
    /// Bytes that are free for users on its file system now.
    pub free: u64,
    /// Which file system that is: folders of the same number share what is free.
    pub filesystem: u64,
}

/// What goes where, folder by folder; `wal` is the most WAL that lies in `pg_wal` at a time, in bytes.
pub fn rooms(layout: &Layout, survey: &Survey, wal: u64) -> Result<Vec<Room>, RebuildError> {
    let own_wal = if layout.waldir.is_none() { wal } else { 0 };
    let mut shares = vec![("data directory".to_owned(), layout.data.as_path(), survey.data_bytes, own_wal)];
    shares.extend(layout.waldir.iter().map(|waldir| ("pg_wal".to_owned(), waldir.as_path(), 0, wal)));
    for space in &layout.tablespaces {
        let bytes = survey.tablespace_bytes.get(&space.oid).copied().unwrap_or(0);
        shares.push((format!("tablespace {}", space.oid), &space.place, bytes, 0));
    }
    let room = |(what, folder, files, wal): (String, &Path, u64, u64)| {
        let existing = existing_part(folder);
        let filesystem = std::fs::metadata(existing).map_err(RebuildError::io("look at", existing))?.dev();
        let found =
            rustix::fs::statvfs(existing).map_err(|error| RebuildError::io("look at", existing)(error.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        // What is written over is not needed twice.
        let files = files.saturating_sub(if layout.stands { occupied(folder) } else { 0 });
        Ok(Room { what, folder: folder.display().to_string(), files, wal, free, filesystem })
    };
    shares.into_iter().map(room).collect()
}

/// What goes to which file system.
pub fn needs(rooms: &[Room]) -> Vec<Need> {
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    for room in rooms {
        let (folder, free) = (room.folder.clone(), room.free);
        let need = needs.entry(room.filesystem).or_insert(Need { folder, files: 0, wal: 0, reserve: RESERVE, free });
        need.files = need.files.saturating_add(room.files);
        need.wal = need.wal.saturating_add(room.wal);
    }
    needs.into_values().collect()
}

/// Refuses when a file system has less free than is needed, with both numbers.
pub fn check_space(needs: &[Need]) -> Result<(), RebuildError> {
    let Some(short) = needs.iter().find(|need| need.bytes() > need.free) else { return Ok(()) };
    let why = format!(
        "the file system of {} has {} free, and the restore needs {} there ({} of files, {} of WAL, {} to spare)",
        short.folder,
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
