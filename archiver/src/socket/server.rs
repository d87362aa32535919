//! The daemon's side.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::client::{line, message};
use super::{Answer, Aside, Client, GREETING_LIMIT, Greeting, Request};

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
pub struct Reporter {
    reports: mpsc::Sender<Answer>,
    stopped: watch::Receiver<bool>,
}

impl Reporter {
    /// Passes a report on, unless the client is too slow to take it.
    pub fn report(&self, text: String, done: Option<u64>, total: Option<u64>) {
        // A report that finds the channel full is overtaken by the next one anyway.
        if self.reports.try_send(Answer::Report { text, done, total }).is_err() {
            tracing::trace!("a report was dropped");
        }
    }

    /// Returns when the client asks to stop what it asked for. One that goes away without a word does not ask for that.
    pub async fn stopped(&self) {
        if self.stopped.clone().wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether the client is gone.
    pub fn is_gone(&self) -> bool {
        self.reports.is_closed()
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
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let greeting = Greeting { walseal: "walseal".to_owned(), pid: std::process::id() };
    write.write_all(&message(&greeting)?).await?;
    let asked = timeout(GREETING_LIMIT, line(&mut read)).await??;
    let request: Request = match serde_json::from_str(&asked) {
        Ok(request) => request,
        Err(error) => {
            let why = format!("the request is not understood: {error}");
            return write.write_all(&message(&Answer::Failed { why })?).await;
        }
    };
    let (reports, mut reported) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    let work = tokio::spawn(async move { answers.answer(request, Reporter { reports, stopped }).await });
    let listening = async {
        while let Ok(line) = line(&mut read).await {
            match serde_json::from_str(&line) {
                Ok(Aside::Stop) => drop(stop.send_replace(true)),
                Err(error) => tracing::debug!(%error, "what a client said is not understood"),
            }
        }
        // It went away without a word, or says nothing more; what it asked for goes on.
        std::future::pending::<Infallible>().await
    };
    let telling = async {
        while let Some(report) = reported.recv().await {
            write.write_all(&message(&report)?).await?;
        }
        let answer = match work.await {
            Ok(Ok(result)) => Answer::Done { result },
            Ok(Err(why)) => Answer::Failed { why },
            Err(error) => Answer::Failed { why: format!("the daemon's task ended early: {error}") },
        };
        write.write_all(&message(&answer)?).await
    };
    tokio::select! {
        told = telling => told,
        never = listening => match never {},
    }
}
