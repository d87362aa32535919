//! Who the files of a restored cluster belong to, and what that user can read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::RebuildError;

/// The user that PostgreSQL will run as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The account's name; its number where it has none.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
    /// Whether it is another user than this process, which then is root and hands over what it writes.
    pub is_other: bool,
}

/// The accounts of this machine.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

/// A line of the user database.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Accounts {
    /// Those in `/etc/passwd` and `/etc/group`; others are asked of `getent` when they are needed.
    pub fn of_this_machine() -> Result<Accounts, RebuildError> {
        let read = |path: &str| {
            let path = Path::new(path);
            fs::read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(RebuildError::io("read", path))
        };
        Ok(Accounts { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
    }

    fn find(&self, matches: impl Fn(&Account) -> bool, key: &str) -> Option<Account> {
        let parse = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { name, uid, gid })
        };
        let local = self.passwd.lines().filter_map(parse).find(|account| matches(account));
        local.or_else(|| {
            // Accounts of a directory service. Where there is no getent there are none.
            let output = Command::new("getent").args(["passwd", "--", key]).output().ok()?;
            parse(String::from_utf8_lossy(&output.stdout).lines().next()?)
        })
    }

    fn by_name(&self, name: &str) -> Option<Account> {
        self.find(|account| account.name == name, name)
    }

    fn by_uid(&self, uid: u32) -> Account {
        let unnamed = Account { name: uid.to_string(), uid, gid: uid };
        self.find(|account| account.uid == uid, &uid.to_string()).unwrap_or(unnamed)
    }

    fn groups(&self, account: &Account) -> Vec<u32> {
        let member = |line: &str| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == account.name).then_some(gid)
        };
        std::iter::once(account.gid).chain(self.group.lines().filter_map(member)).collect()
    }

    fn owner(&self, account: Account, process: u32) -> Owner {
        let groups = self.groups(&account);
        Owner { name: account.name, uid: account.uid, gid: account.gid, groups, is_other: account.uid != process }
    }
}

impl Owner {
    /// Who will own what is restored to `target`: this process' own user; for root (`process` 0) whom `asked` names, else
    /// the owner of the target's parent unless that is root, else `postgres`.
    ///
    /// Errors: no such account; root itself, as which PostgreSQL does not run; another user than oneself without being root.
    pub fn decide(
        accounts: &Accounts,
        process: u32,
        asked: Option<&str>,
        target: &Path,
    ) -> Result<Owner, RebuildError> {
        let named = |name: &str| {
            accounts.by_name(name).ok_or_else(|| {
                let next = format!("name the user that PostgreSQL will run as: --owner USER (not \"{name}\")");
                RebuildError::refused(format!("there is no user \"{name}\" on this machine"), [next])
            })
        };
        let account = match asked {
            Some(name) => named(name)?,
            None if process != 0 => accounts.by_uid(process),
            None => match target.parent().and_then(|parent| fs::metadata(parent).ok()).map(|found| found.uid()) {
                Some(uid) if uid != 0 => accounts.by_uid(uid),
                _ => named("postgres")?,
            },
        };
        if account.uid == 0 {
            let next = "name the user that PostgreSQL will run as: --owner postgres".to_owned();
            return Err(RebuildError::refused("PostgreSQL does not run as root, so root cannot own its files", [next]));
        }
        if process != 0 && account.uid != process {
            let why = format!("only root can restore for another user (--owner {})", account.name);
            return Err(RebuildError::refused(why, [format!("run this as {}, or as root", account.name)]));
        }
        Ok(accounts.owner(account, process))
    }

    /// Checks that this user can use `path` as `access` says, along all folders on the way.
    ///
    /// Errors: names what is in the way, and the command that opens it. Access control lists are not looked at.
    pub fn check_access(&self, path: &Path, access: Access, purpose: &str) -> Result<(), RebuildError> {
        if !self.is_other {
            return Ok(()); // This very process has used it already.
        }
        let path = fs::canonicalize(path).map_err(RebuildError::io("look at", path))?;
        let folders: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in folders.into_iter().rev() {
            if !self.allows(folder, 0o1)? {
                return Err(self.blocked(folder, purpose, &path, Access::Pass));
            }
        }
        if self.allows(&path, access.bits())? { Ok(()) } else { Err(self.blocked(&path, purpose, &path, access)) }
    }

    fn allows(&self, path: &Path, bits: u32) -> Result<bool, RebuildError> {
        let found = fs::metadata(path).map_err(RebuildError::io("look at", path))?;
        let mode = found.mode();
        let granted = if found.uid() == self.uid {
            mode >> 6
        } else if self.groups.contains(&found.gid()) {
            mode >> 3
        } else {
            mode
        };
        Ok(granted & bits == bits)
    }

    fn blocked(&self, at: &Path, purpose: &str, path: &Path, access: Access) -> RebuildError {
        let (user, at_text) = (&self.name, at.display());
        let verb = match access {
            Access::Read | Access::List => "read",
            Access::Run => "run",
            Access::Pass => "pass through",
        };
        let why = format!(
            "{user}, the user that the restored cluster will belong to, cannot {verb} {at_text}; PostgreSQL will need {} \
             as that user during recovery: {purpose}",
            path.display()
        );
        let next = match access {
            Access::Read => format!("run: chgrp {} {at_text} && chmod g+r {at_text}", self.gid),
            Access::List => format!("run: chown -R {user} {at_text}"),
            Access::Run => format!("run: chmod a+rx {at_text}"),
            Access::Pass => format!("move it to where {user} can reach it, or run: chmod a+x {at_text}"),
        };
        RebuildError::refused(why, [next, "restore for another user with --owner USER".to_owned()])
    }
}

/// What a user must be able to do with a file or folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read a file.
    Read,
    /// List a folder and read what is in it.
    List,
    /// Run a program.
    Run,
    /// Pass through a folder.
    Pass,
}

impl Access {
    const fn bits(self) -> u32 {
        match self {
            Access::Read => 0o4,
            Access::List | Access::Run => 0o5,
            Access::Pass => 0o1,
        }
    }
}

/// The absolute path of a path that need not exist, as the file system sees its existing part.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, RebuildError> {
    let path = std::path::absolute(path).map_err(RebuildError::io("resolve", path))?;
    let mut missing = Vec::new();
    for folder in path.ancestors() {
        match fs::canonicalize(folder) {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |real, part| real.join(part))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                missing.push(folder.file_name().unwrap_or_default().to_owned());
            }
            Err(error) => return Err(RebuildError::io("resolve", folder)(error)),
        }
    }
    Ok(path)
}
