//! The socket, and when it ends.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};
use walseal_common::segment::{SegmentName, WalFileName};

use super::clerk::Clerk;
use super::message::{Answer, LONGEST_LINE, PULSE, Request};
use super::premises::Occupied;
use super::{Fingerprint, Premises, PremisesError, Serving};
use crate::fetch::Opening;
use crate::rebuild::Owner;

/// How long a client may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How often it looks whether it is still wanted.
const GLANCE: Duration = Duration::from_secs(1);

/// A prefetcher that has moved in, and does not answer yet.
#[derive(Debug)]
pub struct Prefetcher {
    occupied: Occupied,
    listener: UnixListener,
    clerk: Arc<Clerk>,
    /// Users that may ask.
    clients: [u32; 2],
}

/// Why a prefetcher ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// Nobody has asked for so long.
    Idle,
    /// What it was started with is not what is configured now.
    Stale,
    /// Its folder or its socket is gone.
    Evicted,
}

impl Prefetcher {
    /// Moves in at `premises` to answer for the data directory `data` of `owner`, with up to `limit` bytes of segments ready.
    ///
    /// Errors: another one is there; the disk.
    pub fn move_in(
        premises: Premises,
        data: &Path,
        owner: &Owner,
        opening: Opening,
        limit: u64,
    ) -> Result<Prefetcher, PremisesError> {
        let (occupied, listener) = premises.occupy(data, owner)?;
        let listener = UnixListener::from_std(listener).map_err(PremisesError::io("listen in", occupied.folder()))?;
        let clerk = Arc::new(Clerk::new(opening, occupied.ready.clone(), limit));
        let clients = [owner.uid, rustix::process::geteuid().as_raw()];
        Ok(Prefetcher { occupied, listener, clerk, clients })
    }

    /// Answers those who have `fingerprint`, until nobody asks for `idle`, it is not what is configured any more, or the place is
    /// gone. Begins with what follows `after`.
    pub async fn serve(self, fingerprint: Fingerprint, idle: Duration, after: Option<SegmentName>) -> Over {
        let work = Arc::new(Work::default());
        let (stale, mut became_stale) = watch::channel(false);
        if let Some(name) = after {
            let clerk = self.clerk.clone();
            tokio::spawn(async move { clerk.look_beyond(name).await });
        }
        let mut glance = interval(GLANCE.min(idle));
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    self.attend(accepted, Some(fingerprint.clone()), &work, Some(stale.clone())).await;
                }
                _ = glance.tick() => {
                    if !self.occupied.is_found() {
                        return Over::Evicted;
                    }
                    if Fingerprint::of(self.clerk.opening()) != fingerprint {
                        return Over::Stale;
                    }
                    if work.idle().is_some_and(|since| since >= idle) {
                        return Over::Idle;
                    }
                }
                Ok(()) = became_stale.changed() => return Over::Stale,
            }
        }
    }

    /// Answers everybody until the answer is dropped.
    pub fn serve_all(self) -> Serving {
        let folder = self.occupied.folder().to_owned();
        let task = tokio::spawn(async move {
            let work = Arc::new(Work::default());
            loop {
                let accepted = self.listener.accept().await;
                self.attend(accepted, None, &work, None).await;
            }
        });
        Serving::new(folder, task)
    }

    /// Begins a conversation.
    async fn attend(
        &self,
        accepted: io::Result<(UnixStream, tokio::net::unix::SocketAddr)>,
        fingerprint: Option<Fingerprint>,
        work: &Arc<Work>,
        stale: Option<watch::Sender<bool>>,
    ) {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The hook hears nothing, and helps itself.
            Err(error) => {
                tracing::warn!("a request did not get through: {error}");
                return tokio::time::sleep(GLANCE).await;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if self.clients.contains(&peer.uid()) => {}
            Ok(peer) => return tracing::warn!("user {} has no business here", peer.uid()),
            Err(error) => return tracing::warn!("nobody can tell who asks: {error}"),
        }
        let (clerk, busy) = (self.clerk.clone(), work.begin());
        tokio::spawn(async move {
            match converse(stream, &clerk, fingerprint.as_ref()).await {
                Ok(Answer::Stale) => {
                    if let Some(stale) = stale {
                        stale.send_replace(true);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!("a hook went away: {error}"),
            }
            drop(busy);
        });
    }
}

/// One request, to its answer.
async fn converse(stream: UnixStream, clerk: &Arc<Clerk>, fingerprint: Option<&Fingerprint>) -> io::Result<Answer> {
    let (read, mut write) = stream.into_split();
    let mut asked = String::new();
    timeout(REQUEST_LIMIT, BufReader::new(read).take(LONGEST_LINE).read_line(&mut asked)).await??;
    let request: Request = serde_json::from_str(&asked)?;
    let same = fingerprint.is_none_or(|own| request.fingerprint.as_deref() == Some(own.to_string().as_str()));
    let answer = if !same {
        Answer::Stale
    } else {
        match request.file.parse::<WalFileName>() {
            Err(error) => Answer::Failed { why: error.to_string() },
            Ok(file) => {
                let mut answer = std::pin::pin!(clerk.answer(file));
                let mut pulse = interval(PULSE);
                pulse.tick().await;
                loop {
                    tokio::select! {
                        answer = &mut answer => break answer,
                        _ = pulse.tick() => write.write_all(&line(&Answer::Working)?).await?,
                    }
                }
            }
        }
    };
    write.write_all(&line(&answer)?).await?;
    Ok(answer)
}

fn line(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}

/// Whether anybody is being answered, and since when nobody is.
#[derive(Debug)]
struct Work {
    conversations: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for Work {
    fn default() -> Work {
        Work { conversations: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }
}

impl Work {
    fn begin(self: &Arc<Work>) -> Busy {
        self.conversations.fetch_add(1, Ordering::SeqCst);
        Busy(self.clone())
    }

    fn idle(&self) -> Option<Duration> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.conversations.load(Ordering::SeqCst) == 0).then(|| last.elapsed())
    }
}

/// A conversation that is going on.
struct Busy(Arc<Work>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.conversations.fetch_sub(1, Ordering::SeqCst);
    }
}
