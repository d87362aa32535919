//! `verify`: whether the repository is whole, with the keys that open it.

use walseal_common::repository::{BaseId, BranchFrontier};
use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, Schema, to_json};

use crate::access::Access;
use crate::verify::{Wish, verify};

/// What `verify` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Open only this base backup, beside what names, labels, records and the ledger tell
    #[arg(long, value_name = "ID")]
    base: Option<BaseId>,
    /// Somebody has seen WAL up to here: a branch and a position, as an alert or an earlier run of verify tells. May be repeated
    #[arg(long, value_name = "BRANCH@LSN")]
    witness: Vec<BranchFrontier>,
    /// Take what is there now for what was: what this host remembers beyond that is forgotten
    #[arg(long)]
    accept: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Verifies, says what is wrong, and fails where anything is.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error("verify the repository", error);
    let Arguments { base, witness, accept, json } = arguments;
    let wish = Wish { base: base.clone(), accept: *accept, seen: witness.clone() };
    let progress = Progress::new("verify", None);
    let shown = progress.clone();
    let told = |bytes, words: &str| {
        shown.advance(bytes);
        shown.message(words);
    };
    let found = match verify(access, &wish, told).await {
        Ok(found) => found,
        Err(error) => {
            progress.abandon();
            return Err(failed(&error));
        }
    };
    progress.finish("done");
    if *json {
        show!("{}", to_json(Schema { name: "verify", version: 1 }, &found).map_err(|error| failed(&error))?);
    } else {
        show!("{}", found.explain());
    }
    found.failure().map_or(Ok(()), Err)
}
