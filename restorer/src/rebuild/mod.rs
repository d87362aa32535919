//! From a base backup to a data directory.
//!
//! In this order, so that nothing is begun that cannot be ended: [`Survey`] reads the list of files, [`Layout`] decides
//! where everything goes and refuses what must not be touched, [`needs`] compares with the free space, [`rebuild`]
//! writes the files, [`configure`] the recovery settings, and [`Unfinished::finish`] puts `pg_control` in its place: a
//! directory without it does not start (case 27).
//!
//! | module | holds |
//! | --- | --- |
//! | [`order`] | all of it, in that order |
//! | [`survey`] | what the backup consists of |
//! | [`owner`] | who the files will belong to, and what that user can read |
//! | [`layout`], [`vacancy`], [`tablespaces`] | where everything goes; which folders are free to take |
//! | [`space`] | what it needs on which file system |
//! | [`skeleton`], [`target_file`], [`window`], [`placing`] | folders and empty files; where a file's frames belong; which frame goes where; writing them |
//! | [`server_manifest`] | the server's manifest, for files of changed blocks |
//! | [`configure`], [`recovery_command`], [`access_files`] | recovery settings |
//! | [`config_files`] | configuration files that lay elsewhere, beside the data directory |
//! | [`plan_file`] | the plan beside the data directory |

mod access_files;
mod config_files;
mod configure;
mod error;
mod layout;
mod order;
mod owner;
mod placing;
mod plan_file;
mod recovery_command;
mod server_manifest;
mod skeleton;
mod space;
mod survey;
mod tablespaces;
mod target_file;
mod vacancy;
mod window;

use std::fs::File;
use std::path::PathBuf;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::repository::{Label, ManifestEntry, Repository};
use walseal_common::seal::Identity;
use walseal_common::terminal::Progress;

pub use config_files::ConfigFiles;
pub use configure::{RecoveryConfig, Standby, configure, strip_inherited};
pub use error::RebuildError;
pub use layout::{Destination, Layout};
pub use order::{Order, Restored};
pub use owner::{Access, Accounts, Owner};
pub use plan_file::{PlanFileError, companion_folder, read_plan, write_plan};
pub use recovery_command::{recovery_command, served_command};
pub use space::{Need, check_space, needs};
pub use survey::Survey;
pub use tablespaces::{PlacedTablespace, TablespaceMapping};
pub use vacancy::{Vacancy, live_server};

use skeleton::Skeleton;
use window::{Window, Windows};

/// Where a backup is read from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// What opens it.
    pub identities: &'a [Identity],
    /// The backup.
    pub label: &'a Label,
}

impl Source<'_> {
    /// One page of the list of files.
    pub(crate) async fn page(&self, page: usize) -> Result<Vec<ManifestEntry>, RebuildError> {
        Ok(self.repository.manifest_page(self.label, page, self.identities).await?)
    }
}

/// A data directory in which all files are there except `pg_control`: no server starts on it.
#[derive(Debug)]
#[must_use = "without `finish` the data directory has no pg_control"]
pub struct Unfinished {
    layout: Layout,
    control: PathBuf,
}

impl Unfinished {
    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Puts `pg_control` in its place, the last step (case 27). Durable on return.
    pub fn finish(self) -> Result<(), RebuildError> {
        let place = self.layout.data.join("global/pg_control");
        std::fs::rename(&self.control, &place).map_err(RebuildError::io("rename", &self.control))?;
        for folder in [self.layout.data.join("global"), self.layout.data.clone()] {
            sync_folder(&folder)?;
        }
        Ok(())
    }
}

/// Makes the entries of a folder durable.
fn sync_folder(folder: &std::path::Path) -> Result<(), RebuildError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(RebuildError::io("sync", folder))
}

/// Writes all files of the backup, `jobs` data objects at a time; memory is bounded by about 20 MiB for each of them and
/// one [`Window`] (I11). Every object is verified as a whole (size, digest, signatures) and every frame against the
/// list of files before it is written; on return everything is durable.
///
/// Of a backup of which the server sent changed blocks only, `backup_manifest` is made that of the files as they lie there.
///
/// Errors: an object that is not what the label refers to; a frame that is not what the list of files says; the disk.
/// What was written until then stays, without `pg_control`.
pub async fn rebuild(
    source: Source<'_>,
    layout: Layout,
    jobs: usize,
    progress: &Progress,
) -> Result<Unfinished, RebuildError> {
    let mut skeleton = Skeleton::begin(&layout)?;
    let mut windows = Windows::new(source);
    while let Some(window) = windows.next(&mut skeleton).await? {
        fill(source, &window, jobs, progress).await?;
        window.finish(&layout.owner, jobs).await?;
    }
    if source.label.native {
        progress.message("backup_manifest is made that of the restored files");
        let (label, layout) = (source.label.clone(), layout.clone());
        let complete = move || server_manifest::complete(&layout.data, &label, &layout.owner, jobs);
        let completed = tokio::task::spawn_blocking(complete).await;
        completed.unwrap_or_else(|join| Err(RebuildError::Thread(join.to_string())))?;
    }
    let control = skeleton.control_file().ok_or_else(|| RebuildError::backup(source.label, "it has no pg_control"))?;
    skeleton.finish(&layout)?;
    Ok(Unfinished { layout, control })
}

/// Writes the frames of a window: each object once, then what could not be placed on sight.
async fn fill(source: Source<'_>, window: &Window, jobs: usize, progress: &Progress) -> Result<(), RebuildError> {
    let placed = stream::iter(window.objects())
        .map(|object| placing::place_object(source, window.clone(), object, progress))
        .buffer_unordered(jobs.max(1));
    placed.try_collect::<()>().await?;
    for (file, layer) in window.uneven_layers() {
        placing::place_in_order(source, file, layer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
