//! `list`: what can be restored.

mod listing;
#[cfg(test)]
mod tests;

use walseal_common::repository::Proof;
use walseal_common::show;
use walseal_common::terminal::{Failure, Look, Progress, Schema, to_json};

use self::listing::Listing;
use super::target::refusal;
use crate::access::Access;
use crate::plan::points::restore_points;
use crate::plan::windows::windows;
use crate::plan::{Inventory, InventoryError, PlanError};
use crate::record;

const SCHEMA: Schema = Schema { name: "list", version: 1 };

/// What `list` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Also list the named restore points: opens all WAL from the first base backup on
    #[arg(long)]
    restore_points: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows windows and base backups, and the restore points where they are asked for.
pub async fn run(arguments: &Arguments, access: &Access) -> Result<(), Failure> {
    let listing = survey(arguments.restore_points, access).await.map_err(|error| refusal(&error))?;
    if arguments.json {
        let text = to_json(SCHEMA, &listing).map_err(|error| Failure::from_error("print the list", &error))?;
        show!("{text}");
    } else {
        print!("{}", listing.render(Look::of_stdout(), jiff::Timestamp::now()));
    }
    Ok(())
}

async fn survey(with_points: bool, access: &Access) -> Result<Listing, PlanError> {
    let (repository, identities) = (&access.repository, &access.identities);
    let mut inventory = Inventory::read(repository, identities).await?;
    let points = if with_points {
        let progress = Progress::new("reading WAL", None);
        let found = restore_points(repository, identities, &mut inventory, &progress).await;
        progress.abandon();
        Some(found?)
    } else {
        None
    };
    // Last, because what is of no use shows only when WAL is opened.
    let found = windows(repository, identities, &mut inventory).await?;
    let proof = Proof::of(&record::with_own(access).drills().await.map_err(InventoryError::from)?);
    Ok(Listing::new(&inventory, found, points, &proof))
}
