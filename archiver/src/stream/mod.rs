//! WAL over the replication protocol: receive, cut, ship, confirm.
//!
//! An LSN walks through here: `session` reads it from the socket into a bounded buffer, `cut` puts it into a piece,
//! `ship` makes the piece durable, `frontier` advances over it, and only then `session` confirms it to the server.
//! `received >= cut >= durable >= frontier == confirmed`, at every moment.

mod alarms;
mod chain;
mod complaints;
mod cut;
mod departure;
mod error;
mod exposure;
mod frontier;
mod limit;
mod progress;
mod remains;
mod resume;
mod rival;
mod session;
mod ship;
mod slot;
mod start;
mod streamer;
mod tails;
#[cfg(test)]
pub(crate) mod tests;

pub use cut::{Cutter, OverlapDiffers};
pub use error::StreamError;
pub use frontier::Frontier;
pub use limit::Limit;
pub use progress::{Loss, Progress, ProgressSender, ProgressWatch, StreamEnded};
pub(crate) use resume::admit;
pub use resume::{Past, ServerPosition, identify, start_point, store_histories};
pub use session::{SessionEnd, Timing};
pub use slot::read_slot;
pub use start::{Durable, StartPoint};
pub use streamer::{Streamer, WAL_MEMORY};
