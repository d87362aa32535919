//! An error as a person sees it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use super::exit::Exit;
use super::printable;
use crate::config::{ConfigError, OpenError};

/// Why a verb failed: what it tried, why that did not work, and what to do next.
///
/// ```
/// use walseal_common::terminal::Failure;
///
/// let failure = Failure::new("take a base backup", "the server has no free WAL sender")
///     .next("set max_wal_senders = 10 in postgresql.conf and restart the server");
/// assert_eq!(failure.to_string(), "\
/// error: failed to take a base backup: the server has no free WAL sender
///   to fix: set max_wal_senders = 10 in postgresql.conf and restart the server");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    headline: String,
    causes: Vec<String>,
    next: Vec<String>,
    exit: Exit,
}

impl Failure {
    /// `what` fits after "failed to"; `why` is a clause without a full stop.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Failure {
        Failure::saying(format!("failed to {what}: {why}"))
    }

    /// A failure that is a statement of its own, such as "the folder /x is not empty".
    pub fn saying(statement: impl fmt::Display) -> Failure {
        Failure { headline: statement.to_string(), causes: Vec::new(), next: Vec::new(), exit: Exit::Failed }
    }

    /// `what` fits after "failed to". The error gives the reason, its sources the causes, each said once.
    /// For an `anyhow::Error` pass `error.as_ref()`.
    pub fn from_error(what: impl fmt::Display, error: &dyn Error) -> Failure {
        let mut failure = Failure::new(what, error);
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors end in the text of their source.
            let said = failure.headline.contains(&text) || failure.causes.iter().any(|cause| cause.contains(&text));
            if !said && !text.is_empty() {
                failure.causes.push(text);
            }
            source = cause.source();
        }
        failure
    }

    /// Adds what to do about it; several are alternatives, the best one first.
    #[must_use]
    pub fn next(mut self, step: impl fmt::Display) -> Failure {
        self.next.push(step.to_string());
        self
    }

    /// Ends the program with another code than 1.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Failure {
        self.exit = exit;
        self
    }

    /// Prints it on standard error; gives the code to end with.
    pub fn report(&self) -> ExitCode {
        eprintln!("{self}");
        self.exit.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |text: &str, indent: &str| printable(text.trim_end()).replace('\n', &format!("\n{indent}"));
        write!(f, "error: {}", lines(&self.headline, "  "))?;
        for cause in &self.causes {
            write!(f, "\n  because: {}", lines(cause, "           "))?;
        }
        for (index, step) in self.next.iter().enumerate() {
            let label = if index == 0 { "to fix" } else { "    or" };
            write!(f, "\n  {label}: {}", lines(step, "          "))?;
        }
        Ok(())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new("use the configuration", error.problem()).next(error.fix())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Config(error) => error.into(),
            other => Failure::saying(other),
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::Config;

    #[derive(Debug, thiserror::Error)]
    #[error("put wal/1/2 in s3://b: {0}")]
    struct Repeats(#[source] Tells);

    #[derive(Debug, thiserror::Error)]
    #[error("connection reset")]
    struct Tells(#[source] std::io::Error);

    #[test]
    fn a_failure_says_each_cause_once_and_what_to_do() {
        let error = Repeats(Tells(std::io::Error::from_raw_os_error(104)));
        let failure = Failure::from_error("ship a segment", &error).next("look at the network").next("wait");
        assert_snapshot!(failure, @"
error: failed to ship a segment: put wal/1/2 in s3://b: connection reset
  because: Connection reset by peer (os error 104)
  to fix: look at the network
      or: wait
");
    }

    #[test]
    fn a_wrong_configuration_says_what_to_write() {
        let config = Config::from_toml("").expect("an empty configuration");
        assert_snapshot!(Failure::from(config.need_repository().expect_err("not set")), @r#"
error: failed to use the configuration: repository.url is not set: it says where the backups are
  to fix: write url = "s3://acme-pg/orders" under [repository] in /walseal.toml, or set WALSEAL_REPOSITORY_URL
"#);
        let opened = OpenError::from(config.need_repository().expect_err("not set"));
        assert_eq!(Failure::from(opened), Failure::from(config.need_repository().expect_err("not set")));
        let error = Config::from_toml("[cluster]\nnam = 1").expect_err("an unknown key");
        assert_snapshot!(Failure::from(error), @r#"
error: failed to use the configuration: /walseal.toml:2: key "cluster.nam" is not known
  to fix: use the nearest known one, cluster.name, or take it out
"#);
    }

    #[test]
    fn lines_are_indented_and_control_characters_escaped() {
        let failure = Failure::saying("the server said:\n\u{1b}[2Jgone\n").next("write\n  a = 1");
        assert_snapshot!(failure, @r#"
error: the server said:
  \u{1b}[2Jgone
  to fix: write
            a = 1
"#);
    }

    #[test]
    fn wrong_usage_has_its_own_code() {
        assert_eq!(Failure::saying("x").exit(Exit::Usage).exit, Exit::Usage);
        assert_eq!(Failure::saying("x").exit, Exit::Failed);
    }
}
