//! Logging.
//!
//! Both programs log to standard error: a line for each event, with its time in UTC, except under systemd, whose journal adds
//! its own. `WALSEAL_LOG` says what is logged.

mod journal;
mod logging;

pub use logging::{LoggingError, init_hook_logging, init_logging};
