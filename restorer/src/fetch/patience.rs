//! How long is tried before a request fails, and how it ends.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use walseal_common::config::StorePatience;

use super::FetchError;

/// The first pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The shortest time that a store has for an answer, whatever is configured.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

/// How long is tried. What makes progress is not cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// `fetch.retry`.
    pub retry: Duration,
    /// `fetch.retry_standby`, where PostgreSQL runs as a standby: a store that does not answer for longer is told as "not
    /// there", because anything above 125 would shut the standby down, and it asks again by itself.
    pub standby: Option<Duration>,
}

/// How the attempts ended.
#[derive(Debug)]
pub enum Ending<T> {
    /// With an answer.
    Answered(T),
    /// A standby is told "not there" because the store does not answer.
    StandbyWaits(FetchError),
    /// Anything else.
    Failed(FetchError),
}

impl Patience {
    /// How long the store is waited for in a request that began at `begun`. A store repeats what failed by itself, so it must
    /// know when to give up; and a standby is not kept waiting by one call of a store that has fallen silent.
    fn with_the_store(&self, begun: Instant) -> StorePatience {
        StorePatience { deadline: begun.checked_add(self.standby.unwrap_or(self.retry)), silence: self.silence() }
    }

    /// How long one call of the store may be silent.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.standby.map(|limit| limit.max(SHORTEST_SILENCE))
    }

    /// What is left of a request that began at `begun`.
    pub(super) fn left(&self, begun: Instant) -> Duration {
        self.standby.unwrap_or(self.retry).saturating_sub(begun.elapsed())
    }
}

/// Attempts until there is an answer, as long as `patience` lasts; each is told how long to wait for the store. What cannot
/// pass by waiting is tried once more, for bytes that were damaged on the way.
///
/// The request began at `begun`, perhaps with somebody else.
pub async fn patiently<T, F: Future<Output = Result<T, FetchError>>>(
    patience: Patience,
    begun: Instant,
    mut attempt: impl FnMut(StorePatience) -> F,
) -> Ending<T> {
    let (mut pause, mut second_chance) = (FIRST_PAUSE, true);
    loop {
        let error = match attempt(patience.with_the_store(begun)).await {
            Ok(answer) => return Ending::Answered(answer),
            Err(error) => error,
        };
        let left = |limit: Duration| limit.saturating_sub(begun.elapsed());
        let wait = match patience.standby {
            Some(limit) if error.is_silence() => left(limit),
            _ if error.is_permanent() && !std::mem::take(&mut second_chance) => Duration::ZERO,
            _ => left(patience.retry),
        };
        if wait.is_zero() {
            return match patience.standby {
                Some(_) if error.is_silence() => Ending::StandbyWaits(error),
                _ => Ending::Failed(error),
            };
        }
        tracing::warn!("{error}; trying again");
        tokio::time::sleep(pause.min(wait)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
