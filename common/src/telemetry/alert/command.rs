//! The command that is told of alerts.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{AlertNews, Outlet};

/// News that wait while the command runs (I11). What comes beyond is in the log only.
const QUEUE: usize = 64;

/// Longest text that is handed on, in characters: an environment has no room for more than 128 KiB in one variable.
const LONGEST_TEXT: usize = 4000;

/// How much of what a command says is told when it fails, in bytes.
const SAID: u64 = 500;

/// Runs a command of the operator's for each news, one after the other, in a task of its own.
#[derive(Debug)]
pub struct AlertCommand {
    queue: Mutex<Option<mpsc::Sender<AlertNews>>>,
    runner: Mutex<Option<JoinHandle<()>>>,
}

/// What the command finds on its standard input.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    cluster: &'a str,
    #[serde(flatten)]
    news: &'a AlertNews,
}

impl AlertCommand {
    /// Starts the task. `command` is given to `sh -c`, `cluster` names the cluster, `limit` is how long one run may take.
    pub fn start(command: String, cluster: String, limit: Duration) -> Arc<AlertCommand> {
        let (queue, told) = mpsc::channel(QUEUE);
        let runner = Runner { command, cluster, limit, failing: false };
        let runner = tokio::spawn(runner.run(told));
        Arc::new(AlertCommand { queue: Mutex::new(Some(queue)), runner: Mutex::new(Some(runner)) })
    }

    /// Takes no more news, and waits until the command has been told all of them, or `limit` is over.
    pub async fn finish(&self, limit: Duration) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut runner) = runner
            && timeout(limit, &mut runner).await.is_err()
        {
            runner.abort();
            tracing::warn!("alerts.command was not told of every alert before the end");
        }
    }
}

impl Outlet for AlertCommand {
    fn tell(&self, news: &AlertNews) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref()
            && queue.try_send(news.clone()).is_err()
        {
            tracing::warn!(alert = %news.alert.kind, "alerts.command is too slow: it is not told of this one");
        }
    }
}

struct Runner {
    command: String,
    cluster: String,
    limit: Duration,
    /// Whether it failed the last time, which was said.
    failing: bool,
}

impl Runner {
    async fn run(mut self, mut told: mpsc::Receiver<AlertNews>) {
        while let Some(mut news) = told.recv().await {
            news.alert.text = news.alert.text.chars().filter(|one| *one != '\0').take(LONGEST_TEXT).collect();
            match (self.tell(&news).await, self.failing) {
                (Ok(()), true) => tracing::info!("alerts.command works again"),
                (Ok(()), false) => {}
                (Err(why), false) => {
                    tracing::error!("alerts.command failed, and alerts reach nobody but this log: {why}");
                    self.failing = true;
                    continue;
                }
                (Err(why), true) => tracing::debug!(why, "alerts.command still fails"),
            }
            self.failing &= false;
        }
    }

    /// Errors: why it could not be told, in words.
    async fn tell(&self, news: &AlertNews) -> Result<(), String> {
        let document = Document { schema: "walseal.alert/1", cluster: &self.cluster, news };
        let mut input = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
        input.push(b'\n');
        let alert = &news.alert;
        let facts = [
            ("KIND", alert.kind.word().to_owned()),
            ("SUBJECT", alert.subject.clone()),
            ("SEVERITY", alert.severity.word().to_owned()),
            ("STATE", news.state.word().to_owned()),
            ("CLUSTER", self.cluster.clone()),
            ("TEXT", alert.text.clone()),
            ("SINCE", alert.since.to_string()),
            ("AT", news.at.to_string()),
        ];
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .envs(facts.map(|(name, value)| (format!("WALSEAL_ALERT_{name}"), value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // So that what it started ends with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("sh cannot be started: {error}"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        match timeout(self.limit, outcome(&mut child, &input)).await {
            Ok(Ok((status, _))) if status.success() => Ok(()),
            Ok(Ok((status, said))) if said.is_empty() => Err(format!("{status}")),
            Ok(Ok((status, said))) => Err(format!("{status}: {said}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
                    tracing::debug!(%error, "alerts.command had ended by itself");
                }
                // Reaped here, so that none is left behind.
                let status = child.wait().await.map_err(|error| error.to_string())?;
                Err(format!(
                    "it took longer than {} s (alerts.command_limit) and was ended: {status}",
                    self.limit.as_secs_f32()
                ))
            }
        }
    }
}

/// How it ended, and the beginning of what it said.
async fn outcome(child: &mut Child, input: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Whoever does not read closes it; the facts are in the environment, too.
            if let Err(error) = stdin.write_all(input).await {
                tracing::debug!(%error, "alerts.command does not read its standard input");
            }
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            (&mut stderr).take(SAID).read_to_end(&mut said).await?;
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        }
        Ok::<_, std::io::Error>(said)
    };
    let ((), said, status) = tokio::join!(write, read, child.wait());
    Ok((status?, String::from_utf8_lossy(&said?).trim().replace('\n', "; ")))
}
