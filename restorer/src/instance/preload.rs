//! Libraries that the cluster loads at its start.
//!
//! Some of a cluster's tables and indexes cannot be read without the library of their extension, so those that are on this
//! machine are loaded. One that is not here is left out and named: PostgreSQL runs without it, and says so itself where WAL or a
//! query needs it.

use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use super::programs::command;
use super::{InstanceError, Programs};
use crate::rebuild::Restored;

/// Libraries whose workers act on the world outside by themselves: jobs, requests, replication.
const ACTING: [&str; 6] = ["pg_cron", "pg_net", "pg_partman_bgw", "pglogical", "spock", "bdr"];

/// What becomes of the cluster's `shared_preload_libraries`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Preload {
    /// Loaded.
    pub loaded: Vec<String>,
    /// Not on this machine, and left out.
    pub missing: Vec<String>,
    /// Left out because their workers would act by themselves.
    pub kept_out: Vec<String>,
    /// Why the cluster's setting is not known, where it is not.
    pub unknown: Option<String>,
}

impl Preload {
    /// Asks the restored configuration, also one that lay outside the data directory (Debian), where the backup brought it.
    ///
    /// Errors: the program cannot be started.
    pub fn of(programs: &Programs, restored: &Restored) -> Result<Preload, InstanceError> {
        let (owner, data) = (&restored.layout.owner, &restored.layout.data);
        let mut call = command(&programs.postgres, owner, data);
        call.arg("-D").arg(data).args(["-C", "shared_preload_libraries"]).stdin(Stdio::null());
        if !restored.has_configuration {
            let beside = restored.config_files.of("config_file").unwrap_or(Path::new("/dev/null"));
            // Such a file says where the data directory was.
            call.arg("-c").arg(format!("config_file={}", beside.display()));
            call.arg("-c").arg(format!("data_directory={}", data.display()));
        }
        let output = call.output().map_err(InstanceError::io("run", &programs.postgres))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Ok(Preload { unknown: Some(said), ..Preload::default() });
        }
        Ok(Preload::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    fn parse(setting: &str) -> Preload {
        let names = setting.trim().split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty());
        let (kept_out, loaded) = names.map(str::to_owned).partition(|name| ACTING.contains(&plain(name)));
        Preload { loaded, kept_out, ..Preload::default() }
    }

    /// What the cluster loads and the instance does not, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let missing = self.missing.iter();
        let missing =
            missing.map(|name| format!("{name} of shared_preload_libraries is not on this host, and left out"));
        let kept_out = self.kept_out.iter();
        let kept_out = kept_out.map(|name| format!("{name} is left out, because its workers act by themselves"));
        let unknown = self.unknown.iter();
        let unknown = unknown.map(|why| format!("shared_preload_libraries of the cluster is not known: {why}"));
        missing.chain(kept_out).chain(unknown).collect()
    }

    /// The setting.
    pub(super) fn setting(&self) -> String {
        let quoted: Vec<String> = self.loaded.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        quoted.join(",")
    }

    /// Takes out a library that a server's log names as missing; whether there was one.
    pub(super) fn leave_out(&mut self, log: &str) -> bool {
        let Some(name) = missing(log) else { return false };
        let Some(at) = self.loaded.iter().position(|loaded| plain(loaded) == plain(&name)) else { return false };
        self.missing.push(self.loaded.remove(at));
        true
    }
}

/// The library that a server did not find at its start (`dfmgr.c`).
fn missing(log: &str) -> Option<String> {
    let fatal = log.lines().filter_map(|line| line.split_once("FATAL:  ")).map(|(_, message)| message);
    fatal
        .filter_map(|message| {
            let rest = message
                .strip_prefix("could not access file \"")
                .or(message.strip_prefix("could not load library \""))?;
            Some(rest.split('"').next()?.to_owned())
        })
        .next_back()
}

/// A library's own name, without folder and ending.
fn plain(name: &str) -> &str {
    let file = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
    file.strip_suffix(".so").unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_48_libraries_that_are_not_here_are_left_out_and_those_that_act_never_loaded() {
        let mut preload = Preload::parse("pg_stat_statements, \"$libdir/timescaledb\",pg_cron\n");
        assert_eq!(preload.kept_out, ["pg_cron"]);
        assert_eq!(preload.setting(), "\"pg_stat_statements\",\"$libdir/timescaledb\"");
        let log = "2026-11-21 02:30:00.000 UTC [7] FATAL:  could not access file \"$libdir/timescaledb\": No such file or directory";
        assert!(preload.leave_out(log));
        assert_eq!(
            (preload.missing.as_slice(), preload.loaded.as_slice()),
            (["$libdir/timescaledb".to_owned()].as_slice(), ["pg_stat_statements".to_owned()].as_slice())
        );
        assert!(!preload.leave_out(log), "it is out already");
        assert!(!preload.leave_out("x [7] FATAL:  data directory has wrong ownership"));
        let broken = "x [7] FATAL:  could not load library \"/usr/lib/pg_stat_statements.so\": undefined symbol";
        assert!(preload.leave_out(broken) && preload.loaded.is_empty());
    }
}
