//! A data directory that is there already and may be written over: what an interrupted rebuild left, or with `--delta` a
//! cluster that no server runs on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use walseal_common::timeline::SystemIdentifier;

use super::RebuildError;
use super::mark::{Mark, is_half_written};
use super::owner::resolve;
use super::vacancy::{check_outside, live_server};

/// What belongs to a data directory that is there already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// The data directory, its real path.
    pub(super) data: PathBuf,
    /// Whether it is an interrupted rebuild's own work, with all that belongs to it.
    pub(super) interrupted: bool,
    /// Where its `pg_wal` is, when that is a link.
    pub(super) waldir: Option<PathBuf>,
    /// Where its tablespaces are, by object id.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
}

/// What stands at `data` and may be written over by a restore of `cluster`; `None` where nothing does, and whether the place is
/// free then is another question. `delta` says that a cluster may be.
///
/// Errors: a server runs on it; it belongs to another cluster; with `delta`, it is no data directory, and not empty either.
pub(super) fn look(data: &Path, delta: bool, cluster: SystemIdentifier) -> Result<Option<Standing>, RebuildError> {
    let data = resolve(data)?;
    let (mark, control) = (Mark::read(&data)?, data.join("global/pg_control"));
    let has_control = fs::symlink_metadata(&control).is_ok();
    let interrupted = match (mark, has_control) {
        (Some(mark), false) => Some(mark),
        _ if !delta => return Ok(None),
        (_, true) => None,
        (None, false) => return if is_empty(&data)? { Ok(None) } else { Err(no_cluster(&data)) },
    };
    check_outside(&data, "--target-dir")?;
    if let Some(pid) = live_server(&data) {
        let why =
            format!("--target-dir {} is the data directory of a server that runs now (process {pid})", data.display());
        let next = format!("stop it first: pg_ctl stop -D {}; or name another folder", data.display());
        return Err(RebuildError::refused(why, [next]));
    }
    let (found, standing) = match interrupted {
        Some(Mark { cluster, waldir, tablespaces }) => {
            (cluster, Standing { data, interrupted: true, waldir, tablespaces })
        }
        None => {
            let (waldir, tablespaces) = (link(&data.join("pg_wal"))?, tablespace_links(&data)?);
            (system_identifier(&control)?, Standing { data, interrupted: false, waldir, tablespaces })
        }
    };
    if found == cluster {
        return Ok(Some(standing));
    }
    let why = format!(
        "--target-dir {} belongs to cluster {found}, and the backup is of cluster {cluster}",
        standing.data.display()
    );
    Err(RebuildError::refused(why, ["name another folder".to_owned()]))
}

fn no_cluster(data: &Path) -> RebuildError {
    let why = format!(
        "--delta goes on from a data directory, and --target-dir {} is none: it has no global/pg_control, and no interrupted \
         restore left it",
        data.display()
    );
    RebuildError::refused(why, ["name another folder, and leave out --delta".to_owned()])
}

fn is_empty(folder: &Path) -> Result<bool, RebuildError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.all(|entry| entry.is_ok_and(|one| is_half_written(&one.file_name())))),
        // Vacancy says what is wrong with these.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(true),
        Err(error) => Err(RebuildError::io("list", folder)(error)),
    }
}

/// The first member of `ControlFileData` (`pg_control.h`), in every version, as the machine writes numbers.
pub(super) fn system_identifier(control: &Path) -> Result<SystemIdentifier, RebuildError> {
    let mut bytes = [0; 8];
    let read = File::open(control).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(RebuildError::io("read", control))?;
    Ok(SystemIdentifier(u64::from_ne_bytes(bytes)))
}

/// Where a link leads, as the file system sees it; `None` where it is none.
fn link(path: &Path) -> Result<Option<PathBuf>, RebuildError> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(resolve(&path.parent().unwrap_or(path).join(target))?)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(RebuildError::io("read the link", path)(error)),
    }
}

fn tablespace_links(data: &Path) -> Result<BTreeMap<u32, PathBuf>, RebuildError> {
    let folder = data.join("pg_tblspc");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(RebuildError::io("list", &folder)(error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(RebuildError::io("list", &folder))?;
        let oid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(oid), Some(place)) = (oid, link(&entry.path())?) {
            found.insert(oid, place);
        }
    }
    Ok(found)
}
