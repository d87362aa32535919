//! Text that must not be seen.

use std::fmt;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A password, a secret key, or a connection string that may hold one.
///
/// It shows itself nowhere: `Debug` and `Display` print `[hidden]`, and there is no `Serialize`. Its memory is
/// overwritten when it is dropped. Two secrets compare equal when their texts do (not in constant time:
/// compare nothing with it that an attacker chose).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself. Whoever calls this keeps it out of logs, errors and command lines.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Keeps what this process holds in memory, keys and passwords, out of core dumps, for the rest of its life and for the
/// programs that it starts. Both programs call it before they read any secret.
///
/// The limit is one byte and not none: no dump is that small, and only at exactly one does Linux not hand the dump to a
/// program either (`core_pattern` with a pipe, as with systemd-coredump and apport; `coredump_pipe` in fs/coredump.c). Where a
/// limit of none was set from outside it stays.
///
/// Errors: the system does not let us set the limit.
pub fn keep_out_of_core_dumps() -> io::Result<()> {
    let most = getrlimit(Resource::Core).maximum.unwrap_or(u64::MAX).min(1);
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(most), maximum: Some(most) })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_secrets_is_too_large_for_its_core_dumps() {
        keep_out_of_core_dumps().expect("a lower limit is always allowed");
        let limit = getrlimit(Resource::Core);
        assert!(limit.current.is_some_and(|bytes| bytes <= 1) && limit.current == limit.maximum, "{limit:?}");
        keep_out_of_core_dumps().expect("twice");
    }

    #[test]
    fn a_secret_shows_itself_neither_in_debug_nor_in_display() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "[hidden] [hidden] [hidden]");
        assert_eq!(secret.expose(), "hunter2");
    }
}
