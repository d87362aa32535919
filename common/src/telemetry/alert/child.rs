//! Programs of the operator's that are handed something.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::courier::Undelivered;

/// How much of what it says is told when it fails, in bytes.
const SAID: u64 = 500;

/// Runs `command` with `input` on its standard input, and ends it, with all that it started, when it takes longer than `limit`.
///
/// Errors: it cannot be started, failed, or was ended; the last is for good, since it may have done its work.
pub(super) async fn run(mut command: Command, input: &[u8], limit: Duration) -> Result<(), Undelivered> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // So that what it started ends with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let program = command.as_std().get_program().to_string_lossy().into_owned();
            Undelivered::for_good(format!("{program} cannot be started: {error}"))
        })?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    match timeout(limit, outcome(&mut child, input)).await {
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, said))) if said.is_empty() => Err(Undelivered::for_now(format!("{status}"))),
        Ok(Ok((status, said))) => Err(Undelivered::for_now(format!("{status}: {said}"))),
        Ok(Err(error)) => Err(Undelivered::for_now(error.to_string())),
        Err(_) => {
            if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
                tracing::debug!(%error, "it had ended by itself");
            }
            // Reaped here, so that none is left behind.
            let status = child.wait().await.map_err(|error| Undelivered::for_good(error.to_string()))?;
            Err(Undelivered::for_good(format!(
                "it took longer than {} s (alerts.command_limit) and was ended: {status}",
                limit.as_secs_f32()
            )))
        }
    }
}

/// How it ended, and the beginning of what it said.
async fn outcome(child: &mut Child, input: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Whoever does not read closes it; its exit code says whether that was right.
            if let Err(error) = stdin.write_all(input).await {
                tracing::debug!(%error, "the program does not read its standard input");
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
