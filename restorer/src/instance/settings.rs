//! The private server's settings, given on its command line.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::programs::command;
use super::{ControlData, InstanceError, Programs};
use crate::rebuild::{Owner, companion_folder};

/// The files of a private server outside its data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Files {
    /// The folder of the others, and of the log.
    pub(super) folder: PathBuf,
    /// The folder of its socket.
    pub(super) sockets: PathBuf,
    /// A configuration file, where the cluster brought none.
    pub(super) configuration: Option<PathBuf>,
}

impl Files {
    pub(super) fn log(&self) -> PathBuf {
        log_in(&self.folder)
    }

    pub(super) fn access(&self) -> PathBuf {
        self.folder.join("pg_hba.conf")
    }

    /// The last `count` lines of the log.
    pub(super) fn last_lines(&self, count: usize) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }

    pub(super) fn identities(&self) -> PathBuf {
        self.folder.join("pg_ident.conf")
    }
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

/// The log of the private server that runs, or ran, on the data directory `data`.
pub(super) fn log_of(data: &Path) -> PathBuf {
    log_in(&companion_folder(data))
}

/// The setting by which a private server is known for one.
const PID_FILE: &str = "external_pid_file";

fn pid_file(folder: &Path) -> PathBuf {
    folder.join("server.pid")
}

/// A word on the command line of a private server on the data directory `data`, and of no other server.
pub(super) fn own_mark(data: &Path) -> String {
    format!("{PID_FILE}={}", pid_file(&companion_folder(data)).to_string_lossy())
}

/// What a private server is started for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To run recovery on a directory that is kept; `readable` asks for reading meanwhile.
    Recovery {
        /// Whether it may be read.
        readable: bool,
    },
    /// To be looked at and thrown away, with these libraries.
    Disposable {
        /// `shared_preload_libraries`.
        preload: String,
        /// Whether it may be read during recovery.
        readable: bool,
    },
}

impl Purpose {
    fn is_readable(&self) -> bool {
        matches!(self, Purpose::Recovery { readable: true } | Purpose::Disposable { readable: true, .. })
    }
}

/// What a server that is thrown away must not do: archive, work on its own account, or speak to another server (the workers of
/// subscriptions would, once it is promoted).
const DISPOSABLE: [(&str, &str); 6] = [
    ("archive_mode", "off"),
    ("autovacuum", "off"),
    ("max_logical_replication_workers", "0"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("synchronous_standby_names", ""),
];

/// Settings of a server that nobody but its owner reaches.
///
/// The limits are the larger of what `pg_control` demands and what the
/// cluster's own configuration says (case 48): they may have come from a command line that is not here.
pub(super) fn settings(
    programs: &Programs,
    owner: &Owner,
    data: &Path,
    files: &Files,
    purpose: &Purpose,
) -> Result<Vec<(String, String)>, InstanceError> {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut settings: Vec<(String, String)> = [
        ("listen_addresses", String::new()),
        ("port", "5432".to_owned()),
        ("unix_socket_directories", path(files.sockets.clone())),
        ("unix_socket_permissions", "0700".to_owned()),
        ("hba_file", path(files.access())),
        ("ident_file", path(files.identities())),
        // An empty name would be tried, too, and leave an error in the log.
        (PID_FILE, path(pid_file(&files.folder))),
        ("ssl", "off".to_owned()),
        ("hot_standby", if purpose.is_readable() { "on" } else { "off" }.to_owned()),
        ("restart_after_crash", "off".to_owned()),
        // Its log is read here.
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        ("log_line_prefix", "%m [%p] ".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("timezone", "UTC".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    if let Some(file) = &files.configuration {
        settings.push(("config_file".to_owned(), path(file.clone())));
    }
    if let Purpose::Disposable { preload, .. } = purpose {
        let own = DISPOSABLE.map(|(name, value)| (name.to_owned(), value.to_owned()));
        settings.extend(own);
        settings.push(("shared_preload_libraries".to_owned(), preload.clone()));
    }
    let control = ControlData::read(programs, owner, data)?;
    for (name, least) in control.at_least() {
        let configured = configured(programs, owner, data, files, name)?;
        if configured < least {
            settings.push((name.to_owned(), least.to_string()));
        }
    }
    Ok(settings)
}

/// What the cluster's own configuration says of a number.
fn configured(
    programs: &Programs,
    owner: &Owner,
    data: &Path,
    files: &Files,
    name: &str,
) -> Result<u64, InstanceError> {
    let mut call = command(&programs.postgres, owner, data);
    call.arg("-D").arg(data).args(["-C", name]).stdin(Stdio::null());
    if let Some(file) = &files.configuration {
        call.arg("-c").arg(format!("config_file={}", file.display()));
    }
    let output = call.output().map_err(InstanceError::io("run", &programs.postgres))?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().map_err(|_| InstanceError::Call {
        program: format!("postgres -C {name}"),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
