//! How many calls may be under way at once (case 35).
//!
//! As many as callers like, until the store says that it is too many: then half of those that were, and one more each time that so many went
//! well, as TCP does it. A call that waits between two attempts is not under way.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// So many at once are no crowd any more: whoever got here again is let go.
const FREE: usize = 64;

/// Calls to a store that may ask for fewer at once.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    state: Mutex<State>,
    /// There may be room for somebody who waits.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Most at once; `None` as long as the store takes what comes.
    most: Option<usize>,
    under_way: usize,
    /// Calls that went well since `most` changed.
    well: usize,
    /// How often the store was listened to. Calls that began before say nothing new.
    cuts: u64,
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    crowd: &'a Crowd,
    cuts: u64,
}

impl Crowd {
    /// Waits until one more may be under way.
    pub(super) async fn enter(&self) -> Admitted<'_> {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.locked();
                if state.has_room() {
                    state.under_way += 1;
                    if state.has_room() {
                        // Whoever else waits is woken by whoever was.
                        self.room.notify_one();
                    }
                    return Admitted { crowd: self, cuts: state.cuts };
                }
            }
            room.await;
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.most.is_none_or(|most| self.under_way < most)
    }
}

impl Admitted<'_> {
    /// The store took the call.
    pub(super) fn went_well(&self) {
        let mut state = self.crowd.locked();
        let Some(most) = state.most else { return };
        state.well += 1;
        if state.well >= most {
            state.well = 0;
            state.most = Some(most + 1).filter(|most| *most < FREE);
            tracing::debug!(most = state.most, "the store takes more calls at once");
        }
    }

    /// The store asks for less.
    pub(super) fn was_too_much(&self) {
        let mut state = self.crowd.locked();
        if self.cuts < state.cuts {
            return;
        }
        state.cuts += 1;
        state.well = 0;
        let most = (state.under_way / 2).max(1);
        state.most = Some(most);
        tracing::debug!(most, "the store asks for fewer calls at once");
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut state = self.crowd.locked();
        state.under_way -= 1;
        if state.has_room() {
            self.crowd.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    fn most(crowd: &Crowd) -> Option<usize> {
        crowd.locked().most
    }

    async fn inside(crowd: &Crowd, count: usize) -> Vec<Admitted<'_>> {
        let mut inside = Vec::new();
        for _ in 0..count {
            inside.push(crowd.enter().now_or_never().expect("there is room"));
        }
        inside
    }

    #[tokio::test]
    async fn case_35_of_a_crowd_that_is_too_much_half_stay_and_those_who_began_before_say_nothing_new() {
        let crowd = Crowd::default();
        let calls = inside(&crowd, 16).await;
        for call in &calls {
            call.was_too_much();
        }
        assert_eq!(most(&crowd), Some(8));
        drop(calls);
        let calls = inside(&crowd, 8).await;
        assert!(crowd.enter().now_or_never().is_none(), "a ninth one waits");
        calls.first().expect("a call").was_too_much();
        assert_eq!(most(&crowd), Some(4));
        drop(calls);
        for _ in 0..4 {
            inside(&crowd, 1).await.first().expect("a call").was_too_much();
        }
        assert_eq!(most(&crowd), Some(1), "one may always go");
    }

    #[tokio::test]
    async fn case_35_where_all_goes_well_there_is_room_for_more_until_nobody_counts() {
        let crowd = Crowd::default();
        inside(&crowd, 2).await.first().expect("a call").was_too_much();
        let mut well = 0;
        while let Some(most) = most(&crowd) {
            assert!(well <= (1..=most).sum::<usize>(), "{most} after {well}");
            inside(&crowd, 1).await.first().expect("a call").went_well();
            well += 1;
        }
        assert_eq!(well, (1..FREE).sum::<usize>());
        inside(&crowd, 4 * FREE).await;
    }

    #[tokio::test]
    async fn who_waits_is_let_in_one_by_one_and_who_leaves_the_queue_holds_nobody_up() {
        let crowd = Arc::new(Crowd::default());
        inside(&crowd, 2).await.first().expect("a call").was_too_much();
        let first = crowd.enter().await;
        let mut gone = Box::pin(crowd.enter());
        assert!((&mut gone).now_or_never().is_none());
        let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let waiting = join_all((0..50).map(|_| async {
            let _inside = crowd.enter().await;
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            at_once.fetch_sub(1, Ordering::SeqCst);
        }));
        let leaving = async {
            tokio::task::yield_now().await;
            // It was woken, and goes without having come in.
            drop(first);
            drop(gone);
        };
        futures_util::future::join(waiting, leaving).await;
        assert_eq!((most.into_inner(), crowd.locked().under_way), (1, 0));
    }
}
