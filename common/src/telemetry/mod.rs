//! Logging, alerts, and the HTTP side of a daemon.
//!
//! Both programs log to standard error: a line for each event, with its time in UTC, except under systemd, whose journal adds
//! its own. `WALSEAL_LOG` says what is logged.

mod alert;
mod exposition;
mod http;
mod journal;
mod logging;

pub use alert::{AlertCommand, AlertKind, AlertNews, AlertState, Alerts, OpenAlert, Outlet, Severity};
pub use exposition::{EXPOSITION_TYPE, Exposition, Labels};
pub use http::{Page, Pages, listen, serve};
pub use logging::{LoggingError, init_hook_logging, init_logging};
