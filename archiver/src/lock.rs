//! One daemon to a state folder: who holds the lock may touch what lies beside it.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The state folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("a daemon ({holder}) is already running with cluster.state_dir = {}", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// `pid 4711`, or that it is not known.
        holder: String,
    },
    /// The file system does not let us.
    #[error("{} cannot be locked: {source}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LockError {
    /// What to do about it, the best first.
    pub fn fixes(&self) -> Vec<String> {
        match self {
            LockError::Taken { holder, .. } => vec![
                "leave it: walseal-archiver status shows how it does".to_owned(),
                match holder.strip_prefix("pid ") {
                    Some(pid) => format!("stop it first, with systemctl stop and its unit's name, or with: kill {pid}"),
                    None => "stop it first".to_owned(),
                },
                "for another cluster on this host, set another cluster.name (or cluster.state_dir)".to_owned(),
            ],
            LockError::Io { .. } => {
                vec!["put cluster.state_dir on a local file system, in a folder of the user that runs this".to_owned()]
            }
        }
    }
}

/// The lock of a state folder. It goes with the process, however that ends; the file stays.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes `folder`, which must exist, for this process, without waiting. It comes before everything else in there is
    /// looked at: a daemon that starts beside another would take that one's open index for damage.
    ///
    /// Errors: another process has it; the file system has no locks.
    pub fn take(folder: &Path) -> Result<StateLock, LockError> {
        let path = folder.join("daemon.lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut open = File::options();
        let mut file =
            open.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken { folder: folder.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(StateLock { _file: file })
    }

    /// The process that holds the lock of `folder`, as the kernel lists it. To look takes no lock that a daemon could be kept out by.
    pub fn holder(folder: &Path) -> Option<u32> {
        let mut file = File::open(folder.join("daemon.lock")).ok()?;
        let inode = format!(":{}", file.metadata().ok()?.ino());
        let pid: u32 = holder(&mut file).strip_prefix("pid ")?.parse().ok()?;
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        // 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131085 0 EOF
        let is_it = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.contains(&"FLOCK")
                && words.contains(&pid.to_string().as_str())
                && words.iter().any(|word| word.ends_with(&inode))
        };
        locks.lines().any(is_it).then_some(pid)
    }
}

/// Who wrote the file; between lock and pid lies a moment in which nobody has.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("pid {pid}"),
        _ => "its pid is not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_and_free_again_when_its_holder_is_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(StateLock::holder(folder.path()), None);
        let held = StateLock::take(folder.path()).expect("free");
        assert_eq!(StateLock::holder(folder.path()), Some(std::process::id()));
        let error = StateLock::take(folder.path()).expect_err("taken");
        let own = format!("pid {}", std::process::id());
        assert!(error.to_string().contains(&own), "{error}");
        assert!(error.fixes().iter().any(|fix| fix.ends_with(&format!("kill {}", std::process::id()))), "{error:?}");
        drop(held);
        assert_eq!(StateLock::holder(folder.path()), None, "the file stays, the lock does not");
        // What an earlier, longer pid left is gone.
        std::fs::write(folder.path().join("daemon.lock"), "4294967295\nrubbish").expect("written");
        let held = StateLock::take(folder.path()).expect("free again");
        let text = std::fs::read_to_string(folder.path().join("daemon.lock")).expect("readable");
        assert_eq!(text, format!("{}\n", std::process::id()));
        std::fs::write(folder.path().join("daemon.lock"), "rubbish").expect("written");
        let error = StateLock::take(folder.path()).expect_err("taken");
        assert!(error.to_string().contains("not known"), "{error}");
        drop(held);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = StateLock::take(Path::new("/nowhere/at/all")).expect_err("no folder");
        assert!(error.to_string().starts_with("/nowhere/at/all/daemon.lock cannot be locked: "), "{error}");
    }
}
