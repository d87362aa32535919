//! The side of the other verbs and of the hook.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Answer, GREETING_LIMIT, Greeting, LONGEST_LINE, Request};

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
    stream: BufReader<UnixStream>,
    pid: u32,
}

impl Client {
    /// Connects to the daemon at `socket`, or finds that there is none: no socket, nobody listening, or no greeting in
    /// time.
    pub async fn connect(socket: &Path) -> Option<Client> {
        let greeted = async {
            let mut stream = BufReader::new(UnixStream::connect(socket).await.ok()?);
            let line = line(&mut stream).await.ok()?;
            let greeting: Greeting = serde_json::from_str(&line).ok()?;
            (greeting.walseal == "walseal").then_some(Client { stream, pid: greeting.pid })
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
        mut self,
        request: &Request,
        mut report: impl FnMut(&str, Option<u64>, Option<u64>),
    ) -> Result<serde_json::Value, ClientError> {
        let pid = self.pid;
        let broken = |source| ClientError::Broken { pid, source };
        let mut asked = serde_json::to_vec(request).map_err(|error| broken(error.into()))?;
        asked.push(b'\n');
        self.stream.get_mut().write_all(&asked).await.map_err(broken)?;
        loop {
            let line = line(&mut self.stream).await.map_err(broken)?;
            let answer: Answer =
                serde_json::from_str(&line).map_err(|error| ClientError::Answer { pid, why: error.to_string() })?;
            match answer {
                Answer::Report { text, done, total } => report(&text, done, total),
                Answer::Done { result } => return Ok(result),
                Answer::Failed { why } => return Err(ClientError::Failed(why)),
            }
        }
    }
}

/// One line, bounded.
pub(super) async fn line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    let read = stream.take(LONGEST_LINE).read_line(&mut line).await?;
    if read == 0 || !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a line"));
    }
    Ok(line)
}
