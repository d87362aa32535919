//! WAL beyond the end, in words.

use walseal_common::lsn::Lsn;
use walseal_common::repository::Surplus;
use walseal_common::terminal::units;

/// What lies beyond `end`, and what it is worth.
pub fn words(surplus: &Surplus, end: Lsn) -> String {
    format!(
        "{} of WAL beyond {end} (up to {}) arrived without what lies before, and nothing shows that any of it was ever \
         confirmed to the server: the WAL ends at {end}",
        units::size(surplus.bytes),
        surplus.span.end
    )
}
