//! What a month is expected to cost: arithmetic over what is known, which every estimate names. No I/O.

use std::time::Duration;

use serde::Serialize;
use walseal_common::config::{CostConfig, RetentionConfig};
use walseal_common::repository::Sum;
use walseal_common::terminal::units;

/// Days of a month, on average.
const DAYS: f64 = 30.4;

/// Bytes of what providers sell.
const GB: f64 = 1e9;

/// What a repository costs as it is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Month {
    /// In what.
    pub currency: String,
    /// For the bytes that stay.
    pub storage: f64,
    /// For puts.
    pub puts: f64,
    /// The bytes that stay.
    pub bytes: u64,
    /// Puts of a month.
    pub put_requests: u64,
}

impl Month {
    /// Of `stays`, and as many puts each day as the last day's objects are of which the store still has any.
    pub fn of(stays: Sum, put_in_a_day: u64, prices: &CostConfig) -> Month {
        let put_requests = put_in_a_day as f64 * DAYS;
        Month {
            currency: prices.currency.value.clone(),
            storage: prices.storage.value.times(stays.bytes as f64 / GB),
            puts: prices.puts.value.times(put_requests / 1000.0),
            bytes: stays.bytes,
            put_requests: put_requests as u64,
        }
    }

    /// In a sentence.
    pub fn words(&self) -> String {
        let Month { currency, storage, puts, bytes, put_requests } = self;
        format!(
            "A month of that is about {:.2} {currency}: {storage:.2} for {}, {puts:.2} for {put_requests} puts, as many as the objects of the \
             last 24 h that are there. Reads, lists and older versions are not in it; the prices are those of [cost].",
            storage + puts,
            units::size(*bytes)
        )
    }
}

/// What is known before there is anything: the cluster's size, and what is promised.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// Bytes of the cluster.
    pub cluster: u64,
    /// What is promised.
    pub retention: &'a RetentionConfig,
    /// How often a base backup is full.
    pub full_every: Duration,
    /// How often WAL is shipped.
    pub ship_interval: Duration,
}

impl Beginning<'_> {
    /// Full base backups that are there at a time: those of the window with the one before it, and those beyond it, of which daily ones
    /// share the fulls of their weeks.
    fn fulls(&self) -> u64 {
        let every = self.full_every.as_secs().max(1);
        let retention = self.retention;
        let daily =
            u64::from(retention.daily.value).saturating_mul(86_400).div_ceil(every).min(retention.daily.value.into());
        let beyond = u64::from(retention.weekly.value) + u64::from(retention.monthly.value);
        retention.window.value.as_secs().div_ceil(every) + 1 + daily + beyond
    }

    /// In sentences.
    pub fn words(&self, prices: &CostConfig) -> String {
        let currency = &prices.currency.value;
        let fulls = self.fulls();
        let bases = prices.storage.value.times(self.cluster as f64 * fulls as f64 / GB);
        let window = self.retention.window.value;
        let wal = prices.storage.value.times(window.as_secs_f64() / 86_400.0);
        let interval = self.ship_interval.as_secs_f64().max(0.001);
        let puts = prices.puts.value.times(DAYS * 86_400.0 / interval / 1000.0);
        format!(
            "at most about {bases:.2} {currency} a month for base backups, {fulls} full ones of {} as it is, uncompressed; {wal:.2} for each GB \
             of WAL a day, which stays for {}; and up to {puts:.2} for puts, where something commits in every {}. The prices are those of \
             [cost]; prune --dry-run tells it from what is there.",
            units::size(self.cluster),
            units::duration(window),
            units::duration(self.ship_interval)
        )
    }
}

#[cfg(test)]
mod tests {
    use walseal_common::config::Config;

    use super::*;

    #[test]
    fn a_month_is_told_from_what_stays_and_from_how_much_is_put() {
        let config =
            Config::from_toml("[cost]\nstorage = 0.02\nputs = \"0.01\"\ncurrency = \"EUR\"").expect("a configuration");
        let month = Month::of(Sum { objects: 7, bytes: 500_000_000_000 }, 10_000, &config.cost);
        assert!((month.storage - 10.0).abs() < 1e-9 && (month.puts - 3.04).abs() < 1e-9, "{month:?}");
        assert!(
            month.words().starts_with("A month of that is about 13.04 EUR: 10.00 for 466 GiB, 3.04 for 304000 puts")
        );
    }

    #[test]
    fn before_there_is_anything_the_most_is_told() {
        let config = Config::from_toml("").expect("a configuration");
        let (full_every, ship_interval) = (config.base.full_every.value, config.wal.ship_interval.value);
        let beginning = Beginning { cluster: 100_000_000_000, retention: &config.retention, full_every, ship_interval };
        // Two weeks and the week before, one for seven days, four weeks.
        assert_eq!(beginning.fulls(), 8);
        let words = beginning.words(&config.cost);
        assert!(
            words.starts_with("at most about 18.40 USD a month for base backups, 8 full ones of 93.1 GiB"),
            "{words}"
        );
        assert!(
            words.contains("0.32 for each GB of WAL a day, which stays for 14 d; and up to 13.13 for puts"),
            "{words}"
        );
    }
}
