//! The user that servers and programs run as.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// A system user. PostgreSQL refuses to run as root, so that root's tests run servers as `postgres`; any
/// other user runs them as itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, also the name of the database superuser.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Account {
    /// The account of servers and daemons: `postgres` for root, else the user who runs the tests.
    ///
    /// Errors: root without a user `postgres` on this machine.
    pub fn of_server() -> Result<Account> {
        let me = Account::current()?;
        if me.uid != 0 {
            return Ok(me);
        }
        find(|name, _| name == "postgres")?
            .context("there is no user \"postgres\" to run servers as; scripts/test installs postgresql-15")
    }

    /// The user who runs the tests.
    pub fn current() -> Result<Account> {
        let uid = rustix::process::geteuid().as_raw();
        find(|_, id| id == uid)?.with_context(|| format!("/etc/passwd has no user {uid}"))
    }

    /// A command that runs as this account, with a clean environment and messages in English.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear();
        command.envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("USER", self.name.as_str())]);
        if rustix::process::geteuid().as_raw() != self.uid {
            // The standard library drops the supplementary groups with the user id.
            command.gid(self.gid).uid(self.uid);
        }
        command
    }

    /// Gives `path` itself (not what lies below) to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("giving {} to {}", path.display(), self.name))
    }
}

/// The first user of `/etc/passwd` that `wanted` accepts by name and id.
fn find(wanted: impl Fn(&str, u32) -> bool) -> Result<Option<Account>> {
    let users = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    for line in users.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(uid), Some(gid)) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
        if wanted(name, uid) {
            return Ok(Some(Account { name: name.to_owned(), uid, gid }));
        }
    }
    Ok(None)
}
