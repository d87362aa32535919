//! A private PostgreSQL on a restored directory: started, watched through recovery, stopped.
//!
//! It listens on a Unix socket in a folder of its owner only, and takes its connection settings from the command line, so that
//! no file of the restored cluster is changed for it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`programs`] | PostgreSQL's own programs, and running them as another user |
//! | [`scratch`] | folders for what is thrown away, and what a killed run left of them |
//! | [`disposable`], [`preload`] | a server that is looked at and thrown away |
//! | [`fresh`] | a new cluster, for what a dump holds |
//! | [`additions`] | what a restore adds to a data directory, taken away while it is backed up |
//! | [`control`] | what `pg_control` says |
//! | [`settings`] | the private server's settings |
//! | [`server`] | the process: start, log, end |
//! | [`leftover`] | a server that an earlier run of the same restore left |
//! | [`recovery`], [`replay`] | watching recovery to its end; how far it is |
//! | [`interrupts`] | what asks this program to end meanwhile |
//! | [`landing`] | where it landed, and what to type next |

mod additions;
mod control;
mod disposable;
mod error;
mod fresh;
mod interrupts;
mod landing;
mod leftover;
mod preload;
mod programs;
mod recovery;
mod replay;
mod scratch;
mod server;
mod settings;

pub use additions::Additions;
pub use control::ControlData;
pub use disposable::{Instance, Paused, Recovered};
pub use error::InstanceError;
pub use landing::{Landing, Reached, next_steps};
pub use preload::Preload;
pub use programs::{Programs, command};
pub use recovery::{ends_promoted, recover};
pub use scratch::Scratch;
