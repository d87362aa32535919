//! What the time of a host is worth: it may be wrong for a while, and be set right, in either direction (case 44).

use jiff::{SignedDuration, Timestamp};

/// Clocks that are right may be apart by so much.
pub const APART: SignedDuration = SignedDuration::from_hours(1);

/// Whether what began then began by a clock that was wrong, as far as this host's clock can tell: in its future.
pub fn was_wrong(begun: Timestamp, now: Timestamp) -> bool {
    begun.duration_since(now) > APART
}
