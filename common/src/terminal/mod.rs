//! What both programs show a person: errors and exit codes, tables, progress, JSON.
//!
//! Facts go to standard output; errors, progress and log lines go to standard error. Whatever came from outside is
//! printed with its control characters escaped, so that no name in a bucket can drive a terminal.

mod alerts;
mod exit;
mod failure;
mod json;
mod new_key;
#[cfg(test)]
pub(crate) mod paper;
mod progress;
mod table;
pub mod units;
mod usage;
mod verification;
mod width;

pub use alerts::AlertsVerb;
pub use exit::{CheckExit, Exit, FetchExit, of_usage_error};
pub use failure::Failure;
pub use json::{Schema, to_json};
pub use new_key::write_new_key;
pub use progress::Progress;
pub use table::{Align, Look, Table};
pub use usage::usage;
pub use verification::{Opened, Verification};
pub use width::width_of_stdout;

/// Prints a line on standard output. A reader that has seen enough, as `head`, is no error; anything else that fails there
/// cannot be told to anybody.
pub fn show(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("standard output is closed");
    }
}

/// As `println!`, without the panic when nobody reads any more.
#[macro_export]
macro_rules! show {
    () => { $crate::terminal::show(format_args!("")) };
    ($($argument:tt)*) => { $crate::terminal::show(format_args!($($argument)*)) };
}

/// The text with control characters, other than line ends and tabs, written as escapes.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}
