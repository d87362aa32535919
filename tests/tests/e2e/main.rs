//! walseal end to end: real clusters, a real store, both programs as a user runs them.

mod blindness;
mod case49;
mod doctor;
mod failover;
mod fetch;
mod first_restore;
mod flow;
mod frontier;
mod gap;
mod heartbeat;
mod hook;
mod kill;
mod messages;
mod network;
mod outage;
mod preconditions;
mod restored;
mod service;
mod start;
mod state;
mod stop;
mod sweep;
mod targets;
