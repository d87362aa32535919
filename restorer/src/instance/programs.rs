//! PostgreSQL's own programs, and running them as another user.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use walseal_common::postgres::programs::find;

use super::InstanceError;
use crate::rebuild::Owner;

/// The programs of one major version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// The server.
    pub postgres: PathBuf,
    /// What reads `pg_control`.
    pub pg_controldata: PathBuf,
    /// What starts and stops servers, for people.
    pub pg_ctl: PathBuf,
    major: u32,
    pg_bin: Option<PathBuf>,
}

impl Programs {
    /// Those that fit a server of `version` (150018), in `pg_bin` where it is given.
    ///
    /// Runs programs and waits for them, for some milliseconds.
    pub fn find(version: u32, pg_bin: Option<PathBuf>) -> Result<Programs, InstanceError> {
        let major = version / 10_000;
        let program = |name| Ok::<_, InstanceError>(find(name, major, pg_bin.as_deref())?.path);
        Ok(Programs {
            postgres: program("postgres")?,
            pg_controldata: program("pg_controldata")?,
            pg_ctl: program("pg_ctl")?,
            major,
            pg_bin,
        })
    }

    /// Another program of the same version.
    ///
    /// Errors: it is not on this machine.
    pub fn other(&self, name: &str) -> Result<PathBuf, InstanceError> {
        Ok(find(name, self.major, self.pg_bin.as_deref())?.path)
    }
}

/// `program` as `owner` runs it, in the folder `place`.
pub fn command(program: &Path, owner: &Owner, place: &Path) -> Command {
    assemble(program, owner, place, None)
}

/// As [`command`], for a program that gets SIGQUIT when the thread that starts it ends, however that comes, where `setpriv` can
/// ask the kernel for that (`PR_SET_PDEATHSIG`). The thread must be one that lives as long as this program: the main one.
pub(super) fn mortal_command(program: &Path, owner: &Owner, place: &Path) -> Command {
    let able = setpriv().filter(|setpriv| {
        let probe = Command::new(setpriv).args(["--pdeathsig", "keep", "true"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    });
    assemble(program, owner, place, able)
}

fn assemble(program: &Path, owner: &Owner, place: &Path, mortal: Option<PathBuf>) -> Command {
    let is_mortal = mortal.is_some();
    let other = if owner.is_other { setpriv() } else { None };
    let mut command = match mortal.or(other) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            if owner.is_other {
                // Unlike the standard library's own way it keeps the user's further groups, by which keys may be readable.
                let groups: Vec<String> = owner.groups.iter().map(ToString::to_string).collect();
                command.args([format!("--reuid={}", owner.uid), format!("--regid={}", owner.gid)]);
                command.arg(format!("--groups={}", groups.join(",")));
            }
            if is_mortal {
                command.args(["--pdeathsig", "QUIT"]);
            }
            command.arg(program);
            command
        }
        None => {
            let mut command = Command::new(program);
            if owner.is_other {
                command.uid(owner.uid).gid(owner.gid);
            }
            command
        }
    };
    command.current_dir(place).env("LC_ALL", "C");
    command
}

/// util-linux's `setpriv`, where it is.
fn setpriv() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("setpriv")).find(|program| program.is_file())
}
