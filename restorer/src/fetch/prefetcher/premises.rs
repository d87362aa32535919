//! The folder beside the data directory, `<data directory>.walseal`, in which hook and prefetcher meet.
//!
//! Whoever can write there could hand PostgreSQL any WAL. So it must belong to the user of the server, closed to everybody else, and
//! both sides look at who the other one is (`SO_PEERCRED`). It is looked at once and then used through the open folder, so that a
//! long path does not matter to the socket, and nobody can put another folder in its place in between.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::rebuild::{Owner, companion_folder};

const SOCKET: &str = "fetch.sock";

/// What a prefetcher has to say that nobody waits for; of its last start only.
const LOG: &str = "fetch.log";

/// Where files are made ready.
const READY: &str = "fetch.ready";

/// The same, in `pg_wal`, where that lies on another file system. PostgreSQL passes over names that are not its own there.
const READY_IN_WAL: &str = ".walseal-ready";

/// Why a prefetcher cannot be where it should be.
#[derive(Debug, thiserror::Error)]
pub enum PremisesError {
    /// Others could put WAL there.
    #[error("{} is not used to hand over WAL, because {why}; as the server's user: chmod 700, or remove it", .folder.display())]
    Open {
        /// The folder.
        folder: PathBuf,
        /// Who could, as a clause.
        why: String,
    },
    /// Another one is there.
    #[error("another process serves {} already", .0.display())]
    Taken(PathBuf),
    /// The disk.
    #[error("{operation} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
}

impl PremisesError {
    /// Whether the same call could not succeed later without anybody changing anything.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, PremisesError::Taken(_))
    }

    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PremisesError {
        let path = path.to_owned();
        move |source| PremisesError::Io { operation, path, source }
    }
}

/// The folder, found to be private to `uid` when it was opened.
#[derive(Debug)]
pub struct Premises {
    folder: PathBuf,
    open: File,
}

impl Premises {
    /// Those beside the data directory `data`; made where they are missing and `make` says so.
    ///
    /// Errors: not there; not private to `uid`, who runs the server.
    pub fn beside(data: &Path, uid: u32, make: bool) -> Result<Premises, PremisesError> {
        let folder = companion_folder(data);
        if make {
            match DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(PremisesError::io("make the folder", &folder)(error));
                }
                _ => {}
            }
        }
        Premises::at(folder, uid)
    }

    /// The folder itself.
    ///
    /// Errors: as [`Premises::beside`].
    pub fn at(folder: PathBuf, uid: u32) -> Result<Premises, PremisesError> {
        let open = open_folder(&folder)?;
        let found = open.metadata().map_err(PremisesError::io("look at", &folder))?;
        let why = if found.uid() != uid {
            format!("it belongs to user {}, not to user {uid}", found.uid())
        } else if found.mode() & 0o077 != 0 {
            format!("others than its owner may use it (mode {:o})", found.mode() & 0o777)
        } else {
            return Ok(Premises { folder, open });
        };
        Err(PremisesError::Open { folder, why })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn socket(&self) -> PathBuf {
        within(&self.open, SOCKET)
    }

    /// An empty log for a prefetcher that is started.
    pub(super) fn log(&self) -> Result<File, PremisesError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(within(&self.open, LOG)).map_err(PremisesError::io("write", &self.folder.join(LOG)))
    }

    /// Moves in: alone, with a socket and an empty place for files, all for the use of `owner`.
    ///
    /// Errors: [`PremisesError::Taken`]; the disk.
    pub(super) fn occupy(self, data: &Path, owner: &Owner) -> Result<(Occupied, UnixListener), PremisesError> {
        flock(&self.open, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| PremisesError::Taken(self.folder.clone()))?;
        let (socket, shown) = (self.socket(), self.folder.join(SOCKET));
        // Whoever left one is gone: the lock says so.
        remove(&socket).map_err(PremisesError::io("remove", &shown))?;
        let listener = UnixListener::bind(&socket).map_err(PremisesError::io("listen at", &shown))?;
        listener.set_nonblocking(true).map_err(PremisesError::io("listen at", &shown))?;
        let bound = fs::symlink_metadata(&socket).map_err(PremisesError::io("look at", &shown))?;
        let given = if owner.is_other {
            // Not through a link that the owner could put there. The folder keeps everybody else out.
            lchown(&socket, Some(owner.uid), Some(owner.gid))
        } else {
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
        };
        given.map_err(PremisesError::io("hand over", &shown))?;
        let ready = Ready::make(self.ready_place(data)?, owner)?;
        Ok((Occupied { premises: self, inode: bound.ino(), ready }, listener))
    }

    /// A place on the file system of `pg_wal`: a rename must be enough.
    fn ready_place(&self, data: &Path) -> Result<PathBuf, PremisesError> {
        let own = self.open.metadata().map_err(PremisesError::io("look at", &self.folder))?;
        let wal = data.join("pg_wal");
        Ok(match fs::metadata(&wal) {
            Ok(found) if found.dev() != own.dev() => wal.join(READY_IN_WAL),
            _ => self.folder.join(READY),
        })
    }
}

/// Opens a folder, not through a link.
fn open_folder(folder: &Path) -> Result<File, PremisesError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let opened = rustix::fs::open(folder, flags, Mode::empty());
    opened.map(File::from).map_err(|error| PremisesError::io("open the folder", folder)(error.into()))
}

/// A name in a folder that was opened, whatever is called so now.
fn within(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The premises while somebody serves there. Dropped, socket and files go.
#[derive(Debug)]
pub(super) struct Occupied {
    premises: Premises,
    inode: u64,
    pub(super) ready: Arc<Ready>,
}

impl Occupied {
    /// Whether a hook would still find us: the folder and the socket are there under their names, and ours.
    pub(super) fn is_found(&self) -> bool {
        fs::symlink_metadata(self.premises.folder.join(SOCKET)).is_ok_and(|found| found.ino() == self.inode)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.premises.folder
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        // What stays is in nobody's way: the next one takes it away.
        if self.is_found() {
            let _ = remove(&self.premises.socket());
        }
        let _ = fs::remove_dir_all(&self.ready.place);
    }
}

/// Where files are made ready for the hook to rename.
#[derive(Debug)]
pub(super) struct Ready {
    place: PathBuf,
    open: Arc<File>,
    owner: Owner,
    next: AtomicU64,
}

impl Ready {
    fn make(place: PathBuf, owner: &Owner) -> Result<Arc<Ready>, PremisesError> {
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(PremisesError::io("remove", &place)(error));
            }
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&place).map_err(PremisesError::io("make the folder", &place))?;
        let open = open_folder(&place)?;
        let taken = owner.take_file(&open, &place, 0o700);
        taken.map_err(|error| PremisesError::io("hand over", &place)(io::Error::other(error)))?;
        Ok(Arc::new(Ready { place, open: Arc::new(open), owner: owner.clone(), next: AtomicU64::new(0) }))
    }

    /// Writes a file. It is not synced: PostgreSQL syncs it before it gives it its name in `pg_wal` (`durable_rename` in
    /// `KeepFileRestoredFromArchive`), and asks again for one that it has not kept.
    pub(super) async fn put(self: &Arc<Ready>, bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<Arc<ReadyFile>> {
        let ready = self.clone();
        let written = tokio::task::spawn_blocking(move || ready.write(bytes.as_ref())).await;
        written.unwrap_or_else(|join| Err(io::Error::other(join)))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<Arc<ReadyFile>> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let (path, inside) = (self.place.join(&name), within(&self.open, &name));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&inside)?;
        // From here on it goes again unless it is handed out.
        let ready = Arc::new(ReadyFile { path, size: bytes.len() as u64, inside, _folder: self.open.clone() });
        file.write_all(bytes)?;
        self.owner.take_file(&file, &ready.path, 0o600).map_err(io::Error::other)?;
        Ok(ready)
    }
}

/// A file that may be handed out. Dropped, it is removed, unless somebody has renamed it.
#[derive(Debug)]
pub(super) struct ReadyFile {
    /// Where the hook finds it.
    pub(super) path: PathBuf,
    pub(super) size: u64,
    inside: PathBuf,
    /// Keeps `inside` a name of the same folder.
    _folder: Arc<File>,
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Renamed away, as it was made for; or its folder is gone, and this one with it.
        let _ = fs::remove_file(&self.inside);
    }
}
