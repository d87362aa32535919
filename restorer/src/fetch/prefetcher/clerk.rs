//! The answer to a request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use walseal_common::config::StorePatience;
use walseal_common::segment::{SegmentName, WalFileName};
use walseal_common::store::with_patience;
use walseal_common::timeline::TimelineId;

use super::ahead::{Ahead, PATIENCE};
use super::message::Answer;
use super::premises::{Ready, ReadyFile};
use crate::fetch::patience::{Ending, patiently};
use crate::fetch::{FetchError, Fetcher, Found, Opening, Patience};

/// Answers requests from what it holds open.
#[derive(Debug)]
pub(super) struct Clerk {
    opening: Opening,
    ready: Arc<Ready>,
    ahead: Ahead,
    open: tokio::sync::Mutex<Option<Open>>,
    /// Histories that are there, for a server that is about to probe for them. What is not among them is asked for.
    histories: Mutex<BTreeMap<TimelineId, Vec<u8>>>,
    /// The last file that was handed out: removed with the next request, unless it was renamed.
    handed_out: Mutex<Option<Arc<ReadyFile>>>,
}

/// What is held open, and what it was opened for.
#[derive(Clone, Debug)]
struct Open {
    fetcher: Arc<Fetcher>,
    silence: Option<Duration>,
}

impl Clerk {
    /// One that keeps up to `limit` bytes of segments ready.
    pub(super) fn new(opening: Opening, ready: Arc<Ready>, limit: u64) -> Clerk {
        let ahead = Ahead::new(ready.clone(), limit);
        Clerk {
            opening,
            ready,
            ahead,
            open: tokio::sync::Mutex::default(),
            histories: Mutex::default(),
            handed_out: Mutex::default(),
        }
    }

    pub(super) fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Begins to fetch what follows `name`, which somebody else delivers.
    pub(super) async fn look_beyond(self: &Arc<Self>, name: SegmentName) {
        match self.fetcher(self.opening.patience()).await {
            Ok(fetcher) => self.fetch_beyond(name, &fetcher).await,
            Err(error) => tracing::debug!("nothing is fetched ahead: {error}"),
        }
    }

    /// The answer that the hook would find by itself.
    pub(super) async fn answer(self: &Arc<Self>, file: WalFileName) -> Answer {
        drop(self.handed_out.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (begun, patience) = (Instant::now(), self.opening.patience());
        let kept = match file {
            // One that is still coming is not waited for longer than one that is asked for.
            WalFileName::Segment(name) => {
                timeout(patience.left(begun), self.kept_segment(name, patience)).await.ok().flatten()
            }
            WalFileName::History(timeline) => self.kept_history(timeline, patience).await,
            _ => None,
        };
        if let Some(file) = kept {
            return self.hand_out(file);
        }
        let ending = patiently(patience, begun, |_| async move {
            let fetcher = self.fetcher(patience).await?;
            // The store's own retries end with the request's.
            let found = with_patience(patience.left(begun), fetcher.find(file)).await;
            if found.is_err() {
                // Whatever it is, the next attempt begins with nothing.
                self.close().await;
            }
            found
        });
        match ending.await {
            Ending::Answered(Found::NotThere(why)) => Answer::NotThere { why },
            Ending::Answered(Found::File { bytes, is_final }) => {
                let made = self.ready.put(bytes).await;
                if is_final {
                    self.go_on_from(file, patience).await;
                }
                match made {
                    Ok(made) => self.hand_out(made),
                    Err(error) => Answer::Failed { why: format!("the file cannot be made ready: {error}") },
                }
            }
            Ending::StandbyWaits(error) => Answer::StandbyWaits { why: error.to_string() },
            Ending::Failed(error) => Answer::Failed { why: error.to_string() },
        }
    }

    fn hand_out(&self, file: Arc<ReadyFile>) -> Answer {
        let answer = Answer::Ready { path: file.path.clone(), size: file.size };
        *self.handed_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        answer
    }

    /// The segment, where it was fetched ahead.
    async fn kept_segment(self: &Arc<Self>, name: SegmentName, patience: Patience) -> Option<Arc<ReadyFile>> {
        let fetcher = self.still_open(patience).await?;
        let file = self.ahead.take(name).await?;
        self.fetch_beyond(name, &fetcher).await;
        Some(file)
    }

    /// The history, where it was.
    async fn kept_history(&self, timeline: TimelineId, patience: Patience) -> Option<Arc<ReadyFile>> {
        self.still_open(patience).await?;
        let bytes = self.histories.lock().unwrap_or_else(PoisonError::into_inner).get(&timeline).cloned()?;
        self.ready.put(bytes).await.ok()
    }

    /// What is open, where it still is the right thing; else all that came of it is forgotten. Whose data directory it is (I4), and
    /// how far recovery goes, is looked at each time.
    async fn still_open(&self, patience: Patience) -> Option<Arc<Fetcher>> {
        let open = self.open.lock().await.clone()?;
        if self.fits(&open, patience) {
            return Some(open.fetcher);
        }
        self.close().await;
        None
    }

    /// After a file that never changes: what PostgreSQL asks for next.
    async fn go_on_from(self: &Arc<Self>, file: WalFileName, patience: Patience) {
        let Ok(fetcher) = self.fetcher(patience).await else { return };
        match file {
            WalFileName::Segment(name) => self.fetch_beyond(name, &fetcher).await,
            WalFileName::History(timeline) => {
                let clerk = self.clone();
                tokio::spawn(async move {
                    match with_patience(PATIENCE, fetcher.later_histories(timeline)).await {
                        Ok(found) => {
                            clerk.histories.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                        }
                        Err(error) => tracing::debug!("histories cannot be fetched ahead: {error}"),
                    }
                });
            }
            _ => {}
        }
    }

    async fn fetch_beyond(self: &Arc<Self>, name: SegmentName, fetcher: &Arc<Fetcher>) {
        match fetcher.segment_size().await {
            Ok(size) => self.ahead.look_beyond(name, size, fetcher),
            Err(error) => tracing::debug!("nothing is fetched ahead: {error}"),
        }
    }

    /// What is open, or opened now.
    async fn fetcher(&self, patience: Patience) -> Result<Arc<Fetcher>, FetchError> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| self.fits(open, patience)) {
            return Ok(open.fetcher.clone());
        }
        let silence = patience.silence();
        let fetcher = Arc::new(self.opening.open(StorePatience { deadline: None, silence }).await?);
        *open = Some(Open { fetcher: fetcher.clone(), silence });
        Ok(fetcher)
    }

    /// Whether it is still the right thing for this data directory.
    fn fits(&self, open: &Open, patience: Patience) -> bool {
        let (place, fetcher) = (&self.opening.place, &open.fetcher);
        open.silence == patience.silence()
            && fetcher.read_through == place.read_through(&fetcher.route)
            && place.agree(Some(fetcher.repository.cluster()), "the repository").is_ok()
    }

    async fn close(&self) {
        *self.open.lock().await = None;
        self.ahead.forget();
        self.histories.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
