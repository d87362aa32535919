//! Chance that repeats itself: a seed decides all of it.

use anyhow::{Context, Result};

/// The seed of a run of all tests, so that what it finds is there the next time, too. `bench/soak` and its like draw one.
pub const USUAL_SEED: u64 = 20_261;

/// Throws, one after the other (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The throws that follow from `seed`.
    pub const fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub const fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// One of these.
    ///
    /// Errors: there are none.
    pub fn one_of<'a, T>(&mut self, these: &'a [T]) -> Result<&'a T> {
        let count = u64::try_from(these.len()).unwrap_or(u64::MAX).max(1);
        let at = usize::try_from(self.below(count)).unwrap_or(0);
        these.get(at).context("nothing to choose from")
    }
}

/// A number that an environment variable sets for long runs, or `default`.
///
/// Errors: it holds something else.
pub fn number_from(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{variable}={text} is no number")),
        _ => Ok(default),
    }
}
