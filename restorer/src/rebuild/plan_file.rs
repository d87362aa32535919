//! The plan beside the data directory: `<data directory>.walseal/plan.json`.
//!
//! It pins the way and the ends that were known when the restore began, so that `fetch` never takes a repository that lost
//! something since for one that ends there (case 1).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::companion::make_companion;
use super::put::put;
use super::{Owner, RebuildError, companion_folder};
use crate::plan::{PLAN_SCHEMA, Plan};

/// Its name in the folder beside the data directory.
const PLAN: &str = "plan.json";

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

/// Where the plan for the data directory `data` lies.
pub(super) fn plan_path(data: &Path) -> PathBuf {
    companion_folder(data).join(PLAN)
}

/// Writes the plan for the data directory `data`, for `owner`'s eyes only, and says where. Replaces that of an earlier restore
/// to the same place. Durable on return.
pub fn write_plan(plan: &Plan, data: &Path, owner: &Owner) -> Result<PathBuf, RebuildError> {
    let folder = make_companion(data)?;
    let plan = serde_json::to_vec_pretty(plan)
        .map_err(|error| RebuildError::io("write the plan into", &folder)(error.into()))?;
    let file = put(&folder, PLAN, &plan, owner)?;
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
