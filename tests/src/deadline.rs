//! Waiting for a real state, for a bounded time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a step that needs no store and no recovery may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until `look` has an answer, and returns it.
///
/// Errors: `look` failed, or had no answer `within` that time; `what` says in the message what was awaited.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + within;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        if Instant::now() >= until {
            bail!("after {} s still waiting for {what}", within.as_secs_f32());
        }
        // Only the rate of looking; what is awaited is looked at again each time.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
