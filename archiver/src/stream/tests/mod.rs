//! The stream against repositories that kills, failures and strangers left behind, and against stores that fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adopted;
mod changing;
mod exposed;
mod failing;
mod live;
mod resuming;
mod saying;
pub(crate) mod toy;
