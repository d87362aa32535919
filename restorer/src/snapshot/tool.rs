//! `pg_restore` as a child: told by its environment whom to connect as, fed through a pipe or from a file.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use walseal_common::postgres::Conninfo;
use walseal_common::postgres::conninfo::{Host, database_conninfo};
use walseal_common::postgres::programs::{self, Program};

use super::SnapshotError;

/// Most bytes of what it says that are kept, from the beginning: the first errors explain the later ones.
const SAID: usize = 64 << 10;

/// Where it connects to.
#[derive(Clone, Copy, Debug)]
pub struct To<'a> {
    /// As whom, and how.
    pub conninfo: &'a Conninfo,
    /// The host that answered.
    pub host: &'a Host,
    /// The database.
    pub database: &'a str,
}

/// What it reads.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A pipe.
    Pipe,
    /// A file.
    File(&'a Path),
}

/// A `pg_restore` that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: JoinHandle<Vec<u8>>,
    said: JoinHandle<Vec<u8>>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub status: ExitStatus,
    /// What it printed.
    pub output: String,
    /// What it said.
    pub said: String,
}

/// A `pg_restore` that reads what `pg_dump` of this version wrote: of its major, else of the next later one.
///
/// Errors: there is none.
pub async fn find(dump_version: u32, pg_bin: Option<PathBuf>) -> Result<Program, SnapshotError> {
    let major = dump_version / 10_000;
    let found = tokio::task::spawn_blocking(move || programs::find_nearest("pg_restore", major, pg_bin.as_deref()));
    Ok(found.await.map_err(|error| SnapshotError::Task(error.to_string()))??)
}

impl Running {
    /// Starts it; without `to` it only lists.
    ///
    /// Errors: it does not start.
    pub fn start(
        program: &Program,
        arguments: &[String],
        to: Option<To<'_>>,
        input: Input<'_>,
    ) -> Result<(Running, Option<ChildStdin>), SnapshotError> {
        let mut command = Command::new(&program.path);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // What it says is read by this program, too.
        command.env("LC_MESSAGES", "C").env_remove("LC_ALL").env_remove("LANGUAGE");
        if let Some(to) = to {
            command.arg("--no-password").arg(format!("--dbname={}", database_conninfo(to.database)));
            for (name, value) in to.conninfo.libpq_environment(to.host, to.database, "walseal snapshot restore") {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        match input {
            Input::Pipe => command.stdin(Stdio::piped()),
            Input::File(path) => command.arg(path).stdin(Stdio::null()),
        };
        let failed = |source| SnapshotError::Io { doing: format!("run {}", program.path.display()), source };
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let output = tokio::spawn(async move {
            let mut all = Vec::new();
            // What is missing shows where the list is read: each table is looked for.
            if let Err(error) = stdout.read_to_end(&mut all).await {
                tracing::debug!(%error, "the output of pg_restore broke off");
            }
            all
        });
        let said = tokio::spawn(async move {
            let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(read) = stderr.read(&mut piece).await {
                if read == 0 {
                    break;
                }
                let room = SAID.saturating_sub(kept.len()).min(read);
                kept.extend_from_slice(piece.get(..room).unwrap_or_default());
            }
            kept
        });
        Ok((Running { child, output, said }, stdin))
    }

    /// Waits for its end.
    ///
    /// Errors: the system's.
    pub async fn end(mut self) -> Result<Ended, SnapshotError> {
        let status = self.child.wait().await.map_err(SnapshotError::io("wait for pg_restore"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        let output = text(self.output.await.unwrap_or_default());
        Ok(Ended { status, output, said: text(self.said.await.unwrap_or_default()) })
    }
}

/// The errors among what it said; warnings about them, and what it says of their context, left out.
pub fn errors(said: &str) -> Vec<String> {
    let errors = said.lines().filter(|line| line.starts_with("pg_restore: error:"));
    errors.map(|line| line.trim_start_matches("pg_restore: error:").trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_what_surrounds_them() {
        let said = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 3; 3079 EXTENSION\n\
            pg_restore: error: could not execute query: ERROR:  must be owner\nCommand was: COMMENT ON EXTENSION x\n\
            pg_restore: warning: errors ignored on restore: 1";
        assert_eq!(errors(said), ["could not execute query: ERROR:  must be owner"]);
    }
}
