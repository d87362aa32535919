//! How long a restore takes, before anything of it was measured.

use std::time::Duration;

use serde::Serialize;
use walseal_common::terminal::units;

use super::Plan;

/// What a store is taken to give: as much as a line of 1 Gbit/s carries. Bytes in a second.
const STORE: f64 = 112.0 * MIB;

/// What two processors rebuild of a cluster's files in a second, in bytes.
const FILES: f64 = 300.0 * MIB;

/// What PostgreSQL's one startup process replays of WAL in a second, in bytes.
const WAL: f64 = 40.0 * MIB;

const MIB: f64 = (1 << 20) as f64;

/// How long a restore takes, in seconds, by rates that are assumed.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Estimate {
    /// To fetch the base backup.
    pub fetch_seconds: f64,
    /// To write its files, while others are fetched.
    pub rebuild_seconds: f64,
    /// To replay the WAL, then.
    pub replay_seconds: f64,
    /// All of it.
    pub seconds: f64,
    /// Whether the rates were measured; they never are before a restore.
    pub measured: bool,
    /// Bytes in a second: from the store.
    pub store_rate: f64,
    /// Of files.
    pub rebuild_rate: f64,
    /// Of WAL.
    pub replay_rate: f64,
}

impl Plan {
    /// Bytes of all files of the base backup.
    pub fn cluster_bytes(&self) -> u64 {
        self.cost.disk_bytes.saturating_sub(self.cost.wal_segments.saturating_mul(self.segment_size.bytes()))
    }

    /// How long it takes.
    pub fn estimate(&self) -> Estimate {
        let fetch_seconds = self.cost.base_bytes as f64 / STORE;
        let rebuild_seconds = self.cluster_bytes() as f64 / FILES;
        let replay_seconds = self.cost.wal_bytes as f64 / WAL;
        Estimate {
            fetch_seconds,
            rebuild_seconds,
            replay_seconds,
            seconds: fetch_seconds.max(rebuild_seconds) + replay_seconds,
            measured: false,
            store_rate: STORE,
            rebuild_rate: FILES,
            replay_rate: WAL,
        }
    }
}

impl Estimate {
    /// In words, no part shorter than a second.
    pub(super) fn words(&self) -> String {
        let time = |seconds: f64| units::duration(Duration::from_secs_f64(seconds.ceil().max(1.0)));
        format!(
            "about {}: {} to fetch, meanwhile {} to rebuild, then {} to replay (assuming {}, {} of files and {} of WAL; nothing \
             was measured)",
            time(self.seconds),
            time(self.fetch_seconds),
            time(self.rebuild_seconds),
            time(self.replay_seconds),
            units::rate(self.store_rate),
            units::rate(self.rebuild_rate),
            units::rate(self.replay_rate)
        )
    }
}
