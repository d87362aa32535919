//! The daemon's side.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::line;
use super::{Answer, Client, GREETING_LIMIT, Greeting, Request};

/// The socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("a daemon (pid {pid}) is already running at {}; stop it first, or give this one another cluster.state_dir", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who.
        pid: u32,
    },
    /// The file system does not let us.
    #[error("the socket {} cannot be made: {source}; check cluster.state_dir (a socket's path may have 107 bytes)", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Tells a client how far its request is. Cheap, never blocks; what nobody reads is dropped.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Answer>);

impl Reporter {
    /// Passes a report on, unless the client is too slow to take it.
    pub fn report(&self, text: String, done: Option<u64>, total: Option<u64>) {
        // A report that finds the channel full is overtaken by the next one anyway.
        if self.0.try_send(Answer::Report { text, done, total }).is_err() {
            tracing::trace!("a report was dropped");
        }
    }

    /// Whether the client is still there.
    pub fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// Who answers requests.
#[async_trait::async_trait]
pub trait Answers: Send + Sync + 'static {
    /// Does what is asked. The error is told to the client as it is.
    async fn answer(&self, request: Request, reporter: Reporter) -> Result<serde_json::Value, String>;
}

/// Serves requests at `path` until it is dropped. The socket is open (mode 0600) when the first await is over.
///
/// Errors: another daemon is there, or the file system refuses.
pub async fn serve(
    path: &Path,
    answers: Arc<dyn Answers>,
) -> Result<impl Future<Output = io::Error> + use<>, SocketError> {
    let listener = bind(path).await?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, answers).await {
                            tracing::debug!(%error, "a client of the socket went away");
                        }
                    });
                }
                Err(error) => return error,
            }
        }
    })
}

async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Bind { path: path.to_owned(), source };
    if let Some(other) = Client::connect(path).await {
        return Err(SocketError::Taken { path: path.to_owned(), pid: other.pid() });
    }
    // What lies there was left by a daemon that was killed.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

async fn converse(stream: UnixStream, answers: Arc<dyn Answers>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = Greeting { walseal: "walseal".to_owned(), pid: std::process::id() };
    send(&mut stream, &greeting).await?;
    let asked = timeout(GREETING_LIMIT, line(&mut stream)).await??;
    let request: Request = match serde_json::from_str(&asked) {
        Ok(request) => request,
        Err(error) => {
            return send(&mut stream, &Answer::Failed { why: format!("the request is not understood: {error}") }).await;
        }
    };
    let (reports, mut reported) = mpsc::channel(16);
    let work = tokio::spawn(async move { answers.answer(request, Reporter(reports)).await });
    while let Some(report) = reported.recv().await {
        send(&mut stream, &report).await?;
    }
    let answer = match work.await {
        Ok(Ok(result)) => Answer::Done { result },
        Ok(Err(why)) => Answer::Failed { why },
        Err(error) => Answer::Failed { why: format!("the daemon's task ended early: {error}") },
    };
    send(&mut stream, &answer).await
}

async fn send(stream: &mut BufReader<UnixStream>, message: &impl serde::Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    stream.get_mut().write_all(&bytes).await
}
