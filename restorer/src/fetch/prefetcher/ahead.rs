//! Segments that are fetched before they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use walseal_common::buffer::{Spare, Spares};
use walseal_common::seal::MAX_PLAINTEXT;
use walseal_common::segment::{SegmentName, SegmentSize};
use walseal_common::store::with_patience;

use super::premises::{Ready, ReadyFile};
use crate::fetch::Fetcher;

/// Bytes of segments that are in memory at a time while they are fetched ahead, unless a single one is larger (I11).
const IN_MEMORY: u64 = 64 << 20;

/// Most segments at a time, however small.
const AT_ONCE: u64 = 4;

/// Buffers that wait for the next segment. A fresh one costs a fifth of what else it takes to fetch one.
const SPARE: usize = 2;

/// How long a call of the store is repeated for what nobody waits for yet.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How far a segment is.
#[derive(Clone, Debug)]
enum Progress {
    Coming,
    Ready(Arc<ReadyFile>),
    /// It is not there whole, or cannot be had: whoever asks for it gets the whole truth, anew.
    Useless,
}

/// The segments after the last one that was asked for.
#[derive(Debug)]
pub(super) struct Ahead {
    ready: Arc<Ready>,
    /// Bytes of disk.
    limit: u64,
    turns: Arc<Semaphore>,
    /// For segments that are one object.
    room: Spares,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Dropped, a segment is not fetched any further, and its file goes.
    segments: BTreeMap<SegmentName, watch::Receiver<Progress>>,
    /// The first segment that was not there whole: looking further is useless until it is asked for.
    dry: Option<SegmentName>,
}

impl State {
    fn dried_up_at(&mut self, name: SegmentName) {
        self.dry = Some(self.dry.filter(|dry| dry.timeline == name.timeline && *dry < name).unwrap_or(name));
    }

    fn is_dry(&self, name: SegmentName) -> bool {
        self.dry.is_some_and(|dry| dry.timeline == name.timeline && dry <= name)
    }
}

impl Ahead {
    /// As many as fit into `limit` bytes.
    pub(super) fn new(ready: Arc<Ready>, limit: u64) -> Ahead {
        let largest = MAX_PLAINTEXT as usize;
        let room = Spares::new(largest, SPARE).dropping_above(largest);
        Ahead { ready, limit, turns: Arc::new(Semaphore::new(AT_ONCE as usize)), room, state: Arc::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment, once it is ready; `None` where it is not fetched ahead, or turned out to be of no use.
    pub(super) async fn take(&self, name: SegmentName) -> Option<Arc<ReadyFile>> {
        let mut progress = self.state().segments.remove(&name)?;
        let settled = progress.wait_for(|progress| !matches!(progress, Progress::Coming)).await;
        match settled.as_deref() {
            Ok(Progress::Ready(file)) => Some(file.clone()),
            _ => None,
        }
    }

    /// `name` was delivered whole: fetches what follows it, and forgets everything else.
    pub(super) fn look_beyond(&self, name: SegmentName, size: SegmentSize, fetcher: &Arc<Fetcher>) {
        let count = usize::try_from(self.limit / size.bytes()).unwrap_or(usize::MAX);
        let wanted = fetcher.following(name, size, count);
        let mut state = self.state();
        if state.is_dry(name) {
            state.dry = None;
        }
        let wanted: Vec<SegmentName> = wanted.into_iter().take_while(|next| !state.is_dry(*next)).collect();
        let kept: BTreeSet<&SegmentName> = wanted.iter().collect();
        state.segments.retain(|name, _| kept.contains(name));
        for name in wanted {
            state.segments.entry(name).or_insert_with(|| self.begin(name, size, fetcher.clone()));
        }
    }

    /// Forgets everything that is ready or under way.
    pub(super) fn forget(&self) {
        *self.state() = State::default();
    }

    fn begin(&self, name: SegmentName, size: SegmentSize, fetcher: Arc<Fetcher>) -> watch::Receiver<Progress> {
        let (told, progress) = watch::channel(Progress::Coming);
        let (ready, turns, room, state) =
            (self.ready.clone(), self.turns.clone(), self.room.clone(), self.state.clone());
        // A large segment takes the turns of several.
        let turns_needed = (size.bytes() * AT_ONCE).div_ceil(IN_MEMORY).clamp(1, AT_ONCE) as u32;
        tokio::spawn(async move {
            let fetched = async {
                // Nobody closes it.
                let _turn = turns.acquire_many(turns_needed).await.ok()?;
                if state.lock().unwrap_or_else(PoisonError::into_inner).is_dry(name) {
                    return None;
                }
                let mut spare = if size.bytes() <= MAX_PLAINTEXT { room.take() } else { Spare::alone(Vec::new()) };
                let empty = std::mem::take(spare.vec());
                match with_patience(PATIENCE, fetcher.whole(name, empty)).await {
                    Ok(Some(bytes)) => {
                        *spare.vec() = bytes;
                        match ready.put(spare).await {
                            Ok(file) => return Some(file),
                            Err(error) => tracing::warn!("{name} is not made ready: {error}"),
                        }
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!("{name} cannot be fetched ahead: {error}"),
                }
                state.lock().unwrap_or_else(PoisonError::into_inner).dried_up_at(name);
                None
            };
            let file = tokio::select! {
                file = fetched => file,
                () = told.closed() => return,
            };
            told.send_replace(file.map_or(Progress::Useless, Progress::Ready));
        });
        progress
    }
}
