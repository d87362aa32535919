//! Memory that is set aside before it is used, so that neither the database's size, nor a backlog, nor an outage decides how
//! much there is (I11).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted, in bytes.
const UNIT: u64 = 1 << 10;

/// What an object has beside its frames at the most, in bytes: header, trailer, and what frames that do not shrink grow by.
pub const BESIDE_FRAMES: u64 = 256 << 10;

/// A bound on memory, shared by all who hold a clone of it. First come, first served.
#[derive(Clone, Debug)]
pub struct Memory {
    units: Arc<Semaphore>,
    most: u32,
    /// Units that rooms hold. The semaphore knows less: what is freed for somebody who still waits for more is no longer
    /// available there.
    held: Arc<AtomicU64>,
    /// Units of them that are not filled yet.
    unfilled: Arc<AtomicU64>,
    /// Told how many bytes nobody uses, whenever that changes.
    follower: Option<fn(u64)>,
}

/// Memory that was set aside, given back when the last clone of this is dropped.
#[derive(Clone, Debug)]
pub struct Room(Arc<Mutex<Option<Held>>>);

/// Memory that was set aside is not filled yet, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it says that all is filled"]
pub struct Unfilled {
    memory: Memory,
    units: u64,
}

#[derive(Debug)]
struct Held {
    permit: OwnedSemaphorePermit,
    memory: Memory,
}

impl Memory {
    /// A bound of so many bytes, rounded up to whole KiB.
    pub fn new(bytes: u64) -> Memory {
        let most = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        let units = Arc::new(Semaphore::new(most as usize));
        Memory { units, most, held: Arc::default(), unfilled: Arc::default(), follower: None }
    }

    /// Tells `follower` how many bytes nobody uses, now and whenever that changes: what is free, and what is set aside
    /// and not filled yet.
    #[must_use]
    pub fn followed_by(self, follower: fn(u64)) -> Memory {
        let memory = Memory { follower: Some(follower), ..self };
        memory.tell();
        memory
    }

    fn give_back(&self, permit: OwnedSemaphorePermit) {
        self.held.fetch_sub(permit.num_permits() as u64, Ordering::Relaxed);
        drop(permit);
        self.tell();
    }

    fn tell(&self) {
        if let Some(follower) = self.follower {
            let used = self.held.load(Ordering::Relaxed).saturating_sub(self.unfilled.load(Ordering::Relaxed));
            follower(u64::from(self.most).saturating_sub(used) * UNIT);
        }
    }

    /// Bytes that are set aside now, and the most that can be.
    pub fn in_use(&self) -> (u64, u64) {
        (self.held.load(Ordering::Relaxed) * UNIT, u64::from(self.most) * UNIT)
    }

    /// Waits until so many bytes are free, and sets them aside; all there is when that is less.
    pub async fn room(&self, bytes: u64) -> Room {
        let room = self.set_aside(self.units(bytes)).await;
        self.tell();
        room
    }

    /// As [`Memory::room`], for what has to be read first: until the second is dropped, whoever follows takes it for not used.
    pub async fn room_to_fill(&self, bytes: u64) -> (Room, Unfilled) {
        let units = self.units(bytes);
        let room = self.set_aside(units).await;
        self.unfilled.fetch_add(units.into(), Ordering::Relaxed);
        self.tell();
        (room, Unfilled { memory: self.clone(), units: units.into() })
    }

    /// As many as hold `bytes`, or all there are.
    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.most)
    }

    async fn set_aside(&self, units: u32) -> Room {
        // Only a closed semaphore gives an error, and nobody closes this one.
        let permit = self.units.clone().acquire_many_owned(units).await.ok();
        self.held.fetch_add(units.into(), Ordering::Relaxed);
        Room(Arc::new(Mutex::new(permit.map(|permit| Held { permit, memory: self.clone() }))))
    }
}

impl Room {
    /// For what is bounded elsewhere.
    pub fn elsewhere() -> Room {
        Room(Arc::default())
    }

    /// Holds what `other` holds as well, for as long as this is held. Both are of the same bound.
    pub fn take_in(&self, other: &Room) {
        let more = other.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (held.as_mut(), more) {
            (Some(held), Some(mut more)) => {
                if let Some(permits) = more.permit.split(more.permit.num_permits()) {
                    held.permit.merge(permits);
                }
            }
            (None, more) => *held = more,
            (Some(_), None) => {}
        }
    }

    /// Gives back what is more than so many bytes.
    pub fn shrink_to(&self, bytes: u64) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = held.as_mut() else { return };
        let units = held.permit.num_permits();
        let needed = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX).min(units);
        if let Some(surplus) = held.permit.split(units - needed) {
            held.memory.give_back(surplus);
        }
    }
}

impl Drop for Unfilled {
    fn drop(&mut self) {
        self.memory.unfilled.fetch_sub(self.units, Ordering::Relaxed);
        self.memory.tell();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(all) = self.permit.split(self.permit.num_permits()) {
            self.memory.give_back(all);
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn i11_what_was_given_back_can_be_set_aside_again_and_no_more() {
        let memory = Memory::new(10 << 10);
        let first = memory.room(8 << 10).await;
        assert_eq!(memory.units.available_permits(), 2);
        first.shrink_to(3 << 10);
        first.shrink_to(5 << 10);
        assert_eq!(memory.units.available_permits(), 7);
        let second = memory.room(6 << 10).await;
        assert_eq!(memory.units.available_permits(), 1);
        drop((first, second));
        let (first, second) = (memory.room(3 << 10).await, memory.room(4 << 10).await);
        first.take_in(&second);
        drop(second);
        assert_eq!(memory.units.available_permits(), 3);
        first.shrink_to(5 << 10);
        assert_eq!(memory.units.available_permits(), 5);
        drop(first);
        // More than there is waits for all there is, not for ever.
        let all = memory.room(1 << 30).await;
        assert_eq!(memory.units.available_permits(), 0);
        drop(all);
        assert_eq!(memory.units.available_permits(), 10);
    }

    #[tokio::test]
    async fn whoever_follows_hears_what_is_free() {
        static HEARD: Mutex<Vec<u64>> = Mutex::new(Vec::new());
        let memory = Memory::new(10 << 10).followed_by(|free| HEARD.lock().expect("ours").push(free >> 10));
        let room = memory.room(8 << 10).await;
        room.shrink_to(3 << 10);
        drop(room);
        assert_eq!(*HEARD.lock().expect("ours"), [10, 2, 7, 10]);
    }

    #[tokio::test]
    async fn what_is_not_filled_yet_or_freed_for_somebody_who_waits_for_more_is_not_used() {
        static HEARD: Mutex<Vec<u64>> = Mutex::new(Vec::new());
        let memory = Memory::new(10 << 10).followed_by(|free| HEARD.lock().expect("ours").push(free >> 10));
        let (first, unfilled) = memory.room_to_fill(8 << 10).await;
        assert_eq!(memory.in_use(), (8 << 10, 10 << 10));
        drop(unfilled);
        let mut second = std::pin::pin!(memory.room(6 << 10));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        first.shrink_to(5 << 10);
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert_eq!(memory.in_use(), (5 << 10, 10 << 10));
        first.shrink_to(4 << 10);
        let second = second.await;
        drop((first, second));
        assert_eq!(*HEARD.lock().expect("ours"), [10, 10, 2, 5, 6, 0, 4, 10]);
        assert_eq!(memory.in_use(), (0, 10 << 10));
    }
}
