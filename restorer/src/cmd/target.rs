//! The flags that say where to restore to; `plan` and `restore` share them.

use walseal_common::repository::BaseId;
use walseal_common::terminal::{Exit, Failure};

use crate::plan::{Action, PlanError, Request, Target, TargetError, TimelineChoice};
use crate::shell::quoted;

/// Where to restore to.
#[derive(clap::Args, Clone, Debug)]
pub struct TargetArguments {
    /// latest, immediate, a time with an offset (2026-11-21T02:30:00Z), lsn:0/3000060, xid:12345 or name:RESTORE_POINT
    #[arg(long, value_name = "T")]
    to: String,
    /// Stop just before the time, LSN or transaction
    #[arg(long)]
    exclusive: bool,
    /// The timeline to end on, by number or branch [default: the one with the newest WAL]
    #[arg(long, value_name = "TIMELINE")]
    timeline: Option<TimelineChoice>,
    /// The base backup to begin from [default: the newest that fits]
    #[arg(long, value_name = "ID")]
    base: Option<BaseId>,
    /// What recovery does at the target: promote, pause or shutdown
    #[arg(long, value_name = "ACTION", default_value_t)]
    action: Action,
}

impl TargetArguments {
    /// The request that these flags make.
    ///
    /// Errors: wrong usage. A time without an offset is answered with this command line, once for each moment that it
    /// could be.
    pub fn request(&self) -> Result<Request, Failure> {
        let target = parse_target(&self.to)?;
        if self.exclusive && !target.can_be_exclusive() {
            return Err(Failure::saying(TargetError::NotExclusive(target.to_string())).exit(Exit::Usage));
        }
        Ok(Request {
            target,
            exclusive: self.exclusive,
            timeline: self.timeline,
            base: self.base.clone(),
            action: self.action,
        })
    }
}

/// Reads `T` of `--to T`.
///
/// Errors: wrong usage. A time without an offset is answered with this command line, once for each moment that it could be.
pub fn parse_target(to: &str) -> Result<Target, Failure> {
    to.parse().map_err(|error| refused(&error, std::env::args()))
}

fn refused(error: &TargetError, command: impl Iterator<Item = String>) -> Failure {
    let TargetError::NoOffset { asked, readings } = error else {
        return Failure::saying(error).exit(Exit::Usage);
    };
    let statement = format!("\"{asked}\" has no offset from UTC, so it could be several moments");
    let command: Vec<String> = command.collect();
    readings.iter().fold(Failure::saying(statement).exit(Exit::Usage), |failure, reading| {
        failure.next(format!("{}   # {}", with_target(&command, asked, &reading.text), reading.zone))
    })
}

/// The command line with another target, quoted for a shell.
fn with_target(command: &[String], asked: &str, instead: &str) -> String {
    let joined = format!("--to={asked}");
    let mut words = Vec::with_capacity(command.len());
    for (index, word) in command.iter().enumerate() {
        let is_target = word == asked && index > 0 && command.get(index - 1).is_some_and(|before| before == "--to");
        words.push(match word {
            _ if is_target => quoted(instead),
            word if *word == joined => format!("--to={}", quoted(instead)),
            word => quoted(word),
        });
    }
    words.join(" ")
}

/// A refusal as a person sees it.
pub fn refusal(error: &PlanError) -> Failure {
    let failure = Failure::saying(error);
    if error.is_usage() { failure.exit(Exit::Usage) } else { failure }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        target: TargetArguments,
    }

    fn parse(words: &[&str]) -> TargetArguments {
        Program::try_parse_from(words).expect("legal flags").target
    }

    #[test]
    fn a_time_without_an_offset_is_answered_with_ready_commands() {
        let words = ["walseal-restorer", "--to", "2026-11-21 02:30:00", "--base", "20261121T023000Z-0000002a"];
        let readings = vec![
            crate::plan::Reading { text: "2026-11-21T02:30:00+01:00".to_owned(), zone: "Europe/Berlin".to_owned() },
            crate::plan::Reading { text: "2026-11-21T02:30:00Z".to_owned(), zone: "UTC".to_owned() },
        ];
        let error = TargetError::NoOffset { asked: words[2].to_owned(), readings };
        let failure = refused(&error, words.iter().map(|word| (*word).to_owned()));
        assert_eq!(
            failure.to_string(),
            "error: \"2026-11-21 02:30:00\" has no offset from UTC, so it could be several moments\
             \n  to fix: walseal-restorer --to 2026-11-21T02:30:00+01:00 --base 20261121T023000Z-0000002a   # Europe/Berlin\
             \n      or: walseal-restorer --to 2026-11-21T02:30:00Z --base 20261121T023000Z-0000002a   # UTC"
        );
    }

    #[test]
    fn a_ready_command_keeps_the_other_words_as_they_were() {
        let command = ["w", "--to=2026-11-21 02:30", "it's", ""].map(str::to_owned);
        assert_eq!(with_target(&command, "2026-11-21 02:30", "x y"), r"w --to='x y' 'it'\''s' ''");
    }

    #[test]
    fn flags_make_a_request() {
        let words = ["w", "--to", "xid:12345", "--exclusive", "--timeline", "2", "--action", "pause"];
        let request = parse(&words).request().expect("a request");
        assert_eq!((request.target, request.exclusive, request.action), (Target::Xid(12_345), true, Action::Pause));
        assert!(parse(&["w", "--to", "latest", "--exclusive"]).request().is_err());
        assert!(Program::try_parse_from(["w", "--to", "latest", "--timeline", "0"]).is_err());
        assert!(Program::try_parse_from(["w", "--to", "latest", "--base", "x"]).is_err());
    }
}
