//! walseal end to end: real clusters, a real store, both programs as a user runs them.

mod alerts;
mod blindness;
mod case49;
mod doctor;
mod failover;
mod fetch;
mod first_restore;
mod flow;
mod gap;
mod hook;
mod kill;
mod ledger;
mod messages;
mod metrics;
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
