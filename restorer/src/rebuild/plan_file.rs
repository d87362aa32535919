//! The plan beside the data directory: `<data directory>.walseal/plan.json`.
//!
//! It pins the way and the ends that were known when the restore began, so that `fetch` never takes a repository that lost
//! something since for one that ends there (case 1).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Owner, RebuildError, sync_folder};
use crate::plan::{PLAN_SCHEMA, Plan};

/// A plan could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// The disk.
    #[error("read the plan {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// It is no plan.
    #[error("{} is not a plan that this program wrote: {why}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The folder of what a restore keeps beside a data directory, which must hold nothing strange itself.
pub fn companion_folder(data: &Path) -> PathBuf {
    let mut name = OsString::from(data.as_os_str());
    name.push(".walseal");
    PathBuf::from(name)
}

/// Writes the plan for the data directory `data`, for `owner`'s eyes only, and says where. Replaces that of an earlier restore
/// to the same place. Durable on return.
pub fn write_plan(plan: &Plan, data: &Path, owner: &Owner) -> Result<PathBuf, RebuildError> {
    let folder = companion_folder(data);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(RebuildError::io("make the folder", &folder)(error));
        }
        _ => {}
    }
    let (file, fresh) = (folder.join("plan.json"), folder.join("plan.json.new"));
    let write = || -> io::Result<File> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        target.write_all(&serde_json::to_vec_pretty(plan).map_err(io::Error::other)?)?;
        target.sync_all()?;
        Ok(target)
    };
    let written = write().map_err(RebuildError::io("write", &fresh))?;
    owner.take_file(&written, &fresh, 0o600)?;
    fs::rename(&fresh, &file).map_err(RebuildError::io("rename", &fresh))?;
    sync_folder(&folder)?;
    owner.take(&folder, 0o700)?;
    Ok(file)
}

/// Reads a plan that [`write_plan`] wrote.
///
/// Errors: not there, not readable, not a plan of this version.
pub fn read_plan(path: &Path) -> Result<Plan, PlanFileError> {
    let bytes = fs::read(path).map_err(|source| PlanFileError::Io { path: path.to_owned(), source })?;
    let content = |why: String| PlanFileError::Content { path: path.to_owned(), why };
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| content(error.to_string()))?;
    if plan.version == PLAN_SCHEMA.version {
        Ok(plan)
    } else {
        let (found, known) = (plan.version, PLAN_SCHEMA.version);
        Err(content(format!("it has version {found}, this program reads version {known}")))
    }
}
