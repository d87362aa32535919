//! A small disk that a daemon's folder lies on, and that can run full, or become read-only.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::account::Account;
use crate::deadline::PATIENCE;
use crate::process::Call;
use crate::scratch::Scratch;
use crate::site::{Daemon, Site};

/// The disk below a folder of a daemon, in a mount namespace of that process: it goes with it, however the test ends, and nobody else
/// sees it.
#[derive(Debug)]
pub struct Disk {
    inside: PathBuf,
    folder: PathBuf,
    pid: i32,
    scratch: Arc<Scratch>,
}

/// Mounts a folder, `$0`, over itself such that nothing below it can be written by name.
const READ_ONLY: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";

impl Disk {
    /// Starts the archiver's daemon with an empty disk of so many KiB mounted over `folder`.
    ///
    /// Errors: this user may make no mount namespace (`unshare` of util-linux says why); root may, and so may others where
    /// user namespaces are allowed.
    pub fn below_daemon(site: &Site, folder: &Path, kibibytes: u32) -> Result<(Disk, Daemon)> {
        let me = Account::current()?;
        let owner = if me.uid == 0 { site.scratch.account() } else { &Account { uid: 0, gid: 0, ..me.clone() } };
        let (uid, gid) = (owner.uid, owner.gid);
        let mount = format!("mount -t tmpfs -o size={kibibytes}k,mode=0700,uid={uid},gid={gid} none \"$0\"");
        let mut daemon = Daemon::start(daemon_on(site, folder, &mount)?)?;
        let inside = PathBuf::from(format!("/proc/{}/root", daemon.pid())).join(folder.strip_prefix("/")?);
        daemon
            .until("the daemon to use its disk", PATIENCE, || Ok(inside.join("walseal.sock").exists().then_some(())))?;
        let (folder, pid, scratch) = (folder.to_owned(), daemon.pid(), site.scratch.clone());
        Ok((Disk { inside, folder, pid, scratch }, daemon))
    }

    /// The archiver's daemon on a `folder` that is mounted read-only, not started.
    ///
    /// Errors: as [`Disk::below_daemon`].
    pub fn read_only_below(site: &Site, folder: &Path) -> Result<Call> {
        daemon_on(site, folder, READ_ONLY)
    }

    /// From now on nothing below it can be written by name; files that are open stay so.
    pub fn becomes_read_only(&self) -> Result<()> {
        self.changes(READ_ONLY)
    }

    /// Takes back [`Disk::becomes_read_only`].
    pub fn becomes_writable(&self) -> Result<()> {
        self.changes("umount -l \"$0\"")
    }

    /// Runs a shell's command in the daemon's mount namespace.
    fn changes(&self, command: &str) -> Result<()> {
        let me = Account::current()?;
        let spaces: &[&str] = if me.uid == 0 { &[] } else { &["--user", "--preserve-credentials"] };
        let call =
            self.scratch.call_as(&me, "nsenter").args(["--mount", "--target", &self.pid.to_string()]).args(spaces);
        call.args(["--", "sh", "-c", command]).arg(&self.folder).run()?.success().map(|_| ())
    }

    /// Where it is, for this process.
    pub fn path(&self) -> &Path {
        &self.inside
    }

    /// Writes until nothing fits on it any more.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler()).context("making a filler")?;
        for size in [1 << 16, 1 << 12, 1] {
            loop {
                match filler.write_all(&vec![0; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling the disk"),
                }
            }
        }
        ensure!(filler.metadata()?.len() > 0, "there was no room to take");
        Ok(())
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn clear(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("removing the filler")
    }

    fn filler(&self) -> PathBuf {
        self.inside.join("filler")
    }
}

/// The archiver's daemon in a mount namespace of its own, in which a shell's command has mounted something over `folder`, its `$0`.
fn daemon_on(site: &Site, folder: &Path, mount: &str) -> Result<Call> {
    let me = Account::current()?;
    let (space, change): (&[&str], String) = if me.uid == 0 {
        let Account { uid, gid, .. } = site.scratch.account();
        (&["--mount"], format!("setpriv --reuid={uid} --regid={gid} --clear-groups"))
    } else {
        (&["--user", "--map-root-user", "--mount"], "env".to_owned())
    };
    let command = format!("{mount} && exec {change} \"$@\"");
    let call = site.scratch.call_as(&me, "unshare").args(space).args(["--", "sh", "-c", &command]).arg(folder);
    Ok(call.arg(site.archiver.program()).arg("--config").arg(site.archiver.config()).arg("run"))
}
