//! The side of the other verbs and of the hook.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::{Answer, Aside, GREETING_LIMIT, Greeting, LONGEST_LINE, Request};

/// Talking to the daemon failed after it had greeted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke.
    #[error("the daemon (pid {pid}) broke off: {source}; see its log")]
    Broken {
        /// The daemon's process.
        pid: u32,
        /// How.
        source: io::Error,
    },
    /// It answered something else than an answer.
    #[error(
        "the daemon (pid {pid}) answered something that this version does not understand: {why}; restart it after an upgrade"
    )]
    Answer {
        /// The daemon's process.
        pid: u32,
        /// What.
        why: String,
    },
    /// It says that it failed.
    #[error("{0}")]
    Failed(String),
}

/// A connection to a daemon that has greeted.
#[derive(Debug)]
pub struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    pid: u32,
}

impl Client {
    /// Connects to the daemon at `socket`, or finds that there is none: no socket, nobody listening, or no greeting in
    /// time.
    pub async fn connect(socket: &Path) -> Option<Client> {
        let greeted = async {
            let (read, write) = UnixStream::connect(socket).await.ok()?.into_split();
            let mut read = BufReader::new(read);
            let line = line(&mut read).await.ok()?;
            let greeting: Greeting = serde_json::from_str(&line).ok()?;
            (greeting.walseal == "walseal").then_some(Client { read, write, pid: greeting.pid })
        };
        timeout(GREETING_LIMIT, greeted).await.ok().flatten()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks, passes reports on, and returns the result.
    ///
    /// Errors: the daemon failed to do it, or went away.
    pub async fn ask(
        self,
        request: &Request,
        report: impl FnMut(&str, Option<u64>, Option<u64>),
    ) -> Result<serde_json::Value, ClientError> {
        self.ask_until(request, report, std::future::pending()).await
    }

    /// As [`Client::ask`]; when `stop` comes, the daemon is asked to stop it, and its answer is waited for.
    ///
    /// Errors: as there.
    pub async fn ask_until(
        mut self,
        request: &Request,
        mut report: impl FnMut(&str, Option<u64>, Option<u64>),
        stop: impl Future<Output = ()>,
    ) -> Result<serde_json::Value, ClientError> {
        let pid = self.pid;
        let broken = |source| ClientError::Broken { pid, source };
        self.write.write_all(&message(request).map_err(broken)?).await.map_err(broken)?;
        let answered = async {
            loop {
                let line = line(&mut self.read).await.map_err(broken)?;
                let answer: Answer =
                    serde_json::from_str(&line).map_err(|error| ClientError::Answer { pid, why: error.to_string() })?;
                match answer {
                    Answer::Report { text, done, total } => report(&text, done, total),
                    Answer::Done { result } => return Ok(result),
                    Answer::Failed { why } => return Err(ClientError::Failed(why)),
                }
            }
        };
        let stopping = async {
            stop.await;
            self.write.write_all(&message(&Aside::Stop).map_err(broken)?).await.map_err(broken)?;
            std::future::pending::<Result<Infallible, ClientError>>().await
        };
        tokio::select! {
            result = answered => result,
            failed = stopping => match failed {
                Err(error) => Err(error),
                Ok(never) => match never {},
            },
        }
    }
}

/// One line to send.
pub(super) fn message(message: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// One line, bounded.
pub(super) async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    let read = stream.take(LONGEST_LINE).read_line(&mut line).await?;
    if read == 0 || !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a line"));
    }
    Ok(line)
}
