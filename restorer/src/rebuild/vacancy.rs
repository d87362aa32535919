//! Which folders are free to be taken: nothing that exists is written over unless [`super::standing`] says so.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

use super::RebuildError;
use super::mark::is_half_written;
use super::owner::resolve;

/// What is at a place that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vacancy {
    /// Nothing, in a folder that exists.
    Absent,
    /// An empty folder, or one in which a rebuild began to write its mark and came no further.
    Empty,
}

/// The server that runs on a data directory: the process in its `postmaster.pid`, where that is alive.
pub fn live_server(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    let alive = match test_kill_process(Pid::from_raw(number)?) {
        Ok(()) => true,
        // It is somebody else's process, which is alive, too.
        Err(error) => error == rustix::io::Errno::PERM,
    };
    alive.then_some(number.unsigned_abs())
}

/// Looks at `path`, which `flag` named, and gives its real absolute path.
///
/// Errors: it is not empty, no folder, inside a data directory, or in a folder that does not exist.
pub(super) fn look(path: &Path, flag: &str) -> Result<(PathBuf, Vacancy), RebuildError> {
    let path = resolve(path)?;
    let shown = path.display();
    if path.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(RebuildError::refused(format!("{flag} {shown:?} has a line end in it"), []));
    }
    if is_data_directory(&path) {
        return Err(occupied(&path, &path, flag));
    }
    check_outside(&path, flag)?;
    match fs::read_dir(&path) {
        Ok(mut entries) => match entries
            .find(|entry| !entry.as_ref().is_ok_and(|one| is_half_written(&one.file_name())))
        {
            None => Ok((path, Vacancy::Empty)),
            Some(entry) => {
                let entry = entry.map_err(RebuildError::io("list", &path))?;
                let why = format!(
                    "{flag} {shown} is not empty (it holds {}); a restore never writes over anything",
                    Path::new(&entry.file_name()).display()
                );
                let next = if entry.file_name() == "lost+found" {
                    format!("it is the root of a file system: name a folder in it, {shown}/data")
                } else {
                    format!("name another folder, or, when nothing in it is needed any more: mv {shown} {shown}.old")
                };
                Err(RebuildError::refused(why, [next]))
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => match path.parent() {
            Some(parent) if parent.is_dir() => Ok((path, Vacancy::Absent)),
            parent => {
                let parent = parent.unwrap_or(Path::new("/")).display();
                let why = format!("{flag} {shown} cannot be made: there is no folder {parent}");
                Err(RebuildError::refused(why, [format!("run: mkdir -p {parent}")]))
            }
        },
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(RebuildError::refused(format!("{flag} {shown} is a file, not a folder"), []))
        }
        Err(error) => Err(RebuildError::io("list", &path)(error)),
    }
}

/// Refuses a real absolute path within a data directory.
pub(super) fn check_outside(path: &Path, flag: &str) -> Result<(), RebuildError> {
    match path.ancestors().skip(1).find(|folder| is_data_directory(folder)) {
        Some(data) => Err(occupied(path, data, flag)),
        None => Ok(()),
    }
}

fn is_data_directory(folder: &Path) -> bool {
    folder.join("PG_VERSION").is_file() && folder.join("global").is_dir()
}

fn occupied(path: &Path, data: &Path, flag: &str) -> RebuildError {
    let (shown, data_shown) = (path.display(), data.display());
    let place = if path == data { "is".to_owned() } else { format!("lies in {data_shown}, which is") };
    let why = match live_server(data) {
        Some(pid) => {
            format!("{flag} {shown} {place} the data directory of a server that runs now (process {pid})")
        }
        None => format!("{flag} {shown} {place} the data directory of a cluster; a restore never writes over one"),
    };
    let mut next = vec!["name another folder".to_owned()];
    if live_server(data).is_none() {
        next.push(format!("when the cluster is not needed any more: mv {data_shown} {data_shown}.old"));
        if path == data && flag == "--target-dir" {
            next.push("make it the backup's again, and fetch only what differs: --delta".to_owned());
        }
    }
    RebuildError::refused(why, next)
}
