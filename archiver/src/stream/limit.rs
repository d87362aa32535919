//! `wal.give_up_at`: how much WAL the server may keep for the slot before the slot is given up (case 26).
//!
//! Whoever looks at the server tells the [`Limit`] how much that is; the stream, which alone may drop the slot, hears when it is
//! too much. What the server then removes becomes a gap on record, and a base backup follows, as soon as the store can be reached
//! again (I5). Until then no slot is made anew: it would keep WAL for nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use walseal_common::lsn::Lsn;
use walseal_common::repository::Act;
use walseal_common::telemetry::{AlertKind, Alerts, Severity};
use walseal_common::terminal::units;

use super::complaints::Complaints;
use super::resume::{self, Past};
use super::session::asked_to_stop;
use super::streamer::Streamer;
use super::{SessionEnd, StreamError};
use crate::primary;

/// A limit on what the slot may keep. Clones share it.
#[derive(Clone, Debug)]
pub struct Limit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: u64,
    state: Mutex<State>,
    /// How much it was when that was too much.
    passed: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct State {
    /// The slot was dropped, and there is none yet.
    without: bool,
    /// When and why the slot was given up, in words, until WAL is durable again or its loss is on record.
    words: Option<String>,
    /// What a slot keeps from its first moment on, which nobody can help: WAL since the server's last checkpoint.
    from_the_start: u64,
}

impl Limit {
    /// So many bytes.
    pub fn new(bytes: u64) -> Limit {
        Limit(Arc::new(Shared { bytes, state: Mutex::default(), passed: watch::Sender::new(None) }))
    }

    /// The server keeps so many bytes of WAL for the slot.
    pub fn look(&self, kept: u64) {
        let state = self.state();
        let over = !state.without && kept > self.0.bytes.saturating_add(state.from_the_start);
        self.0.passed.send_if_modified(|passed| {
            let changed = passed.is_some() != over;
            *passed = over.then_some(kept);
            changed
        });
    }

    /// Returns once it is too much, and how much it is.
    async fn passed(&self) -> u64 {
        let mut follow = self.0.passed.subscribe();
        match follow.wait_for(Option::is_some).await.map(|kept| *kept) {
            Ok(Some(kept)) => kept,
            // Nobody is left to look.
            _ => std::future::pending().await,
        }
    }

    /// How much the server keeps, where that is too much.
    pub(crate) fn excess(&self) -> Option<u64> {
        *self.0.passed.borrow()
    }

    /// Whether the slot was given up, and no other made yet.
    pub(crate) fn is_without_slot(&self) -> bool {
        self.state().without
    }

    /// The slot, which kept `kept` bytes, was dropped, because of `why` they are so many. Returns what is said of it.
    pub(crate) fn given_up(&self, alerts: &Alerts, slot: &str, kept: u64, why: &str) -> String {
        let words = format!(
            "the slot {slot} was given up at {}: the server kept {} of WAL for it, more than wal.give_up_at = {}, because: {why}",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC"),
            units::size(kept),
            units::size(self.0.bytes)
        );
        let text = format!(
            "{words}. The server may remove that WAL now. When the store can be reached again, a slot is made anew, what is missing \
             then is recorded, and a base backup follows"
        );
        alerts.raise(AlertKind::SlotLost, slot, Severity::Critical, text.clone());
        let mut state = self.state();
        state.without = true;
        state.words = Some(words);
        self.0.passed.send_replace(None);
        text
    }

    /// A slot was made, and keeps WAL from `restart` on; the server is at `position`.
    pub(super) fn made_anew(&self, restart: Option<Lsn>, position: Lsn) {
        let mut state = self.state();
        state.without = false;
        state.from_the_start = restart.map_or(0, |restart| position.bytes_since(restart.min(position)));
    }

    /// When and why the slot was given up, where that is why WAL is missing.
    pub(super) fn words(&self) -> Option<String> {
        self.state().words.clone()
    }

    /// WAL is durable again, or its loss is on record.
    pub(super) fn forget(&self) {
        self.state().words = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two calls.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streamer {
    /// One connection, which ends when the limit is passed; then the slot is dropped.
    pub(super) async fn stream_within_limit(
        &self,
        stop: &mut watch::Receiver<bool>,
        past: &mut Past,
        complaints: &mut Complaints,
    ) -> Result<SessionEnd, StreamError> {
        let Some(limit) = &self.limit else { return self.stream_once(stop, past, complaints).await };
        let (end, mut ended) = watch::channel(false);
        let mut passed = None;
        let outcome = {
            let once = self.stream_once(&mut ended, past, complaints);
            tokio::pin!(once);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut once => break outcome,
                    () = asked_to_stop(stop), if !*end.borrow() => drop(end.send_replace(true)),
                    kept = limit.passed(), if passed.is_none() => {
                        passed = Some(kept);
                        end.send_replace(true);
                    }
                }
            }
        };
        match passed.filter(|_| !*stop.borrow()) {
            Some(kept) => Err(self.give_up(limit, kept).await?),
            None => outcome,
        }
    }

    /// Drops the slot, which keeps `kept` bytes, and says so.
    async fn give_up(&self, limit: &Limit, kept: u64) -> Result<StreamError, StreamError> {
        let mut client =
            primary::connect_within(&self.conninfo, &self.application_name, self.repository.cluster()).await?;
        // No slot of another cluster; the store, which is why there is so much, need not answer.
        resume::recognise(&mut client, &self.repository, &self.identity, self.conninfo.target_session_attrs()).await?;
        client.drop_slot(&self.slot).await?;
        client.close().await;
        self.ledger.record(Act::SlotDropped {});
        let now = self.progress.watch().now();
        let why =
            now.store_trouble.or(now.trouble).unwrap_or_else(|| "it is written faster than it is shipped".to_owned());
        let text = limit.given_up(&self.alerts, &self.slot, kept, &why);
        Ok(StreamError::GivenUp(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_passed(limit: &Limit) -> bool {
        limit.excess().is_some()
    }

    #[test]
    fn case_26_a_limit_is_passed_by_more_than_it_and_by_nothing_while_there_is_no_slot() {
        let limit = Limit::new(1000);
        limit.look(1000);
        assert!(!is_passed(&limit));
        limit.look(1001);
        assert!(is_passed(&limit));
        limit.given_up(&Alerts::to_log(), "walseal_orders", 1001, "the store was away");
        limit.look(5000);
        assert!(!is_passed(&limit) && limit.is_without_slot());
        // A new slot keeps what was written since the last checkpoint, and that much more is no reason to drop it at once.
        limit.made_anew(Some(Lsn(100)), Lsn(1600));
        limit.look(2400);
        assert!(!is_passed(&limit) && !limit.is_without_slot());
        limit.look(2501);
        assert!(is_passed(&limit));
        limit.look(0);
        assert!(!is_passed(&limit));
        assert!(limit.words().is_some_and(|words| words.ends_with("because: the store was away")));
        limit.forget();
        assert_eq!(limit.words(), None);
    }
}
