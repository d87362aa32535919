//! The process of a private server.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::programs::{command, mortal_command};
use super::settings::{Files, Purpose, settings};
use super::{InstanceError, Programs};
use crate::rebuild::{Restored, companion_folder};

/// The longest path of a Unix socket (`sun_path` of `sockaddr_un`, with its zero).
const LONGEST_SOCKET: usize = 107;

/// How often the server is looked at.
pub(super) const GLANCE: Duration = Duration::from_millis(100);

/// A running private server. Dropped without [`Server::leave`], it is stopped at once.
#[derive(Debug)]
pub(super) struct Server {
    child: Option<Child>,
    pub(super) files: Files,
    pub(super) data: PathBuf,
    read_to: u64,
    partial: String,
}

impl Server {
    /// Starts it on the restored directory; `restore_command` stands in for the directory's own.
    pub(super) fn start(
        programs: &Programs,
        restored: &Restored,
        purpose: &Purpose,
        restore_command: Option<&str>,
    ) -> Result<Server, InstanceError> {
        let (data, owner) = (&restored.layout.data, &restored.layout.owner);
        let files = prepare(restored)?;
        let mut settings = settings(programs, owner, data, &files, purpose)?;
        settings.extend(restore_command.map(|command| ("restore_command".to_owned(), command.to_owned())));
        let log = files.log();
        let output = write_private(restored, &log, "")?;
        let errors = output.try_clone().map_err(InstanceError::io("open", &log))?;
        let mut call = match purpose {
            Purpose::Recovery { .. } => command(&programs.postgres, owner, data),
            // Nobody needs it when this program is gone.
            Purpose::Disposable { .. } => mortal_command(&programs.postgres, owner, data),
        };
        call.arg("-D").arg(data).stdin(Stdio::null()).stdout(output).stderr(errors);
        for (name, value) in settings {
            call.arg("-c").arg(format!("{name}={value}"));
        }
        // Keys pressed at this terminal are not for the server: it is stopped in order.
        call.process_group(0);
        let child = call.spawn().map_err(InstanceError::io("start", &programs.postgres))?;
        Ok(Server { child: Some(child), files, data: data.clone(), read_to: 0, partial: String::new() })
    }

    /// Lines that were logged since the last look.
    pub(super) fn new_lines(&mut self) -> Result<Vec<String>, InstanceError> {
        let path = self.files.log();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read_to))?;
            // What a server logs between two looks; more waits for the next one.
            file.take(1 << 20).read_to_end(&mut bytes)
        });
        self.read_to += read.map_err(InstanceError::io("read", &path))? as u64;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.partial.rfind('\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        Ok(whole.lines().map(str::to_owned).collect())
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool, InstanceError> {
        let Some(child) = &mut self.child else { return Ok(true) };
        let ended =
            child.try_wait().map_err(InstanceError::io("wait for the server of", &self.files.folder))?.is_some();
        if ended {
            self.child = None;
        }
        Ok(ended)
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A server that is gone already needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Shuts it down with a checkpoint; at once when that takes longer than `patience`.
    pub(super) async fn stop(mut self, patience: Duration) -> Result<(), InstanceError> {
        self.signal(Signal::INT);
        let begun = Instant::now();
        while !self.has_ended()? {
            if begun.elapsed() > patience {
                self.signal(Signal::QUIT);
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Takes away what a server that has ended leaves of its command line: `pg_ctl restart` would use it again.
    pub(super) fn forget(restored: &Restored) -> Result<(), InstanceError> {
        let path = restored.layout.data.join("postmaster.opts");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(InstanceError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Lets it run on after this program.
    pub(super) fn leave(mut self) {
        self.child = None;
    }

    /// The last lines of its log.
    pub(super) fn last_lines(&self) -> String {
        self.files.last_lines(15)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::QUIT);
        if let Some(child) = &mut self.child {
            // An immediate shutdown takes no longer than PostgreSQL's own five seconds; nobody is left to be told of an error.
            let _ = child.wait();
        }
    }
}

/// Makes what the server needs outside its data directory.
fn prepare(restored: &Restored) -> Result<Files, InstanceError> {
    let folder = companion_folder(&restored.layout.data);
    let sockets = folder.join("run");
    let fits = sockets.as_os_str().len() + "/.s.PGSQL.5432".len() < LONGEST_SOCKET;
    let sockets = if fits { sockets } else { std::env::temp_dir().join(format!("walseal-{}", std::process::id())) };
    for folder in [&folder, &sockets] {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && *folder != std::env::temp_dir() => {}
            made => made.map_err(InstanceError::io("make the folder", folder))?,
        }
        restored.layout.owner.take(folder, 0o700)?;
    }
    let configuration = (!restored.has_configuration).then(|| folder.join("postgresql.conf"));
    let files = Files { folder, sockets, configuration };
    // Only the owner (and root) gets as far as the socket, so that nothing is left to ask.
    write_private(restored, &files.access(), "local all all trust\nlocal replication all trust\n")?;
    write_private(restored, &files.identities(), "")?;
    if let Some(file) = &files.configuration {
        let text = "# The cluster keeps its configuration outside its data directory; this one served its recovery.\n";
        write_private(restored, file, text)?;
    }
    Ok(files)
}

fn write_private(restored: &Restored, path: &Path, text: &str) -> Result<File, InstanceError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(InstanceError::io("write", path))?;
    file.write_all(text.as_bytes()).map_err(InstanceError::io("write", path))?;
    restored.layout.owner.take_file(&file, path, 0o600)?;
    Ok(file)
}

/// The folder of the socket, for those who want to connect.
pub(super) fn socket_folder(files: &Files) -> PathBuf {
    files.sockets.clone()
}
