//! walseal end to end: real clusters, a real store, both programs as a user runs them.

mod fetch;
mod flow;
mod hook;
mod messages;
mod state;
