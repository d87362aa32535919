//! The prefetcher: one process for a data directory that holds the store's connections and the identities open, and has the next
//! segments ready where PostgreSQL wants them, so that the hook only asks and renames.
//!
//! Nothing depends on it. It answers with the very code that the hook runs without it; what it cannot deliver or prove, the hook
//! judges by itself, and a hook that finds nobody, or gets no answer, goes the direct way at once. Only whole segments, verified,
//! and histories are kept ready. That something is missing is never kept: it is found out anew for each request (I6).
//!
//! `restore --start` serves its own server in the same way, so that the server's user needs no identity.
//!
//! | module | holds |
//! | --- | --- |
//! | [`premises`] | the folder beside the data directory: who may be there, the socket, the files that are ready |
//! | [`message`] | what the two sides say |
//! | [`client`] | the hook's side |
//! | [`launch`] | starting the process, and what it does |
//! | [`server`] | the socket, and when it ends |
//! | [`serving`] | a restore that serves its own server |
//! | [`clerk`] | the answer to a request |
//! | [`ahead`] | segments that are fetched before they are asked for |
//! | [`fingerprint`] | what it was started with |

mod ahead;
mod clerk;
mod client;
mod fingerprint;
mod launch;
mod message;
mod premises;
mod server;
mod serving;

pub use client::{NoReply, ask};
pub use fingerprint::Fingerprint;
pub use launch::{Orders, launch, run};
pub use premises::{Premises, PremisesError};
pub use server::{Over, Prefetcher};
pub use serving::Serving;

#[cfg(test)]
mod tests;
