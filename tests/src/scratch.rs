//! The folder of one test, and the sweeper.
//!
//! Every process of the bed has its working directory inside its test's folder. That is how whatever a
//! killed test left running is told from everybody else's processes, and it needs no record that a kill
//! could have interrupted.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};

use crate::account::Account;
use crate::deadline::eventually;
use crate::process::Call;

/// Where scripts/test puts beds: on a disk, or in memory. Whichever it chooses, what was left in the other one goes, too.
const BEDS: [&str; 2] = ["/tmp", "/dev/shm"];

/// How long a server may take to end all its processes before it is killed.
const SERVER_END: Duration = Duration::from_secs(10);

/// The folder of one test: `<bed>/runs/<pid>-<start>-<n>`, named for the process that made it.
///
/// Dropping it ends what runs inside and removes it; with `WALSEAL_TEST_KEEP` set it is moved to
/// `<bed>/kept` instead.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    account: Account,
    calls: AtomicU32,
}

impl Scratch {
    /// A new folder, owned by the server's account. The first one of a process sweeps what killed tests left.
    pub fn new() -> Result<Arc<Scratch>> {
        static SWEPT: OnceLock<Result<(), String>> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEPT
            .get_or_init(|| sweep().map(|_| ()).map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)?;
        let account = Account::of_server()?;
        let me = Owner::this_process()?;
        let path = bed()?.join("runs").join(format!("{me}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        make_dir(&path, 0o755)?;
        account.own(&path)?;
        let scratch = Scratch { path, account, calls: AtomicU32::new(0) };
        scratch.dir("output")?;
        Ok(Arc::new(scratch))
    }

    /// Where it is; short enough for Unix sockets two levels below.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The account of servers and daemons in it.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Makes a folder in it, owned by the server's account, readable by it alone.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        make_dir(&path, 0o700)?;
        self.account.own(&path)?;
        Ok(path)
    }

    /// Writes a file in it, owned by the server's account, readable by it alone.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))
            .with_context(|| format!("setting the permissions of {}", path.display()))?;
        self.account.own(&path)?;
        Ok(path)
    }

    /// A call of `program` as the server's account.
    pub fn call(&self, program: impl AsRef<Path>) -> Call {
        self.call_as(&self.account, program)
    }

    /// A call of `program` as `account`.
    pub fn call_as(&self, account: &Account, program: impl AsRef<Path>) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let name = program.as_ref().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = account.command(program);
        command.current_dir(&self.path).env("HOME", &self.path);
        // A dot would be taken for the start of an extension.
        Call::new(command, &self.path.join("output").join(format!("{number:03}-{}", name.replace('.', "-"))))
    }

    /// A name that no other test has had: for prefixes in a store that tests share.
    pub fn unique_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let ended = if std::env::var_os("WALSEAL_TEST_KEEP").is_some() { keep(&self.path) } else { remove(&self.path) };
        if let Err(error) = ended {
            eprintln!("clearing {}: {error:#}", self.path.display());
        }
    }
}

/// Ends what killed tests left running and removes their folders; returns what was removed.
///
/// Only folders whose owner is gone are touched: the process with the id *and* the start time in its name.
pub fn sweep() -> Result<Vec<PathBuf>> {
    let _alone = lock_sweeper()?;
    let bed = bed()?;
    let mut removed = Vec::new();
    sweep_runs(&bed.join("runs"), &mut removed)?;
    let name = bed.file_name().unwrap_or_default();
    for runs in BEDS.map(|under| Path::new(under).join(name).join("runs")) {
        if !runs.starts_with(&bed) && is_mine(&runs)? {
            sweep_runs(&runs, &mut removed)?;
        }
    }
    Ok(removed)
}

/// Whether it is a folder, and of this user.
fn is_mine(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_dir() && found.uid() == rustix::process::geteuid().as_raw()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
    }
}

fn sweep_runs(runs: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(runs).with_context(|| format!("reading {}", runs.display()))? {
        let entry = entry.with_context(|| format!("reading {}", runs.display()))?;
        let Some(owner) = Owner::of(&entry.file_name().to_string_lossy()) else { continue };
        if !owner.is_alive() {
            remove(&entry.path())?;
            removed.push(entry.path());
        }
    }
    Ok(())
}

/// Keeps all sweepers of this user away until the answer is dropped.
pub fn lock_sweeper() -> Result<std::fs::File> {
    let runs = bed()?.join("runs");
    make_dir(&runs, 0o755)?;
    lock(&runs.join(".sweep"))
}

/// The bed's folder of this user, in `WALSEAL_TEST_BED` (by default `/tmp`); readable by all, since servers run as another user.
///
/// Errors: somebody else has made it.
pub fn bed() -> Result<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let under = std::env::var_os("WALSEAL_TEST_BED").map_or_else(|| PathBuf::from(BEDS[0]), PathBuf::from);
    if !under.is_absolute() {
        bail!("WALSEAL_TEST_BED is {}; it must be an absolute path", under.display());
    }
    let path = under.join(format!("walseal-tests-{me}"));
    make_dir(&path, 0o755)?;
    let owner = std::fs::symlink_metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
    if owner.uid() != me || !owner.is_dir() {
        bail!("{} belongs to user {}, not to {me}; remove it", path.display(), owner.uid());
    }
    Ok(path)
}

/// Makes a folder with these permissions; one that is there already is left as it is.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("setting the permissions of {}", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
    }
}

/// Waits until this process is the only one that holds the lock file `path`; held until the answer is dropped.
pub fn lock(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Ends everything that runs in `path` and moves it to where it can be looked at.
fn keep(path: &Path) -> Result<()> {
    end_processes(path)?;
    let kept = bed()?.join("kept");
    make_dir(&kept, 0o755)?;
    let to = kept.join(path.file_name().unwrap_or_default());
    std::fs::rename(path, &to).with_context(|| format!("moving {} to {}", path.display(), to.display()))?;
    eprintln!("kept {}", to.display());
    Ok(())
}

/// Ends everything that runs in `path` and removes it.
fn remove(path: &Path) -> Result<()> {
    end_processes(path)?;
    // What a process did last may still change the folder under the removal.
    eventually(&format!("{} to be gone", path.display()), SERVER_END, || match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(Some(())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Ok((!path.exists()).then_some(()))
        }
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    })
}

/// Ends every process whose working directory lies in `path`: first those in `path` itself, among them whoever would start a
/// server again; then servers, in order, so that they give back their shared memory; then whatever is left.
fn end_processes(path: &Path) -> Result<()> {
    for (pid, cwd) in living_in(path)? {
        if cwd == path {
            send(pid, Signal::KILL)?;
        }
    }
    let servers: Vec<i32> =
        living_in(path)?.into_iter().filter(|(pid, cwd)| is_postmaster(*pid, cwd)).map(|(pid, _)| pid).collect();
    if !servers.is_empty() {
        for pid in &servers {
            send(*pid, Signal::QUIT)?;
        }
        let ended = eventually("servers to end", SERVER_END, || {
            Ok(servers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(*pid)).then_some(()))
        });
        if let Err(error) = ended {
            eprintln!("killing servers in {}: {error:#}", path.display());
        }
    }
    eventually(&format!("processes in {} to end", path.display()), SERVER_END, || {
        let left = living_in(path)?;
        for (pid, _) in &left {
            send(*pid, Signal::KILL)?;
        }
        Ok(left.is_empty().then_some(()))
    })
}

/// Processes whose working directory lies in `path`, with that directory; zombies have none.
fn living_in(path: &Path) -> Result<Vec<(i32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("reading /proc")? {
        let entry = entry.context("reading /proc")?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        // Processes end while we look, and those of other users are not ours to see.
        let Ok(cwd) = std::fs::read_link(entry.path().join("cwd")) else { continue };
        if cwd.starts_with(path) && pid != std::process::id().cast_signed() {
            found.push((pid, cwd));
        }
    }
    Ok(found)
}

/// Whether a process works in `path` or below.
pub fn is_lived_in(path: &Path) -> Result<bool> {
    Ok(!living_in(path)?.is_empty())
}

/// Whether `pid` is the server of the data directory it works in, rather than one of its children.
fn is_postmaster(pid: i32, cwd: &Path) -> bool {
    let named = std::fs::read_to_string(cwd.join("postmaster.pid"));
    named.is_ok_and(|text| text.lines().next().is_some_and(|first| first.trim() == pid.to_string()))
}

/// Sends a signal to a process, which may just have ended.
fn send(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).context("a process id is positive")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("sending a signal to process {pid:?}")),
    }
}

/// Whether a process has ended and only waits to be asked how.
fn is_zombie(pid: i32) -> bool {
    stat(pid).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z"))
}

/// The fields of `/proc/<pid>/stat` from the third on (proc(5)); the second may hold blanks and brackets.
fn stat(pid: i32) -> Option<Vec<String>> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(line.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// A process told apart from a later one with the same id.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: i32,
    start: u64,
}

impl Owner {
    fn this_process() -> Result<Owner> {
        let pid = std::process::id().cast_signed();
        Ok(Owner { pid, start: Owner::start_of(pid).context("/proc does not tell when this process began")? })
    }

    /// The owner in a folder's name; none in a name that is not the bed's.
    fn of(name: &str) -> Option<Owner> {
        let mut parts = name.split('-');
        let owner = Owner { pid: parts.next()?.parse().ok()?, start: parts.next()?.parse().ok()? };
        parts.next()?.parse::<u32>().ok()?;
        Some(owner)
    }

    fn start_of(pid: i32) -> Option<u64> {
        // Field 22 of proc(5), counted from the third.
        stat(pid)?.get(19)?.parse().ok()
    }

    fn is_alive(&self) -> bool {
        Owner::start_of(self.pid) == Some(self.start) && !is_zombie(self.pid)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.pid, self.start)
    }
}
