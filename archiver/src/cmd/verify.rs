//! `verify`: whether the repository is whole, without keys.

use std::time::Duration;

use jiff::Timestamp;
use walseal_common::config::{Config, parse_duration, parse_size};
use walseal_common::repository::BranchFrontier;
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, Schema, to_json};
use walseal_common::timeline::SystemIdentifier;

use crate::verify::{Verifier, Wish};

/// What `verify` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Names, labels, records and the ledger only; no other object is read
    #[arg(long, conflicts_with_all = ["resume", "since"])]
    quick: bool,
    /// Go on with the round that was interrupted
    #[arg(long)]
    resume: bool,
    /// Of the objects read only those that the store took in this time, such as 7d
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "resume")]
    since: Option<Duration>,
    /// Read at most so many bytes a second, such as 50MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rate: Option<u64>,
    /// Somebody has seen WAL up to here: a branch and a position, as an alert or an earlier run of verify tells. May be repeated
    #[arg(long, value_name = "BRANCH@LSN")]
    witness: Vec<BranchFrontier>,
    /// Take what is there now for what was: what this host remembers beyond that is forgotten
    #[arg(long)]
    accept: bool,
    /// The cluster, by its system identifier, where the repository holds several
    #[arg(long, value_name = "ID")]
    cluster_id: Option<SystemIdentifier>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|wrong| format!("{}; {}", wrong.problem, wrong.fix))
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|wrong| format!("{}; {}", wrong.problem, wrong.fix))
}

/// Verifies, says what is wrong, and fails where anything is.
pub async fn run(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    super::warn_of(&config);
    let failed = |error: &dyn std::error::Error| Failure::from_error("verify the repository", error);
    let verifier =
        Verifier::open(config, arguments.cluster_id, arguments.rate).await.map_err(|error| failed(&error))?;
    let since = arguments.since.map(|since| Timestamp::now().as_second().saturating_sub(since.as_secs() as i64));
    let Arguments { quick, resume, accept, witness, .. } = arguments;
    let wish = Wish { quick: *quick, resume: *resume, since, accept: *accept, seen: witness.clone() };
    let progress = Progress::new("verify", None);
    let shown = progress.clone();
    let told = |bytes, words: &str| {
        shown.advance(bytes);
        shown.message(words);
    };
    let outcome = match verifier.run(&wish, told).await {
        Ok(outcome) => outcome,
        Err(error) => {
            progress.abandon();
            return Err(failed(&error));
        }
    };
    progress.finish("done");
    if arguments.json {
        show!("{}", to_json(Schema { name: "verify", version: 1 }, &outcome).map_err(|error| failed(&error))?);
    } else {
        show!("{}", outcome.explain());
    }
    outcome.failure().map_or(Ok(()), Err)
}
