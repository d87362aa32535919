//! The data directory that PostgreSQL runs `restore_command` in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use walseal_common::lsn::Lsn;
use walseal_common::timeline::SystemIdentifier;

use super::{FetchError, Route};
use crate::plan::RecoverySetting;

/// A working directory, which may be a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkingDirectory(PathBuf);

impl WorkingDirectory {
    /// This process' own.
    pub fn current() -> WorkingDirectory {
        WorkingDirectory(PathBuf::from("."))
    }

    /// That of another one, for tests.
    pub fn at(path: &Path) -> WorkingDirectory {
        WorkingDirectory(path.to_owned())
    }

    /// Its absolute path, as the file system has it.
    ///
    /// Errors: it cannot be looked at.
    pub fn absolute(&self) -> Result<PathBuf, FetchError> {
        self.0.canonicalize().map_err(|source| FetchError::Io { operation: "look at", path: self.0.clone(), source })
    }

    /// Whether a standby runs here (`standby.signal`), which a code above 125 would shut down.
    pub fn is_standby(&self) -> bool {
        self.0.join("standby.signal").exists()
    }

    /// Up to where recovery has to read WAL here before it stops by itself on a plan's last timeline; `None` where nothing
    /// but the end of WAL stops it, also because somebody has changed the recovery settings since the restore.
    pub fn read_through(&self, route: &Route) -> Option<Lsn> {
        let plan = route.plan()?;
        let text = std::fs::read_to_string(self.0.join("postgresql.auto.conf")).ok()?;
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("recovery_target")) {
            // A restore empties the settings that it does not need; of one that stands twice, the last line counts.
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            match value.trim() {
                "''" => found.remove(name.trim()),
                _ => found.insert(name.trim(), line),
            };
        }
        let lines: Vec<String> = plan.recovery.iter().map(RecoverySetting::line).collect();
        let as_planned =
            found.len() == lines.len() && lines.iter().all(|line| found.values().any(|found| found == line));
        if as_planned { plan.read_through() } else { None }
    }

    /// The cluster whose data directory this is: the first eight bytes of `pg_control` (`ControlFileData.system_identifier`).
    /// `None` where there is no `pg_control`.
    ///
    /// Errors: it is there and cannot be read.
    pub fn cluster(&self) -> Result<Option<SystemIdentifier>, FetchError> {
        let path = self.0.join("global/pg_control");
        let mut number = [0; 8];
        match File::open(&path).and_then(|mut file| file.read_exact(&mut number)) {
            Ok(()) => Ok(Some(SystemIdentifier(u64::from_ne_bytes(number)))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FetchError::Io { operation: "read", path, source }),
        }
    }

    /// The cluster to fetch for: this data directory's, which `wanted` must agree with (I4).
    pub fn agree(
        &self,
        wanted: Option<SystemIdentifier>,
        wanted_by: &'static str,
    ) -> Result<Option<SystemIdentifier>, FetchError> {
        match (self.cluster()?, wanted) {
            (Some(found), Some(wanted)) if found != wanted => {
                Err(FetchError::OtherCluster { found, wanted, wanted_by })
            }
            (found, wanted) => Ok(wanted.or(found)),
        }
    }
}
