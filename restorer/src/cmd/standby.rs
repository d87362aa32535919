//! The flags by which a restore becomes a standby.

use std::time::Duration;

use walseal_common::config::parse_duration;
use walseal_common::postgres::Conninfo;
use walseal_common::terminal::{Exit, Failure};

use crate::plan::{Plan, RecoverySetting, Request, Target};
use crate::rebuild::Standby;

/// Whether to make a standby, and of whom.
#[derive(clap::Args, Debug)]
pub struct StandbyArguments {
    /// Make a standby that goes on from the repository, with --to latest
    #[arg(long, conflicts_with = "start")]
    standby: bool,
    /// Let the standby go on from its primary, too: a connection string without a password
    #[arg(long, value_name = "CONNINFO", requires = "standby")]
    primary_conninfo: Option<String>,
    /// Let the standby replay a commit only after this time, such as 1h
    #[arg(long, value_name = "DURATION", requires = "standby", value_parser = delay)]
    delay: Option<Duration>,
}

/// `recovery_min_apply_delay` is a number of milliseconds in 32 bits.
const LONGEST_DELAY: Duration = Duration::from_millis(i32::MAX as u64);

fn delay(text: &str) -> Result<Duration, String> {
    let delay = parse_duration(text).map_err(|wrong| format!("{}; {}", wrong.problem, wrong.fix))?;
    if delay > LONGEST_DELAY { Err("PostgreSQL delays by 24d at most".to_owned()) } else { Ok(delay) }
}

impl StandbyArguments {
    /// The standby that is asked for.
    ///
    /// Errors: wrong usage.
    pub fn standby(&self, request: &Request) -> Result<Option<Standby>, Failure> {
        if !self.standby {
            return Ok(None);
        }
        let wrong = |statement: String, next: &str| Err(Failure::saying(statement).exit(Exit::Usage).next(next));
        if request.target != Target::Latest {
            return wrong(
                format!("a standby follows to the end, not to {}", request.target),
                "restore --standby --to latest",
            );
        }
        if let Some(text) = &self.primary_conninfo {
            match Conninfo::parse(text, &|_| None) {
                Err(error) => return wrong(format!("--primary-conninfo: {error}"), "write it as primary_conninfo"),
                Ok(conninfo) if conninfo.has_password() => {
                    let statement =
                        "--primary-conninfo has a password, which everybody on this host can see".to_owned();
                    return wrong(statement, "put it into a file for the server's user, and name that: passfile=FILE");
                }
                Ok(_) => {}
            }
        }
        let delay = self.delay.unwrap_or_default();
        Ok(Some(Standby { primary_conninfo: self.primary_conninfo.clone(), delay }))
    }
}

/// Makes the plan of a restore that of a standby: unless a timeline was asked for, it follows its primary's successors.
pub fn follow(plan: &mut Plan) {
    if plan.request.timeline.is_none() {
        plan.recovery = vec![RecoverySetting::new("recovery_target_timeline", "latest")];
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        standby: StandbyArguments,
        #[arg(long)]
        start: bool,
    }

    fn read(words: &[&str], to: &str) -> Result<Option<Standby>, String> {
        let words = [&["w"], words].concat();
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        program.standby.standby(&Request::to(to.parse().expect("a target"))).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_standby_goes_to_the_end_and_gets_no_password_from_a_command_line() {
        assert_eq!(read(&[], "immediate"), Ok(None));
        let whole = ["--standby", "--primary-conninfo", "host=db1 passfile=/x", "--delay", "1h"];
        let standby = read(&whole, "latest").expect("legal").expect("asked for");
        assert_eq!(standby.primary_conninfo.as_deref(), Some("host=db1 passfile=/x"));
        assert_eq!(standby.delay, Duration::from_secs(3600));
        for (words, to, why) in [
            (&["--standby"][..], "immediate", "a standby follows to the end"),
            (&["--standby", "--primary-conninfo", "host=db1 password=geheim"], "latest", "passfile"),
            (&["--standby", "--primary-conninfo", "host"], "latest", "--primary-conninfo"),
            (&["--standby", "--delay", "30d"], "latest", "24d"),
            (&["--standby", "--start"], "latest", "--start"),
            (&["--delay", "1h"], "latest", "--standby"),
        ] {
            let refused = read(words, to).expect_err("wrong usage");
            assert!(refused.contains(why) && !refused.contains("geheim"), "{refused}");
        }
    }
}
