//! PostgreSQL's own programs as children: what they write, and what they say.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use walseal_common::postgres::Conninfo;
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::programs::{self, Program};

use super::SnapshotError;

/// Most bytes of what a program says that are kept: the last ones say why it ended.
const SAID: usize = 16 << 10;

/// `pg_dump` and `pg_dumpall` for one server.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// `pg_dump`.
    pub(super) dump: Program,
    /// Of the same folder.
    dump_all: PathBuf,
}

impl Programs {
    /// Of the major of a server of this version, else of the next later one.
    ///
    /// Errors: none is.
    pub(super) async fn find(server_version: u32, pg_bin: Option<PathBuf>) -> Result<Programs, SnapshotError> {
        let major = server_version / 10_000;
        let found = tokio::task::spawn_blocking(move || programs::find_nearest("pg_dump", major, pg_bin.as_deref()));
        let dump = found.await.map_err(|error| SnapshotError::Task(error.to_string()))??;
        let dump_all = dump.path.with_file_name("pg_dumpall");
        Ok(Programs { dump, dump_all })
    }
}

/// Where a program connects to.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) conninfo: &'a Conninfo,
    pub(super) host: &'a Host,
    pub(super) database: &'a str,
}

/// A program that writes to a pipe. Dropped, it is killed.
pub(super) struct Running {
    program: &'static str,
    child: Child,
    said: JoinHandle<String>,
}

impl Running {
    /// Starts it. Passwords go through its environment, never through its arguments.
    ///
    /// Errors: it does not start.
    pub(super) fn start(
        program: &'static str,
        path: &PathBuf,
        arguments: &[String],
        to: To<'_>,
    ) -> Result<(Running, ChildStdout), SnapshotError> {
        let failed = |source| SnapshotError::Run { program, source };
        let mut command = Command::new(path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for (name, value) in to.conninfo.libpq_environment(to.host, to.database, "walseal snapshot") {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // What it says is read by this program, too.
        command.env("LC_MESSAGES", "C").env_remove("LC_ALL").env_remove("LANGUAGE");
        let mut child = command.spawn().map_err(failed)?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = pipes else { return Err(failed(std::io::ErrorKind::BrokenPipe.into())) };
        Ok((Running { program, child, said: tokio::spawn(listen(stderr)) }, stdout))
    }

    /// Waits for its end. Gives what it said.
    ///
    /// Errors: it failed.
    pub(super) async fn end(mut self) -> Result<String, SnapshotError> {
        let status = self.child.wait().await;
        let status = status.map_err(|source| SnapshotError::Run { program: self.program, source })?;
        let said = self.said.await.unwrap_or_default();
        let said = said.trim();
        if status.success() {
            return Ok(said.to_owned());
        }
        let said = if said.is_empty() { status.to_string() } else { said.to_owned() };
        Err(SnapshotError::Failed { program: self.program, said })
    }
}

/// The last of what a program says.
async fn listen(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stderr.read(&mut piece).await {
            Ok(read) if read > 0 => kept.extend_from_slice(piece.get(..read).unwrap_or_default()),
            _ => return String::from_utf8_lossy(&kept).into_owned(),
        }
        let surplus = kept.len().saturating_sub(SAID);
        kept.drain(..surplus);
    }
}

/// For so long a dump waits for a table that somebody has locked. It fails then, and is tried again.
const LOCK_WAIT: Duration = Duration::from_secs(1800);

/// Starts `pg_dump` of the state that `snapshot` names. What it writes is not compressed: frames are.
pub(super) fn archive(
    programs: &Programs,
    to: To<'_>,
    snapshot: &str,
    selection: &[String],
) -> Result<(Running, ChildStdout), SnapshotError> {
    let mut arguments = vec!["--format=custom".to_owned(), "--compress=0".to_owned(), "--no-password".to_owned()];
    arguments.push(format!("--snapshot={snapshot}"));
    // A lock that somebody holds on one table must not hold up every snapshot from then on, unnoticed.
    arguments.push(format!("--lock-wait-timeout={}", LOCK_WAIT.as_millis()));
    arguments.extend_from_slice(selection);
    Running::start("pg_dump", &programs.dump.path, &arguments, to)
}

/// Roles and tablespaces as SQL, and whether with the passwords of roles, which a provider's servers let nobody read.
///
/// Errors: why, in its own words, also without passwords.
pub(super) async fn globals(programs: &Programs, to: To<'_>) -> Result<(Vec<u8>, bool), SnapshotError> {
    let mut arguments = vec!["--globals-only".to_owned(), "--no-password".to_owned()];
    arguments.push(format!("--database={}", walseal_common::postgres::conninfo::database_conninfo(to.database)));
    if let Ok(text) = run(programs, to, &arguments).await {
        return Ok((text, true));
    }
    arguments.push("--no-role-passwords".to_owned());
    Ok((run(programs, to, &arguments).await?, false))
}

async fn run(programs: &Programs, to: To<'_>, arguments: &[String]) -> Result<Vec<u8>, SnapshotError> {
    let (running, mut stdout) = Running::start("pg_dumpall", &programs.dump_all, arguments, to)?;
    let mut text = Vec::new();
    let read = stdout.read_to_end(&mut text).await;
    read.map_err(|source| SnapshotError::Run { program: "pg_dumpall", source })?;
    running.end().await?;
    Ok(text)
}
