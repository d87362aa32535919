//! `plan`: explain a restore before a byte moves.

use walseal_common::show;
use walseal_common::terminal::{Failure, Progress, to_json};

use super::target::{TargetArguments, refusal};
use crate::access::Access;
use crate::plan::{self, PLAN_SCHEMA, Plan, Request};

/// What `plan` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) target: TargetArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes the plan and explains it.
pub async fn run(arguments: &Arguments, request: &Request, access: &Access) -> Result<(), Failure> {
    let plan = make(access, request).await?;
    show(&plan, arguments.json)
}

/// Makes the plan, with progress on standard error while WAL is read.
pub async fn make(access: &Access, request: &Request) -> Result<Plan, Failure> {
    let progress = Progress::new("reading WAL", None);
    let planned = plan::plan(&access.repository, &access.identities, request, Some(&progress)).await;
    progress.abandon();
    planned.map_err(|error| refusal(&error))
}

/// Prints the plan on standard output.
pub fn show(plan: &Plan, json: bool) -> Result<(), Failure> {
    if json {
        let text = to_json(PLAN_SCHEMA, plan).map_err(|error| Failure::from_error("print the plan", &error))?;
        show!("{text}");
    } else {
        print!("{}", plan.explain());
    }
    Ok(())
}
