//! Folders for what is thrown away.
//!
//! Each is `drill-<16 hexadecimal digits>` in the scratch directory, and holds a marker file that its process keeps locked for as
//! long as it lives. Whoever comes next takes away what has a marker that nobody holds: whatever killed its owner, nothing stays
//! for longer than that. A lock on the scratch directory itself is held only while a folder is made, or looked for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::InstanceError;
use crate::rebuild::{Accounts, Owner, companion_folder};

/// The marker: its owner keeps it locked.
const MARKER: &str = "walseal-drill";

/// What it says to those who find it.
const WORDS: &str = "A drill or another restore of walseal-restorer that leaves nothing behind makes and removes this folder. When none runs, it may \
                     be removed by hand.\n";

/// What the marker is called in a folder that a person wanted to keep.
const KEPT: &str = "kept";

/// The longest path of a Unix socket (`sun_path` of `sockaddr_un`, with its zero).
const LONGEST_SOCKET: usize = 107;

/// How often is looked whether what must end has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// How long processes may take to end before they are killed, and threads.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder that goes when this is dropped, with every process that works in it.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// Locked while it is open.
    marker: Option<File>,
    kept: bool,
}

impl Scratch {
    /// Takes away what killed runs left in `place`, and makes a folder in it for the user that servers run as.
    ///
    /// Errors: as [`Scratch::make`] and [`sweep`]; for root, there is no user `postgres`.
    pub fn fresh(place: &Path) -> Result<(Scratch, Owner), InstanceError> {
        for folder in sweep(place)? {
            tracing::info!(folder = %folder.display(), "removed what a run left that was killed");
        }
        let accounts = Accounts::of_this_machine()?;
        let process = rustix::process::geteuid().as_raw();
        let owner = Owner::decide(&accounts, process, None, &place.join("data"))?;
        Ok((Scratch::make(place, &owner)?, owner))
    }

    /// Makes a folder in `place`, which is made where it is missing, for `owner`.
    ///
    /// Errors: `place` is open to others, or its path too long for a socket; the disk.
    pub fn make(place: &Path, owner: &Owner) -> Result<Scratch, InstanceError> {
        let folder = place.join(format!("drill-{:016x}", RandomState::new().build_hasher().finish()));
        let socket = companion_folder(&folder.join("data")).join("run/.s.PGSQL.5432");
        if socket.as_os_str().len() >= LONGEST_SOCKET {
            return Err(InstanceError::Scratch {
                why: format!("the path {} is too long for a Unix socket in it", place.display()),
                next: "name a shorter one: drill.scratch_dir".to_owned(),
            });
        }
        let _alone = lock_place(place)?;
        DirBuilder::new().mode(0o700).create(&folder).map_err(InstanceError::io("make the folder", &folder))?;
        // From here on it goes again, whatever happens.
        let mut scratch = Scratch { folder, marker: None, kept: false };
        let path = scratch.folder.join(MARKER);
        let mut marker = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(InstanceError::io("make", &path))?;
        flock(&marker, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| InstanceError::io("lock", &path)(error.into()))?;
        marker.write_all(WORDS.as_bytes()).map_err(InstanceError::io("write", &path))?;
        scratch.marker = Some(marker);
        let spaces = scratch.tablespaces();
        DirBuilder::new().mode(0o700).create(&spaces).map_err(InstanceError::io("make the folder", &spaces))?;
        owner.take(&spaces, 0o700)?;
        owner.take(&scratch.folder, 0o700)?;
        Ok(scratch)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a data directory goes.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where tablespaces go.
    pub fn tablespaces(&self) -> PathBuf {
        self.folder.join("tablespaces")
    }

    /// Leaves it there, for a person to look at.
    ///
    /// Errors: the disk; then it goes.
    pub fn keep(mut self) -> Result<PathBuf, InstanceError> {
        let marker = self.folder.join(MARKER);
        fs::rename(&marker, self.folder.join(KEPT)).map_err(InstanceError::io("rename", &marker))?;
        self.kept = true;
        Ok(self.folder.clone())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = destroy(&self.folder) {
            tracing::warn!(%error, "what was restored is not all removed; the next run on this host tries again");
        }
    }
}

/// Takes away what runs that were killed left in `place`: ends their servers, removes their files. Gives the folders.
///
/// Errors: `place` cannot be used. A single folder that stays is warned about.
fn sweep(place: &Path) -> Result<Vec<PathBuf>, InstanceError> {
    let _alone = lock_place(place)?;
    let mut removed = Vec::new();
    for entry in fs::read_dir(place).map_err(InstanceError::io("list", place))? {
        let folder = entry.map_err(InstanceError::io("list", place))?.path();
        if !is_ours(&folder) {
            continue;
        }
        match take_away(&folder) {
            Ok(true) => removed.push(folder),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a run that was killed left a folder that cannot be removed"),
        }
    }
    Ok(removed)
}

/// Whether the folder has a name that [`Scratch::make`] gives.
fn is_ours(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("drill-"));
    let hexadecimal = |name: &str| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Not through a link: what it points to is somebody else's.
    name.is_some_and(hexadecimal) && fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir())
}

/// Removes the folder where its owner is gone; whether it was.
fn take_away(folder: &Path) -> Result<bool, InstanceError> {
    let path = folder.join(MARKER);
    let marker = match OpenOptions::new().write(true).open(&path) {
        Ok(marker) => marker,
        // Killed before there was a marker, or after all else was gone. A folder that was kept is not empty.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match fs::remove_dir(folder) {
                Ok(()) => Ok(true),
                Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Ok(false),
                Err(error) => Err(InstanceError::io("remove", folder)(error)),
            };
        }
        Err(error) => return Err(InstanceError::io("open", &path)(error)),
    };
    if flock(&marker, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    destroy(folder)?;
    Ok(true)
}

/// Ends what works in the folder, and removes it; the marker last, so that what is left is known for what it is.
fn destroy(folder: &Path) -> Result<(), InstanceError> {
    end_processes(folder);
    for entry in fs::read_dir(folder).map_err(InstanceError::io("list", folder))? {
        let entry = entry.map_err(InstanceError::io("list", folder))?;
        if entry.file_name() == MARKER {
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().map_err(InstanceError::io("look at", &path))?.is_dir();
        let removed = if is_folder { remove_folder(&path) } else { fs::remove_file(&path) };
        removed.map_err(InstanceError::io("remove", &path))?;
    }
    remove_folder(folder).map_err(InstanceError::io("remove", folder))
}

/// Removes a folder into which threads of a restore that was broken off may still write what they had begun: none of them begins
/// anything new.
fn remove_folder(folder: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && begun.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
}

/// Ends every process whose working directory lies in the folder: a server works in its data directory, and so do its children
/// and the programs that look at it. Nothing is ended for its number alone.
fn end_processes(folder: &Path) {
    let Ok(folder) = fs::canonicalize(folder) else { return };
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        let living = living_in(&folder);
        if living.is_empty() {
            return;
        }
        let impatient = begun.elapsed() > PATIENCE;
        for pid in living {
            // An immediate shutdown for a server; once each, unless that does not help.
            if impatient || !told.contains(&pid) {
                // One that ended meanwhile needs no signal.
                let _ = kill_process(pid, if impatient { Signal::KILL } else { Signal::QUIT });
                told.push(pid);
            }
        }
        if begun.elapsed() > PATIENCE * 2 {
            return; // Removing the files says what is in the way.
        }
        std::thread::sleep(PAUSE);
    }
}

fn living_in(folder: &Path) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: fs::DirEntry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        // That of another user is not shown, and not ours to end.
        let place = fs::read_link(entry.path().join("cwd")).ok()?;
        let zombie = fs::read_to_string(entry.path().join("stat")).ok()?.rsplit_once(") ")?.1.starts_with('Z');
        (place.starts_with(folder) && !zombie).then(|| Pid::from_raw(number))?
    };
    processes.flatten().filter_map(pid).collect()
}

/// Makes the scratch directory where it is missing, checks that nobody else can put things into our way there, and locks it.
fn lock_place(place: &Path) -> Result<File, InstanceError> {
    match DirBuilder::new().recursive(true).mode(0o755).create(place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(InstanceError::io("make the folder", place)(error));
        }
        _ => {}
    }
    let looked = |found: std::io::Result<fs::Metadata>| found.map_err(InstanceError::io("look at", place));
    let (link, found) = (looked(fs::symlink_metadata(place))?, looked(fs::metadata(place))?);
    let me = rustix::process::geteuid().as_raw();
    // Root trusts the user that servers run as, and nobody else.
    let server = if me == 0 { postgres() } else { None };
    let trusted = |uid: u32| uid == 0 || uid == me || server == Some(uid);
    let shared = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
    if shared || !trusted(found.uid()) || !trusted(link.uid()) {
        let why =
            if shared { "others can write to it".to_owned() } else { format!("it belongs to user {}", found.uid()) };
        return Err(InstanceError::Scratch {
            why: format!("{} is no place for a restored cluster: {why}", place.display()),
            next: "name a folder of your own: drill.scratch_dir".to_owned(),
        });
    }
    let path = place.join(".walseal-drills.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(InstanceError::io("open", &path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| InstanceError::io("lock", &path)(error.into()))?;
    Ok(file)
}

/// The number of the user `postgres`.
fn postgres() -> Option<u32> {
    let accounts = Accounts::of_this_machine().ok()?;
    Some(Owner::decide(&accounts, 0, Some("postgres"), Path::new("/")).ok()?.uid)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn owner() -> Owner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { name: "me".to_owned(), uid, gid, groups: vec![gid], is_other: false }
    }

    /// What a process that was killed leaves: all but the lock.
    fn abandon(mut scratch: Scratch) -> PathBuf {
        scratch.marker = None;
        scratch.kept = true;
        scratch.folder.clone()
    }

    #[test]
    fn a_folder_goes_with_its_owner_and_what_a_killed_one_left_goes_with_the_next() {
        let place = tempfile::tempdir().expect("a folder");
        let place = place.path();
        let scratch = Scratch::make(place, &owner()).expect("made");
        let alive = Scratch::make(place, &owner()).expect("made");
        fs::create_dir(scratch.data()).expect("ours");
        let folder = scratch.folder().to_owned();
        drop(scratch);
        assert!(!folder.exists());

        let dead = Scratch::make(place, &owner()).expect("made");
        fs::create_dir(dead.data()).expect("ours");
        let dead = abandon(dead);
        // Killed before there was a marker.
        fs::create_dir(place.join("drill-00112233aabbccdd")).expect("ours");
        // Not ours, whatever is in them.
        for name in ["drill-today", "data", "drill-00112233aabbccddee"] {
            fs::create_dir(place.join(name)).expect("ours");
            fs::write(place.join(name).join(MARKER), "").expect("ours");
        }
        let mut removed = sweep(place).expect("swept");
        removed.sort();
        let mut expected = vec![dead.clone(), place.join("drill-00112233aabbccdd")];
        expected.sort();
        assert_eq!(removed, expected);
        assert!(!dead.exists() && alive.folder().exists() && place.join("drill-today").exists());
        assert_eq!(sweep(place).expect("swept"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_process_of_a_killed_run_is_ended_and_no_other() {
        let place = tempfile::tempdir().expect("a folder");
        // Before anything is started: a child has our files open until it has become another program.
        let dead = abandon(Scratch::make(place.path(), &owner()).expect("made"));
        let inside = dead.join("data");
        fs::create_dir(&inside).expect("ours");
        let sleeper = |folder: &Path| {
            let mut call = Command::new("sleep");
            call.arg("600").current_dir(folder).stdin(Stdio::null()).spawn().expect("there is sleep")
        };
        let (mut lost, mut other) = (sleeper(&inside), sleeper(place.path()));
        // The number of another process stands where a server would have written its own.
        fs::write(inside.join("postmaster.pid"), format!("{}\n", other.id())).expect("ours");
        assert_eq!(sweep(place.path()).expect("swept"), [dead]);
        assert!(!lost.wait().expect("our child").success());
        assert!(other.try_wait().expect("our child").is_none(), "it has nothing to do with the drill");
        other.kill().and_then(|()| other.wait()).expect("our child");
    }

    #[test]
    fn what_was_kept_stays() {
        let place = tempfile::tempdir().expect("a folder");
        let kept = Scratch::make(place.path(), &owner()).expect("made").keep().expect("kept");
        assert_eq!(sweep(place.path()).expect("swept"), Vec::<PathBuf>::new());
        assert!(kept.is_dir());
    }

    #[test]
    fn a_place_that_others_can_write_to_is_refused() {
        let place = tempfile::tempdir().expect("a folder");
        let open = |mode| fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(mode));
        open(0o777).expect("ours");
        let error = Scratch::make(place.path(), &owner()).expect_err("anybody could put a link there");
        assert!(error.to_string().contains("others can write to it"), "{error}");
        open(0o1777).expect("ours");
        Scratch::make(place.path(), &owner()).expect("as in /tmp, what is ours stays ours");
        let long = place.path().join("x".repeat(90));
        let error = Scratch::make(&long, &owner()).expect_err("no socket fits");
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
