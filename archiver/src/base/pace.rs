//! How fast a backup reads while the server suffers from it.
//!
//! A probe asks the server for next to nothing, again and again. When the answers take much longer than before the backup, reading
//! pauses: the socket fills up, and the server's process waits. Bounded: an eighth of the speed is the least, and where even that
//! does not help, the backup is not the cause, and goes on at full speed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use walseal_common::postgres::conninfo::Host;
use walseal_common::postgres::{Conninfo, PostgresError, SqlClient};
use walseal_common::terminal::units;

/// Probes whose median counts: one that is slow says nothing. Also how many there are between two decisions.
const WINDOW: usize = 5;

/// Probes before the backup.
const BEFORE: usize = 9;

/// Time between two probes.
const INTERVAL: Duration = Duration::from_millis(200);

/// A probe that takes longer counts as one that took so long.
const LONGEST: Duration = Duration::from_secs(5);

/// Answers may take so many times as long as before, and [`SLACK`] more, whichever is longer.
const FACTOR: u32 = 4;
const SLACK: Duration = Duration::from_millis(20);

/// Share of the time in which a backup reads at least, in thousandths.
const LEAST: u32 = 125;
const ALL: u32 = 1000;

/// So many decisions at the least speed, without an answer that takes less than three quarters of what it took at full speed, say that
/// it is not the backup from which the server suffers.
const PATIENCE: u32 = 10;

/// Reading goes on for so long between two pauses, and pauses no longer than [`LONGEST_PAUSE`] at a time.
const SLICE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Decides from the latency of probes which share of the time a backup reads.
#[derive(Debug)]
struct Controller {
    /// Median before the backup.
    before: Duration,
    /// Median that counts as usual: that before the backup, or a longer one that the backup was found not to cause.
    usual: Duration,
    /// Median that made it read more slowly.
    strained: Duration,
    /// Decisions, one after another, at the least speed that did not help.
    waited: u32,
    recent: VecDeque<Duration>,
    share: u32,
}

impl Controller {
    fn new(before: Duration) -> Controller {
        Controller { before, usual: before, strained: before, waited: 0, recent: VecDeque::new(), share: ALL }
    }

    /// Takes the latency of a probe, and says the share that follows, in thousandths.
    fn take(&mut self, latency: Duration) -> u32 {
        self.recent.push_back(latency);
        if self.recent.len() < WINDOW {
            return self.share;
        }
        let now = median(self.recent.make_contiguous());
        // The next decision is made from what follows from this one.
        self.recent.clear();
        if now <= most(self.before) {
            self.usual = self.before;
        }
        let most = most(self.usual);
        if now > most {
            self.slow_down(now);
        } else {
            self.waited = 0;
            if now <= self.usual + (most - self.usual) / 2 {
                self.share = (self.share + self.share / 4).min(ALL);
            }
        }
        self.share
    }

    fn slow_down(&mut self, now: Duration) {
        if self.share == ALL {
            self.strained = now;
        }
        if self.share > LEAST {
            self.share = (self.share / 2).max(LEAST);
            return;
        }
        self.waited += 1;
        if self.waited >= PATIENCE && now >= self.strained / 4 * 3 {
            self.waited = 0;
            self.usual = now;
        }
    }

    /// Whether the server is slow for a reason of its own.
    fn is_in_vain(&self) -> bool {
        self.usual > self.before
    }
}

/// The median that is not suffering yet, where `usual` is usual.
fn most(usual: Duration) -> Duration {
    usual.saturating_mul(FACTOR).max(usual.saturating_add(SLACK))
}

fn median(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).copied().unwrap_or_default()
}

/// How long to pause after having read for `worked`, to read in that share of the time.
fn pause(worked: Duration, share: u32) -> Duration {
    let share = share.clamp(LEAST, ALL);
    (worked * (ALL - share) / share).min(LONGEST_PAUSE)
}

/// What a backup keeps to as it reads. Clones share it; by default it never pauses.
#[derive(Clone, Default, Debug)]
pub struct Pace(Arc<Measure>);

#[derive(Debug)]
struct Measure {
    share: AtomicU32,
    /// Microseconds of all pauses.
    paused: AtomicU64,
    /// Since when it has been reading without a pause.
    since: Mutex<Option<Instant>>,
}

impl Default for Measure {
    fn default() -> Measure {
        Measure { share: AtomicU32::new(ALL), paused: AtomicU64::new(0), since: Mutex::default() }
    }
}

impl Pace {
    /// Pauses where it is time to. Called after each read.
    pub async fn keep(&self) {
        let share = self.0.share.load(Ordering::Relaxed);
        if share < ALL
            && let Some(pause) = self.due(share)
        {
            let begun = Instant::now();
            sleep(pause).await;
            let paused = begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
            self.0.paused.fetch_add(paused, Ordering::Relaxed);
            self.restart();
        }
    }

    /// How long it has paused, in all.
    pub fn paused(&self) -> Duration {
        Duration::from_micros(self.0.paused.load(Ordering::Relaxed))
    }

    fn due(&self, share: u32) -> Option<Duration> {
        let mut since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        let worked = since.get_or_insert_with(Instant::now).elapsed();
        (worked >= SLICE).then(|| pause(worked, share))
    }

    fn restart(&self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn set(&self, share: u32) {
        if share == ALL {
            // What was read at full speed is not made up for.
            *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.0.share.store(share, Ordering::Relaxed);
    }
}

/// A connection over which the server is asked how it is.
pub struct Probe {
    sql: SqlClient,
    controller: Controller,
}

impl Probe {
    /// Connects to `host`, and measures how long it takes while no backup is under way.
    ///
    /// Errors: the server's; a role may only be let in for replication, and then there is no probe.
    pub async fn before(conninfo: &Conninfo, host: &Host) -> Result<Probe, PostgresError> {
        let sql = SqlClient::connect_to(conninfo, host, "walseal probe").await?;
        let mut latencies = Vec::new();
        for _ in 0..BEFORE {
            latencies.push(ask(&sql).await?);
        }
        Ok(Probe { sql, controller: Controller::new(median(&mut latencies)) })
    }

    /// Probes, and sets the pace by it, until it is dropped or the connection is gone, which leaves the pace unlimited.
    pub async fn keep(mut self, pace: &Pace) -> Infallible {
        // Since when it reads more slowly, and how often it did before: only the first time is told as it begins and ends.
        let (mut slow, mut times): (Option<Instant>, u32) = (None, 0);
        loop {
            let latency = match ask(&self.sql).await {
                Ok(latency) => latency,
                Err(error) => {
                    tracing::warn!(%error, "the server is not asked any more how it takes the backup, which goes on at full speed");
                    pace.set(ALL);
                    return std::future::pending().await;
                }
            };
            let (before, in_vain) = (self.controller.share, self.controller.is_in_vain());
            let share = self.controller.take(latency);
            if self.controller.is_in_vain() && !in_vain && times == 0 {
                tracing::info!(
                    now = units::duration(latency),
                    "the server answers as slowly while the base backup hardly reads: it is not the backup, which reads faster again"
                );
            }
            if share < before && slow.is_none() {
                slow = Some(Instant::now());
                if times == 0 {
                    tracing::warn!(
                        usually = units::duration(self.controller.before),
                        now = units::duration(latency),
                        "the server answers much more slowly than before the base backup, which now reads more slowly until that is \
                         over (base.backoff)"
                    );
                }
            }
            if share == ALL
                && let Some(since) = slow.take()
            {
                if times == 0 && !self.controller.is_in_vain() {
                    let slow_for = units::duration(since.elapsed());
                    tracing::info!(
                        slow_for,
                        "the server answers as before, and the base backup reads at full speed again"
                    );
                }
                times += 1;
            }
            pace.set(share);
            sleep(INTERVAL).await;
        }
    }
}

/// How long the server takes to answer next to nothing.
async fn ask(sql: &SqlClient) -> Result<Duration, PostgresError> {
    let asked = Instant::now();
    match timeout(LONGEST, sql.simple_query("asking the server how it is failed", "SELECT 1")).await {
        Ok(answer) => answer.map(|_| asked.elapsed()),
        Err(_) => Ok(LONGEST),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The shares after each full window of probes.
    fn shares(controller: &mut Controller, latency: Duration, windows: usize) -> Vec<u32> {
        (0..windows).map(|_| (0..WINDOW).map(|_| controller.take(latency)).last().unwrap()).collect()
    }

    #[test]
    fn a_server_that_suffers_is_read_more_slowly_and_the_old_way_when_it_is_over() {
        let mut controller = Controller::new(MS);
        assert_eq!(shares(&mut controller, 2 * MS, 3), [1000, 1000, 1000]);
        assert_eq!(shares(&mut controller, 50 * MS, 5), [500, 250, 125, 125, 125], "bounded");
        assert_eq!(shares(&mut controller, 15 * MS, 2), [125, 125], "between the two it stays");
        let back = shares(&mut controller, 2 * MS, 12);
        assert_eq!(back.last(), Some(&1000));
        assert!(back.windows(2).all(|pair| pair[0] <= pair[1]), "{back:?}");
    }

    #[test]
    fn a_backup_that_is_not_the_cause_does_not_stay_slow() {
        let mut controller = Controller::new(MS);
        let slow = shares(&mut controller, 100 * MS, 3 + PATIENCE as usize);
        assert_eq!(slow[..3], [500, 250, 125]);
        assert!(slow[3..].iter().all(|share| *share == LEAST), "{slow:?}");
        assert!(controller.is_in_vain());
        assert_eq!(
            shares(&mut controller, 100 * MS, 12).last(),
            Some(&ALL),
            "full speed, although it answers as slowly"
        );
        assert_eq!(shares(&mut controller, 500 * MS, 1), [500], "it got much worse than that");
        assert_eq!(shares(&mut controller, 100 * MS, 5).last(), Some(&ALL));
        shares(&mut controller, MS, 1);
        assert!(!controller.is_in_vain());
        assert_eq!(shares(&mut controller, 50 * MS, 1), [500], "what was usual before counts again");
    }

    #[test]
    fn a_backup_that_helps_by_reading_slowly_stays_slow() {
        let mut controller = Controller::new(MS);
        shares(&mut controller, 100 * MS, 3);
        assert_eq!(shares(&mut controller, 70 * MS, 3 * PATIENCE as usize).last(), Some(&LEAST));
        assert!(!controller.is_in_vain());
    }

    #[test]
    fn one_slow_answer_says_nothing() {
        let mut controller = Controller::new(MS);
        for round in 0..100 {
            let latency = if round % WINDOW < WINDOW / 2 { LONGEST } else { MS };
            assert_eq!(controller.take(latency), ALL);
        }
    }

    #[test]
    fn a_server_that_is_far_away_may_take_four_times_as_long() {
        let mut controller = Controller::new(100 * MS);
        assert_eq!(shares(&mut controller, 390 * MS, 1), [1000]);
        assert_eq!(shares(&mut controller, 410 * MS, 1), [500]);
    }

    #[test]
    fn pauses_make_up_the_share() {
        assert_eq!(pause(20 * MS, 1000), Duration::ZERO);
        assert_eq!(pause(20 * MS, 500), 20 * MS);
        assert_eq!(pause(20 * MS, 125), 140 * MS);
        assert_eq!(pause(Duration::from_secs(60), 125), LONGEST_PAUSE);
    }

    #[tokio::test]
    async fn at_full_speed_nothing_pauses() {
        let pace = Pace::default();
        assert_eq!(pace.0.since.lock().unwrap().as_ref(), None);
        pace.keep().await;
        assert_eq!(pace.0.since.lock().unwrap().as_ref(), None);
        pace.set(500);
        pace.keep().await;
        assert!(pace.0.since.lock().unwrap().is_some(), "from here on it is measured");
        pace.set(ALL);
        assert_eq!(pace.0.since.lock().unwrap().as_ref(), None);
    }

    proptest! {
        #[test]
        fn whatever_the_server_does_a_backup_goes_on(latencies in prop::collection::vec(0u64..10_000_000, 0..200), before in 0u64..1_000_000) {
            let mut controller = Controller::new(Duration::from_micros(before));
            for latency in latencies {
                let share = controller.take(Duration::from_micros(latency));
                prop_assert!((LEAST..=ALL).contains(&share));
                prop_assert!(pause(SLICE, share) <= SLICE * 7);
            }
        }
    }
}
