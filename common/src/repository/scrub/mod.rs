//! Whether a repository is whole, as far as that shows without a key. A [`Survey`] lists every name and reads the small signed objects
//! that speak of others: holes, what is referred to and not there, the ledger's chains, and against witnesses outside the repository
//! whether its newest end was cut off. A [`Reader`] then reads every object, page by page of names, and can go on where another one
//! stopped. Memory is bounded; the caller decides how fast the store is read.

mod cure;
mod flaw;
mod heads;
mod holding;
mod leftover;
mod reading;
mod references;
mod sequence;
mod snapshots;
mod stake;
mod survey;

pub use cure::{of_base_object as cure_of_base_object, of_wal_object as cure_of_wal_object};
pub use flaw::{Flaw, FlawKind, LostWindow};
pub use heads::{Heads, Witness};
pub use leftover::{Leftover, LeftoverWal};
pub use reading::{Reader, Reading};
pub use survey::Survey;

#[cfg(test)]
mod tests;
