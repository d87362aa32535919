//! The command that hears that a window's start is about to move, and may say no: whoever keeps something else for as long as any
//! restorable state of the database refers to it (a blob store's garbage collector) goes first.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;
use walseal_common::repository::Repository;

use super::holdings::Holdings;
use super::plan::{Window, oldest, windows};

/// How much of what a command says is told when it says no, in bytes.
const SAID: u64 = 500;

/// The first of what a command says. It is read to its end: a command whose words nobody takes is killed by them.
async fn hear(stderr: Option<ChildStderr>) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(mut stderr) = stderr {
        (&mut stderr).take(SAID).read_to_end(&mut said).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    Ok(said)
}

/// How the windows move.
#[derive(Debug, Serialize)]
pub struct Moving {
    schema: &'static str,
    /// The repository's URL.
    repository: String,
    /// The cluster's system identifier.
    cluster: String,
    /// No state of the cluster is older that can be restored now.
    oldest_before: Option<Timestamp>,
    /// No state will be older that can be restored then.
    oldest_after: Option<Timestamp>,
    /// What can be restored now.
    before: Vec<Window>,
    /// What can be then.
    after: Vec<Window>,
}

impl Moving {
    /// From what there is to what will be left.
    pub fn of(repository: &Repository, before: &Holdings, after: &Holdings) -> Moving {
        Moving {
            schema: "walseal.window/1",
            repository: repository.describe(),
            cluster: repository.cluster().to_string(),
            oldest_before: oldest(before),
            oldest_after: oldest(after),
            before: windows(before),
            after: windows(after),
        }
    }

    /// Whether anything that can be restored now will not be any more.
    pub fn moves(&self) -> bool {
        self.before != self.after
    }
}

/// The command of `retention.before_window_moves`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowCommand {
    /// Given to `sh -c`.
    pub command: String,
    /// How long it may take.
    pub limit: Duration,
}

impl WindowCommand {
    /// Runs it, and waits. It may go on only where the command ends with 0.
    ///
    /// Errors: why not, in words: it said no, or could not be asked.
    pub async fn ask(&self, moving: &Moving) -> Result<(), String> {
        let mut input = serde_json::to_vec(moving).map_err(|error| error.to_string())?;
        input.push(b'\n');
        let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .env("WALSEAL_WINDOW_BEFORE", time(moving.oldest_before))
            .env("WALSEAL_WINDOW_AFTER", time(moving.oldest_after))
            .env("WALSEAL_WINDOW_CLUSTER", &moving.cluster)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("sh cannot be started: {error}"))?;
        let mut stdin = child.stdin.take();
        let stderr = child.stderr.take();
        let telling = async {
            if let Some(stdin) = &mut stdin
                && let Err(error) = stdin.write_all(&input).await
            {
                tracing::debug!(%error, "retention.before_window_moves did not read what it was told");
            }
            drop(stdin.take());
        };
        let running = async {
            // Beside each other: neither side waits for the other to read first.
            let ((), said) = tokio::join!(telling, hear(stderr));
            let said = said.map_err(|error| error.to_string())?;
            let status = child.wait().await.map_err(|error| error.to_string())?;
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            match status.success() {
                true => Ok(()),
                false if said.is_empty() => Err(status.to_string()),
                false => Err(format!("{status}: {said}")),
            }
        };
        match timeout(self.limit, running).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "it took longer than {} s (retention.command_limit), and was ended",
                self.limit.as_secs_f32()
            )),
        }
    }
}
