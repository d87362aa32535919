//! The mark of a restore that also runs recovery: `recovering.json` beside the data directory.
//!
//! It is put when all files are durable, before `pg_control` has its place, and taken away when recovery has ended as
//! asked, or before anything of the directory is written over. So a data directory with `pg_control` that has it is
//! whole (case 27), and recovery goes on there by the plan beside it: PostgreSQL begins again at its last restartpoint.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use walseal_common::timeline::SystemIdentifier;

use super::mark::Mark;
use super::owner::resolve;
use super::plan_file::plan_path;
use super::put::{put, take_away};
use super::standing::system_identifier;
use super::{
    ConfigFiles, Destination, Layout, Owner, RebuildError, Restored, Swept, TablespaceMapping, Traffic,
    companion_folder, read_plan,
};
use crate::plan::{Plan, Request};
use crate::shell::quoted_path;

/// Its name in the folder beside the data directory.
const MARK: &str = "recovering.json";

/// What it says, beside the plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovering {
    /// Device and inode of the data directory: of another one in its place it says nothing.
    pub directory: (u64, u64),
    /// Whether an earlier state was written over (`--delta`).
    pub delta: bool,
    /// Whether archiving stays as it was (`--keep-archiving`).
    pub keep_archiving: bool,
    /// Where `pg_wal` is, when it is not in the data directory.
    pub waldir: Option<PathBuf>,
    /// What was said about tablespaces.
    pub tablespaces: TablespaceMapping,
    /// As in [`Restored`].
    pub has_configuration: bool,
    /// As in [`Restored`].
    pub bytes: u64,
    /// As in [`Restored`].
    pub config_files: ConfigFiles,
}

impl Recovering {
    /// Puts it beside the data directory. Durable on return.
    pub(super) fn put(&self, layout: &Layout) -> Result<(), RebuildError> {
        let folder = companion_folder(&layout.data);
        let failed = |error: serde_json::Error| RebuildError::io("mark", &folder)(error.into());
        let bytes = serde_json::to_vec_pretty(self).map_err(failed)?;
        put(&folder, MARK, &bytes, &layout.owner).map(|_| ())
    }

    fn read(data: &Path) -> Result<Option<Recovering>, RebuildError> {
        let file = companion_folder(data).join(MARK);
        match fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(mark) => Ok(Some(mark)),
                Err(error) => {
                    let why = format!("{} is not what a restore leaves there: {error}", file.display());
                    let next =
                        format!("when nobody restores to {} any more: rm {}", data.display(), quoted_path(&file));
                    Err(RebuildError::refused(why, [next, "restore to another folder".to_owned()]))
                }
            },
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(RebuildError::io("read", &file)(error)),
        }
    }

    /// What tells a directory from another one in its place.
    pub(super) fn directory_of(data: &Path) -> Result<(u64, u64), RebuildError> {
        let found = fs::metadata(data).map_err(RebuildError::io("look at", data))?;
        Ok((found.dev(), found.ino()))
    }

    /// Takes it away where it is: recovery in the data directory `data` has ended as asked, or its files are written
    /// over. Durable on return.
    ///
    /// Errors: the disk.
    pub fn remove(data: &Path) -> Result<(), RebuildError> {
        let folder = companion_folder(data);
        if folder.is_dir() { take_away(&folder, MARK) } else { Ok(()) }
    }
}

/// The only one that runs recovery in a data directory, for as long as it lives.
#[derive(Debug)]
pub struct Alone {
    _locked: File,
}

impl Alone {
    /// Locks the mark of the data directory `data`.
    ///
    /// Errors: somebody else has; the disk.
    pub fn in_recovery(data: &Path) -> Result<Alone, RebuildError> {
        let path = companion_folder(data).join(MARK);
        let file = File::open(&path).map_err(RebuildError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Alone { _locked: file }),
            Err(Errno::WOULDBLOCK) => {
                let why = format!("another walseal-restorer runs recovery in {} at this moment", data.display());
                Err(RebuildError::refused(why, ["wait until it has ended, or end it".to_owned()]))
            }
            Err(error) => Err(RebuildError::io("lock", &path)(error.into())),
        }
    }
}

/// What a command asks for, as far as it tells whether a restore is gone on with.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where to, in time.
    pub request: &'a Request,
    /// The repository's cluster. The repository itself may be reached by another name by now.
    pub cluster: SystemIdentifier,
    /// Where to, on disk.
    pub destination: &'a Destination,
    /// `--keep-archiving`.
    pub keep_archiving: bool,
    /// `--start`.
    pub starts: bool,
}

/// A restore of which all files are there, and whose recovery was not seen to its end.
#[derive(Clone, PartialEq, Debug)]
pub struct Interrupted {
    /// Its plan.
    pub plan: Plan,
    data: PathBuf,
    mark: Recovering,
}

impl Interrupted {
    /// The restore that a command goes on with; `None` where it begins one. `--delta` writes over whatever another
    /// command began.
    ///
    /// Errors: another restore was interrupted there; what it left cannot be read.
    pub fn find(asked: &Asked<'_>) -> Result<Option<Interrupted>, RebuildError> {
        let data = resolve(&asked.destination.data)?;
        let control = data.join("global/pg_control");
        if fs::symlink_metadata(&control).is_err() {
            return Ok(None);
        }
        let (writes_over, is_over) = (asked.destination.delta, !data.join("recovery.signal").exists());
        let is_gone_on_with = |mark: &Recovering| !writes_over || mark.delta && !is_over;
        let Some(mark) = Recovering::read(&data)?.filter(is_gone_on_with) else { return Ok(None) };
        let plan = read_plan(&plan_path(&data)).map_err(|error| {
            let next = "write the restore over what it left: --delta".to_owned();
            RebuildError::refused(error.to_string(), [next, "restore to another folder".to_owned()])
        })?;
        // Somebody may have put another directory in its place, also one of the same cluster.
        if system_identifier(&control)? != plan.cluster || Recovering::directory_of(&data)? != mark.directory {
            return Ok(None);
        }
        let found = Interrupted { plan, data, mark };
        let differences = found.differences(asked)?;
        match differences.is_empty() {
            true => Ok(Some(found)),
            false if writes_over => Ok(None),
            false => Err(found.refusal(&differences)),
        }
    }

    /// What is another than what was begun, a clause each.
    fn differences(&self, asked: &Asked<'_>) -> Result<Vec<String>, RebuildError> {
        let (mark, destination) = (&self.mark, asked.destination);
        let waldir = destination.waldir.as_deref().map(resolve).transpose()?;
        let owner = fs::metadata(&self.data).map_err(RebuildError::io("look at", &self.data))?.uid();
        let spaces = &destination.tablespaces;
        let with = |has: bool| if has { "with" } else { "without" };
        let all = [
            (self.plan.cluster != asked.cluster, format!("that one is of cluster {}", self.plan.cluster)),
            (self.plan.request != *asked.request, format!("that one leads {}", self.plan.request.flags())),
            (!asked.starts, "that one was begun with --start".to_owned()),
            (
                mark.keep_archiving != asked.keep_archiving,
                format!("that one was begun {} --keep-archiving", with(mark.keep_archiving)),
            ),
            (waldir.is_some() && waldir != mark.waldir, "that one was begun with another --waldir".to_owned()),
            (
                *spaces != TablespaceMapping::default() && *spaces != mark.tablespaces,
                "that one was begun with other places for tablespaces".to_owned(),
            ),
            (owner != destination.owner.uid, format!("that one belongs to user {owner}")),
        ];
        Ok(all.into_iter().filter(|(differs, _)| *differs).map(|(_, clause)| clause).collect())
    }

    fn refusal(&self, differences: &[String]) -> RebuildError {
        let why = format!(
            "--target-dir {} holds a restore whose recovery was not seen to its end, and this command asks for another \
             one: {}",
            self.data.display(),
            differences.join(", ")
        );
        let keep = if self.mark.keep_archiving { " --keep-archiving" } else { "" };
        let command = format!(
            "walseal-restorer restore {} --target-dir {} --start{keep}",
            self.plan.request.flags(),
            quoted_path(&self.data)
        );
        let next = [
            format!("go on with it: {command}"),
            "give it up, and write this one over it: --delta".to_owned(),
            "name another folder".to_owned(),
        ];
        RebuildError::refused(why, next)
    }

    /// What it had restored, for `owner`, who is the same as then; the rest of the rebuild's own mark goes.
    ///
    /// Errors: the disk.
    pub fn take_up(&self, owner: &Owner) -> Result<Restored, RebuildError> {
        Mark::remove(&self.data)?;
        let mode = fs::metadata(&self.data).map_err(RebuildError::io("look at", &self.data))?.mode() & 0o777;
        let Recovering { waldir, has_configuration, bytes, config_files, .. } = self.mark.clone();
        let layout = Layout {
            data: self.data.clone(),
            mode,
            waldir,
            // Recovery finds them by their links.
            tablespaces: Vec::new(),
            owner: owner.clone(),
            existing: vec![self.data.clone()],
            stands: true,
        };
        Ok(Restored {
            layout,
            plan_file: plan_path(&self.data),
            has_configuration,
            bytes,
            config_files,
            traffic: Traffic::default(),
            swept: Swept::default(),
            is_standby: false,
            inherited: None,
        })
    }
}
