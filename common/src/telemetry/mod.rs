//! Logging, alerts, and the HTTP side of a daemon.
//!
//! Both programs log to standard error: a line for each event, with its time in UTC, except under systemd, whose journal adds
//! its own. `WALSEAL_LOG` says what is logged.

mod alert;
mod client;
mod dead_man;
mod exposition;
mod http;
mod journal;
mod logging;
mod of_daemon;
mod proof;

pub use alert::{
    AlertKind, AlertMemory, AlertNews, AlertState, Alerts, Couriers, OpenAlert, Outlet, Severity, Trial, try_alerts,
};
pub use dead_man::DeadManSwitch;
pub use exposition::{EXPOSITION_TYPE, Exposition, Labels};
pub use http::{Page, Pages, listen, serve};
pub use logging::{LoggingError, init_hook_logging, init_logging};
pub use proof::{overdue_subject, watch_proof};
