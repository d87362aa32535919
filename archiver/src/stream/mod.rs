//! WAL over the replication protocol: receive, cut, ship, confirm.

mod cut;
mod frontier;

pub use cut::{Cutter, OverlapDiffers};
pub use frontier::Frontier;
