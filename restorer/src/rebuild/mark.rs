//! The mark of a rebuild that is under way: `walseal.unfinished` in the data directory.
//!
//! It is there from before the first file is written, or `pg_control` taken away, until `pg_control` is in its place. What lies
//! in a directory that has it and no `pg_control` is a rebuild's own work, and may be gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walseal_common::timeline::SystemIdentifier;

use super::put::{put, take_away};
use super::{Layout, RebuildError};

/// Its name in the data directory.
pub(super) const MARK: &str = "walseal.unfinished";

/// Whether an entry of a data directory is a mark that was being written, by a rebuild that ended before anything else was there.
pub(super) fn is_half_written(name: &std::ffi::OsStr) -> bool {
    name == "walseal.unfinished.new"
}

/// What it says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Whose files they are.
    pub(super) cluster: SystemIdentifier,
    /// Where `pg_wal` is, when it is not in the data directory.
    pub(super) waldir: Option<PathBuf>,
    /// Where the tablespaces outside the data directory are, by object id.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
}

impl Mark {
    /// That of a rebuild with this layout.
    pub(super) fn of(layout: &Layout, cluster: SystemIdentifier) -> Mark {
        let tablespaces = layout.tablespaces.iter().map(|space| (space.oid, space.place.clone())).collect();
        Mark { cluster, waldir: layout.waldir.clone(), tablespaces }
    }

    /// Puts it into the data directory. Durable on return.
    pub(super) fn put(&self, layout: &Layout) -> Result<(), RebuildError> {
        let failed = |error: serde_json::Error| RebuildError::io("mark", &layout.data)(error.into());
        let bytes = serde_json::to_vec_pretty(self).map_err(failed)?;
        put(&layout.data, MARK, &bytes, &layout.owner).map(|_| ())
    }

    /// That of the directory `data`, where it has one.
    ///
    /// Errors: it cannot be read.
    pub(super) fn read(data: &Path) -> Result<Option<Mark>, RebuildError> {
        let file = data.join(MARK);
        match fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(mark) => Ok(Some(mark)),
                Err(error) => {
                    let why = format!("{} is not what a restore leaves there: {error}", file.display());
                    Err(RebuildError::refused(why, ["restore to another folder".to_owned()]))
                }
            },
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(RebuildError::io("read", &file)(error)),
        }
    }

    /// Takes it away where it is. Durable on return.
    pub(super) fn remove(data: &Path) -> Result<(), RebuildError> {
        take_away(data, MARK)
    }
}
