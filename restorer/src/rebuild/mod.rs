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
//! | [`standing`], [`mark`] | a data directory that is there already and may be written over; how one is marked that is not finished |
//! | [`sweep`], [`comparison`] | of such a directory: what is not in the backup goes; what is right stays |
//! | [`space`] | what it needs on which file system |
//! | [`skeleton`], [`target_file`], [`window`] | folders; where a file's frames belong; which frame goes where |
//! | [`retrieval`], [`object`], [`placing`] | how much of an object is fetched; opening it; writing its frames |
//! | [`finishing`] | making files durable |
//! | [`toll`] | what it has cost |
//! | [`server_manifest`] | the server's manifest, for files of changed blocks |
//! | [`configure`], [`recovery_command`], [`access_files`] | recovery settings |
//! | [`config_files`] | configuration files that lay elsewhere, beside the data directory |
//! | [`companion`], [`plan_file`] | the folder beside the data directory; the plan in it |
//! | [`recovering`] | how a restore is marked whose recovery has not ended, and what goes on with it |
//! | [`put`] | a small file that is put in its place, durable |

mod access_files;
mod companion;
mod comparison;
mod config_files;
mod configure;
mod error;
mod finishing;
mod layout;
mod mark;
mod object;
mod order;
mod owner;
mod placing;
mod plan_file;
mod put;
mod recovering;
mod recovery_command;
mod retrieval;
mod server_manifest;
mod skeleton;
mod space;
mod standing;
mod survey;
mod sweep;
mod tablespaces;
mod target_file;
mod toll;
mod vacancy;
mod window;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use walseal_common::repository::{Label, ManifestEntry, ObjectReference, Repository};
use walseal_common::seal::Identity;
use walseal_common::terminal::Progress;

pub use companion::companion_folder;
pub use config_files::ConfigFiles;
pub use configure::{RecoveryConfig, Standby, configure, end_recovery, strip_inherited};
pub use error::RebuildError;
pub use layout::{Destination, Layout};
pub use order::{Order, Restored, room_for};
pub use owner::{Access, Accounts, Owner};
pub use plan_file::{PlanFileError, read_plan, write_plan};
pub use recovering::{Alone, Asked, Interrupted, Recovering};
pub use recovery_command::{recovery_command, served_command};
pub use space::{Need, Room, check_space, needs, rooms};
pub use survey::Survey;
pub use sweep::Swept;
pub use tablespaces::{PlacedTablespace, TablespaceMapping};
pub use toll::Traffic;
pub use vacancy::{Vacancy, live_server};

use finishing::finishing;
use mark::Mark;
use put::{sync_folder, take_away};
use skeleton::Skeleton;
use toll::Toll;
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

impl<'a> Source<'a> {
    /// One page of the list of files.
    pub(crate) async fn page(&self, page: usize) -> Result<Vec<ManifestEntry>, RebuildError> {
        Ok(self.repository.manifest_page(self.label, page, self.identities).await?)
    }

    /// One of the label's objects.
    fn reference(&self, object: u32) -> Result<&'a ObjectReference, RebuildError> {
        let missing = || RebuildError::backup(self.label, format!("its label lists no object {object}"));
        self.label.objects.get(object as usize).ok_or_else(missing)
    }
}

/// A data directory in which all files are there except `pg_control`: no server starts on it.
#[derive(Debug)]
#[must_use = "without `finish` the data directory has no pg_control"]
pub struct Unfinished {
    layout: Layout,
    control: PathBuf,
    traffic: Traffic,
    swept: Swept,
}

impl Unfinished {
    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What was there and not in the backup.
    pub fn swept(&self) -> &Swept {
        &self.swept
    }

    /// What it has cost.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Puts `pg_control` in its place, the last step (case 27). Durable on return.
    pub fn finish(self) -> Result<(), RebuildError> {
        let place = self.layout.data.join("global/pg_control");
        std::fs::rename(&self.control, &place).map_err(RebuildError::io("rename", &self.control))?;
        for folder in [self.layout.data.join("global"), self.layout.data.clone()] {
            sync_folder(&folder)?;
        }
        Mark::remove(&self.layout.data)
    }
}

/// Writes all files of the backup, `jobs` data objects at a time; memory is bounded by about 20 MiB for each of them and
/// one [`Window`] (I11). Every object that is read whole is verified as a whole (size, digest, signatures), and every frame
/// against the list of files before it is written; on return everything is durable.
///
/// Of a backup of which the server sent changed blocks only, `backup_manifest` is made that of the files as they lie there.
///
/// Where `layout` says that an earlier state stands there, what is not in the backup is removed first, and of the rest only
/// frames are fetched and written whose digest differs.
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
    Mark::of(&layout, source.repository.cluster()).put(&layout)?;
    let mut swept = Swept::default();
    if layout.stands {
        // From here on no server starts (case 27).
        take_away(&layout.data.join("global"), "pg_control")?;
        progress.message("removing what is not in the backup");
        swept = sweep::sweep(source, &layout).await?;
    }
    skeleton.links(&layout)?;
    let mut windows = Windows::new(source);
    let toll = Arc::new(Toll::new(progress));
    while let Some(window) = windows.next(&mut skeleton, jobs, &toll).await? {
        fill(source, &window, &layout.owner, jobs, &toll).await?;
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
    Ok(Unfinished { layout, control, traffic: toll.traffic(), swept })
}

/// Writes the files of a window: each object's frames, then what could not be placed on sight. Files are made when the first
/// of their bytes arrives and finished as soon as the last one is written, both while others are fetched.
async fn fill(
    source: Source<'_>,
    window: &Window,
    owner: &Owner,
    jobs: usize,
    toll: &Arc<Toll>,
) -> Result<(), RebuildError> {
    let (whole, finishing) = finishing();
    let write = async move {
        whole.take(window.untouched()).await;
        let place = |object| {
            let whole = whole.clone();
            async move {
                whole.take(placing::place_object(source, window, object, toll).await?).await;
                Ok::<(), RebuildError>(())
            }
        };
        let placed = stream::iter(window.objects()).map(place).buffer_unordered(jobs.max(1));
        placed.try_collect::<()>().await?;
        for (number, file) in window.uneven() {
            for layer in file.layers.iter().filter(|layer| layer.is_uneven()) {
                placing::place_in_order(source, file, layer, toll).await?;
            }
            whole.take([number]).await;
        }
        Ok(())
    };
    tokio::try_join!(write, finishing.run(&window.files, owner)).map(|_| ())
}

#[cfg(test)]
mod tests;
