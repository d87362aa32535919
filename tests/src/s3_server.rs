//! An S3 server of a test's own, which can be killed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::Scratch;
use crate::store::S3Server;

/// A server in a folder of the test, which keeps what it holds when the server ends. Dropping it ends it.
#[derive(Debug)]
pub struct OwnServer {
    folder: PathBuf,
    server: S3Server,
}

impl OwnServer {
    /// Starts one with a bucket and an administrator; `identities`, as SeaweedFS takes them, may say who else there is, and what they may
    /// do.
    ///
    /// Errors: it did not start, with what it said.
    pub fn start(scratch: &Scratch, identities: Option<&Path>) -> Result<OwnServer> {
        let folder = scratch.path().join("s3");
        let config = identities.map(|path| [OsStr::new("--config"), path.as_os_str()]);
        let arguments = [OsStr::new("start")].into_iter().chain(config.into_iter().flatten());
        let printed = script(arguments.chain([folder.as_os_str()]))?;
        let setting = |name: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.map(|value| value.trim_matches('\'').to_owned()).with_context(|| format!("no {name} in {printed}"))
        };
        let server = S3Server {
            endpoint: setting("S3_ENDPOINT")?,
            region: setting("S3_REGION")?,
            bucket: setting("S3_BUCKET")?,
            access_key_id: setting("S3_ACCESS_KEY_ID")?,
            secret_access_key: setting("S3_SECRET_ACCESS_KEY")?,
        };
        Ok(OwnServer { folder, server })
    }

    /// Where it is, and the administrator's key.
    pub fn server(&self) -> &S3Server {
        &self.server
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) -> Result<()> {
        let pid = std::fs::read_to_string(self.folder.join("pid")).context("the server's process id")?;
        let pid = Pid::from_raw(pid.trim().parse()?).context("a process id is positive")?;
        kill_process(pid, Signal::KILL).context("killing the S3 server")?;
        // Waits until it is gone.
        script([OsStr::new("stop"), self.folder.as_os_str()]).map(|_| ())
    }

    /// Starts it again, at the same address and with what it held, and waits until it takes puts.
    pub fn start_again(&self) -> Result<()> {
        script([OsStr::new("start"), self.folder.as_os_str()]).map(|_| ())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Err(error) = script([OsStr::new("stop"), self.folder.as_os_str()]) {
            eprintln!("the S3 server could not be ended: {error:#}");
        }
    }
}

/// `scripts/s3-server` with these arguments, and what it prints.
fn script<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/s3-server");
    let output = Command::new(script).args(arguments).output().context("starting scripts/s3-server")?;
    ensure!(output.status.success(), "scripts/s3-server: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
